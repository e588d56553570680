"""Events of whole runs: events.jsonl, resumed and killed runs, several sources, rotation, Python."""

from __future__ import annotations

import json
import shutil

import pytest

import mote as package
from pipeline import recover
from pipeline.events.sink import EventSink
from pipeline.runner import parts
from pipeline.sinks.video import VideoSink
from pipeline.system.errors import OutputError, UsageError
from tests.support.interrupted_runs import interrupted_copy, kill_runs
from tests.support.outputs import report
from tests.support.two_spots import EVENTS, NAME, OPTIONS, QUIET, RAW, recording

RULES = f"""
{EVENTS}
[[events.rules]]
name = "any"

[[events.rules]]
name = "right-side"
min_duration = 0.0
zones = ["right"]
"""


class Listener:
    """Notes what it is sent."""

    def __init__(self):
        self.got = []

    def send(self, event):
        """Notes a message."""
        self.got.append((event.id, event.sequence))


@pytest.fixture
def listener(monkeypatch):
    """A listener that every run has."""
    noted, build = Listener(), EventSink.__init__

    def listening(self, *arguments, **options):
        build(self, *arguments, **options)
        self.add([noted])

    monkeypatch.setattr(EventSink, "__init__", listening)
    return noted


@pytest.fixture
def rules(tmp_path):
    """A configuration with two rules."""
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


@pytest.fixture
def run(tmp_path, rules):
    """Runs the recording into a folder."""
    source = recording(tmp_path)

    def call(folder, **more):
        settings = {"config": rules, "save_video": False, "set": QUIET, **RAW, **more}
        return package.run(source, detector=NAME, output=tmp_path / folder, **settings)

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "rules.toml").write_text(RULES)
    settings = {"config": folder / "rules.toml", "set": QUIET, **RAW}
    package.run(recording(folder), detector=NAME, output=folder / "out", **settings)
    return folder / "out"


def messages(folder, name="events.jsonl"):
    """The messages in a folder."""
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def brief(rows):
    """Rule, track, phase and frame of messages."""
    return [(row["rule"], row["track"], row["phase"], row["frame"]) for row in rows]


def test_a_run_writes_and_counts_its_events(run, tmp_path):
    record = run("out")
    told = messages(tmp_path / "out")
    assert brief(told) == [
        ("any", 1, "start", 5),
        ("any", 1, "update", 15),
        ("any", 1, "update", 25),
        ("right-side", 1, "start", 27),
        ("right-side", 2, "start", 32),
        ("any", 1, "update", 35),
        ("any", 2, "start", 35),
        ("right-side", 1, "update", 37),
        ("any", 1, "end", 39),
        ("right-side", 1, "end", 39),
        ("right-side", 2, "update", 42),
        ("any", 2, "update", 45),
        ("right-side", 2, "update", 52),
        ("any", 2, "update", 55),
        ("right-side", 2, "end", 59),
        ("any", 2, "end", 59),
    ]
    assert {row["zone"] for row in told if row["rule"] == "right-side"} == {"right"}
    assert record.events == report(tmp_path / "out")["events"] == {"any": 2, "right-side": 2}


def test_without_rules_nothing_is_written(run, tmp_path, rules):
    rules.write_text("")
    run("plain")
    assert not (tmp_path / "plain" / "events.jsonl").exists()
    assert "events" not in report(tmp_path / "plain")
    rules.write_text(RULES)
    run("watched")
    for name in ("detections.json", "tracks.txt"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "watched" / name).read_bytes()


def test_the_flag_alone_tells_of_any_target(run, tmp_path, rules):
    rules.write_text("")
    run("out", events=True)
    assert {row["rule"] for row in messages(tmp_path / "out")} == {"any-target"}
    run("none", events=False)
    assert not (tmp_path / "none" / "events.jsonl").exists()


def test_python_gets_each_message(run, tmp_path, rules):
    told, results = [], []
    run("out", on_event=told.append, on_result=results.append)
    assert [event.to_dict() for event in told] == messages(tmp_path / "out")
    with_events = [event for result in results for event in result.events]
    assert told[: len(with_events)] == with_events
    watched = []
    settings = {"config": rules, "set": QUIET, **RAW}
    stream = list(package.watch(tmp_path / "sky.raw", detector=NAME, on_event=watched.append, **settings))
    assert brief(event.to_dict() for event in watched) == brief(messages(tmp_path / "out"))
    assert [event for result in stream for event in result.events] == watched[: len(with_events)]


