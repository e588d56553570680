"""Receiver of alarms over MQTT: messages, states and pictures, and what Home Assistant needs to show them.

Topics below the prefix of the configuration, all of QoS 1:

- `availability`: online or offline, retained; the broker publishes offline if the connection is lost.
- `SOURCE/RULE/events`: each message as JSON.
- `SOURCE/RULE/state`: ON while an event of the rule goes on, else OFF; retained.
- `SOURCE/RULE/last`: the last message as JSON, retained.
- `SOURCE/RULE/snapshot`: the best picture of the last event as JPEG, retained.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.alarms import home_assistant
from pipeline.alarms.http import connection_failure, ssl_context
from pipeline.alarms.message import Message
from pipeline.alarms.receiver import NotReached
from pipeline.alarms.secrets import Secrets
from pipeline.alarms.topics import Topics
from pipeline.config.alarms_section import MqttConfig
from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo

ONLINE, OFFLINE = "online", "offline"
ON, OFF = "ON", "OFF"
KEEPALIVE = 30
"""Seconds between signs of life; after one and a half of it the broker publishes the will."""
PORT, TLS_PORT = 1883, 8883
GOODBYE_SECONDS = 2.0
"""Longest time in which the last states are published at the end of a run."""


class MqttReceiver:
    """A broker of MQTT. The connection is kept, and reopened in the background if it is lost.

    Args:
        config: its configuration.
        longest_wait: maximum number of seconds between attempts to connect.

    Raises UsageError if paho-mqtt is not installed, or a secret or a certificate cannot be read.
    """

    def __init__(self, config: MqttConfig, *, longest_wait: float):
        require_package("paho", "alarms.mqtt")
        self.name, self.rules, self.timeout = config.name, config.rules, config.timeout
        self.phases = tuple({*config.phases, "start", "end"})
        self._config, self._topics = config, Topics(config.topic)
        self._secrets = Secrets(config.name)
        self._client = self._make_client(longest_wait)
        self._state = threading.Condition()  # its lock keeps the states of events and their topics in step
        self._connected = False
        self._reason = ""
        """Why there is no connection; empty while the first attempt goes on."""
        self._wake: Callable[[], None] = lambda: None
        self._known: dict[str, tuple[str, ...]] = {}
        self._running: dict[tuple[str, str], set[str]] = {}
        self._pictured: set[tuple[str, str]] = set()
        self._pending: tuple[str, list[MQTTMessageInfo]] | None = None

    def start(self, wake: Callable[[], None]) -> None:
        """Begins to connect, in a thread of the library."""
        self._wake = wake
        config = self._config
        port = config.port or (TLS_PORT if config.tls else PORT)
        self._client.connect_async(config.host, port, keepalive=KEEPALIVE)
        self._client.loop_start()

    def announce(self, source: str, rules: Sequence[str]) -> None:
        """Adds a source: its states are published, and it is shown to Home Assistant."""
        shown = tuple(rule for rule in rules if not self.rules or rule in self.rules)
        with self._state:
            self._known = {**self._known, source: shown}
            if self._connected:
                self._present([source])

    def deliver(self, message: Message) -> None:
        """Publishes a message, and waits until the broker has it. Raises NotReached.

        If the connection is lost meanwhile, the library publishes the rest after it is reopened; a second
        call with the same message waits for that.
        """
        latest = time.monotonic() + self.timeout
        with self._state:
            self._state.wait_for(lambda: self._connected or self._reason, timeout=self.timeout)
            if not self._connected:
                raise NotReached(self._reason or "the broker does not answer")
        if self._pending is None or self._pending[0] != message.key:
            self._pending = message.key, self._publish_message(message)
        for sent in self._pending[1]:
            sent.wait_for_publish(max(latest - time.monotonic(), 0.0))
        if not all(sent.is_published() for sent in self._pending[1]):
            raise NotReached(self._reason or "the broker does not confirm the message")
        self._pending = None

    def close(self) -> None:
        """Publishes that all is over, and disconnects."""
        connected = self._connected
        if connected:
            last = [self._publish(self._topics.state(*place), OFF, retain=True) for place in self._places()]
            last.append(self._publish(self._topics.availability, OFFLINE, retain=True))
            latest = time.monotonic() + GOODBYE_SECONDS
            for sent in last:
                sent.wait_for_publish(max(latest - time.monotonic(), 0.0))
        self._client.disconnect()
        if connected:  # otherwise the thread may be connecting, for which nobody needs to wait
            self._client.loop_stop()

    def _publish_message(self, message: Message) -> list[MQTTMessageInfo]:
        """Hands all parts of a message to the library."""
        place, facts, phase = message.place, message.json(), message.event["phase"]
        sent = []
        if phase in self._config.phases or message.test:
            sent.append(self._publish(self._topics.events(*place), facts))
        if not message.current or message.test:  # a state of long ago, or of nothing
            return sent
        sent.append(self._publish(self._topics.last(*place), facts, retain=True))
        with self._state:
            running = self._running.setdefault(place, set())
            (running.discard if phase == "end" else running.add)(str(message.event["id"]))
            sent.append(self._publish(self._topics.state(*place), ON if running else OFF, retain=True))
        picture = message.snapshot()
        if picture is not None:
            if place not in self._pictured:
                self._pictured.add(place)
                self._discover(home_assistant.camera(self._topics, *place))
            sent.append(self._publish(self._topics.snapshot(*place), picture, retain=True))
        return sent

    def _places(self) -> list[tuple[str, str]]:
        """Returns all pairs of a source and a rule, also those of which only a message is known."""
        known = [(source, rule) for source, rules in self._known.items() for rule in rules]
        return list(dict.fromkeys([*known, *self._running]))

    def _present(self, sources: Iterable[str]) -> None:
        """Publishes the states of sources and how Home Assistant finds them. To be called with the lock."""
        wanted = set(sources)
        for place in self._places():
            if place[0] not in wanted:
                continue
            self._discover(home_assistant.motion(self._topics, *place))
            for phase in self._config.phases:
                self._discover(home_assistant.trigger(self._topics, *place, phase))
            state = ON if self._running.get(place) else OFF
            self._publish(self._topics.state(*place), state, retain=True)

    def _discover(self, entity: home_assistant.Entity) -> None:
        if self._config.discovery:
            topic = f"{self._config.discovery}/{entity.topic}"
            self._publish(topic, entity.payload(), retain=True)

    def _publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> MQTTMessageInfo:
        from paho.mqtt.enums import MQTTErrorCode

        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        if sent.rc == MQTTErrorCode.MQTT_ERR_NO_CONN:  # kept by the library, which publishes it later
            sent.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        return sent

    def _make_client(self, longest_wait: float) -> Client:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        config = self._config
        client = Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = config.timeout
        client.reconnect_delay_set(1, max(int(longest_wait), 1))
        client.will_set(self._topics.availability, OFFLINE, qos=1, retain=True)
        if config.user:
            user = self._secrets.read("user", config.user)
            client.username_pw_set(user, self._secrets.read("password", config.password) or None)
        if config.tls:
            try:
                client.tls_set_context(ssl_context(config.ca))
            except UsageError as error:
                raise UsageError(f"alarm receiver '{self.name}': {error}") from error
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        return client

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            self._lose(f"the broker refuses the connection: {code}")
            return
        with self._state:
            self._publish(self._topics.availability, ONLINE, retain=True)
            self._present(self._known)
            self._connected, self._reason = True, ""
            self._state.notify_all()
        self._wake()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if self._connected or not self._reason:
            self._lose(f"the connection ended: {code}")

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        # called while the library handles the error, which it does not pass
        self._lose(_why(sys.exception()))

    def _lose(self, reason: str) -> None:
        with self._state:
            self._connected, self._reason = False, self._secrets.hide(reason)
            self._state.notify_all()


def _why(error: BaseException | None) -> str:
    """Returns why no connection was made, in words."""
    return connection_failure(error) or getattr(error, "strerror", None) or "it cannot be connected"
