"""Stages in isolation: batches, schedules, postprocessing, and the network on a running sequence."""

from __future__ import annotations

import queue
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import torch

import detectors
from detectors.inference.streaming import RawOutput, StreamingDetector, frame_detections, raw_outputs
from detectors.weights import state_dict, zoo
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.geometry import Geometry
from pipeline.stages.batching import batches
from pipeline.stages.overlap import delay_by_one, run_two_phase
from pipeline.stages.tracking import track
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import SourceError
from trackers import NoTracker


def frames(count, *, width=64, height=64):
    images = np.random.default_rng(0).integers(0, 256, (count, height, width), np.uint8)
    return [Frame(image, index, Fraction(index, 30), "test") for index, image in enumerate(images)]


# Batches


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (0, 4, []), (3, 1, [1, 1, 1])],
)
def test_batches_are_full_but_for_the_last(count, size, sizes):
    groups = list(batches(frames(count), size))
    assert [len(group) for group in groups] == sizes
    assert [frame.index for group in groups for frame in group] == list(range(count))


def lost_after(count):
    yield from frames(count)
    raise SourceError("lost")


@pytest.mark.parametrize(("count", "sizes"), [(5, [3, 2]), (6, [3, 3]), (0, [])])
def test_what_is_waiting_comes_before_the_error(count, sizes):
    groups = batches(lost_after(count), 3)
    assert [len(next(groups)) for _ in sizes] == sizes
    with pytest.raises(SourceError, match="lost"):
        next(groups)


def test_a_batch_is_given_as_soon_as_it_is_full():
    taken = []
    groups = batches((taken.append(frame) or frame for frame in frames(9)), 2)
    next(groups)
    assert len(taken) == 2


def test_closing_batches_gives_nothing_more():
    groups = batches(frames(9), 2)
    next(groups)
    groups.close()
    assert list(groups) == []


# Suppression


def raw_output(*cells, size=(8, 8)):
    """Raw output with one box of 8 network pixels a side per (column, row, objectness logit)."""
    raw = torch.zeros(1, 6, *size)
    raw[:, 4] = -20
    raw[:, 5] = 20
    for column, row, logit in cells:
        raw[0, :2, row, column] = 0.5  # the middle of the cell
        raw[0, 4, row, column] = logit
    return raw


def suppressed(raw, geometry, *, conf=0.3):
    width, height = geometry.source
    (frame,) = frames(1, width=width, height=height)
    (found,) = frame_detections([RawOutput((frame,), raw, geometry, (False,), 0.01)], conf=conf, iou=0.5)
    return found


@pytest.mark.parametrize(
    ("geometry", "box"),
    [
        (Geometry.native((64, 64)), [16, 24, 24, 32]),
        (Geometry.native((50, 60)), [16, 24, 24, 32]),
        (Geometry.stretch((128, 32), (64, 64)), [32, 12, 48, 16]),
        (Geometry.letterbox((128, 64), (64, 64)), [32, 16, 48, 32]),
    ],
    ids=["native", "padded", "stretch", "letterbox"],
)
def test_boxes_are_in_source_pixels(geometry, box):
    found = suppressed(raw_output((2, 3, 5.0)), geometry)
    assert np.allclose(found.detections.boxes, [box], atol=1e-4)


def test_boxes_are_clipped_to_the_image_and_dropped_outside_of_it():
    found = suppressed(raw_output((2, 3, 5.0), (2, 4, 4.0), (2, 6, 3.0)), Geometry.native((20, 36)))
    assert np.allclose(found.detections.boxes, [[16, 24, 20, 32], [16, 32, 20, 36]])


def test_detections_come_best_first_and_not_below_the_threshold():
    found = suppressed(raw_output((1, 1, 0.0), (4, 4, 2.0), (6, 6, -2.0)), Geometry.native((64, 64)))
    assert np.allclose(found.detections.scores, [1 / (1 + np.exp(-2.0)), 0.5], atol=1e-4)


