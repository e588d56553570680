"""`mote recover` closes the evidence of events that a killed run has left open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import pytest

from pipeline import recover
from tests.pipeline.runner.test_evidence import NAMES, appearances, folders, run
from tests.support.evidence import RATE, account, coding, packets, play
from tests.support.interrupted_runs import interrupted_copy, kill_runs
from tests.support.media import write_video

KILLED_AT = 55
"""Number of frames after which the process is killed: its only event goes on."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A video of H.264 in which a target appears once."""
    path = tmp_path_factory.mktemp("clip") / "source.mp4"
    return write_video(path, appearances(1), rate=RATE, options=coding(10))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, clip) -> Path:
    """The outputs of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    run(clip, folder)
    for name in ("detections.json", "annotated.mp4"):
        (folder / name).touch()
    return folder


@pytest.fixture
def killed(whole, tmp_path):
    """The outputs of a killed run, without anything of the clip, and the folder of its event."""
    folder = interrupted_copy(whole, tmp_path / "killed", after=KILLED_AT)
    rows = (whole / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(r for r in rows if json.loads(r)["frame"] < KILLED_AT))
    (event,) = folders(folder)
    for name in ("clip.mp4", "event.json", "path.png"):
        (event / name).unlink()
    return folder, event


def messages(folder: Path) -> list[dict]:
    """The messages in a folder."""
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def without_source(folder: Path) -> None:
    """Changes the record of a run so that its source is gone."""
    record = json.loads((folder / "run.json").read_text())
    record["source"]["name"] = str(folder / "gone.mp4")
    (folder / "run.json").write_text(json.dumps(record))


def test_a_clip_is_cut_of_a_file_that_is_still_there(clip, killed):
    folder, event = killed
    assert recover.main([str(folder)]) == 0
    assert sorted(path.name for path in event.iterdir()) == ["clip.mp4", "event.json", "snapshot.jpg"]
    said, copied = account(event), packets(event / "clip.mp4")
    begin = round(said["clip"]["begin"] * RATE)
    assert said["clip"]["copied"] is True
    assert copied == packets(clip)[begin : begin + len(copied)]
    assert said["files"] == ["clip.mp4", "snapshot.jpg", "event.json"]
    assert list(said["missing"]) == ["path.png"]
    with av.open(str(event / "clip.mp4")) as container:
        assert container.metadata["title"] == f"event {event.name}"


def test_a_clip_ends_with_its_last_complete_fragment(killed):
    folder, event = killed
    without_source(folder)
    pieces = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
    torn = write_video(
        event / "fragments.mp4", appearances(1)[:60], rate=RATE, options=coding(10), container_options=pieces
    )
    torn.write_bytes(torn.read_bytes()[:-3000])  # without index and the end of the last fragment
    assert recover.main([str(folder)]) == 0
    assert sorted(path.name for path in event.iterdir()) == ["clip.mp4", "event.json", "snapshot.jpg"]
    shown = play(event / "clip.mp4")
    assert 20 <= len(shown.times) < 60
    assert account(event)["clip"] == {
        "begin": None,
        "end": None,
        "frames": len(shown.times),
        "copied": None,
        "lost": None,
    }
    assert "clip.mp4" not in account(event)["missing"]


@pytest.mark.parametrize(
    ("fragments", "words"),
    [
        (None, "the process ended before its first frame was written"),
        (b"", "the process ended before its first group of pictures was complete"),
        (b"torn", "the process ended before its first group of pictures was complete"),
    ],
)
def test_the_last_message_says_in_words_what_is_missing(killed, fragments, words):
    folder, event = killed
    without_source(folder)
    if fragments is not None:
        (event / "fragments.mp4").write_bytes(fragments)
    before = messages(folder)
    assert recover.main([str(folder)]) == 0
    after = messages(folder)
    assert after[-1]["missing"] == account(event)["missing"]
    assert after[-1]["missing"]["clip.mp4"] == words
    assert [{k: v for k, v in row.items() if k != "missing"} for row in after] == before
    assert all("missing" not in row for row in after[:-1])
    assert sorted(path.name for path in event.iterdir()) == ["event.json", "snapshot.jpg"]


def test_a_second_recovery_changes_nothing(killed, capsys):
    folder, _ = killed
    assert recover.main([str(folder)]) == 0
    assert "the evidence of 1 event was closed" in capsys.readouterr().out
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert recover.main([str(folder)]) == 0
    assert "nothing to recover" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_an_event_whose_folder_was_not_made_has_one_that_says_so(killed):
    folder, event = killed
    without_source(folder)
    shutil.rmtree(event)
    assert recover.main([str(folder)]) == 0
    assert [path.name for path in event.iterdir()] == ["event.json"]
    assert list(account(event)["missing"]) == ["clip.mp4", "snapshot.jpg", "path.png"]


def test_complete_evidence_is_left_as_it_is(whole, tmp_path):
    folder = interrupted_copy(whole, tmp_path / "killed", after=KILLED_AT)
    (event,) = folders(folder)
    before = {path: path.read_bytes() for path in (*event.iterdir(), folder / "events.jsonl")}
    assert recover.main([str(folder)]) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_a_recovered_run_that_is_resumed_has_the_evidence_of_an_uninterrupted_one(clip, whole, killed):
    folder, event = killed
    assert recover.main([str(folder)]) == 0
    run(clip, folder, output={"resume": True})
    assert (folder / "events.jsonl").read_bytes() == (whole / "events.jsonl").read_bytes()
    (before,) = folders(whole)
    for name in NAMES:
        assert (event / name).read_bytes() == (before / name).read_bytes()


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_evidence_of_a_killed_process_is_closed(tmp_path, codec):
    options = coding(10) if codec == "libx264" else {"g": "10"}
    source = write_video(tmp_path / "source.mp4", appearances(1), rate=RATE, codec=codec, options=options)
    rules = tmp_path / "rules.toml"
    rules.write_text('[events]\npre_roll = 0.5\n[[events.rules]]\nname = "gate"\nmin_duration = 0.2\n')
    arguments = [source, "--detector", "tests.support.spots:Spots", "--config", rules, "--no-save-video"]
    kill_runs([*arguments, "--progress", "off"], tmp_path / "killed", [KILLED_AT + 0.5])
    folder = tmp_path / "killed" / "0"
    assert not any((event / "event.json").exists() for event in folders(folder))
    assert recover.main([str(folder)]) == 0
    (event,) = folders(folder)
    said, left = account(event), sorted(path.name for path in event.iterdir())
    assert sorted(said["files"]) == left
    assert set(NAMES) == {*left, *said["missing"]}
    assert messages(folder)[-1]["missing"] == said["missing"]
    if codec == "libx264":
        assert play(event / "clip.mp4").times[0] == 0.0
