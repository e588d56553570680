"""Receivers and queue of a configuration, and the test of the receivers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pipeline.alarms.delivery import Deliveries
from pipeline.alarms.message import Message
from pipeline.alarms.queue import AlarmQueue
from pipeline.alarms.receiver import DeliveryError, Receiver
from pipeline.alarms.webhook import Webhook
from pipeline.config.alarms_section import AlarmsConfig
from pipeline.config.units import duration
from pipeline.structures.events import Event
from pipeline.system.errors import UsageError
from pipeline.system.files import output_error

QUEUE = "alarms.sqlite"
"""Name of the queue in the output folder."""


class Trial(NamedTuple):
    """What happened to the test message of a receiver."""

    receiver: str
    failure: str | None
    """Why it was not delivered; None if it was."""
    seconds: float


def open_deliveries(config: AlarmsConfig, folder: Path) -> Deliveries | None:
    """Returns what delivers the alarms of a run, not yet started; None if there is no receiver.

    `folder` is the output folder of the run, in which the queue is unless the configuration names another
    place. Raises UsageError for secrets, certificates and packages that are missing, and OutputError if the
    queue cannot be used.
    """
    if not config.names:
        return None
    receivers = make_receivers(config)
    path = Path(config.queue).expanduser() if config.queue else folder / QUEUE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path.parent, error) from error
    queue = AlarmQueue(path, max_waiting=config.max_waiting, max_age=duration(config.max_age))
    return Deliveries(queue, receivers, config)


def make_receivers(config: AlarmsConfig) -> list[Receiver]:
    """Returns the receivers of a configuration. Raises UsageError for what they need and lack."""
    receivers: list[Receiver] = [
        Webhook(name, row) for name, row in zip(config.webhook_names, config.webhooks, strict=True)
    ]
    if config.mqtt.host:
        from pipeline.alarms.mqtt import MqttReceiver

        receivers.append(MqttReceiver(config.mqtt, longest_wait=config.backoff_cap))
    if config.apprise.urls:
        from pipeline.alarms.messengers import Messenger

        rows = zip(config.apprise_names, config.apprise.urls, strict=True)
        receivers += [Messenger(name, config.apprise, reference) for name, reference in rows]
    return receivers


def try_receivers(config: AlarmsConfig) -> Iterator[Trial]:
    """Sends a test message to each receiver, past the queue and once; yields what happened to it.

    Raises UsageError if there is no receiver, or as `make_receivers` does.
    """
    if not config.names:
        raise UsageError(
            "--test-alarm: no receiver is configured; add [[alarms.webhooks]], [alarms.mqtt] or "
            "[alarms.apprise] to the file of --config"
        )
    message = Message(0, make_test_event().to_dict(), "", test=True)
    for receiver in make_receivers(config):
        started, failure = time.monotonic(), None
        with closing(receiver):
            receiver.start(lambda: None)
            try:
                receiver.deliver(message)
            except DeliveryError as error:
                failure = str(error)
            except Exception as error:  # of a library; its text may hold a secret
                failure = f"{type(error).__name__} in the delivery"
        yield Trial(receiver.name, failure, time.monotonic() - started)


def make_test_event() -> Event:
    """Returns an event that nothing has caused."""
    return Event(
        id=f"test-{uuid.uuid4().hex[:12]}",
        sequence=0,
        phase="start",
        rule="test",
        source="test",
        track=1,
        label="target",
        frame=0,
        pts=0.0,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        begun=0.0,
        duration=1.0,
        score=0.9,
        box=(100.0, 100.0, 108.0, 106.0),
        velocity=(10.0, 0.0),
        zone=None,
        evidence=None,
    )
