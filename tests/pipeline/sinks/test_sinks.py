"""Sinks write complete results at the times of the source; files stay valid however the run ends."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction

import av
import motmetrics
import numpy as np
import pytest
from pycocotools.coco import COCO

from pipeline.sinks.base import Sinks
from pipeline.sinks.coco import CocoSink
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.mot import MotSink
from pipeline.sinks.video import TimestampMapper, VideoSink
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import OutputError
from tests.conftest import PROJECT_ROOT

TEXT_SINKS = [JsonlSink, CocoSink, MotSink]


def make_result(index=0, *, pts=None, boxes=((10.25, 20.5, 13.75, 22.125),), scores=None, size=(32, 48)):
    boxes = np.reshape(np.asarray(boxes, np.float32), (-1, 4))
    count = len(boxes)
    scores = [0.9] * count if scores is None else scores
    image = np.full(size, (index * 7) % 256, np.uint8)
    frame = Frame(image, index, Fraction(index, 30) if pts is None else pts, "test")
    states = [TrackState.CONFIRMED, TrackState.COASTING, TrackState.TENTATIVE]
    tracks = Tracks(
        boxes,
        scores,
        [0] * count,
        range(1, count + 1),
        [int(states[k % 3]) for k in range(count)],
        np.full((count, 2), 0.5),
        [index] * count,
    )
    return Result(frame, Detections(boxes, scores, [0] * count), index < 2, {"decode": 0.0012}, tracks=tracks)


def draw(result):
    return np.repeat(result.frame.image[..., None], 3, axis=2)


def source_info(*, size=(32, 48), rate=Fraction(30)):
    return SourceInfo("test", size[1], size[0], rate, None, 8, 1)


def decoded(path):
    with av.open(str(path)) as container:
        return [(f.pts * f.time_base, f.to_ndarray(format="gray")) for f in container.decode(video=0)]


REGULAR = [Fraction(k, 30) for k in range(100)]
NTSC = [Fraction(1001 * k, 30000) for k in range(100)]
IRREGULAR = list(np.cumsum([0, *np.random.default_rng(0).integers(1, 3000, 80)]))
IRREGULAR_MP4 = [Fraction(int(k), 15360) for k in IRREGULAR]
IRREGULAR_MKV = [Fraction(int(k), 1000) for k in IRREGULAR]


@pytest.mark.parametrize(
    ("times", "rate"),
    [
        pytest.param(REGULAR, Fraction(30), id="30"),
        pytest.param(NTSC, Fraction(30000, 1001), id="30000/1001"),
        pytest.param([t + Fraction(7, 3) for t in REGULAR], Fraction(30), id="late-start"),
        pytest.param(IRREGULAR_MP4, Fraction(30), id="irregular-mp4"),
        pytest.param(IRREGULAR_MKV, Fraction(1000, 33), id="irregular-mkv"),
        pytest.param([Fraction(k, 7) for k in range(20)], Fraction(7), id="7"),
        pytest.param([Fraction(1000 * k) for k in range(4)], Fraction(1, 1000), id="1/1000"),
        pytest.param([Fraction(k, 10**5) for k in range(20)], Fraction(10**5), id="100000"),
        pytest.param([Fraction(0)], Fraction(25), id="one-frame"),
        pytest.param([], Fraction(25), id="no-frame"),
    ],
)
def test_every_frame_is_in_the_video_at_its_own_time(tmp_path, times, rate):
    path = tmp_path / "annotated.mp4"
    with VideoSink(path, source_info(rate=rate), draw) as sink:
        for index, pts in enumerate(times):
            sink.write(make_result(index, pts=pts))
    frames = decoded(path)
    assert [pts for pts, _ in frames] == [pts - times[0] for pts in times]
    assert sink.adjusted == 0
    for index, (_, image) in enumerate(frames):
        assert abs(image.astype(int) - (index * 7) % 256).max() <= 4


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (17, 16)])
def test_odd_sizes_are_padded_by_one_row_or_column(tmp_path, size):
    path = tmp_path / "annotated.mp4"
    with VideoSink(path, source_info(size=size), draw) as sink:
        sink.write(make_result(9, size=size))
    ((_, image),) = decoded(path)
    assert image.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert abs(image.astype(int) - 63).max() <= 4


def test_times_that_do_not_advance_are_moved_by_a_tick_and_counted(tmp_path):
    path = tmp_path / "annotated.mp4"
    times = [Fraction(k, 30) for k in (0, 1, 1, 1, 2, 3)]
    with VideoSink(path, source_info(), draw) as sink:
        for index, pts in enumerate(times):
            sink.write(make_result(index, pts=pts))
    written = [pts for pts, _ in decoded(path)]
    assert len(written) == 6
    assert all(a < b for a, b in itertools.pairwise(written))
    assert sink.adjusted == 2
    assert written[-2:] == times[-2:]


def test_after_a_jump_of_the_clock_times_continue_at_the_nominal_rate():
    timestamps = TimestampMapper(rate=Fraction(10), ticks=1000)
    times = [100, 101, Fraction(5, 2), Fraction(7, 2), 90000, 90001]
    assert [timestamps.to_ticks(Fraction(t)) for t in times] == [0, 1000, 1100, 2100, 2200, 3200]
    assert timestamps.adjusted == 2


def run_into_an_exception(sink, *, count):
    with contextlib.suppress(ZeroDivisionError), sink:
        for index in range(count):
            sink.write(make_result(index))
        raise ZeroDivisionError


def test_an_exception_in_the_run_leaves_a_playable_video(tmp_path):
    path = tmp_path / "annotated.mp4"
    run_into_an_exception(VideoSink(path, source_info(), draw), count=50)
    assert len(decoded(path)) == 50


def test_a_frame_of_another_size_is_refused(tmp_path):
    with VideoSink(tmp_path / "annotated.mp4", source_info(), draw) as sink:
        sink.write(make_result(0))
        with pytest.raises(OutputError, match=r"annotated\.mp4.*frame 1"):
            sink.write(make_result(1, size=(64, 64)))
    assert len(decoded(tmp_path / "annotated.mp4")) == 1


def test_jsonl_lines_hold_the_whole_result(tmp_path):
    path = tmp_path / "results.jsonl"
    with JsonlSink(path) as sink:
        for index in range(3):
            sink.write(make_result(index, boxes=[(1.23456, 2, 4.5, 6.25), (0, 0, 1, 1)]))
            assert len(path.read_text().splitlines()) == index + 1  # written before the next frame
        sink.write(make_result(3, boxes=[], pts=Fraction(1, 3)))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    assert [line["warmup"] for line in lines] == [True, True, False, False]
    assert lines[0]["detections"][0] == {"bbox": [1.23456, 2.0, 3.26544, 4.25], "score": 0.9, "label": 0}
    assert lines[2]["tracks"][1] == {
        "id": 2,
        "bbox": [0.0, 0.0, 1.0, 1.0],
        "score": 0.9,
        "label": 0,
        "state": "coasting",
        "velocity": [0.5, 0.5],
        "age": 2,
    }
    assert lines[0]["timings_ms"] == {"decode": 1.2}
    assert lines[3]["detections"] == lines[3]["tracks"] == []
    assert lines[3]["pts"] == 0.333333


def test_numbers_that_are_not_finite_become_null_in_jsonl_and_an_error_in_coco(tmp_path):
    result = make_result()
    # `Detections` itself refuses such a score
    object.__setattr__(result.detections, "scores", np.array([np.nan], np.float32))
    with JsonlSink(tmp_path / "results.jsonl") as sink:
        sink.write(result)
    line = json.loads((tmp_path / "results.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["detections"][0]["score"] is None
    with pytest.raises(ValueError, match="JSON"), CocoSink(tmp_path / "detections.json") as sink:
        sink.write(result)
    assert json.loads((tmp_path / "detections.json").read_text()) == []


def ground_truth(count):
    coco = COCO()
    coco.dataset = {
        "images": [{"id": k + 1, "width": 48, "height": 32} for k in range(count)],
        "categories": [{"id": 1, "name": "target"}],
        "annotations": [],
    }
    coco.createIndex()
    return coco


def test_coco_results_are_loaded_by_pycocotools(tmp_path):
    path = tmp_path / "detections.json"
    with CocoSink(path) as sink:
        for index in range(3):
            sink.write(make_result(index, boxes=[(1.5, 2, 4.5, 6.25)] * index))
        assert not path.exists()
        assert len(json.loads((tmp_path / "detections.json.part").read_text())) == 3  # valid while it grows
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = ground_truth(3).loadRes(str(path))
    assert [a["image_id"] for a in loaded.anns.values()] == [2, 3, 3]
    annotation = loaded.anns[1]
    assert annotation["bbox"] == [1.5, 2.0, 3.0, 4.25]
    assert annotation["category_id"] == 1
    assert annotation["score"] == 0.9
    assert [p.name for p in tmp_path.iterdir()] == ["detections.json"]


def test_coco_scores_keep_their_order_to_the_last_bit(tmp_path):
    scores = np.array([0.99999994, 0.9999999, 1e-9, 2e-9], np.float32)
    with CocoSink(tmp_path / "detections.json") as sink:
        sink.write(make_result(boxes=[(1, 1, 2, 2)] * 4, scores=scores))
    records = json.loads((tmp_path / "detections.json").read_text())
    assert (np.array([r["score"] for r in records], np.float32) == scores).all()


def test_coco_ids_come_from_the_ground_truth_and_unknown_frames_are_skipped(tmp_path):
    path = tmp_path / "detections.json"
    known = {0: 70, 2: 90}
    with CocoSink(path, image_id=lambda frame: known.get(frame.index), category_id={0: 3}) as sink:
        for index in range(3):
            sink.write(make_result(index))
    records = json.loads(path.read_text())
    assert [(r["image_id"], r["category_id"]) for r in records] == [(70, 3), (90, 3)]


def test_mot_text_is_loaded_by_motmetrics_with_the_boxes_that_were_written(tmp_path):
    path = tmp_path / "tracks.txt"
    boxes = [(0, 0, 3, 2), (10.25, 20.5, 13.75, 22.125), (5, 5, 6, 6)]
    with MotSink(path, coasting=True) as sink:
        sink.write(make_result(0, boxes=boxes))
        sink.write(make_result(1, boxes=[]))
        sink.write(make_result(2, boxes=boxes[:1]))
    first = path.read_text().splitlines()[0]
    assert first == "1,1,1.0000,1.0000,3.0000,2.0000,0.900000,-1,-1,-1"
    table = motmetrics.io.loadtxt(path, fmt="mot15-2D")
    assert list(table.index) == [(1, 1), (1, 2), (3, 1)]  # the tentative third one is not written
    assert table.loc[(1, 1), ["X", "Y", "Width", "Height"]].tolist() == [0, 0, 3, 2]
    assert table.loc[(1, 2), ["X", "Y", "Width", "Height"]].tolist() == [10.25, 20.5, 3.5, 1.625]


def test_mot_text_has_no_predicted_boxes_unless_they_are_wanted(tmp_path):
    boxes = [(0, 0, 3, 2), (10.25, 20.5, 13.75, 22.125), (5, 5, 6, 6)]  # confirmed, coasting, tentative
    for coasting, ids in ((False, ["1"]), (True, ["1", "2"])):
        path = tmp_path / f"{coasting}.txt"
        with MotSink(path, coasting=coasting) as sink:
            sink.write(make_result(0, boxes=boxes))
        assert [row.split(",")[1] for row in path.read_text().splitlines()] == ids


@pytest.mark.parametrize("sink_type", TEXT_SINKS)
def test_text_is_valid_after_an_exception(tmp_path, sink_type):
    path = tmp_path / "out"
    run_into_an_exception(sink_type(path), count=1)
    if sink_type is CocoSink:
        assert len(json.loads(path.read_text())) == 1
    else:
        assert path.read_text().endswith("\n")
        assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("sink_type", [*TEXT_SINKS, VideoSink])
def test_a_missing_folder_is_reported_in_one_line(tmp_path, sink_type):
    path = tmp_path / "missing" / "out.mp4"
    arguments = (source_info(), draw) if sink_type is VideoSink else ()
    with pytest.raises(OutputError) as caught, sink_type(path, *arguments):
        pass
    message = str(caught.value)
    assert str(path) in message
    assert "folder" in message
    assert "\n" not in message


DISK_FULL = """
    import resource, sys
    sys.path[:0] = [{root!r}]
    from tests.pipeline.sinks.test_sinks import *
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
    noise = np.random.default_rng(0)
    def draw_noise(result):
        return noise.integers(0, 255, (*result.frame.image.shape, 3), dtype=np.uint8)
    kind, path = {kind}, {path!r}
    sink = kind(path, source_info(), draw_noise) if kind is VideoSink else kind(path)
    try:
        with sink:
            for index in range(2000):
                sink.write(make_result(index))
    except OutputError as error:
        print(index, error)
