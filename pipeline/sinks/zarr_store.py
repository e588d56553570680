"""`results.zarr`: frames, score maps and detections as arrays, which can be read while they are written.

The names of the arrays, T frames and N detections:

    times              (T,) float64     presentation time in seconds
    indices            (T,) int64       index of the frame in the source
    frames             (T, H, W)        the pixels as they came, uint8 or uint16; (T, H, W, 3) R, G, B
    maps/detector      (T, h, w)        float16, what the network believes of each cell, 0 to 1
    maps/NAME          (T, H, W)        float16, probability that a pixel belongs to a target; one a segmenter
    detections/boxes   (N, 4) float32   x1 y1 x2 y2 in source pixels, right and bottom exclusive
    detections/scores  (N,) float32
    detections/labels  (N,) int32
    detections/frames  (N,) int64       index of the frame in the source
    detections/tracks  (N,) int64       id of the track that the detection was joined to, 0 for none
    detections/starts  (T + 1,) int64   rows starts[t] to starts[t + 1] are those of frame t

The attributes of a map say what its values mean and where its cells lie: the cell in row r and column c
begins at x = origin[0] + c * cell[0] and y = origin[1] + r * cell[1] in source pixels, and is cell[0] wide
and cell[1] high. Cells may lie outside the picture. There are no arrays until the first frames are written.

Frames become visible when they fill a chunk, after ten seconds, or at the end. `times` is the last array to
grow: whoever opens it first, and the others after it, finds in them all frames that it counts.
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
from typing import Self

import numpy as np

from pipeline.sinks.appendable_array import AppendableArray, ArraySpec, create
from pipeline.sinks.base import quietly
from pipeline.structures.detections import Detections, ScoreMap
from pipeline.structures.frame import SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState
from pipeline.system.errors import OutputError
from pipeline.system.files import output_error

FORMAT = 1
"""In the attributes, as "mote": to be raised when arrays get other names or meanings."""
CHUNK_FRAMES, CHUNK_BYTES = 16, 2 << 20
"""Most frames, and most bytes of them before compression (but one frame at least), of a chunk. So many frames
wait until they are written, and are lost if the process is killed."""
MAX_WAIT = 10.0
"""Seconds after which they are written all the same."""
CHUNK_ROWS = 4096
"""Of arrays whose rows are a few numbers."""
READING = "open `times` first: the frames that it counts are in all other arrays"


STARTS = "detections/starts"
DETECTIONS = {  # a row for each
    "detections/boxes": ArraySpec((4,), np.float32, CHUNK_ROWS, ("row", "corner"), {"unit": "source pixels"}),
    "detections/scores": ArraySpec((), np.float32, CHUNK_ROWS, ("row",), {}),
    "detections/labels": ArraySpec((), np.int32, CHUNK_ROWS, ("row",), {}),
    "detections/frames": ArraySpec((), np.int64, CHUNK_ROWS, ("row",), {}),
    "detections/tracks": ArraySpec((), np.int64, CHUNK_ROWS, ("row",), {"none": 0}),
}


class ZarrSink:
    """Appends to the arrays; a context manager like every sink.

    Args:
        path: folder of the store; one that is there is replaced, unless frames of it are kept.
        info: of the source.
        kept: of a run that is resumed: frames that stay, of those that `survey` has found. The results that
            they are of come first, and are not written again.
    """

    def __init__(self, path: str | Path, info: SourceInfo, *, kept: int = 0):
        self.path = Path(path)
        self._info, self._kept = info, kept

    def __enter__(self) -> Self:
        import zarr

        self._known, self._count, self._rows = self._kept, self._kept, 0
        self._waiting: list[Result] = []
        self._flushed = time.monotonic()
        self._arrays: dict[str, AppendableArray] = {}
        self._columns: dict[str, ArraySpec] = {}
        with self._told():
            if self._kept:
                self._reopen()
            else:
                remove(self.path)
                about = {"source": self._info.name, "rate": str(self._info.rate), "reading": READING}
                zarr.create_group(self.path, zarr_format=3, attributes={"mote": FORMAT, **about})
        return self

    @property
    def size(self) -> int:
        """Bytes of the chunks so far."""
        return sum(array.size for array in self._arrays.values())

    def write(self, result: Result) -> None:
        """Take one result; `OutputError` if it cannot be written, or is of another shape than the first."""
        if self._known:
            self._known -= 1
            return
        now = columns(result)
        self._columns = self._columns or now
        for name, before in self._columns.items():
            if now.get(name) != before:
                what = f"frame {result.frame.index} has other {name} than those before it"
                raise OutputError(f"cannot write {self.path}: {what}")
        self._waiting.append(result)
        self._count += 1
        full = self._count % self._columns["frames"].step == 0
        if full or time.monotonic() - self._flushed > MAX_WAIT:
            self._flush()

    def __exit__(self, kind, error, traceback) -> None:
        quietly(self._flush, error)

    def _flush(self) -> None:
        """Write what waits, then let it be seen."""
        results, self._waiting, self._flushed = self._waiting, [], time.monotonic()
        if not results:
            return
        with self._told():
            if not self._arrays:
                self._create()
            for name, rows in blocks(results, self._rows).items():
                self._arrays[name].append(rows)
            self._rows += sum(len(result.detections) for result in results)
            for array in self._arrays.values():  # in the order of `columns`: `times` is the last one
                array.publish()

    def _create(self) -> None:
        """Make the arrays."""
        import zarr

        group = zarr.open_group(self.path, mode="r+")
        for name, column in self._columns.items():
            create(group, name, column)
            self._arrays[name] = array = AppendableArray(self.path / name)
            if name == STARTS:
                array.append(np.zeros(1, np.int64))
                array.publish()

    def _reopen(self) -> None:
        """Go on after the frames that are kept."""
        import zarr

        self._rows = int(zarr.open_array(self.path / STARTS, mode="r")[self._kept])
        maps = sorted(f"maps/{place.parent.name}" for place in self.path.glob("maps/*/zarr.json"))
        lengths = dict.fromkeys(DETECTIONS, self._rows) | {STARTS: self._kept + 1}
        for name in (*DETECTIONS, STARTS, "frames", *maps, "indices", "times"):
            self._arrays[name] = AppendableArray(self.path / name, lengths.get(name, self._kept))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what the system says against writing into an OutputError that names the store."""
        try:
            yield
        except OSError as error:
            gone = self._arrays and not self.path.is_dir()
            told = OSError(errno.ESTALE, "it was deleted while it was written") if gone else error
            raise output_error(self.path, told) from error