@pytest.mark.parametrize("files", [{}, {"rotate_size": "8kB"}], ids=["one set of files", "rotated"])
def test_listeners_are_told_before_the_frame_is_drawn_which_shows_the_event(
    run, listener, monkeypatch, files
):
    drawn, write = [], VideoSink.write

    def noting(self, result):
        told = [(event.id, event.sequence) for event in result.events]
        drawn.extend(told)
        assert listener.got[len(listener.got) - len(told) :] == told
        write(self, result)

    monkeypatch.setattr(VideoSink, "write", noting)
    run("out", save_video=True, **files)
    assert len(drawn) > 12
    assert listener.got[: len(drawn)] == drawn


# Resumed and killed runs


def cut(origin, folder, *, frames, lacking=0, truncated=b""):
    """What a process leaves that was killed after some frames, with `lacking` messages not yet written."""
    interrupted_copy(origin, folder, after=frames)
    lines = (origin / "events.jsonl").read_bytes().splitlines(keepends=True)
    written = sum(_told_in(json.loads(line)) < frames for line in lines)
    kept = lines[: max(written - lacking, 0)]
    (folder / "events.jsonl").write_bytes(b"".join(kept) + truncated)
    return len(kept)


def _told_in(message):
    """The frame in which a message was written: an end comes when its track is no longer there."""
    return message["frame"] + (message["phase"] == "end")


