"""Several sources in one run: each gives the results of a separate run and fails independently."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from itertools import pairwise

import pytest
from PIL import Image

import trackers
from datasets.synthesis import rendering
from detectors.inference.multi_stream import MultiStreamDetector
from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner import multi
from pipeline.runner.multi import run_many
from pipeline.runner.setup import distinct_names
from pipeline.runner.single import run
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sources import live
from pipeline.stages.camera_motion import CameraMotion
from pipeline.system.errors import OutputError, WeightsError
from run_pipeline import parts
from tests.support.bright_segmenter import add_segmenters, picture, save_bright, save_pictures
from tests.support.moving_camera import Look, pictures, similarity
from tests.support.outputs import check_consistent, lines, report, scene

SECONDS = 20.0
LONG = 30
"""More frames than the queues of one source hold."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Three clips of different sizes, bit depths and lengths; two have the same name."""
    folder = tmp_path_factory.mktemp("sources")
    places = [folder / "a" / "in.mp4", folder / "b" / "in.mkv", folder / "b" / "wide.mp4"]
    scenes = [scene(frames=9), scene(frames=6, bits=16, seed=3), scene(width=96, frames=7, seed=4)]
    for place, shown in zip(places, scenes, strict=True):
        place.parent.mkdir(exist_ok=True)
        rendering.write_scene(shown, place)
    return [str(place) for place in places]


@pytest.fixture
def bright(monkeypatch, tmp_path):
    """Configuration of a fast detector that finds the white spot of each picture."""
    add_segmenters(monkeypatch, "bright", "white")
    return {"name": "bright", "weights": str(save_bright(tmp_path / "bright.safetensors"))}


@pytest.fixture
def spots(tmp_path):
    """Saves pictures with a white spot each; returns their folder."""

    def call(name, count=LONG):
        shown = [picture((10 + index % 40, 12, 14 + index % 40, 15, 0.9)) for index in range(count)]
        return str(save_pictures(tmp_path / "spots" / name, shown))

    return call


@pytest.fixture
def together(tmp_path, bright):
    """Runs several sources, by default with `bright`; returns the summary and the folder of the outputs."""

    def call(*locations, annotations=None, **sections):
        table = {"detector": bright, **sections, "output": {"folder": str(tmp_path / "many")}}
        summary = run_many(
            locations, build(RunConfig, table), parts(), annotations=annotations, progress="off"
        )
        return summary, tmp_path / "many"

    return call


def untimed(folder):
    """Returns the outputs of a run without timings."""
    records = lines(folder)
    for record in records:
        assert record.pop("timings_ms")
    files = ("detections.json", "tracks.txt", "annotated.mp4")
    return records, [(folder / name).read_bytes() for name in files]


def compare(together, tmp_path, locations, sections):
    """Asserts that each source gives the results of a separate run; returns the number of detections."""
    summary, out = together(*locations, **sections)
    assert summary.failures == []
    found = 0
    for name, location in zip(distinct_names(locations), locations, strict=True):
        alone = tmp_path / "alone" / name
        run(
            location,
            build(RunConfig, {**sections, "output": {"folder": str(alone)}}),
            parts(),
            progress="off",
        )
        assert untimed(out / name) == untimed(alone)
        assert check_consistent(out / name) == len(lines(alone))
        found += sum(len(record["detections"]) for record in lines(alone))
    return found


# Results


@pytest.mark.parametrize("batch", [0, 4])
def test_each_source_gives_exactly_the_results_of_a_separate_run(
    together, tmp_path, sources, nano_weights, batch
):
    detector = {"name": "tridos-nano", "weights": nano_weights, "conf": 0.2, "batch": batch, "device": "cpu"}
    assert compare(together, tmp_path, sources, {"detector": detector}) > 20


def test_the_camera_of_each_source_is_followed_in_a_thread_of_its_own(
    together, tmp_path, bright, monkeypatch
):
    look, threads, follow = Look(width=160, height=128), set(), CameraMotion.__call__
    shaken = {
        "pan": [similarity(3 * t) for t in range(8)],
        "turn": [similarity(degrees=0.5 * t) for t in range(12)],
        "stands": [similarity()] * 10,
    }
    places = [
        str(save_pictures(tmp_path / "cameras" / name, list(pictures(poses, look, seed=number))))
        for number, (name, poses) in enumerate(shaken.items())
    ]

    def noted(self, frame):
        threads.add(threading.current_thread().name)
        return follow(self, frame)

    monkeypatch.setattr(CameraMotion, "__call__", noted)
    compare(together, tmp_path, places, {"detector": {**bright, "batch": 4}})
    assert threads - {"detect"} == {f"prepare {name}" for name in shaken}
    moved = {name: sum("motion" in line for line in lines(tmp_path / "many" / name)) for name in shaken}
    assert moved == {"pan": 7, "turn": 11, "stands": 0}


