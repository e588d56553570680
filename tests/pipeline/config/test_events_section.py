"""Rules, places and schedules of a configuration, and the words for wrong ones."""

from __future__ import annotations

from datetime import datetime

import pytest

from pipeline.config.events_section import EventsConfig, parse_span
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.system.errors import UsageError

TRIANGLE = [[0, 0], [9, 0], [9, 9]]


def section(**keys):
    """The section of a configuration."""
    return build(RunConfig, {"events": keys}).events


def with_rule(**keys):
    """The section with one rule r."""
    return section(rules=[{"name": "r", **keys}])


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"rules": [{}]}, "a rule has no name"),
        ({"rules": [{"name": "too far"}]}, "the name 'too far', expected letters, digits, - and _"),
        ({"rules": [{"name": "a"}, {"name": "A"}]}, "two rules have the name 'A'"),
        (
            {"rules": [{"name": "a", "zone": ["x"]}]},
            "unknown configuration key 'events.rules.zone'.*'events.rules.zones'",
        ),
        ({"rules": {"name": "a"}}, "expected a list of tables"),
        (
            {"zones": {"gate": [[0, 0], [9, 9]]}},
            "zones.gate has 2 points, expected a list of 3 or more points",
        ),
        ({"zones": {"gate": [[0, 0], [9, 9], 5]}}, "zones.gate has the point 5"),
        ({"zones": {"gate": [[0, 0], [9, 9], [1, True]]}}, r"zones.gate has the point \[1, true\]"),
        ({"zones": {"gate": [[0, 0], [9, 9], [1, float("nan")]]}}, "zones.gate has the point"),
        ({"zones": {"gate": "gate.png"}}, 'zones.gate = "gate.png", expected a list of 3'),
        ({"zones": {"my gate": TRIANGLE}}, "a zone has the name 'my gate'"),
        ({"lines": {"fence": [[1, 1]]}}, "lines.fence has 1 points, expected a list of 2"),
        ({"masks": {"sun": ""}}, 'masks.sun = "", expected a list of 3'),
        ({"masks": {"all": TRIANGLE}}, "a mask cannot have the name 'all'"),
        ({"units": "percent"}, "expected one of pixels, shares"),
        ({"update": -1}, "update = -1, expected seconds"),
        ({"time_zone": "Europe/Berlyn"}, "time_zone = 'Europe/Berlyn', expected a name such as"),
        ({"time_zone": "../../etc/passwd"}, "time_zone = '../../etc/passwd', expected a name"),
        ({"recorded_at": "yesterday"}, "recorded_at = 'yesterday', expected a date and a time"),
        ({"enabled": "yes"}, "expected true or false or one of auto"),
    ],
)
def test_wrong_sections_are_refused_in_clear_words(keys, words):
    with pytest.raises(UsageError, match=words):
        section(**keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"min_duration": -1}, "rule 'r': min_duration = -1, expected seconds, 0 or more"),
        ({"hold": -0.5}, "rule 'r': hold = -0.5"),
        ({"cooldown": float("inf")}, "rule 'r': cooldown = inf"),
        ({"min_score": 45}, "rule 'r': min_score = 45, expected 0 to 1"),
        ({"min_speed": 9, "max_speed": 3}, "rule 'r': min_speed = 9 is above max_speed = 3"),
        ({"min_size": 9, "max_size": 3}, "rule 'r': min_size = 9 is above max_size = 3"),
        ({"direction": [90]}, r"rule 'r': direction = \[90.0\], expected two headings"),
        ({"direction": [-90, 90]}, "expected two headings from 0 to 360 degrees"),
        ({"crossing": "to-left"}, "rule 'r': crossing = to-left needs lines"),
        ({"crossing": "left"}, "expected one of any, to-left, to-right"),
        ({"zones": ["gaet"]}, "unknown zone of rule 'r' 'gaet'; did you mean 'gate'"),
        ({"lines": ["gate"]}, "unknown line of rule 'r' 'gate'"),
        ({"masks": ["trees"]}, "unknown mask of rule 'r' 'trees'"),
        ({"schedule": ["22-6"]}, "rule 'r': schedule = '22-6', expected days, times or both"),
    ],
)
def test_wrong_rules_are_named(keys, words):
    with pytest.raises(UsageError, match=words):
        section(zones={"gate": TRIANGLE}, rules=[{"name": "r", **keys}])


@pytest.mark.parametrize(
    "text", ["", "Mon Tue", "Mon 22:00", "24:00-06:00", "12:00-12:00", "12:60-13:00", "Mo", "1-2"]
)
def test_schedules_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="expected days, times or both"):
        parse_span(text)


@pytest.mark.parametrize(
    ("text", "held", "not_held"),
    [
        ("22:00-06:00", ["Mon 22:00", "Mon 05:59", "Sun 23:30"], ["Mon 06:00", "Mon 21:59"]),
        ("Fri 22:00-06:00", ["Fri 22:00", "Sat 05:59"], ["Fri 05:59", "Sat 22:00", "Fri 21:59"]),
        ("Sun 22:00-06:00", ["Sun 23:00", "Mon 01:00"], ["Sun 01:00"]),
        ("Sat,Sun", ["Sat 00:00", "Sun 23:59"], ["Fri 23:59", "Mon 00:00"]),
        (
            "Fri-Mon 08:00-24:00",
            ["Fri 08:00", "Sun 12:00", "Mon 23:59"],
            ["Tue 08:00", "Thu 12:00", "Fri 07:59"],
        ),
        ("mon-fri 9:00-17:30", ["Wed 17:29"], ["Wed 17:30", "Sat 12:00"]),
    ],
)
def test_spans_hold_on_their_days(text, held, not_held):
    days = {"Mon": 2, "Tue": 3, "Wed": 4, "Thu": 5, "Fri": 6, "Sat": 7, "Sun": 8}  # of November 2026

    def moment(words):
        day, clock = words.split()
        return datetime.fromisoformat(f"2026-11-0{days[day]}T{clock}")

    span = parse_span(text)
    assert [words for words in held if not span.holds(moment(words))] == []
    assert [words for words in not_held if span.holds(moment(words))] == []


def test_events_are_by_the_rules_or_by_the_one_that_is_supplied():
    assert section().active_rules == ()
    assert [rule.name for rule in section(enabled=True).active_rules] == ["any-target"]
    assert section(enabled=True).active_rules[0].min_duration == 0.5
    assert [rule.name for rule in with_rule().active_rules] == ["r"]
    assert section(enabled=False, rules=[{"name": "r"}]).active_rules == ()


def test_a_recording_begins_in_the_time_zone_of_the_section():
    config = EventsConfig(recorded_at="2026-07-01 12:00", time_zone="Europe/Berlin")
    assert config.recording_start().isoformat() == "2026-07-01T12:00:00+02:00"
    config = EventsConfig(recorded_at="2026-07-01T12:00:00Z", time_zone="Europe/Berlin")
    assert config.recording_start().isoformat() == "2026-07-01T12:00:00+00:00"