@pytest.mark.parametrize(
    ("frames", "lacking"), [(0, 0), (4, 0), (6, 0), (6, 1), (27, 0), (27, 1), (45, 0), (60, 1)]
)
def test_a_resumed_run_has_the_messages_of_an_uninterrupted_one(
    run, whole, tmp_path, listener, frames, lacking
):
    known = [(row["id"], row["sequence"]) for row in messages(whole)]
    kept = cut(whole, tmp_path / "out", frames=frames, lacking=lacking, truncated=b'{"id":"0')
    listener.got.clear()
    run("out", resume=True, save_video=True)
    for name in ("events.jsonl", "tracks.txt", "annotated.mp4"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()
    assert report(tmp_path / "out")["events"] == report(whole)["events"]
    assert listener.got == known[max(kept - 1, 0) :]


def test_a_run_with_other_rules_is_not_resumed(run, whole, tmp_path, rules):
    cut(whole, tmp_path / "out", frames=30)
    rules.write_text(RULES.replace("update = 1.0", "update = 2.0"))
    with pytest.raises(UsageError, match=r"config.events.update is 2.0, and was 1.0"):
        run("out", resume=True)


def test_foreign_messages_are_not_taken_for_those_of_the_run(run, whole, tmp_path):
    cut(whole, tmp_path / "out", frames=30)
    path = tmp_path / "out" / "events.jsonl"
    path.write_text(path.read_text().replace('"sequence":1', '"sequence":9'))
    record = run("out", resume=True)
    assert "events.jsonl has other events in frame 15 than before" in str(record.failure)


def test_a_damaged_file_of_events_is_refused(run, whole, tmp_path):
    cut(whole, tmp_path / "out", frames=30)
    path = tmp_path / "out" / "events.jsonl"
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(
        UsageError, match=r"events.jsonl, line 1 is not a message of an event: there is no 'id'"
    ):
        run("out", resume=True)


@pytest.mark.parametrize(("frames", "lacking"), [(6, 0), (6, 1), (27, 2), (60, 0)])
def test_a_recovered_run_has_all_messages_of_its_frames(run, whole, tmp_path, frames, lacking, capsys):
    cut(whole, tmp_path / "out", frames=frames, lacking=lacking, truncated=b'{"id":"0')
    assert recover.main([str(tmp_path / "out")]) == 0, capsys.readouterr().err
    found = messages(tmp_path / "out")
    expected = messages(whole)
    assert found == expected[: len(found)]
    assert all(row["phase"] == "end" or row["frame"] >= frames for row in expected[len(found) :])
    starts = sum(row["phase"] == "start" for row in found)
    assert sum(report(tmp_path / "out")["events"].values()) == starts


def test_a_run_killed_at_any_moment_loses_and_doubles_no_message(run, whole, tmp_path, rules):
    expected = brief(messages(whole))
    settings = [word for setting in QUIET for word in ("--set", setting)]
    arguments = [tmp_path / "sky.raw", "--detector", NAME, "--config", rules, "--no-save-video", *OPTIONS]
    arguments += [*settings, "--progress", "off"]
    kill_runs(arguments, tmp_path / "killed", [17.7, 33.4])
    for number in range(2):
        shutil.copytree(tmp_path / "killed" / str(number), tmp_path / f"recovered{number}")
        assert recover.main([str(tmp_path / f"recovered{number}")]) == 0
        run(f"killed/{number}", resume=True)
        found = messages(tmp_path / "killed" / str(number))
        assert brief(found) == expected
        part = messages(tmp_path / f"recovered{number}")
        assert part == found[: len(part)]


# Folders, several sources, wrong rules


def test_an_earlier_run_is_replaced_with_its_events(run, tmp_path, rules):
    run("out", set=QUIET[1:])
    evidence = tmp_path / "out" / "events"
    assert len(list(evidence.iterdir())) == 4
    (evidence / "mine").mkdir()
    with pytest.raises(OutputError, match="holds an earlier run"):
        run("out")
    rules.write_text("")
    run("out", overwrite=True)
    assert not (tmp_path / "out" / "events.jsonl").exists()
    assert [path.name for path in evidence.iterdir()] == ["mine"]


def test_a_source_within_the_evidence_is_not_deleted(run, tmp_path):
    run("out", set=QUIET[1:])
    clip = next((tmp_path / "out" / "events").glob("*/clip.mp4"))
    with pytest.raises(OutputError, match="is to be read and would be overwritten"):
        package.run(clip, detector=NAME, output=tmp_path / "out", overwrite=True)
    assert clip.exists()


def test_rotated_files_hold_each_message_once(run, whole, tmp_path):
    run("out", rotate_size="8kB")
    names = sorted(path.name for path in (tmp_path / "out").glob("events-*.jsonl"))
    assert len(names) > 2
    told = [row for name in names for row in messages(tmp_path / "out", name)]
    assert brief(told) == brief(messages(whole))


def test_each_of_several_sources_has_its_own_rules(mote, tmp_path, rules):
    rules.write_text(RULES + '\n[[events.rules]]\nname = "only-roof"\nsources = ["roof"]\n')
    gate, roof = recording(tmp_path, "gate.raw"), recording(tmp_path, "roof.raw")
    arguments = [
        "--detector",
        NAME,
        "--config",
        rules,
        "--no-save-video",
        *OPTIONS,
        "--output",
        tmp_path / "out",
    ]
    settings = [word for setting in QUIET for word in ("--set", setting)] + ["--progress", "off"]
    reply = mote("--video", gate, "--video", roof, *arguments, *settings)
    assert (reply.code, reply.err) == (0, "")
    assert {row["rule"] for row in messages(tmp_path / "out" / "gate")} == {"any", "right-side"}
    told = messages(tmp_path / "out" / "roof")
    assert {(row["rule"], row["source"]) for row in told} == {
        (rule, "roof") for rule in ("any", "right-side", "only-roof")
    }
    assert "events" in reply.out.splitlines()[0]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('zones = ["lefft"]', "unknown zone of rule 'r' 'lefft'"),
        (
            'zones = ["wide"]',
            r"events.zones.wide has the point \[200, 0\], expected points in the 96x64 pixels",
        ),
        ('sources = ["gate"]', "unknown source of rule 'r' 'gate'"),
    ],
)
def test_a_wrong_rule_costs_no_network(run, rules, monkeypatch, rule, words):
    def load(*_, **__):
        raise AssertionError("a network is loaded")

    monkeypatch.setattr(parts, "load_networks", load)
    monkeypatch.setattr("pipeline.runner.single.load_networks", load)
    places = "[events.zones]\nleft = [[0, 0], [9, 0], [9, 9]]\nwide = [[0, 0], [200, 0], [9, 9]]\n"
    rules.write_text(f'{places}[[events.rules]]\nname = "r"\n{rule}\n')
    with pytest.raises(UsageError, match=words):
        run("out")


def test_a_class_that_supplied_weights_do_not_have_costs_no_network(mote, tmp_path, rules):
    rules.write_text('[[events.rules]]\nname = "r"\nclasses = ["dron"]\n')
    weights = ["--weights", "tridos-nano-drone-ir-4c"]
    reply = mote(tmp_path / "no_such.mp4", *weights, "--config", rules)
    assert reply.code == 2
    assert "unknown class of rule 'r' 'dron'; did you mean 'drone'?" in reply.err


def test_a_class_that_a_detector_does_not_have_is_refused_before_the_first_frame(run, tmp_path, rules):
    rules.write_text('[[events.rules]]\nname = "r"\nclasses = ["spots"]\n')
    with pytest.raises(UsageError, match="unknown class of rule 'r' 'spots'; did you mean 'spot'"):
        run("out")
    assert not (tmp_path / "out").exists()