@pytest.mark.parametrize("on_full", ["drop-oldest", "drop-newest"])
def test_a_source_drops_its_own_frames_before_they_are_marked(together, spots, monkeypatch, on_full):
    decoded, detect, count_frames = threading.Barrier(3), MultiStreamDetector.detect, multi.count_frames

    def waiting(self, rounds):
        for number, found in enumerate(detect(self, rounds)):
            if number == 0:
                decoded.wait(SECONDS)
            yield found

    def noted(*arguments):
        yield from count_frames(*arguments)
        decoded.wait(SECONDS)

    monkeypatch.setattr(MultiStreamDetector, "detect", waiting)
    monkeypatch.setattr(multi, "count_frames", noted)
    summary, out = together(spots("a"), spots("b"), live={"on_full": on_full, "queue": 2})
    assert summary.failures == []
    for name in "ab":
        frames, rows = report(out / name)["frames"], lines(out / name)
        dropped = frames["dropped"]["queue full"]
        assert frames["decoded"] == LONG == frames["written"] + dropped
        assert dropped > LONG // 2
        between = [after["frame"] - before["frame"] - 1 for before, after in pairwise(rows)]
        assert [row.get("gap", {"missing": 0})["missing"] for row in rows[1:]] == between


def test_segmenters_beside_the_detector_give_the_results_of_a_separate_run(together, tmp_path, spots, bright):
    rows = [{"name": "white", "weights": bright["weights"]}]
    sections = {"detector": bright, "segmentation": {"segmenters": rows, "fuse": "confirm"}}
    assert compare(together, tmp_path, [spots("a", 12), spots("b", 5)], sections) == 17
    assert {mask["segmenter"] for mask in lines(tmp_path / "many" / "b")[0]["masks"]} == {"bright", "white"}


def test_trackers_of_mmdet_track_each_source_separately(together, tmp_path, spots, bright):
    sections = {"detector": bright, "tracker": {"name": "mmdet:ByteTracker"}}
    compare(together, tmp_path, [spots("a", 8), spots("b", 8)], sections)
    ids = [
        {track["id"] for record in lines(tmp_path / "many" / n) for track in record["tracks"]} for n in "ab"
    ]
    assert ids == [{1}, {1}]


def test_the_command_takes_several_videos(mote, tmp_path, bright, spots):
    first, second = spots("a", 3), spots("b", 4)
    arguments = ("--detector", "bright", "--weights", bright["weights"], "--progress", "off")
    reply = mote("--video", first, "--video", second, *arguments, "--output", tmp_path / "out")
    assert (reply.code, reply.err) == (0, "")
    assert [check_consistent(tmp_path / "out" / name) for name in "ab"] == [3, 4]
    rows = [line.split() for line in reply.out.splitlines()]
    assert rows[1][:3] + rows[1][-1:] == ["a", "3", "3", "complete"]
    assert rows[2][:3] + rows[2][-1:] == ["b", "4", "4", "complete"]
    assert "together  7 frames" in reply.out
    assert report(tmp_path / "out" / "b")["config"]["output"]["folder"] == str(tmp_path / "out" / "b")


def test_progress_counts_all_frames_and_streams(mote, tmp_path, bright, spots):
    arguments = ("--detector", "bright", "--weights", bright["weights"], "--output", tmp_path / "out")
    reply = mote("--video", spots("a", 3), "--video", spots("b", 4), *arguments)
    assert "7/7 frames" in reply.err.splitlines()[-1]
    assert reply.err.endswith(" of 2 streams\n")


def test_one_file_of_annotations_scores_every_source_that_is_in_it(together, tmp_path, clip, nano_weights):
    copies = [tmp_path / name for name in ("x/clip.mp4", "y/clip.mp4", "z.mp4")]
    for place in copies:
        place.parent.mkdir(exist_ok=True)
        shutil.copy(clip, place)
    table = json.loads(clip.with_suffix(".json").read_text())
    (video,) = table["videos"]
    table["videos"] = [
        {**video, "id": n, "file_name": f"{name}/clip.mp4"} for n, name in ((1, "x"), (2, "y"))
    ]
    table["images"] += [{**image, "id": image["id"] + 100, "video_id": 2} for image in table["images"]]
    truth = tmp_path / "gt.json"
    truth.write_text(json.dumps(table))
    detector = {"name": "tridos-nano", "weights": nano_weights, "conf": 0.2}
    options = {"annotations": str(truth), "detector": detector, "source": {"max_frames": 6}}
    summary, out = together(*map(str, copies), **options)
    ap50 = json.loads((out / "clip" / "metrics.json").read_text())["ap50"]
    rows = [line.split("  ") for line in summary.table().splitlines()]
    cells = {row[0]: {cell.strip() for cell in row} for row in rows}
    assert f"{ap50:.3f}" in cells["clip"]
    assert "no targets" in cells["clip_2"]
    assert "not annotated" in cells["z"]
    assert not (out / "z" / "metrics.json").exists()


