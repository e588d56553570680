"""Messages by which Home Assistant finds devices on a broker of MQTT.

Each source is a device. Each of its rules is a motion sensor, a camera with the last picture, and for each
phase a trigger of automations. The formats are those of Home Assistant's "MQTT discovery".
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from pipeline import __version__
from pipeline.alarms.topics import Topics, part


class Entity(NamedTuple):
    """An entity of Home Assistant."""

    topic: str
    """Topic of its description, below the prefix of the discovery."""
    description: dict[str, Any]

    def payload(self) -> str:
        """Returns the description as JSON."""
        return json.dumps(self.description)


def motion(topics: Topics, source: str, rule: str) -> Entity:
    """Returns the motion sensor of a rule, whose attributes are those of the last message."""
    return _entity(
        "binary_sensor",
        topics,
        source,
        rule,
        {
            "name": rule,
            "device_class": "motion",
            "state_topic": topics.state(source, rule),
            "json_attributes_topic": topics.last(source, rule),
            "qos": 1,
        },
    )


def camera(topics: Topics, source: str, rule: str) -> Entity:
    """Returns the camera of a rule, which shows the picture of the last event."""
    return _entity(
        "camera", topics, source, rule, {"name": f"{rule} snapshot", "topic": topics.snapshot(source, rule)}
    )


def trigger(topics: Topics, source: str, rule: str, phase: str) -> Entity:
    """Returns the trigger of automations for a phase of the events of a rule."""
    node, item = _ids(topics, source, rule)
    description = {
        "automation_type": "trigger",
        "type": f"event_{phase}",
        "subtype": rule,
        "topic": topics.events(source, rule),
        "value_template": "{{ value_json.phase }}",
        "payload": phase,
        "qos": 1,
        "device": _device(node, source),
    }
    return Entity(f"device_automation/{node}/{item}_{phase}/config", description)


def _entity(kind: str, topics: Topics, source: str, rule: str, description: dict[str, Any]) -> Entity:
    node, item = _ids(topics, source, rule)
    common = {
        "unique_id": f"{node}_{item}_{kind}",
        "availability_topic": topics.availability,
        "device": _device(node, source),
        "origin": {"name": "mote", "sw_version": __version__},
    }
    return Entity(f"{kind}/{node}/{item}/config", {**description, **common})


def _ids(topics: Topics, source: str, rule: str) -> tuple[str, str]:
    """Returns the identifiers of the device and, in it, of the rule."""
    return f"{part(topics.prefix)}_{part(source)}", part(rule)


def _device(node: str, source: str) -> dict[str, Any]:
    return {
        "identifiers": [node],
        "name": f"Mote {source}",
        "manufacturer": "Mote",
        "sw_version": __version__,
    }