"""


@pytest.mark.parametrize("kind", ["JsonlSink", "CocoSink", "MotSink", "VideoSink"])
def test_a_full_disk_is_reported_and_what_was_written_stays_valid(tmp_path, kind):
    path = tmp_path / "out"
    names = {"root": str(PROJECT_ROOT), "path": str(path)}
    script = textwrap.dedent(DISK_FULL).format(
        limit=400_000 if kind == "VideoSink" else 60_000, kind=kind, **names
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    count, message = run.stdout.strip().split(" ", 1)
    assert message.startswith(f"cannot write {tmp_path}")
    assert "too large" in message
    assert "\n" not in message
    if kind == "CocoSink":
        assert len(json.loads(path.read_text())) == int(count)
    elif kind == "JsonlSink":
        assert len([json.loads(line) for line in path.read_text().splitlines()]) == int(count)
    elif kind == "MotSink":
        assert len(motmetrics.io.loadtxt(path, fmt="mot15-2D")) == int(count)
    else:
        assert int(count) / 3 < len(decoded(path)) < int(count)


KILLED = """
    import os, signal, sys
    sys.path[:0] = [{root!r}]
    from tests.pipeline.sinks.test_sinks import *
    with Sinks([VideoSink({path!r} + ".mp4", source_info(), draw), CocoSink({path!r} + ".json")]) as sinks:
        for index in range(200):
            sinks.write(make_result(index))
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_all_but_the_last_seconds(tmp_path):
    names = {"root": str(PROJECT_ROOT), "path": str(tmp_path / "out")}
    script = textwrap.dedent(KILLED).format(**names)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert len(decoded(tmp_path / "out.mp4")) >= 120
    assert len(json.loads((tmp_path / "out.json.part").read_text())) == 200


