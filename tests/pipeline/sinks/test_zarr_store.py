"""results.zarr holds the results of a run; readers find as many rows as the lengths of its arrays say."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import zarr

from datasets.synthesis import rendering
from detectors.inference.score_maps import cell_maps
from pipeline.config.schema import SourceConfig
from pipeline.imaging.geometry import Geometry
from pipeline.sinks import appendable_array, zarr_store
from pipeline.sinks.base import Sinks
from pipeline.sinks.zarr_store import ZarrSink, count_complete_frames
from pipeline.sources.opening import open_source
from pipeline.stages.assignment import track_ids
from pipeline.structures.detections import Detections
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import OutputError
from pipeline.system.files import replace_on_success
from tests.support.bright_segmenter import add_segmenters, save_bright
from tests.support.outputs import lines, scene
from tests.support.zarr_stores import (
    INFO,
    assert_holds,
    assert_same_arrays,
    contents,
    make_results,
    run_with_arrays,
    seen_by_reader,
    write,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory, clip, nano_weights):
    """The output folder of a run with results.zarr."""
    return run_with_arrays(clip, nano_weights, tmp_path_factory.mktemp("original") / "out")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(zarr_store, "CHUNK_FRAMES", 4)
    columns = {name: column._replace(chunk_rows=5) for name, column in zarr_store.DETECTION_ARRAYS.items()}
    monkeypatch.setattr(zarr_store, "DETECTION_ARRAYS", columns)
    monkeypatch.setattr(zarr_store, "CHUNK_ROWS", 6)


# Contents


@pytest.mark.parametrize(
    "kind",
    [
        {"dtype": np.uint8},
        {"dtype": np.uint16, "bits": 14},
        {"dtype": np.uint16, "bits": 16},
        {"dtype": np.uint8, "shape": (24, 40, 3)},
    ],
    ids=["8 bits", "14 bits", "16 bits", "colour"],
)
def test_every_frame_is_stored_with_all_its_bits(tmp_path, kind):
    results = make_results(19, **kind)
    write(tmp_path / "results.zarr", results)
    assert_holds(tmp_path / "results.zarr", results)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11, 12])
def test_chunks_need_not_be_full(tmp_path, small_chunks, count):
    results = make_results(count)
    write(tmp_path / "results.zarr", results)
    assert_holds(tmp_path / "results.zarr", results)


def test_large_frames_make_short_chunks(tmp_path):
    results = make_results(3, shape=(900, 1000), dtype=np.uint16, bits=16)
    write(tmp_path / "results.zarr", results)
    assert zarr.open_array(tmp_path / "results.zarr" / "frames", mode="r").chunks == (1, 900, 1000)
    assert_holds(tmp_path / "results.zarr", results)


def test_a_run_without_frames_leaves_an_empty_store(tmp_path):
    write(tmp_path / "results.zarr", [])
    assert contents(tmp_path / "results.zarr") == {}
    assert count_complete_frames(tmp_path / "results.zarr") == 0


def test_detections_have_the_ids_of_their_tracks():
    boxes = [[54, 50, 58, 54], [10, 10, 14, 14], [50, 50, 54, 54], [30, 30, 34, 34], [80, 80, 84, 84]]
    scores = np.array([0.5, 0.5, 0.5, 0.7, 0.9], np.float32)
    states = [TrackState.CONFIRMED, TrackState.TENTATIVE, TrackState.COASTING, TrackState.TENTATIVE]
    places = [[51, 50, 55, 54], [11, 10, 15, 14], [30, 30, 34, 34], [10, 80, 14, 84]]
    ids = [7, 8, 9, 10]
    tracks = Tracks(places, [0.5, 0.5, 0.7, 0.9], [0] * 4, ids, states, np.zeros((4, 2)), [3] * 4)
    # the nearest of equal scores is assigned; coasting tracks and distant ones have no detection
    assert track_ids(Detections(boxes, scores, [0] * 5), tracks).tolist() == [0, 8, 7, 0, 0]


def test_each_confirmed_track_has_one_detection(original):
    found, shared = contents(original / "results.zarr"), 0
    for number, line in enumerate(lines(original)):
        rows = slice(*found["detections/starts"][number : number + 2])
        ids = found["detections/tracks"][rows].tolist()
        seen = {track["id"] for track in line["tracks"] if track["state"] == "confirmed"}
        assert seen <= set(ids)
        assert len([known for known in ids if known]) == len(set(ids) - {0})
        shared += len(seen)
    assert shared > 10


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.native((40, 24)),
        Geometry.native((40, 24), scale=1.5),
        Geometry.letterbox((40, 24), (96, 96)),
        Geometry.stretch((40, 24), (64, 96)),
    ],
    ids=["native", "enlarged", "letterbox", "stretch"],
)
def test_cells_lie_where_the_attributes_say(geometry):
    width, height = geometry.network
    raw = torch.full((1, 7, height // 8, width // 8), -20.0)
    raw[0, 4, 2, 3], raw[0, 5, 2, 3], raw[0, 6, 2, 3] = 20, 0.3, 0.8
    (found,) = cell_maps(raw, geometry)
    assert np.unravel_index(found.values.argmax(), found.values.shape) == (2, 3)
    assert found.values[2, 3] == pytest.approx(1 / (1 + np.exp(-0.8)), abs=1e-3)
    (x, y), (wide, high) = found.origin, found.cell
    corners = [x + 3 * wide, y + 2 * high, x + 4 * wide, y + 3 * high]
    assert corners == pytest.approx(geometry.to_source(np.array([[24, 16, 32, 24]]))[0])


def test_the_map_of_the_detector_explains_its_detections(original):
    maps = contents(original / "results.zarr")["maps/detector"]
    for line, values in zip(lines(original), maps, strict=True):
        best = max(found["score"] for found in line["detections"])
        assert values.max() == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside a detector"])
def test_maps_of_segmenters_are_their_probabilities(process, clip, tmp_path, monkeypatch, alone):
    add_segmenters(monkeypatch, "bright")
    weights = str(save_bright(tmp_path / "bright.safetensors", weight=0.5))
    if alone:
        folder = process(clip, output={"zarr": True}, name="bright", weights=weights)
    else:
        row = {"name": "bright", "weights": weights}
        folder = process(clip, output={"zarr": True}, sections={"segmentation": {"segmenters": [row]}})
    found = contents(folder / "results.zarr")
    frames = found["frames"] if found["frames"].ndim == 3 else found["frames"].mean(axis=-1)
    given = found["maps/detector" if alone else "maps/bright"]
    assert given.dtype == np.float16
    np.testing.assert_allclose(given, frames / 255 / 2, atol=5e-3)
    assert ("maps/bright" in found) != alone
    names = {name for name in found if name.startswith("maps/")}
    assert names == ({"maps/detector"} if alone else {"maps/detector", "maps/bright"})


def test_stored_frames_can_be_read_as_a_source(original):
    stored = contents(original / "results.zarr")["frames"]
    with open_source(str(original / "results.zarr"), SourceConfig(array="frames")) as source:
        again = [frame.image for frame in source]
    np.testing.assert_array_equal(again, stored)


def test_by_default_nothing_is_stored_and_no_map_is_computed(process, clip, monkeypatch):
    seen, put = [], Sinks.write
    monkeypatch.setattr(
        Sinks, "write", lambda self, result: (seen.append(dict(result.maps)), put(self, result))
    )
    folder = process(clip)
    assert seen == [{}] * 16
    assert not (folder / "results.zarr").exists()


def test_many_streams_have_a_store_each(mote, process, clip, nano_weights, original, tmp_path):
    other = tmp_path / "other.mp4"
    rendering.write_scene(scene(frames=7, seed=3), other)
    options = ("--weights", nano_weights, "--conf", 0.2, "--progress", "off", "--save-zarr")
    assert mote("--video", clip, "--video", other, "--output", tmp_path / "both", *options).code == 0
    for source, alone in ((clip, original), (other, process(other, output={"zarr": True}))):
        assert_same_arrays(tmp_path / "both" / source.stem, alone)


# Reading while it is written


@contextmanager
def at_every_moment(function):
    """Calls a function after every file that is replaced within the block."""

    @contextmanager
    def noticed(path, **options):
        with replace_on_success(path, **options) as partial:
            yield partial
        function()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appendable_array, "replace_on_success", noticed)
        yield


@pytest.mark.slow
def test_a_reader_finds_complete_frames_at_every_moment(tmp_path, small_chunks):
    path, counts, results = tmp_path / "results.zarr", [], make_results(11)
    with at_every_moment(lambda: counts.append(seen_by_reader(path))):
        write(path, results)
    assert counts == sorted(counts)
    assert set(counts) == {0, 4, 8, 11}
    assert_holds(path, results)


class Death(BaseException):
    """Stands for the death of the process."""


@pytest.mark.slow
def test_published_frames_are_complete_and_can_be_resumed_wherever_a_process_dies(tmp_path, small_chunks):
    results, moments = make_results(11), []
    with at_every_moment(lambda: moments.append(seen_by_reader(tmp_path / "whole"))):
        write(tmp_path / "whole", results)
    for moment in range(1, len(moments) + 1, 11):
        path, number = tmp_path / str(moment), itertools.count(1)

        def die(moment=moment, number=number):
            if next(number) == moment:
                raise Death

        with at_every_moment(die), pytest.raises(Death):
            write(path, results)  # leaving the sink does not complete the write that failed
        kept = count_complete_frames(path)
        assert kept == seen_by_reader(path) == moments[moment - 1]
        write(path, results, kept=kept)
        assert_holds(path, results)
    assert {0, 4, 8} <= set(moments)


def test_frames_of_a_slow_source_do_not_wait_for_a_full_chunk(tmp_path, small_chunks, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(zarr_store.time, "monotonic", lambda: now)
    results = make_results(7)
    with ZarrSink(tmp_path / "results.zarr", INFO) as sink:
        sink.write(results[0])
        assert seen_by_reader(sink.path) == 0
        now += zarr_store.MAX_WAIT + 1
        sink.write(results[1])
        assert seen_by_reader(sink.path) == 2
        for result in results[2:6]:
            sink.write(result)
        assert seen_by_reader(sink.path) == 4  # chunks end at the same frames as without the early write
        sink.write(results[6])
    assert_holds(tmp_path / "results.zarr", results)


# Failures


def test_a_store_that_is_deleted_during_a_run_is_reported(tmp_path, small_chunks):
    def results():
        yield from make_results(5)
        (tmp_path / "results.zarr").rename(tmp_path / "elsewhere")
        yield from make_results(3)

    with pytest.raises(OutputError, match="it was deleted while it was written; leave the folder"):
        write(tmp_path / "results.zarr", results())


def test_frames_of_another_shape_are_refused(tmp_path):
    other = make_results(1, shape=(20, 40))[0]
    with pytest.raises(OutputError, match="frame 10 has other frames than those before it"):
        write(tmp_path / "results.zarr", [*make_results(3), other])
    assert seen_by_reader(tmp_path / "results.zarr") == 3


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    dear = tmp_path / "results.zarr" / "dear.txt"
    dear.parent.mkdir()
    dear.write_text("dear")
    with pytest.raises(OutputError, match="is not of an earlier run and is not removed"):
        write(tmp_path / "results.zarr", make_results(2))
    assert dear.read_text() == "dear"