# Sources and outputs that fail independently


def test_a_lost_source_does_not_end_the_others(mote, tmp_path, bright, spots):
    pictures = spots("lost", 20)
    Image.new("L", (32, 32)).save(f"{pictures}/012.png")
    arguments = ("--detector", "bright", "--weights", bright["weights"], "--progress", "off")
    reply = mote("--video", pictures, "--video", spots("b", 30), *arguments, "--output", tmp_path / "out")
    assert reply.code == 3
    assert reply.err.startswith(f"error: {pictures}: frame size changes from 64x64")
    assert reply.err.count("\n") == 1
    assert check_consistent(tmp_path / "out" / "lost") == 12
    assert reply.err == f"error: {report(tmp_path / 'out' / 'lost')['reason']}\n"
    assert check_consistent(tmp_path / "out" / "b") == 30
    assert [report(tmp_path / "out" / name)["state"] for name in ("lost", "b")] == ["partial", "complete"]


def test_a_source_that_cannot_be_opened_does_not_end_the_others(together, tmp_path, spots):
    summary, out = together(str(tmp_path / "nowhere.mp4"), spots("b", 5))
    assert (summary.exit_code, summary.complaints()) == (
        3,
        [f"{tmp_path / 'nowhere.mp4'}: no such file or folder"],
    )
    assert [path.name for path in out.iterdir()] == ["b"]
    assert report(out / "b")["state"] == "complete"
    assert "not opened" in summary.table()


