"""Work that is shared among processes, which end with the one that started them."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from typing import NamedTuple, TypeVar

from pipeline.system.errors import MoteError
from pipeline.system.signals import defer_signals

Task = TypeVar("Task")
Found = TypeVar("Found")


class Worker(NamedTuple):
    """A process and this side of the pipe to it, which ends when one of the two does."""

    process: multiprocessing.Process
    pipe: connection.Connection


def map_in_order(
    function: Callable[[Task], Found], tasks: Sequence[Task], *, workers: int
) -> Iterator[Found]:
    """`function` of each task, in their order, from so many processes.

    They are ended at once when the iteration is left before its end, whatever they are at. Ctrl-C, which a
    terminal sends to them too, is left to this process. Raises what the function raises, MoteError when a
    process is killed. An executor of the standard library is of no use here: with a process ended while a
    large task is on its way to it, the thread that writes the task waits for ever (Python 3.11).
    """
    crew: list[Worker] = []
    try:
        with _interrupts_held():
            crew += [_start(function) for _ in range(min(workers, len(tasks)))]
        yield from _in_order(crew, tasks)
    finally:
        for worker in crew:
            worker.process.terminate()
        for worker in crew:
            worker.process.join()
            worker.pipe.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started within the block never receive SIGINT; this one does when it is left.

    To block the signal keeps it from those, which inherit the mask of this thread, but not from here: other
    threads of this process, of numerical libraries, take it, and Python handles it in the midst of a start.
    """
    resource_tracker.ensure_running()  # comes with the first process, and its start would end the blocking
    with defer_signals():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(function: Callable) -> Worker:
    context = multiprocessing.get_context("spawn")  # forked processes inherit locks of torch's threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, theirs), daemon=True)
    process.start()
    theirs.close()
    return Worker(process, ours)


def _serve(function: Callable, pipe: connection.Connection) -> None:
    """What a process does: answer each task with (whether it was done, what was found or raised)."""
    try:
        while True:
            task = pickle.loads(pipe.recv_bytes())
            try:
                answer = True, function(task)
            except Exception as error:
                if not isinstance(error, MoteError):  # a fault of the program, to be found by where it was
                    error.add_note(traceback.format_exc())
                answer = False, error
            pipe.send(answer)
    except (EOFError, OSError):  # the process that started this one is gone
        return


def _in_order(crew: list[Worker], tasks: Sequence) -> Iterator:
    """What the crew answers to each task, in the order of the tasks."""
    busy = {}
    ready: dict[int, object] = {}
    coming = iter(range(len(tasks)))
    for worker in crew:
        _give(worker, coming, tasks, busy)
    for number in range(len(tasks)):
        while number not in ready:
            for pipe in connection.wait(list(busy)):
                worker, done = busy.pop(pipe)
                ready[done] = _answer(worker)
                _give(worker, coming, tasks, busy)
        yield ready.pop(number)


def _give(worker: Worker, coming: Iterator[int], tasks: Sequence, busy: dict) -> None:
    """The next task, if there is one left, to a worker, noted under its pipe in `busy`."""
    number = next(coming, None)
    if number is None:
        return
    with (
        defer_signals()
    ):  # pickle's callbacks drop what is raised in them: `except: pass` in copyreg, for one
        # plain pickle: that of Connection.send would keep a network in shared memory, file by file
        task = pickle.dumps(tasks[number])
    try:
        worker.pipe.send_bytes(task)
    except OSError as error:
        raise _ended(worker) from error
    busy[worker.pipe] = worker, number


def _answer(worker: Worker) -> object:
    try:
        done, found = worker.pipe.recv()
    except (EOFError, OSError) as error:
        raise _ended(worker) from error
    if not done:
        raise found
    return found


def _ended(worker: Worker) -> MoteError:
    """The error for a process that is gone before its work was done."""
    worker.process.join()
    code = worker.process.exitcode
    return MoteError(f"a process of --workers has ended with exit code {code}; is there too little memory?")
