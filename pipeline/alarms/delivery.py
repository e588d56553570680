"""Delivery of messages: a queue on the disk, and a thread for each receiver that empties it.

A receiver gets its messages in their order. If it cannot take one, the others wait behind it and it is tried
again after growing times. Receivers do not wait for one another, and nothing else waits for them.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.alarms.message import Message
from pipeline.alarms.queue import AlarmQueue
from pipeline.alarms.receiver import NotReached, Receiver, Refused, wants
from pipeline.config.alarms_section import AlarmsConfig
from pipeline.structures.events import Event
from pipeline.system.errors import MoteError, describe

log = logging.getLogger(__name__)
LIMITS_SECONDS = 1.0
"""Interval in which the limits of the queue are applied."""
IDLE_SECONDS = 30.0
"""Longest sleep of a thread, after which it looks after the queue."""


class Counts(NamedTuple):
    """What happened to the messages of a receiver in this run."""

    delivered: int
    refused: int
    """Given up, because the receiver does not want them."""
    too_many: int
    """Discarded, because more than alarms.max_waiting waited."""
    too_old: int
    """Discarded after alarms.max_age."""


class Health(NamedTuple):
    """State of a receiver."""

    failing: float
    """Seconds since the first of the failures in a row; 0 if the last attempt succeeded."""
    reason: str
    """Reason of the last failure; empty if there is none."""


class Worker:
    """Empties the queue of one receiver.

    Args:
        receiver: the receiver.
        queue: the queue.
        config: limits and waits.
        clock: returns seconds, as `time.monotonic` does.
    """

    def __init__(
        self,
        receiver: Receiver,
        queue: AlarmQueue,
        config: AlarmsConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.receiver = receiver
        self._queue, self._config, self._clock = queue, config, clock
        self.counts = Counts(0, 0, 0, 0)
        self._failures, self._reason = 0, ""
        self._failing_since = self._not_before = 0.0
        self._limits_due = clock()
        self._unfinished: tuple[Message, bool] | None = None
        self._warned_of_refusal = self._warned_of_loss = False
        self._woken = threading.Event()
        self._latest: float | None = None  # no attempt begins later: the run ends
        self._thread = threading.Thread(target=self._work, name=f"alarms {receiver.name}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wake(self, *, now: bool = False) -> None:
        """Tells that there may be a message; `now`: that the receiver can be reached again."""
        if now:
            self._not_before = 0.0
        self._woken.set()

    def end(self, latest: float) -> None:
        """Asks for one more attempt to deliver what waits, until the time `latest` of the clock."""
        self._latest = latest
        self._woken.set()

    def join(self, seconds: float) -> bool:
        """Waits for the end of the thread; returns whether it has ended."""
        self._thread.join(max(seconds, 0.0))
        return not self._thread.is_alive()

    @property
    def health(self) -> Health:
        """The state of the receiver now."""
        if not self._failures:
            return Health(0.0, "")
        return Health(max(self._clock() - self._failing_since, 0.0), self._reason)

    def step(self) -> float | None:
        """Delivers the next message, if there is one and it is time.

        Returns the seconds until the next step is due; None if there is nothing to do.
        """
        try:
            return self._step()
        except MoteError as error:  # of the queue
            return self._fail(describe(error))

    def _step(self) -> float | None:
        now = self._clock()
        if now >= self._limits_due:
            self._limits_due = now + LIMITS_SECONDS
            self._count_losses()
        if now < self._not_before:
            return self._not_before - now
        if self._unfinished:  # delivered before, but the queue could not be written
            self._finish(*self._unfinished)
        message = self._queue.next(self.receiver.name)
        if message is None:
            self._queue.tidy()
            return None
        try:
            self.receiver.deliver(message)
        except Refused as error:
            self._refuse(str(error))
            self._finish(message, False)
        except NotReached as error:
            return self._fail(str(error), error.after)
        except Exception as error:  # of a library; its text may hold a secret
            return self._fail(f"{type(error).__name__} in the delivery")
        else:
            self._succeed()
            self._finish(message, True)
        return 0.0

    def _finish(self, message: Message, delivered: bool) -> None:
        self._unfinished = message, delivered
        self._queue.finish(message, delivered=delivered)
        self._unfinished = None

    def _succeed(self) -> None:
        if self._failures:
            log.warning(
                "alarm receiver %s is reached again after %.0f s", self.receiver.name, self.health.failing
            )
        self._failures, self._reason, self._not_before = 0, "", 0.0
        self._warned_of_refusal = self._warned_of_loss = False
        self.counts = self.counts._replace(delivered=self.counts.delivered + 1)

    def _refuse(self, reason: str) -> None:
        if not self._warned_of_refusal:
            self._warned_of_refusal = True
            log.warning("alarm receiver %s refuses a message, given up: %s", self.receiver.name, reason)
        self._failures, self._reason = 0, ""
        self.counts = self.counts._replace(refused=self.counts.refused + 1)

    def _fail(self, reason: str, after: float | None = None) -> float:
        """Notes a failure; returns the seconds until the next attempt."""
        now = self._clock()
        if not self._failures:
            self._failing_since = now
            log.warning("alarm receiver %s is tried again until it answers: %s", self.receiver.name, reason)
        self._failures, self._reason = self._failures + 1, reason
        wait = backoff(self._failures, self._config) if after is None else after
        self._not_before = now + wait
        return wait

    def _count_losses(self) -> None:
        lost = self._queue.apply_limits(self.receiver.name)
        if not (lost.too_many or lost.too_old):
            return
        if not self._warned_of_loss:
            self._warned_of_loss = True
            limit = "alarms.max_waiting" if lost.too_many else "alarms.max_age"
            log.warning(
                "alarms for %s are discarded and counted, the oldest first: %s is reached",
                self.receiver.name,
                limit,
            )
        self.counts = self.counts._replace(
            too_many=self.counts.too_many + lost.too_many, too_old=self.counts.too_old + lost.too_old
        )

    def _work(self) -> None:
        while self._latest is None:
            self._woken.clear()
            wait = self.step()
            if wait != 0.0 and self._latest is None:
                self._woken.wait(IDLE_SECONDS if wait is None else min(wait, IDLE_SECONDS))
        self._not_before = 0.0
        while self._clock() < self._latest and self.step() == 0.0:
            pass
        self.receiver.close()


class Deliveries:
    """Listener that delivers the messages of events to all receivers of a run.

    Args:
        queue: the queue, which is closed at the end.
        receivers: the receivers, with distinct names.
        config: limits and waits.
    """

    def __init__(self, queue: AlarmQueue, receivers: Sequence[Receiver], config: AlarmsConfig):
        self.config = config
        self._queue = queue
        self._workers = {receiver.name: Worker(receiver, queue, config) for receiver in receivers}
        self._folders: dict[str, Path] = {}
        self._left: dict[str, int] | None = None  # waiting messages after the end

    def start(self) -> None:
        """Starts to deliver, first of all what earlier runs left in the queue."""
        for name, count in self._queue.waiting().items():
            if name not in self._workers:
                log.warning("%d alarms wait for %s, which is no receiver of this run", count, name)
        for worker in self._workers.values():
            worker.receiver.start(partial(worker.wake, now=True))
            worker.start()

    def announce(self, source: str, folder: Path, rules: Sequence[str]) -> None:
        """Takes a source of the run, by its name in events: its output folder and the names of its rules."""
        self._folders[source] = folder.absolute()
        for worker in self._workers.values():
            worker.receiver.announce(source, rules)

    def send(self, event: Event) -> None:
        """Puts a message into the queue of each receiver that wants it. Raises OutputError if that fails."""
        workers = [
            worker for worker in self._workers.values() if wants(worker.receiver, event.rule, event.phase)
        ]
        folder = self._folders.get(event.source)
        evidence = str(folder / event.evidence) if folder and event.evidence else ""
        if workers and self._queue.add(event, evidence, [worker.receiver.name for worker in workers]):
            for worker in workers:
                worker.wake()

    def close(self) -> None:
        """Delivers what waits to the receivers that can be reached, and closes the queue.

        It takes at most `alarms.wait_at_end` seconds and those of one attempt. A second call does nothing.
        """
        if self._left is not None:
            return
        latest = time.monotonic() + self.config.wait_at_end
        for worker in self._workers.values():
            worker.end(latest)
        patience = max((worker.receiver.timeout for worker in self._workers.values()), default=0.0)
        ended = [worker.join(latest + patience + 1.0 - time.monotonic()) for worker in self._workers.values()]
        self._left = self.waiting()
        if count := sum(self._left.values()):
            where = self._queue.path
            log.warning(
                "%d alarms are not delivered yet; they wait in %s for the next run with it", count, where
            )
        if all(ended):  # else a message that is on its way could not be marked as delivered
            self._queue.close()

    def waiting(self) -> dict[str, int]:
        """Returns the number of waiting messages of each receiver of the run."""
        if self._left is not None:
            return self._left
        waiting = self._queue.waiting()
        return {name: waiting.get(name, 0) for name in self._workers}

    @property
    def counts(self) -> dict[str, Counts]:
        """What happened to the messages, by the names of the receivers."""
        return {name: worker.counts for name, worker in self._workers.items()}

    @property
    def health(self) -> dict[str, Health]:
        """The states of the receivers by their names."""
        return {name: worker.health for name, worker in self._workers.items()}


def backoff(failures: int, config: AlarmsConfig) -> float:
    """Returns the seconds before the next attempt, after that many failures in a row."""
    longest = min(config.backoff * 2.0 ** min(failures - 1, 32), config.backoff_cap)
    return longest * random.uniform(0.5, 1.0)