def test_without_any_opened_source_no_folder_is_created(together, tmp_path):
    summary, out = together(str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"))
    assert summary.exit_code == 3
    assert len(summary.complaints()) == 2
    assert not out.exists()


def test_unwritable_outputs_end_one_source_and_the_highest_exit_code_is_returned(
    together, tmp_path, spots, monkeypatch
):
    write = JsonlSink.write

    def full(self, result):
        if self.path.parent.name == "full" and result.frame.index == 4:
            raise OutputError("the disk is full")
        write(self, result)

    monkeypatch.setattr(JsonlSink, "write", full)
    summary, out = together(str(tmp_path / "nowhere.mp4"), spots("full"), spots("b"))
    assert summary.exit_code == 5
    assert summary.complaints()[1:] == ["the disk is full"]
    assert check_consistent(out / "full") == 4
    assert report(out / "full")["reason"] == "the disk is full"
    assert check_consistent(out / "b") == LONG


def test_a_bug_in_one_source_is_raised_and_keeps_all_files(together, tmp_path, spots, monkeypatch):
    class Faulty(trackers.NoTracker):
        def update(self, found, frame):
            if frame.source.endswith("a") and frame.index == 5:
                raise RuntimeError("a bug")
            return super().update(found, frame)

    monkeypatch.setitem(trackers.TRACKERS, "faulty", Faulty)
    with pytest.raises(RuntimeError, match="a bug"):
        together(spots("a"), spots("b"), tracker={"name": "faulty"})
    assert check_consistent(tmp_path / "many" / "a") == 5
    assert report(tmp_path / "many" / "a")["reason"] == "RuntimeError: a bug"
    assert check_consistent(tmp_path / "many" / "b") == LONG


def test_weights_with_nan_end_all_sources_with_valid_files(together, tmp_path, bright, spots):
    nothing = save_bright(tmp_path / "nan.safetensors", weight=float("nan"))
    summary, out = together(spots("a", 5), spots("b", 5), detector={**bright, "weights": str(nothing)})
    assert summary.exit_code == 4
    assert len(summary.complaints()) == 1
    assert [check_consistent(out / name) for name in "ab"] == [0, 0]


def test_a_finished_source_is_complete_whatever_fails_later(together, spots, monkeypatch):
    over, write, detect = threading.Event(), JsonlSink.write, MultiStreamDetector.detect

    def failing(self, turns):
        for items, ended in turns:
            if any(frame.index == 20 for _, frame in items):
                over.set()
                raise WeightsError("no numbers")
            yield from detect(self, [(items, ended)])

    def slow(self, result):
        if self.path.parent.name == "a":
            assert over.wait(SECONDS)
            time.sleep(0.05)  # until the failure is known
        write(self, result)

    monkeypatch.setattr(MultiStreamDetector, "detect", failing)
    monkeypatch.setattr(JsonlSink, "write", slow)
    summary, out = together(spots("a", 5), spots("b"))
    assert (summary.exit_code, summary.complaints()) == (4, ["no numbers"])
    assert [report(out / name)["state"] for name in "ab"] == ["complete", "partial"]
    assert [check_consistent(out / name) for name in "ab"] == [5, 20]


def test_an_earlier_run_of_one_source_is_not_changed(mote, tmp_path, bright, spots):
    earlier = tmp_path / "out" / "b"
    earlier.mkdir(parents=True)
    (earlier / "tracks.txt").write_text("precious")
    arguments = ("--detector", "bright", "--weights", bright["weights"], "--output", tmp_path / "out")
    reply = mote("--video", spots("a", 3), "--video", spots("b", 3), *arguments)
    assert reply.code == 5
    assert "--overwrite" in reply.err
    assert (earlier / "tracks.txt").read_text() == "precious"


def test_no_source_is_overwritten_by_another(mote, tmp_path, bright, clip, spots):
    source = tmp_path / "out" / "a" / "annotated.mp4"
    source.parent.mkdir(parents=True)
    shutil.copy(clip, source)
    arguments = ("--detector", "bright", "--weights", bright["weights"], "--output", tmp_path / "out")
    reply = mote("--video", spots("a", 3), "--video", source, *arguments, "--overwrite")
    assert reply.code == 5
    assert "would be overwritten" in reply.err
    assert source.read_bytes() == clip.read_bytes()


# Sources do not block each other


def held(monkeypatch, name):
    """Makes sources of the name wait for the returned event, to be set when the others have ended."""
    over, count_frames = threading.Event(), multi.count_frames

    def slow(source, record, stop):
        if record.folder.name == name:
            assert over.wait(SECONDS)
        yield from count_frames(source, record, stop)

    monkeypatch.setattr(multi, "count_frames", slow)
    return over


def test_a_silent_source_does_not_block_the_others(together, spots, monkeypatch):
    over, finish = held(monkeypatch, "a"), multi.write_end

    def finished(record, truth):
        finish(record, truth)
        if record.folder.name == "b":
            over.set()

    monkeypatch.setattr(multi, "write_end", finished)
    summary, out = together(spots("a"), spots("b"))
    assert summary.exit_code == 0
    assert [check_consistent(out / name) for name in "ab"] == [LONG, LONG]


def test_slow_outputs_do_not_block_the_others(together, spots, monkeypatch):
    over, write = threading.Event(), JsonlSink.write

    def slow(self, result):
        if self.path.parent.name == "a":
            assert over.wait(SECONDS)
        elif result.frame.index == LONG - 1:
            over.set()
        write(self, result)

    monkeypatch.setattr(JsonlSink, "write", slow)
    summary, out = together(spots("a"), spots("b"))
    assert summary.exit_code == 0
    assert [check_consistent(out / name) for name in "ab"] == [LONG, LONG]


def test_the_number_of_queued_frames_of_a_source_is_bounded(together, spots, monkeypatch):
    over, write, most = threading.Event(), JsonlSink.write, []

    def slow(self, result):
        if self.path.parent.name == "a":
            assert over.wait(SECONDS)
        elif result.frame.index == LONG - 1:
            time.sleep(0.1)  # until the other source has filled its queues
            most.append(decoded["a"].decoded)
            over.set()
        write(self, result)

    decoded, begin = {}, multi.write_start
    monkeypatch.setattr(JsonlSink, "write", slow)
    monkeypatch.setattr(multi, "write_start", lambda r: (decoded.update({r.folder.name: r}), begin(r)))
    together(spots("a"), spots("b"))
    # in the queue and marked, in the decoding thread, queued for writing, being written
    assert most[0] <= live.QUEUE_SIZE_WAIT + 1 + multi.RESULTS_AHEAD + 1


# Signals


def test_a_signal_ends_all_sources_and_is_reported_once(mote, tmp_path, bright, spots, monkeypatch):
    write = JsonlSink.write

    def interrupted(self, result):
        if self.path.parent.name == "b" and result.frame.index == 6:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        write(self, result)

    monkeypatch.setattr(JsonlSink, "write", interrupted)
    arguments = ("--detector", "bright", "--weights", bright["weights"], "--progress", "off")
    reply = mote("--video", spots("a"), "--video", spots("b"), *arguments, "--output", tmp_path / "out")
    assert reply.code == 130
    assert reply.err == "error: interrupted by SIGINT; what was done until then is kept\n"
    for name in "ab":
        assert 1 <= check_consistent(tmp_path / "out" / name) < LONG
        assert report(tmp_path / "out" / name)["state"] == "partial"


def test_all_threads_end_with_the_run(together, spots):
    together(spots("a", 5), spots("b", 5))
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("decode", "prepare", "write"))]
