"""Section `[alarms]` of the configuration: receivers of events, and the limits of their delivery.

Secrets are never written into a configuration: their keys name an environment variable, `env:NAME`, or a file
that holds nothing else, `file:PATH`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pipeline.config.ranges import require_range
from pipeline.config.units import duration, parse_named
from pipeline.structures.events import Phase
from pipeline.system.redaction import HIDDEN, has_blanks

PHASES: tuple[str, ...] = get_args(Phase)
REFERENCES = ("env:", "file:")
"""Beginnings of values that say where a secret is."""
MAX_WAIT = 3600.0
"""Maximum number of seconds of timeouts and waits."""


def is_reference(value: str) -> bool:
    """Returns whether a value says where a secret is: env:NAME or file:PATH."""
    return value.startswith(REFERENCES) and len(value.partition(":")[2]) > 0


@dataclass(frozen=True)
class WebhookConfig:
    """A web server that gets an HTTP POST for each message."""

    url: str = ""
    """Address, http:// or https://; or env:NAME or file:PATH if it holds a secret. Outputs name its host
    alone."""
    name: str = ""
    """Name in messages and metrics, and of its waiting messages in the queue. Empty: webhook-1 for the first
    one, and so on."""
    secret: str = ""
    """Key of the signature in the header Mote-Signature: env:NAME or file:PATH. Empty: no signature."""
    headers: dict = field(default_factory=dict)
    """Further headers; values may be env:NAME or file:PATH, as in {Authorization = "env:HOOK_LOGIN"}."""
    attach: Literal["none", "base64", "multipart"] = "none"
    """How the best picture of an event is sent along, if there is one. base64: in the JSON object, as
    `snapshot`. multipart: as the second part of a multipart/form-data body, whose first part is the JSON."""
    ca: str = ""
    """File with the certificates that the server may have, in place of those of the system."""
    timeout: float = 10.0
    """Seconds for one attempt."""
    rules: tuple[str, ...] = ()
    """Names of the rules whose events are sent; empty: all."""
    phases: tuple[str, ...] = ("start", "end")
    """Which messages of an event are sent: start, update, end."""

    def __post_init__(self) -> None:
        _require_address(self.url)
        _require_reference("secret", self.secret)
        _require_headers(self.headers)
        _require_receiver(self)


@dataclass(frozen=True)
class MqttConfig:
    """A broker of MQTT, to which messages, states and pictures are published."""

    host: str = ""
    """Host name or address of the broker; empty: MQTT is not used."""
    port: int = 0
    """TCP port; 0: 1883, or 8883 with TLS."""
    user: str = ""
    """Name for the login; or env:NAME or file:PATH. Empty: no login."""
    password: str = ""
    """Password for the login: env:NAME or file:PATH."""
    tls: bool = False
    """Encrypt the connection and check the certificate of the broker."""
    ca: str = ""
    """File with the certificates that the broker may have, in place of those of the system."""
    topic: str = "mote"
    """First part of all topics. Two programs that use one broker need different ones."""
    discovery: str = "homeassistant"
    """Prefix of the topics in which Home Assistant looks for devices; empty: none are announced."""
    name: str = "mqtt"
    """Name in messages and metrics, and of its waiting messages in the queue."""
    timeout: float = 10.0
    """Seconds for one attempt."""
    rules: tuple[str, ...] = ()
    """Names of the rules whose events are published; empty: all."""
    phases: tuple[str, ...] = ("start", "end")
    """Which messages are published on the topic of the events. States follow start and end in any case."""

    def __post_init__(self) -> None:
        require_range(self, "port", low=0, high=65535, expected="1 to 65535, or 0 for that of the protocol")
        _require_reference("password", self.password)
        if has_blanks(self.host) or "/" in self.host or "@" in self.host:
            raise ValueError("host is no name of a host; the port, the user and the password have own keys")
        try:
            self.host.encode("idna")
        except UnicodeError as error:
            raise ValueError("host is no name of a host") from error
        if self.password and not self.user:
            raise ValueError("password needs a user")
        if self.ca and not self.tls:
            raise ValueError("ca needs tls = true")
        for key in ("topic", "discovery"):
            value = getattr(self, key)
            if any(sign in value for sign in "+#\0") or value.startswith("/") or value.endswith("/"):
                raise ValueError(f"{key} = '{value}', expected a topic without + and #, and no / at its ends")
        if not self.topic:
            raise ValueError("topic is empty, expected a topic such as mote")
        _require_receiver(self)


@dataclass(frozen=True)
class AppriseConfig:
    """Mail and messengers, which the package apprise reaches."""

    urls: tuple[str, ...] = ()
    """Addresses as apprise has them, such as mailtos://… and tgram://…. They hold secrets, so each is given
    as env:NAME or file:PATH. Each address is a receiver of its own."""
    attach: bool = True
    """Send the best picture of an event along, if there is one."""
    name: str = "apprise"
    """Name in messages and metrics, and of the waiting messages in the queue, followed by -1 for the first
    address and so on."""
    timeout: float = 10.0
    """Seconds without an answer after which an attempt has failed."""
    rules: tuple[str, ...] = ()
    """Names of the rules whose events are sent; empty: all."""
    phases: tuple[str, ...] = ("start",)
    """Which messages of an event are sent: start, update, end."""

    def __post_init__(self) -> None:
        if not all(map(is_reference, self.urls)):
            raise ValueError("urls holds an address itself, which is a secret; give env:NAME or file:PATH")
        _require_receiver(self)


@dataclass(frozen=True)
class AlarmsConfig:
    """Receivers of the messages of events, and the queue from which they are delivered."""

    queue: str = ""
    """File of the messages that wait for their receivers. They survive the end of the run, however it ends,
    and are delivered first by the next run with the same file. Empty: alarms.sqlite in the output folder;
    name another place if each run has a new folder. It must be on a disk of this machine."""
    max_waiting: int = 10000
    """Maximum number of messages that wait for one receiver; the oldest are discarded and counted."""
    max_age: str = "7d"
    """Messages that have waited longer are discarded and counted; such as 90s, 12h or 7d."""
    backoff: float = 1.0
    """Seconds before a failed delivery is tried again, doubled for each further failure in a row."""
    backoff_cap: float = 60.0
    """Maximum number of seconds between attempts. Each wait is shortened by a random part, up to half of it.
    A server that names a time in the header Retry-After is given that time, up to an hour."""
    wait_at_end: float = 10.0
    """Maximum number of seconds that the end of a run waits for the last deliveries."""
    down_after: float = 300.0
    """Seconds of failures after which /healthz calls a receiver `down`."""
    unhealthy: bool = False
    """Answer /healthz with status 503 if a receiver is down."""
    webhooks: tuple[WebhookConfig, ...] = ()
    """The web servers."""
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    apprise: AppriseConfig = field(default_factory=AppriseConfig)

    def __post_init__(self) -> None:
        require_range(self, "max_waiting", low=1)
        require_range(self, "wait_at_end", low=0, high=MAX_WAIT)
        require_range(self, "down_after", above=0)
        if not parse_named("max_age", self.max_age, duration):
            raise ValueError("max_age is empty, expected a duration such as 12h or 7d")
        if not 0 < self.backoff <= self.backoff_cap <= MAX_WAIT:
            values = f"backoff = {self.backoff}, backoff_cap = {self.backoff_cap}"
            raise ValueError(f"{values}, expected seconds, more than 0 and backoff not above backoff_cap")
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two receivers are called '{name}'; give one of them another name")

    @property
    def webhook_names(self) -> list[str]:
        """Names of the web servers, in their order."""
        return [row.name or f"webhook-{number}" for number, row in enumerate(self.webhooks, 1)]

    @property
    def apprise_names(self) -> list[str]:
        """Names of the addresses of apprise, in their order."""
        return [f"{self.apprise.name}-{number + 1}" for number in range(len(self.apprise.urls))]

    @property
    def names(self) -> list[str]:
        """Names of all receivers; empty if there is none."""
        return [*self.webhook_names, *([self.mqtt.name] if self.mqtt.host else []), *self.apprise_names]

    @property
    def wanted_rules(self) -> list[str]:
        """Names of all rules that receivers ask for."""
        hooks = [rule for row in self.webhooks for rule in row.rules]
        return [*hooks, *self.mqtt.rules, *self.apprise.rules]

    def public(self) -> dict[str, Any]:
        """Returns the section for outputs: addresses without their paths, headers without their values."""
        table = asdict(self)
        for row in table["webhooks"]:
            row["url"] = public_address(row["url"])
            row["headers"] = {key: _public(value) for key, value in row["headers"].items()}
        return table


def public_address(address: str) -> str:
    """Returns the address of a web server for outputs: its scheme and host, or the reference to it.

    Paths of such addresses are often secrets.
    """
    if is_reference(address):
        return address
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return HIDDEN
    if parts.scheme not in ("http", "https") or not host:
        return HIDDEN
    host = f"[{host}]" if ":" in host else host
    place = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    return f"{place}/{HIDDEN}" if parts.path.strip("/") or parts.query or parts.fragment else place


def _public(value: str) -> str:
    return value if is_reference(value) else HIDDEN


def _require_address(address: str) -> None:
    """Raises ValueError, which does not show the address, unless it is a reference or one of HTTP."""
    if not address:
        raise ValueError("a webhook has no url")
    if is_reference(address):
        return
    require_web_address(address)
    if "@" in urlsplit(address).netloc:
        raise ValueError("url holds a login, which is a secret; give the address as env:NAME or file:PATH")


def require_web_address(address: str) -> None:
    """Raises ValueError, which does not show the address, unless it is a valid one of HTTP or HTTPS."""
    wrong = "url is no address of a web server, expected http://HOST/PATH or https://HOST/PATH"
    if has_blanks(address) or not address.isascii():
        raise ValueError(f"{wrong}, without blanks and other characters than those of ASCII")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise ValueError(wrong) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(wrong)


def _require_reference(key: str, value: str) -> None:
    """Raises ValueError, which does not show the value, if a secret is given itself."""
    if value and not is_reference(value):
        raise ValueError(f"{key} holds a secret itself; expected env:NAME or file:PATH")


def _require_headers(headers: Mapping[str, Any]) -> None:
    own = ("content-type", "content-length", "idempotency-key", "mote-signature", "mote-timestamp", "host")
    for key, value in headers.items():
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError(f"headers.{key} is no text on one line")
        if not key.isascii() or not key.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"headers: '{key}' is no name of a header")
        if key.lower() in own:
            raise ValueError(f"headers.{key} is set by the program; leave it out")


def _require_receiver(row: WebhookConfig | MqttConfig | AppriseConfig) -> None:
    """Raises ValueError for values of the keys that all receivers have."""
    require_range(row, "timeout", above=0, high=MAX_WAIT, expected=f"seconds, at most {MAX_WAIT:g}")
    _require_phases(row.phases)
    if not row.name.isprintable():
        raise ValueError("name is no text on one line")


def _require_phases(phases: Sequence[str]) -> None:
    for phase in phases:
        if phase not in PHASES:
            raise ValueError(f"phases holds '{phase}', expected {', '.join(PHASES)}")
    if not phases:
        raise ValueError(f"phases is empty, expected some of {', '.join(PHASES)}")
