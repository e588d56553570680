"""Where the messages of events go: the file, evidence and listeners."""

from __future__ import annotations

import json

import pytest

from pipeline.events.event_file import scan_events
from pipeline.events.sink import EventSink
from pipeline.sinks.base import Sinks
from pipeline.system.errors import OutputError
from tests.support.watched_tracks import engine, flight, results


class Notes:
    """Evidence and listener that note their calls."""

    def __init__(self):
        self.calls = []

    def add(self, result):
        """Notes the frame."""
        self.calls.append(("add", result.frame.index))

    def begin(self, event, result):
        """Notes the event and the frame."""
        self.calls.append(("begin", event.track, result.frame.index))

    def end(self, event):
        """Notes the event."""
        self.calls.append(("end", event.track))

    def send(self, event):
        """Notes the message."""
        self.calls.append(("send", event.track, event.phase))

    def close(self):
        """Notes the end."""
        self.calls.append(("close",))


def run(path, *, live=False, failure=None, notes=None, listener=None, **section):
    """Writes the events of two tracks into a file; `failure` is raised after the last frame."""
    sink = EventSink(engine({}, **section), live=live, evidence=notes)
    sink.add([listener] if listener else [])
    with Sinks([sink.open_file(path), sink]) as sinks:
        for result in results(flight(1, "ccc"), flight(2, "ccccc", first=2)):
            sinks.write(sink.complete(result))
        if failure:
            raise failure
    return sink


def phases(path):
    """Track and phase of the messages in a file."""
    return [(row["track"], row["phase"]) for row in map(json.loads, path.read_text().splitlines())]


def test_evidence_gets_each_frame_before_the_events_in_it(tmp_path):
    notes = Notes()
    run(tmp_path / "events.jsonl", notes=notes)
    assert notes.calls == [
        ("add", 0),
        ("begin", 1, 0),
        ("add", 1),
        ("add", 2),
        ("begin", 2, 2),
        ("add", 3),
        ("end", 1),
        *[("add", index) for index in (4, 5, 6)],
        ("end", 2),
        ("close",),
    ]


def test_listeners_get_what_is_in_the_file(tmp_path):
    listener, path = Notes(), tmp_path / "events.jsonl"
    sink = run(path, listener=listener)
    assert [call[1:] for call in listener.calls] == phases(path)
    assert phases(path) == [(1, "start"), (2, "start"), (1, "end"), (2, "end")]
    assert [event.track for event in sink.ends] == [2]


@pytest.mark.parametrize(("live", "last"), [(True, (2, "end")), (False, (1, "end"))])
def test_the_events_of_a_live_source_end_however_it_ends(tmp_path, live, last):
    notes, path = Notes(), tmp_path / "events.jsonl"
    with pytest.raises(OutputError, match="the disk is full"):
        run(path, live=live, failure=OutputError("the disk is full"), notes=notes)
    assert phases(path)[-1] == last
    assert notes.calls[-1] == ("close",)


def test_complete_lines_are_found(tmp_path):
    path = tmp_path / "events.jsonl"
    run(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "0123')
    assert scan_events(path) == (4, len(whole), 12)
    assert scan_events(tmp_path / "no_such.jsonl") == (0, 0, 0)