def test_the_time_of_a_batch_is_shared_among_its_frames():
    raw = raw_output((1, 1, 3.0)).repeat(4, 1, 1, 1)
    batch = RawOutput(tuple(frames(4)), raw, Geometry.native((64, 64)), (True, True, False, False), 0.4)
    found = list(frame_detections([batch], conf=0.3, iou=0.5))
    assert [item.timings["detect"] for item in found] == [pytest.approx(0.1)] * 4
    assert [item.warmup for item in found] == [True, True, False, False]
    assert [item.frame.index for item in found] == [0, 1, 2, 3]


# Asynchronous outputs


class Event:
    """Stand-in for a CUDA event."""

    def __init__(self):
        self.waited = 0

    def synchronize(self):
        self.waited += 1
        time.sleep(0.02)


def test_an_output_is_waited_for_once_and_the_wait_is_counted():
    event = Event()
    batch = RawOutput(tuple(frames(1)), raw_output(), Geometry.native((64, 64)), (True,), 0.5, event)
    there = batch.wait()
    assert event.waited == 1
    assert there.ready is None
    assert 0.52 <= there.seconds < 5
    assert there.raw is batch.raw
    assert there.wait() is there


def steps(count, schedule):
    """Returns the events while items pass both phases, in order; `got` if the consumer has an item."""
    happened = []
    begin = lambda item: happened.append(f"begin {item}") or item  # noqa: E731
    finish = lambda item: happened.append(f"finish {item}") or item  # noqa: E731
    for item in run_two_phase(range(count), begin, finish, schedule):
        happened.append(f"got {item}")
    return happened


def test_phases_alternate_if_sequential():
    assert steps(2, "sequential") == ["begin 0", "finish 0", "got 0", "begin 1", "finish 1", "got 1"]


def test_an_item_is_returned_after_the_next_one_is_computed_if_delayed():
    assert steps(2, "delayed") == ["begin 0", "finish 0", "begin 1", "finish 1", "got 0", "got 1"]
    assert steps(1, "delayed") == ["begin 0", "finish 0", "got 0"]
    assert steps(0, "delayed") == []


def in_pool(items, finish, workers=3):
    return run_two_phase(items, lambda item: item, finish, "threaded", workers)


def test_results_of_a_pool_come_in_order():
    pauses = random.Random(0)

    def finish(item):
        time.sleep(pauses.uniform(0, 0.003))
        return 10 * item

    assert list(in_pool(range(40), finish)) == list(range(0, 400, 10))


def test_a_pool_finishes_several_items_at_once():
    meeting = threading.Barrier(3, timeout=10)  # passed only by three together
    assert len(list(in_pool(range(6), lambda item: meeting.wait()))) == 6


def test_no_more_items_than_workers_and_one_are_in_progress():
    taken, done = [], threading.Event()
    items = (taken.append(item) or item for item in range(100))
    results = in_pool(items, lambda item: done.wait(10) and item, workers=2)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(next, results)
        while len(taken) < 3:
            time.sleep(0.001)
        time.sleep(0.05)
        assert len(taken) == 3
        done.set()
        assert first.result() == 0
    results.close()


def test_a_result_of_a_pool_does_not_wait_for_the_next_item():
    more = queue.SimpleQueue()
    results = in_pool(iter(more.get, None), lambda item: item)
    more.put("first")
    assert next(results) == "first"
    more.put(None)
    assert list(results) == []


@pytest.mark.parametrize("place", ["items", "finish"])
def test_an_error_in_a_pool_comes_after_the_results_before_it(place):
    def finish(item):
        if place == "finish" and item.index == 2:
            raise SourceError("lost")
        return item.index

    results = in_pool(lost_after(2) if place == "items" else frames(9), finish)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(SourceError, match="lost"):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("join", "features"))]


def test_a_pool_that_is_closed_early_leaves_no_threads():
    results = in_pool(range(1000), lambda item: item)
    assert next(results) == 0
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("join", "features"))]


def test_one_item_is_held_back_and_no_more():
    taken = []
    late = delay_by_one(taken.append(item) or item for item in range(5))
    assert (next(late), taken) == (0, [0, 1])
    assert (next(late), taken) == (1, [0, 1, 2])
    assert list(late) == [2, 3, 4]


