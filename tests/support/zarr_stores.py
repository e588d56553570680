"""Results for zarr stores, and readers of the stores."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import zarr

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.single import run
from pipeline.sinks.zarr_store import ZarrSink
from pipeline.structures.detections import Detections, ScoreMap
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from run_pipeline import parts

INFO = SourceInfo("test", 40, 24, Fraction(30), None, 8, 1)


def make_results(count, *, dtype=np.uint8, shape=(24, 40), bits=8, seed=0):
    """Returns results of noise frames with 0 to 3 detections and a score map of 3x5 cells each."""
    chance, results = np.random.default_rng(seed), []
    for index in range(count):
        image = chance.integers(1, 2**bits, shape).astype(dtype)
        found = index % 4
        low = chance.uniform(0, 20, (found, 2))
        boxes = np.concatenate([low, low + 3], axis=1)
        detections = Detections(boxes, chance.uniform(0.1, 1, found), np.arange(found))
        values = chance.uniform(0.1, 1, (3, 5)).astype(np.float16)
        maps = {"detector": ScoreMap(values, (8.0, 8.0), (0.0, 0.0), "a test")}
        frame = Frame(image, 10 + index, Fraction(index, 30), "test", bits)
        results.append(Result(frame, detections, False, maps=maps, tracks=Tracks.empty()))
    return results


def write(path, results, *, kept=0):
    with ZarrSink(path, INFO, kept=kept) as sink:
        for result in results:
            sink.write(result)


def contents(path):
    """Reads all arrays of a store with zarr."""
    group = zarr.open_group(path, mode="r")
    return {name: array[:] for name, array in group.members(max_depth=None) if isinstance(array, zarr.Array)}


def assert_holds(path, results):
    """Asserts that a store holds exactly these results."""
    found = contents(path)
    np.testing.assert_array_equal(found["frames"], [result.frame.image for result in results])
    assert found["frames"].dtype == results[0].frame.image.dtype
    np.testing.assert_array_equal(found["times"], [float(result.frame.pts) for result in results])
    assert found["indices"].tolist() == [result.frame.index for result in results]
    np.testing.assert_array_equal(
        found["maps/detector"], [result.maps["detector"].values for result in results]
    )
    starts = found["detections/starts"]
    assert len(starts) == len(results) + 1
    assert (starts[0], starts[-1]) == (0, len(found["detections/boxes"]))
    for result, start, end in zip(results, starts, starts[1:], strict=False):
        detections = result.detections
        np.testing.assert_array_equal(found["detections/boxes"][start:end], detections.boxes)
        np.testing.assert_array_equal(found["detections/scores"][start:end], detections.scores)
        assert found["detections/labels"][start:end].tolist() == detections.labels.tolist()
        assert set(found["detections/frames"][start:end]) <= {result.frame.index}


def assert_same_arrays(folder, whole):
    expected = contents(whole / "results.zarr")
    found = contents(folder / "results.zarr")
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def seen_by_reader(path):
    """Reads a store as documented for concurrent readers; returns the number of frames, all complete."""
    if not (path / "times" / "zarr.json").exists():
        return 0
    group = zarr.open_group(path, mode="r")
    count = group["times"].shape[0]
    frames, maps = group["frames"], group["maps/detector"]
    starts = group["detections/starts"][: count + 1]
    boxes, scores = group["detections/boxes"][: starts[-1]], group["detections/scores"][: starts[-1]]
    assert len(starts) == count + 1
    assert len(boxes) == len(scores) == starts[-1]
    assert (boxes[:, 2] > boxes[:, 0]).all()
    assert (scores > 0).all()
    for array in (
        frames[:],
        maps[:],
        group["detections/scores"][:],
    ):  # frames beyond `count` are complete, too
        assert array.all()
    assert min(len(frames[:]), len(maps[:]), group["indices"].shape[0]) >= count
    return count


def run_with_arrays(source: Path, weights: str, folder: Path) -> Path:
    """Runs with results.zarr; returns the folder."""
    output = {"folder": str(folder), "zarr": True}
    table = {"detector": {"weights": weights, "conf": 0.2}, "output": output}
    run(str(source), build(RunConfig, table), parts(), progress="off")
    return folder