def columns(result: Result) -> dict[str, ArraySpec]:
    """The arrays for results like this one, in the order in which they grow."""
    image = result.frame.image
    step = int(np.clip(CHUNK_BYTES // image.nbytes, 1, CHUNK_FRAMES))
    axes = ("time", "row", "column", "channel")[: image.ndim + 1]
    bits = {"bit_depth": result.frame.bit_depth}
    return {
        **DETECTIONS,
        STARTS: ArraySpec((), np.int64, CHUNK_ROWS, ("boundary",), {}),
        "frames": ArraySpec(image.shape, image.dtype, step, axes, bits),
        **{f"maps/{name}": _map_column(one, step) for name, one in result.maps.items()},
        "indices": ArraySpec((), np.int64, CHUNK_ROWS, ("time",), {}),
        "times": ArraySpec((), np.float64, CHUNK_ROWS, ("time",), {"unit": "seconds"}),
    }


def _map_column(one: ScoreMap, step: int) -> ArraySpec:
    about = {"meaning": one.meaning, "cell": list(one.cell), "origin": list(one.origin)}
    return ArraySpec(one.values.shape, one.values.dtype, step, ("time", "row", "column"), about)


def blocks(results: Sequence[Result], row: int) -> dict[str, np.ndarray]:
    """What the results add to each array; `row` is the number of detections before them."""
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


def track_ids(detections: Detections, tracks: Tracks) -> np.ndarray:
    """(N,) int64: id of the track that each detection was joined to, 0 for none.

    A track has the score of its last detection, to the last bit. Of those with this score the nearest is the
    one, where centres are no farther apart than the diagonals of both boxes together.
    """
    ids = np.zeros(len(detections), np.int64)
    tracks = tracks[tracks.state != TrackState.COASTING]
    (places, reach), (ours, sizes) = _centres(detections.boxes), _centres(tracks.boxes)
    apart = np.linalg.norm(ours[:, None] - places, axis=-1)  # (tracks, N)
    possible = (tracks.scores[:, None] == detections.scores) & (apart <= sizes[:, None] + reach)
    for number, track_id in enumerate(tracks.ids):
        candidates = np.flatnonzero(possible[number] & (ids == 0))
        if candidates.size:
            ids[candidates[np.argmin(apart[number, candidates])]] = track_id
    return ids


def _centres(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4) x1 y1 x2 y2 → centres (N, 2) and diagonals (N,)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return (low + high) / 2, np.linalg.norm(high - low, axis=1)


def survey(path: Path) -> int:
    """How many frames of a store are whole; 0 where there is none, or one that cannot be gone on with."""
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
        count, starts = group["times"].shape[0], group[STARTS]
        maps = [array for _, array in group["maps"].arrays()] if "maps" in group else []
        whole = group.attrs["mote"] == FORMAT and starts.shape[0] > count
        whole &= all(group[name].shape[0] >= starts[count] for name in DETECTIONS)
        whole &= all(array.shape[0] >= count for array in (group["frames"], group["indices"], *maps))
    except Exception:  # zarr raises almost anything for damage; all is then made anew
        return 0
    return count if whole else 0


def remove(path: Path) -> None:
    """Remove the store of an earlier run. Raises OSError, and OutputError for what is none."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not is_store(path):
        raise OutputError(f"{path} is not of an earlier run and is not removed; use another --output")
    shutil.rmtree(path)


def is_store(path: Path) -> bool:
    """Whether a folder is a store of this kind, or empty, as one whose run was killed at once."""
    try:
        return path.is_dir() and (not any(path.iterdir()) or _attributes(path).get("mote") == FORMAT)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _attributes(path: Path) -> dict:
    return json.loads((path / "zarr.json").read_bytes())["attributes"]
