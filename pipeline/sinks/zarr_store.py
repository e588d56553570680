"""Writes `results.zarr`: frames, score maps and detections as zarr arrays that can be read while they grow.

The arrays, for T frames and N detections:

    times              (T,) float64     presentation time in seconds
    indices            (T,) int64       index of the frame in the source
    frames             (T, H, W)        pixels as decoded, uint8 or uint16; (T, H, W, 3) R, G, B
    maps/detector      (T, h, w)        float16 in [0, 1], score of each cell of the detector
    maps/NAME          (T, H, W)        float16, target probability of each pixel; one map for each segmenter
    detections/boxes   (N, 4) float32   x1 y1 x2 y2 in source pixels, right and bottom exclusive
    detections/scores  (N,) float32
    detections/labels  (N,) int32
    detections/frames  (N,) int64       index of the frame in the source
    detections/tracks  (N,) int64       id of the track that the detection is assigned to, negative
                                        while the track is tentative, 0 for none
    detections/starts  (T + 1,) int64   frame t has the rows starts[t] to starts[t + 1]

The attributes of a map give the meaning of its values and the geometry of its cells: the cell in row r and
column c begins at x = origin[0] + c * cell[0] and y = origin[1] + r * cell[1] in source pixels; its width is
cell[0], its height cell[1]. Cells may lie outside the image. The arrays are created with the first frames.

Frames become visible when they fill a chunk, after ten seconds, or at the end. `times` is the last array to
grow: a reader that opens it first finds all frames that it counts in the other arrays.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.sinks.appendable_array import AppendableArray, ArraySpec, create_array
from pipeline.sinks.base import close_preserving_error
from pipeline.stages.assignment import track_ids
from pipeline.structures.detections import ScoreMap
from pipeline.structures.frame import SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import OutputError
from pipeline.system.files import output_error
from pipeline.system.packages import require_package

FORMAT_VERSION = 1
"""The attribute "mote" of a store; increased if arrays get other names or meanings."""
CHUNK_FRAMES, CHUNK_BYTES = 16, 2 << 20
"""Maximum number of frames of a chunk, and of their bytes before compression; a chunk has at least one frame.
So many frames are lost if the process is killed."""
MAX_WAIT = 10.0
"""Seconds after which frames are written even if they fill no chunk."""
CHUNK_ROWS = 4096
"""Rows in a chunk of the arrays whose rows are a few numbers."""
READING_ORDER = "open `times` first: the frames that it counts are in all other arrays"
"""The attribute "reading" of a store."""

STARTS = "detections/starts"
DETECTION_ARRAYS = {  # one row for each detection
    "detections/boxes": ArraySpec((4,), np.float32, CHUNK_ROWS, ("row", "corner"), {"unit": "source pixels"}),
    "detections/scores": ArraySpec((), np.float32, CHUNK_ROWS, ("row",), {}),
    "detections/labels": ArraySpec((), np.int32, CHUNK_ROWS, ("row",), {}),
    "detections/frames": ArraySpec((), np.int64, CHUNK_ROWS, ("row",), {}),
    "detections/tracks": ArraySpec((), np.int64, CHUNK_ROWS, ("row",), {"none": 0}),
}


class ZarrSink:
    """Appends results to the arrays of a zarr store.

    Args:
        path: folder of the store; an existing store is replaced unless `kept` is positive.
        info: description of the source.
        kept: number of frames that stay if a run is resumed, at most `count_complete_frames`. Their results
            come first in `write`, which skips them.
    """

    def __init__(self, path: str | Path, info: SourceInfo, *, kept: int = 0):
        require_package("zarr", "--save-zarr")
        self.path = Path(path)
        self._info, self._kept = info, kept
        self._to_skip, self._count = kept, kept
        self._rows = 0  # detections so far
        self._pending: list[Result] = []
        self._flushed = 0.0  # when results were last written, seconds of `time.monotonic`
        self._arrays: dict[str, AppendableArray] = {}
        self._specs: dict[str, ArraySpec] = {}

    def __enter__(self) -> Self:
        import zarr

        self._flushed = time.monotonic()
        with self._as_output_error():
            if self._kept:
                self._reopen()
            else:
                remove_store(self.path)
                about = {"source": self._info.name, "rate": str(self._info.rate), "reading": READING_ORDER}
                zarr.create_group(self.path, zarr_format=3, attributes={"mote": FORMAT_VERSION, **about})
        return self

    @property
    def size(self) -> int:
        """Size in bytes of the chunks that were written."""
        return sum(array.size for array in self._arrays.values())

    def write(self, result: Result) -> None:
        """Appends one result. Raises OutputError if that fails, or its shapes are not those of the first."""
        if self._to_skip:
            self._to_skip -= 1
            return
        specs = array_specs(result)
        self._specs = self._specs or specs
        for name, expected in self._specs.items():
            if specs.get(name) != expected:
                what = f"frame {result.frame.index} has other {name} than those before it"
                raise OutputError(f"cannot write {self.path}: {what}")
        self._pending.append(result)
        self._count += 1
        full = self._count % self._specs["frames"].chunk_rows == 0
        if full or time.monotonic() - self._flushed > MAX_WAIT:
            self._flush()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        close_preserving_error(self._flush, error)

    def _flush(self) -> None:
        """Writes pending results and makes them visible to readers."""
        results, self._pending, self._flushed = self._pending, [], time.monotonic()
        if not results:
            return
        with self._as_output_error():
            if not self._arrays:
                self._create()
            for name, rows in new_rows(results, self._rows).items():
                self._arrays[name].append(rows)
            self._rows += sum(len(result.detections) for result in results)
            for array in self._arrays.values():  # in the order of `array_specs`: `times` is the last one
                array.publish()

    def _create(self) -> None:
        """Creates the arrays."""
        import zarr

        group = zarr.open_group(self.path, mode="r+")
        for name, spec in self._specs.items():
            create_array(group, name, spec)
            self._arrays[name] = array = AppendableArray(self.path / name)
            if name == STARTS:
                array.append(np.zeros(1, np.int64))
                array.publish()

    def _reopen(self) -> None:
        """Opens the arrays to append after the frames that are kept."""
        import zarr

        names = (*DETECTION_ARRAYS, STARTS, "frames", *_map_names(self.path), "indices", "times")
        for folder in {
            self.path,
            *(self.path / name for name in names),
            *((self.path / name).parent for name in names),
        }:
            if folder.is_symlink():
                raise OSError(errno.ELOOP, f"{folder.name} is a link")
        self._rows = int(np.asarray(zarr.open_array(self.path / STARTS, mode="r")[self._kept]))
        lengths = dict.fromkeys(DETECTION_ARRAYS, self._rows) | {STARTS: self._kept + 1}
        for name in names:
            self._arrays[name] = AppendableArray(self.path / name, lengths.get(name, self._kept))

    @contextmanager
    def _as_output_error(self) -> Iterator[None]:
        """Converts an OSError to an OutputError that names the store."""
        try:
            yield
        except OSError as error:
            gone = self._arrays and not self.path.is_dir()
            cause = OSError(errno.ESTALE, "it was deleted while it was written") if gone else error
            raise output_error(self.path, cause) from error


def array_specs(result: Result) -> dict[str, ArraySpec]:
    """Returns the arrays for results like this one by name, in the order in which they grow."""
    image = result.frame.image
    chunk_frames = int(np.clip(CHUNK_BYTES // image.nbytes, 1, CHUNK_FRAMES))
    axes = ("time", "row", "column", "channel")[: image.ndim + 1]
    bits = {"bit_depth": result.frame.bit_depth}
    return {
        **DETECTION_ARRAYS,
        STARTS: ArraySpec((), np.int64, CHUNK_ROWS, ("boundary",), {}),
        "frames": ArraySpec(image.shape, image.dtype, chunk_frames, axes, bits),
        **{f"maps/{name}": _map_spec(score_map, chunk_frames) for name, score_map in result.maps.items()},
        "indices": ArraySpec((), np.int64, CHUNK_ROWS, ("time",), {}),
        "times": ArraySpec((), np.float64, CHUNK_ROWS, ("time",), {"unit": "seconds"}),
    }


def _map_spec(score_map: ScoreMap, chunk_frames: int) -> ArraySpec:
    geometry = {"cell": list(score_map.cell), "origin": list(score_map.origin)}
    attributes = {"meaning": score_map.meaning, **geometry}
    values = score_map.values
    return ArraySpec(values.shape, values.dtype, chunk_frames, ("time", "row", "column"), attributes)


def new_rows(results: Sequence[Result], row: int) -> dict[str, np.ndarray]:
    """Returns the rows that results append to each array; `row` is the number of detections before them."""
    frames, found = [result.frame for result in results], [result.detections for result in results]
    counts = [len(detections) for detections in found]
    indices = np.array([frame.index for frame in frames], np.int64)
    return {
        "detections/boxes": np.concatenate([detections.boxes for detections in found]),
        "detections/scores": np.concatenate([detections.scores for detections in found]),
        "detections/labels": np.concatenate([detections.labels for detections in found]),
        "detections/frames": np.repeat(indices, counts),
        "detections/tracks": np.concatenate([track_ids(one.detections, one.tracks) for one in results]),
        STARTS: row + np.cumsum(counts),
        "frames": np.stack([frame.image for frame in frames]),
        **{f"maps/{name}": np.stack([one.maps[name].values for one in results]) for name in results[0].maps},
        "indices": indices,
        "times": np.array([float(frame.pts) for frame in frames]),
    }


def count_complete_frames(path: Path) -> int:
    """Returns the number of frames that all arrays of a store hold; 0 if a run cannot append to it."""
    import zarr

    def array(name: str) -> zarr.Array:
        return zarr.open_array(path / name, mode="r")

    try:
        version = zarr.open_group(path, mode="r").attrs["mote"]
        count, starts = array("times").shape[0], array(STARTS)
        rows = int(np.asarray(starts[count]))
        complete = version == FORMAT_VERSION and starts.shape[0] > count
        complete &= all(array(name).shape[0] >= rows for name in DETECTION_ARRAYS)
        complete &= all(array(name).shape[0] >= count for name in ("frames", "indices", *_map_names(path)))
    except Exception:  # zarr raises almost any exception for a damaged store, which is then replaced
        return 0
    return count if complete else 0


def _map_names(path: Path) -> list[str]:
    return sorted(f"maps/{metadata.parent.name}" for metadata in path.glob("maps/*/zarr.json"))


def remove_store(path: Path) -> None:
    """Removes the store of an earlier run, if there is one.

    Raises OutputError if `path` is anything else, and OSError if the store cannot be removed.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not is_store(path):
        raise OutputError(f"{path} is not of an earlier run and is not removed; use another --output")
    shutil.rmtree(path)


def is_store(path: Path) -> bool:
    """Returns whether `path` is a store of a `ZarrSink`, or an empty folder, which a killed run may leave."""
    try:
        return path.is_dir() and (not any(path.iterdir()) or _attributes(path).get("mote") == FORMAT_VERSION)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _attributes(path: Path) -> dict[str, Any]:
    return json.loads((path / "zarr.json").read_bytes())["attributes"]