def test_an_error_comes_after_the_item_that_was_held_back():
    late = delay_by_one(lost_after(2))
    assert [next(late).index for _ in range(2)] == [0, 1]
    with pytest.raises(SourceError, match="lost"):
        next(late)


# Tracking


def test_tracks_come_beside_detections_and_keep_the_timings():
    detections = Detections([[1, 1, 3, 3]], [0.9], [0])
    (frame,) = frames(1)
    (result,) = track([FrameDetections(frame, detections, True, {"detect": 0.1})], NoTracker())
    assert (result.frame, result.detections, result.warmup) == (frame, detections, True)
    assert len(result.tracks) == 0
    assert set(result.timings) == {"detect", "track"}


# The network on a running sequence


@pytest.fixture(scope="module")
def model(nano_weights):
    network = detectors.build("tridos-nano")
    state_dict.load_weights(network, zoo.locate_weights(nano_weights)[0])
    return network


def streaming(model, **settings):
    return StreamingDetector(model, DetectorConfig(**settings), torch.device("cpu"))


def raws(detector, sequence, size):
    return torch.cat([features.raw for features in raw_outputs(batches(sequence, size), detector)])


@pytest.mark.slow
def test_a_reset_forgets_the_sequence_and_its_size(model):
    detector, sequence = streaming(model), frames(6)
    first = raws(detector, sequence, 1)
    assert not torch.equal(raws(detector, sequence, 1)[0], first[0])  # it goes on from what it has seen
    detector.reset()
    assert raws(detector, frames(2, width=96), 1).shape[-1] == 12
    detector.reset()
    torch.testing.assert_close(raws(detector, sequence, 1), first, rtol=0, atol=0)


@pytest.mark.slow
def test_warmup_ends_with_the_fifth_frame_for_any_batch_size(model):
    detector = streaming(model)
    flags = [features.warmup for features in raw_outputs(batches(frames(7), 3), detector)]
    assert flags == [(True, True, True), (True, False, False), (False,)]
    detector.reset()
    assert detector(tuple(frames(1))).warmup == (True,)


def test_the_same_frames_give_the_same_output_in_any_batch(model):
    sequence = frames(9)
    alone = raws(streaming(model), sequence, 1)
    for size in (2, 4, 9):
        assert torch.allclose(raws(streaming(model), sequence, size), alone, atol=1e-4)


def test_bit_depth_does_not_change_the_results(model):
    shallow = frames(3)
    deep = [Frame(f.image.astype(np.uint16) * 257, f.index, f.pts, f.source, 16) for f in shallow]
    assert torch.allclose(raws(streaming(model), shallow, 1), raws(streaming(model), deep, 1), atol=1e-4)


@pytest.mark.parametrize("schedule", ["threaded", "delayed"])
def test_the_schedule_does_not_change_the_results(schedule, model, monkeypatch):
    sequence = frames(6)
    monkeypatch.setattr(StreamingDetector, "schedule", "sequential")
    expected = raws(streaming(model), sequence, 2)
    monkeypatch.setattr(StreamingDetector, "schedule", schedule)
    torch.testing.assert_close(raws(streaming(model), sequence, 2), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("device", "threads", "cores", "schedule"),
    [
        ("cuda", 1, 2, "delayed"),
        ("cpu", 1, 2, "threaded"),
        ("cpu", 2, 2, "sequential"),
        ("cpu", 1, 1, "sequential"),
    ],
)
def test_a_narrow_network_takes_two_threads_and_a_gpu_works_ahead(
    device, threads, cores, schedule, model, monkeypatch
):
    detector = streaming(model)
    detector.device = torch.device(device)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("detectors.inference.streaming.core_count", lambda: cores)
    assert detector.schedule == schedule


@pytest.mark.parametrize(
    ("settings", "shape"),
    [({}, (8, 12)), ({"size": "64x32"}, (4, 8)), ({"size": "64x32", "fit": "stretch"}, (4, 8))],
    ids=["native", "letterbox", "stretch"],
)
def test_the_network_sees_the_size_that_was_asked_for(model, settings, shape):
    features = streaming(model, **settings)(tuple(frames(1, width=90, height=64)))
    assert features.raw.shape == (1, 6, *shape)
    assert features.geometry.source == (90, 64)
