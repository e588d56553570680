"""Events of recorded tracks: `trackers.track` with rules."""

from __future__ import annotations

import json
import shutil

import pytest

import mote
from tests.support.outputs import report
from tests.support.two_spots import EVENTS, NAME, RAW, recording
from trackers import track

RULES = f"""
{EVENTS}
[[events.rules]]
name = "any"
hold = 0.3
[[events.rules]]
name = "right-side"
min_duration = 0.0
min_speed = 5.0
zones = ["right"]
"""
COAST = ["tracker.options.coast=5"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The folder of a run with rules of events and evidence."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "rules.toml").write_text(RULES)
    settings = {"config": folder / "rules.toml", "set": COAST, "save_video": False, **RAW}
    mote.run(recording(folder), detector=NAME, output=folder / "run", **settings)
    return folder / "run"


def events_of(folder):
    """The messages in a folder, without the place of the evidence."""
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [{**json.loads(line), "evidence": None} for line in lines]


def follow(run, folder, *options):
    """Tracks a run again into a folder; returns the exit code."""
    return track.main([str(run), "--output", str(folder), *map(str, options)])


def test_events_are_those_of_the_run(watched, tmp_path):
    assert follow(watched, tmp_path / "again") == 0
    told = events_of(watched)
    kinds = {(event["rule"], event["phase"]) for event in told}
    assert kinds == {(rule, phase) for rule in ("any", "right-side") for phase in ("start", "update", "end")}
    assert events_of(tmp_path / "again") == told
    assert report(tmp_path / "again")["events"] == report(watched)["events"]


def test_a_run_without_evidence_and_its_tracks_have_the_same_file_of_events(tmp_path):
    (tmp_path / "rules.toml").write_text(RULES)
    settings = {"config": tmp_path / "rules.toml", "set": [*COAST, "events.evidence=false"], **RAW}
    mote.run(recording(tmp_path), detector=NAME, output=tmp_path / "run", save_video=False, **settings)
    assert follow(tmp_path / "run", tmp_path / "again") == 0
    told = [(tmp_path / name / "events.jsonl").read_bytes() for name in ("run", "again")]
    assert told[0] == told[1] != b""


def test_no_evidence_is_made_without_the_video(watched, tmp_path):
    assert follow(watched, tmp_path / "again") == 0
    lines = (tmp_path / "again" / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["evidence"] for line in lines} == {None}
    assert not (tmp_path / "again" / "events").exists()


def test_rules_of_a_file_take_the_place_of_those_of_the_run(watched, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text('[[events.rules]]\nname = "fast"\nmin_duration = 0\nmin_speed = 18\n')
    assert follow(watched, tmp_path / "out", "--config", other) == 0
    assert {(event["rule"], event["track"]) for event in events_of(tmp_path / "out")} == {("fast", 1)}


def test_events_can_be_left_out(watched, tmp_path):
    assert follow(watched, tmp_path / "out", "--no-events") == 0
    assert not (tmp_path / "out" / "events.jsonl").exists()


def test_without_rules_events_are_those_of_any_target_on_request(watched, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(watched, plain)
    record = report(plain)
    record["config"]["events"]["rules"] = []
    (plain / "run.json").write_text(json.dumps(record))
    assert follow(plain, tmp_path / "none") == 0
    assert not (tmp_path / "none" / "events.jsonl").exists()
    assert follow(plain, tmp_path / "some", "--events") == 0
    assert {event["rule"] for event in events_of(tmp_path / "some")} == {"any-target"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('classes = ["bird"]', "unknown class of rule 'r'"),
        ('zones = ["roof"]', "unknown zone of rule 'r'"),
    ],
)
def test_rules_that_do_not_fit_are_refused_before_anything_is_written(watched, tmp_path, capsys, rule, words):
    other = tmp_path / "other.toml"
    other.write_text(f'[[events.rules]]\nname = "r"\n{rule}\n')
    assert follow(watched, tmp_path / "out", "--config", other) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
