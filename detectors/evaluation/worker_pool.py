"""Worker processes that compute tasks in parallel and end with the process that started them."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from typing import NamedTuple, TypeAlias, TypeVar

from pipeline.system.errors import MoteError
from pipeline.system.signals import defer_signals

Task = TypeVar("Task")
Answer = TypeVar("Answer")


class Worker(NamedTuple):
    """A process and this end of the pipe to it, which is closed when either of the two processes ends."""

    process: SpawnProcess
    pipe: connection.Connection


BusyWorkers: TypeAlias = dict[connection.Connection, tuple[Worker, int]]
"""Pipe of a worker → the worker and the number of its task."""


def map_in_order(
    function: Callable[[Task], Answer], tasks: Sequence[Task], *, workers: int
) -> Generator[Answer]:
    """Yields `function` of each task, in the order of the tasks, computed by `workers` processes.

    If the iteration is closed early, the processes are terminated at once. SIGINT, which a terminal sends to
    all of them, is handled by this process only. Raises what the function raises, MoteError if a process is
    killed. `concurrent.futures` is not used because its executor deadlocks in Python 3.11 if a process ends
    while a large task is being written to it.
    """
    pool: list[Worker] = []
    try:
        with _sigint_blocked():
            pool += [_start(function) for _ in range(min(workers, len(tasks)))]
        yield from _in_order(pool, tasks)
    finally:
        for worker in pool:
            worker.process.terminate()
        for worker in pool:
            worker.process.join()
            worker.pipe.close()


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Starts processes in the block with SIGINT blocked; this process handles it at the end of the block.

    A blocked signal mask is inherited by the processes. In this process it does not suffice: other threads,
    of numerical libraries, receive the signal, and Python would handle it in the middle of a start.
    """
    resource_tracker.ensure_running()  # starts with the first process otherwise, and unblocks the signal
    with defer_signals():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(function: Callable) -> Worker:
    """Starts a worker process."""
    context = multiprocessing.get_context("spawn")  # forked processes inherit locks of torch's threads
    near_end, far_end = context.Pipe()
    process = context.Process(target=_serve, args=(function, far_end), daemon=True)
    process.start()
    far_end.close()
    return Worker(process, near_end)


def _serve(function: Callable, pipe: connection.Connection) -> None:
    """Main function of a worker: answers each task with (True, result) or (False, exception)."""
    try:
        while True:
            task = pickle.loads(pipe.recv_bytes())
            try:
                answer = True, function(task)
            except Exception as error:
                if not isinstance(error, MoteError):  # a bug: its traceback would be lost in the pipe
                    error.add_note(traceback.format_exc())
                answer = False, error
            pipe.send(answer)
    except (EOFError, OSError):  # the process that started this one is gone
        return


def _in_order(pool: list[Worker], tasks: Sequence) -> Iterator:
    """Yields the answers to the tasks, in their order; a free worker takes the next task."""
    busy: BusyWorkers = {}
    ready: dict[int, object] = {}
    waiting = iter(range(len(tasks)))
    for worker in pool:
        _send_next(worker, waiting, tasks, busy)
    for number in range(len(tasks)):
        while number not in ready:
            for pipe in connection.wait(list(busy)):
                assert isinstance(pipe, connection.Connection)
                worker, done = busy.pop(pipe)
                ready[done] = _receive(worker)
                _send_next(worker, waiting, tasks, busy)
        yield ready.pop(number)


def _send_next(worker: Worker, waiting: Iterator[int], tasks: Sequence, busy: BusyWorkers) -> None:
    """Sends the next waiting task, if any, to a worker and adds the worker to `busy`."""
    number = next(waiting, None)
    if number is None:
        return
    with defer_signals():  # callbacks of pickle swallow exceptions: for example `except: pass` in copyreg
        # plain pickle: that of Connection.send would copy a network to shared memory, one file per tensor
        task = pickle.dumps(tasks[number])
    try:
        worker.pipe.send_bytes(task)
    except OSError as error:
        raise _ended_error(worker) from error
    busy[worker.pipe] = worker, number


def _receive(worker: Worker) -> object:
    """Returns the answer of a worker. Raises the exception that it sent, MoteError if it is gone."""
    try:
        succeeded, answer = worker.pipe.recv()
    except (EOFError, OSError) as error:
        raise _ended_error(worker) from error
    if not succeeded:
        raise answer
    return answer


def _ended_error(worker: Worker) -> MoteError:
    """Returns the error for a process that ended before its task was done."""
    worker.process.join()
    code = worker.process.exitcode
    return MoteError(f"a process of --workers has ended with exit code {code}; is there too little memory?")
