"""Runs from Python: `mote.watch` and `mote.run`."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mote
from mote.runs import prepare
from pipeline.sinks.jsonl_codec import to_record
from pipeline.structures.detections import Detections
from pipeline.structures.results import FrameDetections
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import SourceError, UsageError

ONE_BOX = np.array([[10.0, 20.0, 14.0, 25.0]])


class OneBox:
    """A detector that finds the same box in each frame."""

    window = 1
    classes = ("spot",)

    def __init__(self, config=None):
        self.config = config

    def detect(self, groups):
        """Yields one detection for each frame."""
        for group in groups:
            for frame in group:
                yield FrameDetections(frame, Detections(ONE_BOX, [0.9], [0]), warmup=False)


class EveryDetection:
    """A tracker that gives each detection an id of its own, and `first` - 1 as its age."""

    def __init__(self, first: int = 1):
        self.first = self.next = first

    def update(self, detections, frame):
        """Returns a confirmed track for each detection."""
        count = len(detections)
        ids = np.arange(self.next, self.next + count)
        self.next += count
        still = np.zeros((count, 2))
        return Tracks(
            detections.boxes,
            detections.scores,
            detections.labels,
            ids,
            np.ones(count),
            still,
            np.full(count, self.first - 1),
        )

    def reset(self):
        """Starts a new sequence."""
        self.next = self.first


class Lines:
    """A sink that keeps the frame numbers it gets."""

    def __init__(self, folder=None, info=None):
        self.folder, self.info, self.frames, self.open = folder, info, [], False

    def __enter__(self):
        self.open = True
        return self

    def write(self, result):
        """Appends the number of the frame."""
        assert self.open
        self.frames.append(result.frame.index)
        if self.folder:
            (self.folder / "frames.txt").write_text(str(self.frames))

    def __exit__(self, *_):
        self.open = False


def test_watch_yields_what_a_run_writes(clip, nano_weights, tmp_path):
    settings = {"weights": nano_weights, "max_frames": 8, "backend": "torch"}
    record = mote.run(clip, output=tmp_path / "run", **settings)
    watched = [to_record(result) for result in mote.watch(clip, **settings)]
    lines = [json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()]
    for written, result in zip(lines, watched, strict=True):
        assert {**written, "timings_ms": None} == json.loads(json.dumps({**result, "timings_ms": None}))
    assert (record.state, record.written) == ("complete", 8)


def test_watch_writes_nothing(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(list(mote.watch(clip, detector=OneBox()))) == 16
    assert list(tmp_path.iterdir()) == []


def test_watch_can_be_left_early_and_closes_the_source(clip):
    results = mote.watch(clip, detector=OneBox())
    assert next(results).frame.index == 0
    results.close()
    assert list(results) == []


def test_objects_replace_detector_and_tracker(clip):
    results = list(mote.watch(clip, detector=OneBox(), tracker=EveryDetection(), max_frames=3))
    assert [result.tracks.ids.tolist() for result in results] == [[1], [2], [3]]
    np.testing.assert_array_equal(results[0].detections.boxes, ONE_BOX)


def test_a_run_passes_each_result_to_sinks_and_to_the_callback(clip, tmp_path):
    sink, seen = Lines(), []
    mote.run(
        clip,
        detector=OneBox(),
        output=tmp_path / "run",
        sinks=[sink],
        on_result=lambda result: seen.append(result.frame.index),
        max_frames=4,
    )
    assert sink.frames == seen == [0, 1, 2, 3]
    assert not sink.open


def test_an_error_of_the_callback_is_raised_and_the_files_are_kept(clip, tmp_path):
    def fail(result):
        raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        mote.run(clip, detector=OneBox(), output=tmp_path / "run", on_result=fail)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "partial"


def test_classes_of_other_packages_are_named_in_the_configuration(clip, tmp_path):
    here = __name__ if __name__ != "__main__" else "test_runs"
    record = mote.run(
        clip,
        detector=f"{here}:OneBox",
        tracker=f"{here}:EveryDetection",
        set=["tracker.options.first=7", f'output.sinks=["{here}:Lines"]'],
        output=tmp_path / "run",
        max_frames=2,
    )
    table = json.loads((tmp_path / "run" / "run.json").read_text())
    assert table["detector"]["name"] == f"{here}:OneBox"
    assert table["detector"]["classes"] == ["spot"]
    assert (tmp_path / "run" / "frames.txt").read_text() == "[0, 1]"
    assert record.tracks == 2
    line = json.loads((tmp_path / "run" / "results.jsonl").read_text().splitlines()[0])
    assert line["tracks"][0]["age"] == 6  # the option has reached the tracker


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Thing", "there is no module 'no_such_module'"),
        ("pipeline.system.errors:Nothing", "module 'pipeline.system.errors' has no 'Nothing'"),
        ("tests.mote.test_runs:ONE_BOX", "neither a class nor a function"),
        ("pipeline.system.memory:release_free_memory", "cannot build"),
    ],
)
def test_a_class_that_cannot_be_loaded_is_refused(clip, name, message):
    with pytest.raises(UsageError, match=message):
        next(mote.watch(clip, detector=name))


def test_a_detector_without_its_methods_is_refused(clip):
    with pytest.raises(UsageError, match="is no detector"):
        next(mote.watch(clip, detector=f"{__name__}:Lines"))


@pytest.mark.parametrize("kind", ["detector", "tracker"])
@pytest.mark.parametrize(("part", "message"), [(object(), "'object' is no"), (Lines, "'Lines' is a class")])
def test_objects_of_another_kind_are_refused_before_anything_is_written(clip, tmp_path, kind, part, message):
    with pytest.raises(UsageError, match=message):
        mote.run(clip, **{kind: part}, output=tmp_path / "run")
    with pytest.raises(UsageError, match="'object' is no sink: it has no '__enter__'"):
        mote.run(clip, detector=OneBox(), sinks=[object()], output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_detector_may_return_a_list(clip):
    class Listed(OneBox):
        def detect(self, groups):
            return list(super().detect(groups))

    assert len(list(mote.watch(clip, detector=Listed(), max_frames=3))) == 3
    finder = mote.Finder(detector=Listed())
    assert len(finder(np.zeros((32, 32), np.uint8)).detections) == 1


@pytest.mark.parametrize(
    ("found", "message"),
    [(None, "returned NoneType from detect"), ([ONE_BOX], "returned ndarray for a frame")],
)
def test_a_detector_that_returns_something_else_is_named(clip, found, message):
    class Wrong(OneBox):
        def detect(self, groups):
            return found

    with pytest.raises(UsageError, match=f"'Wrong' {message}"):
        list(mote.watch(clip, detector=Wrong(), max_frames=3))


def test_wrong_arguments_of_a_run_are_refused_before_anything_is_written(clip, tmp_path):
    with pytest.raises(UsageError, match="on_result is of type str, expected a function"):
        mote.run(clip, output=str(tmp_path / "run"), on_result="print")
    with pytest.raises(UsageError, match="unknown progress 'loud'"):
        mote.run(clip, output=str(tmp_path / "run"), progress="loud")
    assert not (tmp_path / "run").exists()


def test_a_tracker_without_its_methods_is_refused(clip):
    with pytest.raises(UsageError, match=r"test_runs:Lines' is no tracker: it has no 'update'"):
        next(mote.watch(clip, detector=OneBox(), tracker=f"{__name__}:Lines"))


def test_an_output_without_its_methods_is_refused(clip, tmp_path):
    sinks = f'output.sinks=["{__name__}:first_tracks"]'
    with pytest.raises(UsageError, match=r"first_tracks' is no sink: it has no '__enter__'"):
        mote.run(clip, detector=OneBox(), set=[sinks], output=tmp_path / "run")


def first_tracks(folder, info):
    """Returns a tracker, where a sink is expected."""
    return EveryDetection()


@pytest.mark.parametrize("source", [None, True, ["in.mp4"], np.zeros((4, 4), np.uint8)])
def test_what_names_no_source_is_refused_with_its_type(source):
    with pytest.raises(TypeError, match=f"of type {type(source).__name__}, expected a text"):
        mote.watch(source)


def test_settings_of_outputs_are_refused_where_nothing_is_written(clip):
    for name in ("output", "overwrite", "save_zarr", "rotate_every", "health_port"):
        with pytest.raises(UsageError, match=f"'{name}' has no effect here: mote.watch writes no files"):
            mote.watch(clip, **{name: 1})


def test_settings_of_other_programs_are_answered_with_ours(clip):
    with pytest.raises(UsageError, match="unknown setting 'imgsz'; the command has --size for it"):
        mote.watch(clip, imgsz=640)


def test_unknown_settings_are_refused_with_a_suggestion(clip):
    with pytest.raises(UsageError, match="unknown setting 'max_frame'; did you mean 'max_frames'"):
        next(mote.watch(clip, max_frame=3))


def test_half_is_the_short_format_of_the_device():
    config, _ = prepare(None, None, {"half": True, "device": "cpu"})
    assert config.detector.precision == "bf16"
    assert prepare(None, None, {"half": False})[0].detector.precision == "fp32"


def test_a_missing_source_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        next(mote.watch(tmp_path / "none.mp4", detector=OneBox()))


def test_results_become_detections_of_supervision(clip):
    supervision = pytest.importorskip("supervision")
    result = next(mote.watch(clip, detector=OneBox(), tracker=EveryDetection()))
    tracks = result.to_supervision()
    assert isinstance(tracks, supervision.Detections)
    np.testing.assert_array_equal(tracks.xyxy, ONE_BOX)
    assert tracks.tracker_id.tolist() == [1]
    found = result.to_supervision(tracks=False)
    assert found.tracker_id is None
    np.testing.assert_allclose(found.confidence, [0.9])
