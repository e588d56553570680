"""An interrupted run is resumed where it stopped and ends with the files of an uninterrupted one."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from itertools import islice

import pytest

from datasets.synthesis import rendering
from detectors.inference import streaming
from pipeline.config.schema import OutputConfig
from pipeline.runner import single, steps
from pipeline.runner.resume import ResumeState, find_resumable
from pipeline.system.errors import SourceError, UsageError
from pipeline.system.files import lock_folder
from tests.support.bright_segmenter import add_segmenters, save_bright
from tests.support.interrupted_runs import assert_same, interrupted_copy
from tests.support.nano import save_nano
from tests.support.outputs import check_consistent, detections, lines, report, scene, video


@pytest.fixture
def resume(mote, clip, nano_weights):
    """Resumes the run in a folder; returns exit code and output."""

    def call(folder, *more, source=clip, weights=nano_weights):
        arguments = ("--weights", weights, "--conf", 0.2, "--output", folder, "--progress", "off", "--resume")
        return mote(source, *arguments, *more)

    return call


# Results


@pytest.mark.parametrize("after", [0, 1, 4, 5, 9, 15, 16])
def test_a_resumed_run_ends_with_the_same_files(whole, clip, resume, tmp_path, after):
    folder = interrupted_copy(whole, tmp_path / "out", after=after, truncated=b'{"frame": 7, "pts"')
    reply = resume(folder, "--annotations", clip.with_suffix(".json"))
    assert (reply.code, reply.err) == (0, "")
    assert_same(folder, whole)
    assert check_consistent(folder) == 16
    assert report(folder)["resumed_after"] == after
    assert (f"after {after} frames" in reply.out) == (after > 0)


@pytest.mark.parametrize("after", [3, 10])
def test_a_run_with_batches_is_resumed(process, clip, resume, tmp_path, after):
    whole = process(clip, folder="whole", batch=4)
    folder = interrupted_copy(whole, tmp_path / "out", after=after)
    assert resume(folder, "--batch", 4).code == 0
    assert_same(folder, whole)


def test_frames_keep_their_numbers_if_the_run_began_in_the_middle(process, clip, resume, tmp_path):
    whole = process(clip, folder="whole", sections={"source": {"start": 3, "max_frames": 11}})
    folder = interrupted_copy(whole, tmp_path / "out", after=8)
    assert resume(folder, "--start", 3, "--max-frames", 11).code == 0
    assert [line["frame"] for line in lines(folder)] == list(range(3, 14))
    assert_same(folder, whole)


def test_only_the_last_frames_go_through_the_network_again(whole, resume, tmp_path, monkeypatch):
    seen = []
    extract = streaming.StreamingDetector.extract

    def noting(self, frames):
        seen.extend(frame.index for frame in frames)
        return extract(self, frames)

    monkeypatch.setattr(streaming.StreamingDetector, "extract", noting)
    resume(interrupted_copy(whole, tmp_path / "out", after=12))
    assert seen == [
        7,
        8,
        9,
        10,
        11,
        12,
        13,
        14,
        15,
    ]  # five to fill the window and to verify, and four new ones


def test_a_run_that_lost_its_source_is_resumed(process, whole, clip, resume, tmp_path, monkeypatch):
    count_frames = steps.count_frames

    def lost(source, record, stop):
        for number, frame in enumerate(count_frames(source, record, stop)):
            if number == 7:
                raise SourceError("the disk was taken away")
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr(single, "count_frames", lost)
        with pytest.raises(SourceError):
            process(clip)
    folder = tmp_path / "out"
    assert (report(folder)["state"], len(lines(folder))) == ("partial", 7)
    assert resume(folder, "--annotations", clip.with_suffix(".json")).code == 0
    assert_same(folder, whole)


def test_a_run_is_resumed_repeatedly(whole, clip, resume, tmp_path):
    once = interrupted_copy(whole, tmp_path / "once", after=5)
    assert resume(once, "--annotations", clip.with_suffix(".json")).code == 0
    twice = interrupted_copy(once, tmp_path / "twice", after=11)
    assert resume(twice, "--annotations", clip.with_suffix(".json")).code == 0
    assert_same(twice, whole)


def test_resuming_an_empty_folder_starts_a_run(whole, clip, resume, tmp_path):
    assert resume(tmp_path / "out", "--annotations", clip.with_suffix(".json")).code == 0
    assert_same(tmp_path / "out", whole)
    assert report(tmp_path / "out")["resumed_after"] == 0


def test_drawing_options_and_switched_off_outputs_may_change(whole, resume, tmp_path):
    folder = interrupted_copy(whole, tmp_path / "out", after=6)
    assert resume(folder, "--set", "annotate.trail=0", "--no-save-mot").code == 0
    assert detections(folder) == detections(whole)
    assert [pts for pts, _ in video(folder / "annotated.mp4")] == [
        pts for pts, _ in video(whole / "annotated.mp4")
    ]


# Segmenters


@pytest.mark.parametrize("detector", [{}, {"name": "bright"}], ids=["beside a detector", "alone"])
def test_masks_of_segmenters_are_restored_from_the_lines(process, clip, tmp_path, monkeypatch, detector):
    add_segmenters(monkeypatch, "bright", "marks")
    weights = str(save_bright(tmp_path / "bright.safetensors"))
    detector = {**detector, "weights": weights} if detector else {}
    row = {"name": "marks", "weights": weights, "components": {"threshold": 0.3}}
    sections = {"segmentation": {"segmenters": [row], "fuse": "union"}}
    whole = process(clip, folder="whole", sections=sections, **detector)
    assert any(line["masks"] for line in lines(whole))
    assert any("rle" in found for line in lines(whole) for found in line["detections"]) == bool(detector)
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    assert process(clip, sections=sections, output={"resume": True}, **detector) == folder
    assert report(folder)["resumed_after"] == 9
    assert_same(folder, whole)


# Refusals


@pytest.fixture
def refused(resume, whole, tmp_path):
    """Asserts that resuming is refused in one line and leaves the files unchanged; returns the line."""

    def check(*more, code=2, change=None, **named):
        folder = interrupted_copy(whole, tmp_path / "out", after=9)
        if change:
            change(folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        reply = resume(folder, *more, **named)
        assert (reply.code, reply.out) == (code, "")
        assert reply.err.startswith("error: ")
        assert reply.err.count("\n") == 1
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        return reply.err

    return check


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--iou", 0.4), "config.detector.iou is 0.4, and was 0.5"),
        (("--max-frames", 12), "config.source.max_frames is 12, and was 0"),
        (("--tracker", "none"), "config.tracker"),
        (("--batch", 3), "config.detector.batch is 3, and was 1"),
        (("--no-save-jsonl",), "a run is resumed from results.jsonl"),
        (("--overwrite",), "--overwrite and --resume exclude each other"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_other_settings_are_refused(refused, options, reason):
    assert reason in refused(*options)


def test_another_source_is_refused(refused, tmp_path):
    other = tmp_path / "clip.mp4"
    rendering.write_scene(scene(seed=5), other)
    assert "source.fingerprint is" in refused(source=other)


def test_other_weights_are_refused(refused, tmp_path):
    assert "networks.detector." in refused(weights=save_nano(tmp_path / "other.safetensors", num_classes=2))


def test_a_complete_run_is_not_resumed(refused):
    def complete(folder):
        (folder / "run.json").write_text(json.dumps({**report(folder), "state": "complete"}))

    assert "there is nothing to resume" in refused(change=complete)


def test_a_damaged_record_is_refused(refused):
    assert "is not the record of a run" in refused(
        change=lambda folder: (folder / "run.json").write_text("{")
    )


def test_a_damaged_line_in_the_middle_is_refused_with_its_number(refused):
    def damage(folder):
        rows = (folder / "results.jsonl").read_text().splitlines(keepends=True)
        (folder / "results.jsonl").write_text("".join([*rows[:3], rows[3][:40] + "\n", *rows[4:]]))

    assert "results.jsonl, line 4 is not a result" in refused(change=damage)


def test_several_sources_are_refused(mote, clip, tmp_path):
    reply = mote("--video", clip, "--video", clip, "--output", tmp_path / "out", "--resume")
    assert (reply.code, reply.out) == (2, "")
    assert "one run is resumed at a time" in reply.err


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("pts", 9.0, "frame 8 of the source is not what it was"),
        ("detections", [], "the network finds other targets in frame 8 than before"),
        ("tracks", [], "its tracker gives other tracks in frame 8 than before"),
    ],
)
def test_changed_lines_are_detected(whole, resume, tmp_path, place, value, reason):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    rows = lines(folder)
    rows[8][place] = value
    before = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(before)
    reply = resume(folder)
    assert reply.code == 2
    assert reason in reply.err
    assert (folder / "results.jsonl").read_text() == before  # the lines, from which all is rebuilt, stay


def test_the_state_of_a_new_run_is_empty_and_accepts_any_configuration():
    state = ResumeState()
    state.require_same({})
    assert state.written.line_count == 0
    assert list(state.verify_tracks([])) == []


def test_a_running_run_is_not_resumed(whole, tmp_path):
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    output = OutputConfig(resume=True)
    with lock_folder(folder), ExitStack() as locks, pytest.raises(UsageError, match="still going"):
        find_resumable(folder, output, locks)
    with ExitStack() as locks:
        assert find_resumable(folder, output, locks).written.line_count == 9


def test_a_signal_while_recorded_frames_are_replayed_loses_nothing(
    whole, clip, resume, tmp_path, monkeypatch
):
    folder = interrupted_copy(whole, tmp_path / "out", after=14)
    count_frames = steps.count_frames

    def interrupted(source, record, stop):
        for number, frame in enumerate(count_frames(source, record, stop)):
            if number == 4:
                stop.signal = signal.SIGTERM
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr(single, "count_frames", interrupted)
        reply = resume(folder)
    assert reply.code == 128 + signal.SIGTERM
    assert len(lines(folder)) == 14
    assert resume(folder, "--annotations", clip.with_suffix(".json")).code == 0
    assert_same(folder, whole)


def test_a_source_that_has_become_shorter_is_detected(whole, resume, tmp_path, monkeypatch):
    folder = interrupted_copy(whole, tmp_path / "out", after=14)
    monkeypatch.setattr(single, "count_frames", lambda source, record, stop: islice(source, 12))
    reply = resume(folder)
    assert reply.code == 2
    assert "the source has 12 frames, and had 14 or more" in reply.err
    assert len(lines(folder)) == 14