class Recorder:
    """A sink that records its calls and fails on demand."""

    def __init__(self, name, log, *, fails=()):
        self.name, self.log, self.fails = name, log, fails

    def _note(self, what):
        self.log.append((what, self.name))
        if what in self.fails:
            raise OutputError(f"{self.name} fails in {what}")

    def __enter__(self):
        self._note("enter")
        return self

    def write(self, result):
        self._note("write")

    def __exit__(self, kind, error, traceback):
        self._note("exit")


def test_sinks_are_entered_and_written_in_order_and_closed_in_reverse():
    log = []
    with Sinks(Recorder(name, log) for name in "abc") as sinks:
        sinks.write(make_result())
    assert log == [("enter", n) for n in "abc"] + [("write", n) for n in "abc"] + [("exit", n) for n in "cba"]


def test_all_sinks_are_closed_and_the_first_error_is_raised():
    log = []
    sinks = Sinks(
        [Recorder("a", log, fails=("exit",)), Recorder("b", log, fails=("write", "exit")), Recorder("c", log)]
    )
    with pytest.raises(OutputError, match="b fails in write") as caught, sinks:
        sinks.write(make_result())
    assert [n for what, n in log if what == "exit"] == ["c", "b", "a"]
    assert caught.value.__notes__ == ["then: b fails in exit", "then: a fails in exit"]


def test_an_error_while_closing_is_raised_after_all_are_closed():
    log = []
    with pytest.raises(OutputError, match="c fails in exit"):
        with Sinks(
            [Recorder("a", log, fails=("exit",)), Recorder("b", log), Recorder("c", log, fails=("exit",))]
        ):
            pass
    assert [n for what, n in log if what == "exit"] == ["c", "b", "a"]


def test_if_one_cannot_be_entered_those_before_it_are_closed():
    log = []
    with pytest.raises(OutputError, match="b fails in enter"):
        with Sinks([Recorder("a", log), Recorder("b", log, fails=("enter",)), Recorder("c", log)]):
            pytest.fail("entered")
    assert log == [("enter", "a"), ("enter", "b"), ("exit", "a")]
