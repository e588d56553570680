"""Track quality by motmetrics: MOTA, MOTP, IDF1, switches and fragments, on distances of our own.

Which track may stand for which target is decided by a gate, chosen by name: by overlap, or by the distance
between centres, since overlap says little about targets of a few pixels. Classes are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.evaluation.detection.tables import section, shown
from pipeline.structures.annotations import VideoRecord
from pipeline.structures.boxes import centre_distance, from_xywh, iou
from pipeline.system.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from motmetrics import MOTAccumulator

OVERALL = "OVERALL"
"""The row of `pooled` that takes all videos together."""
_RATIOS = ("mota", "motp", "idf1", "idp", "idr")
"""Fields of `TrackScores` that can be undefined; motmetrics has the same names."""
_COUNTS = {
    "switches": "num_switches",
    "fragments": "num_fragmentations",
    "misses": "num_misses",
    "false_positives": "num_false_positives",
    "mostly_tracked": "mostly_tracked",
    "mostly_lost": "mostly_lost",
    "boxes": "num_objects",
    "targets": "num_unique_objects",
    "frames": "num_frames",
}
"""Field of `TrackScores` -> what motmetrics calls it."""
_WANTED = [*_RATIOS, *_COUNTS.values()]
_WIDEST_ID = 2**53
"""motmetrics keeps ids as floats, which tell whole numbers apart up to here."""


def iou_distances(truth: np.ndarray, boxes: np.ndarray, limit: float) -> np.ndarray:
    """(N, 4) and (M, 4) → (N, M) float64, 1 − IoU; NaN where the IoU is below `limit`."""
    overlap = iou(np.asarray(truth, dtype=np.float64), np.asarray(boxes, dtype=np.float64))
    return np.where(overlap >= limit, 1 - overlap, np.nan)


def centre_distances(truth: np.ndarray, boxes: np.ndarray, limit: float) -> np.ndarray:
    """(N, 4) and (M, 4) → (N, M) float64, pixels between centres; NaN where they are more than `limit`."""
    distance = centre_distance(np.asarray(truth, dtype=np.float64), np.asarray(boxes, dtype=np.float64))
    return np.where(distance <= limit, distance, np.nan)


class Gate(NamedTuple):
    """Which track may stand for which target, and how far apart the two are."""

    distances: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    """Boxes of targets (N, 4), of tracks (M, 4), limit → distances (N, M), NaN for what may not be paired."""
    limit: float
    """The limit where none is given."""
    most: float
    """The highest limit that makes sense; all must be above 0."""
    unit: str
    """What the distances, and so MOTP, are measured in."""


GATES: dict[str, Gate] = {
    "iou": Gate(iou_distances, limit=0.5, most=1.0, unit="1 - IoU"),
    "centre": Gate(centre_distances, limit=5.0, most=1e6, unit="px"),
}
"""Name → gate: `iou` pairs boxes of at least that overlap, `centre` those of at most that distance."""


@dataclass(frozen=True, eq=False)
class TrackRows:
    """The tracks of one video, one row for each track and frame, in any order."""

    frames: np.ndarray
    """(N,) int64 frame number from 0."""
    ids: np.ndarray
    """(N,) int64, not negative; no id twice in a frame."""
    boxes: np.ndarray
    """(N, 4) float32 x1 y1 x2 y2 in pixels, right and bottom exclusive."""

    def __post_init__(self):
        count = np.size(self.frames)
        for name, dtype, shape in (
            ("frames", np.int64, ()),
            ("ids", np.int64, ()),
            ("boxes", np.float32, (4,)),
        ):
            array = np.array(getattr(self, name), dtype=dtype)
            array = array if array.size else array.reshape(0, *shape)
            if array.shape != (count, *shape):
                raise ValueError(f"{name} has shape {array.shape}, expected {(count, *shape)}")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if (self.frames < 0).any() or (self.ids < 0).any() or (self.ids > _WIDEST_ID).any():
            raise ValueError("frames and ids must be 0 or more, ids at most 2**53")
        if not np.isfinite(self.boxes).all() or (self.boxes[:, 2:] < self.boxes[:, :2]).any():
            raise ValueError("boxes must be finite, with x1 <= x2 and y1 <= y2")
        if len(set(zip(self.frames.tolist(), self.ids.tolist(), strict=True))) < len(self):
            raise ValueError("an id occurs twice in a frame")

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class TrackScores:
    """What tracks are worth against the labelled targets. A ratio without a denominator is None.

    A labelled box is *matched* in a frame when a track is assigned to it inside the gate: the track that it
    had last if that is still within the gate, else so that as many boxes as possible are matched, at the
    lowest total distance.
    """

    gate: str
    """Name of the gate."""
    limit: float
    """Its limit: least IoU, or most pixels between centres."""
    mota: float | None
    """1 - (misses + false positives + switches) / boxes: at most 1, negative where faults outnumber boxes."""
    motp: float | None
    """Mean distance of the matched pairs, in the gate's unit: 1 - IoU or pixels. Lower is better."""
    idf1: float | None
    """Harmonic mean of `idp` and `idr`."""
    idp: float | None
    """Each target is given at most one track for the whole video, as suits best: the share of the rows of all
    tracks that lie inside the gate of the target which their track was given to."""
    idr: float | None
    """The share of the labelled boxes that the track given to their target covers."""
    switches: int
    """Matches with another track than the one that the same target was matched with before, also after a
    pause."""
    fragments: int
    """Times that a target is lost and matched again later."""
    misses: int
    """Labelled boxes that are not matched."""
    false_positives: int
    """Rows of tracks that are not matched."""
    mostly_tracked: int
    """Targets matched in 80 % or more of their frames."""
    mostly_lost: int
    """Targets matched in less than 20 % of their frames."""
    boxes: int
    """Labelled boxes."""
    targets: int
    """Labelled identities."""
    tracks: int
    """Ids of tracks."""
    frames: int
    """Frames that were scored; those without targets count."""

    def as_dict(self) -> dict[str, float | int | str | None]:
        """Plain values, for JSON; None for what is undefined."""
        return asdict(self)

    def table(self) -> str:
        """One line for each number, for people; a dash for what is undefined."""
        rows = {name: _text(value) for name, value in self.as_dict().items()}
        unit = f" ({GATES[self.gate].unit})" if self.gate in GATES and self.motp is not None else ""
        rows["motp"] += unit
        return "\n".join(f"{name:<17}{text}" for name, text in rows.items())


class Tracked(NamedTuple):
    """One video for `pooled`: its ground truth, its tracks, and the frames that were processed."""

    record: VideoRecord
    tracks: TrackRows | str | Path
    frames: Iterable[int] | None = None
    """None for all annotated frames."""


def track_scores(
    record: VideoRecord,
    tracks: TrackRows | str | Path,
    *,
    gate: str = "iou",
    limit: float | None = None,
    frames: Iterable[int] | None = None,
) -> TrackScores:
    """Score the tracks of one video against its labelled targets.

    A frame is scored when it is annotated, with or without targets, and is among `frames` (numbers from 0;
    None for all): give the frames that were processed, or those that a run did not reach count as misses.
    Tracks in frames that are not scored are left out. For identities that are missing see `identities`.

    MOTA takes the annotations to be complete. Where they label one target a frame and more are flying, as in
    drone-ir, each row of a track on an unlabelled target is a false positive: compare trackers by it on the
    same data, and read it together with IDR. There one identity also spans each clip, and a switch is counted
    where the label goes over from one thing to another.

    Args:
        record: the ground truth.
        tracks: rows, or the path of a MOT file (see `read_tracks`).
        gate: a name in `GATES`.
        limit: of the gate: least IoU, in (0, 1], or most pixels between centres. None for the gate's own,
            IoU 0.5 or 5 px.
        frames: the frames that were processed.

    Raises:
        UsageError: an unknown gate, a limit out of range, a file that is not a MOT file, or targets that
            cannot be told apart.
    """
    chosen, limit = _gate(gate, limit)
    run = Tracked(record, tracks, frames)
    accumulator, ids = _accumulate(run, chosen, limit)
    return _scores(_partial(accumulator), gate=gate, limit=limit, tracks=len(ids))


def pooled(
    runs: Iterable[Tracked | tuple], *, gate: str = "iou", limit: float | None = None
) -> dict[str, TrackScores]:
    """Scores by the name of each video, in the order given, and of all together under `OVERALL`.

    `runs` holds (record, tracks) or (record, tracks, frames). All together means that counts are added up
    and ratios formed from the sums; an identity or a track of one video is none of another's. The rest is as
    in `track_scores`. Raises UsageError as it does, and for two videos of the same name.
    """
    chosen, limit = _gate(gate, limit)
    partials, scores, tracks = [], {}, 0
    for run in (Tracked(*run) for run in runs):
        name = run.record.name
        if name in scores or name == OVERALL:
            raise UsageError(f"tracks of two videos named '{name}'; names must differ, also from {OVERALL}")
        accumulator, ids = _accumulate(run, chosen, limit)
        partials.append(_partial(accumulator))
        tracks += len(ids)
        scores[name] = _scores(partials[-1], gate=gate, limit=limit, tracks=len(ids))
    scores[OVERALL] = _scores(_sum(partials), gate=gate, limit=limit, tracks=tracks)
    return scores


def summary(scores: Mapping[str, TrackScores]) -> str:
    """One line a video, for people: what `pooled` gives, without the columns that need explaining first."""
    columns = ("mota", "motp", "idf1", "switches", "fragments", "misses", "false_positives", "boxes")
    lines = [["video", *columns]]
    lines += [[name, *(_text(getattr(row, column)) for column in columns)] for name, row in scores.items()]
    shape = f"{{:<{max(len(name) for name, *_ in lines)}}}"
    shape += "".join(f"{{:>{max(len(column), 7) + 2}}}" for column in columns)
    return "\n".join(shape.format(*line) for line in lines)


def read_tracks(path: str | Path) -> TrackRows:
    """The rows of a MOT file: ``frame,id,left,top,width,height`` and whatever follows them in a line.

    Frames, x and y count from 1 in the file, as `pipeline.sinks.mot.MotSink` writes them, and from 0 in
    the rows. That sink leaves out tentative tracks and writes coasting ones, whose boxes are predictions;
    here all rows are alike. An empty file is a run without tracks. Raises UsageError, with the number of the
    line, for a file that is not like that.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read tracks {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"tracks {path} are not MOT text: {error}") from error
    rows: dict[tuple[int, int], list[float]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            frame, track, box = _row(line)
            if (frame, track) in rows:
                raise ValueError(f"track {track} is in frame {frame} a second time")
        except ValueError as error:
            raise UsageError(f"tracks {path}, line {number}: {error}") from error
        rows[frame, track] = box
    places = np.array(list(rows), dtype=np.int64).reshape(-1, 2)
    corners = from_xywh(np.array(list(rows.values()), dtype=np.float64)) - 1
    return TrackRows(frames=places[:, 0] - 1, ids=places[:, 1], boxes=corners)


def _row(line: str) -> tuple[int, int, list[float]]:
    """Frame from 1, id, left, top, width, height of a line; ValueError says what is wrong with it."""
    fields = line.split(",")
    if len(fields) < 6:
        raise ValueError(f"{len(fields)} values between commas, expected frame,id,left,top,width,height,…")
    frame, track, *box = (_value(field) for field in fields[:6])
    if frame < 1 or frame != int(frame):
        raise ValueError(f"frame {fields[0]} is not a whole number from 1")
    if track < 0 or track != int(track):
        raise ValueError(f"id {fields[1]} is not a whole number from 0; -1 is for detections without tracks")
    if min(box[2:]) < 0:
        raise ValueError(f"width {fields[4]}, height {fields[5]}: neither may be negative")
    return int(frame), int(track), box


def _value(field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not abs(value) <= _WIDEST_ID:
        raise ValueError(f"'{field.strip()}' is not a number of at most 2**53")
    return value


def identities(record: VideoRecord) -> tuple[np.ndarray, ...]:
    """Per frame (N,) int64: the identity of each box, with those filled in that the annotations leave open.

    A target without an identity is taken to be the same one for as long as each annotated frame holds one
    such target, and a new one after every break. Raises UsageError where a frame holds several of them, or
    one identity twice.
    """
    instances = record.instances or tuple(np.full(len(boxes), -1) for boxes in record.boxes)
    fresh = max((int(ids.max()) for ids in instances if len(ids)), default=-1)
    found, unbroken = [], False
    for frame, given in enumerate(instances):
        if frame not in record.image_ids:
            found.append(np.zeros(0, dtype=np.int64))
            continue
        open_ones = int((given < 0).sum())
        if open_ones > 1:
            raise UsageError(
                f"frame {frame} of '{record.name}' has {open_ones} targets without identities, which cannot "
                "be told apart; tracks are scored where annotations have 'instance_id' or one target a frame"
            )
        fresh += bool(open_ones and not unbroken)
        unbroken = bool(open_ones)
        found.append(np.where(given < 0, fresh, given).astype(np.int64))
        if len(np.unique(found[-1])) < len(given):
            twice = sorted(given.tolist())
            raise UsageError(f"frame {frame} of '{record.name}' has an identity twice: {twice}")
    return tuple(found)


def _gate(name: str, limit: float | None) -> tuple[Gate, float]:
    if name not in GATES:
        raise unknown_name("gate", name, GATES)
    gate = GATES[name]
    limit = gate.limit if limit is None else limit
    if not 0 < limit <= gate.most:
        raise UsageError(f"limit {limit} of gate '{name}' is not above 0 and at most {gate.most:g}")
    return gate, float(limit)


def _accumulate(run: Tracked, gate: Gate, limit: float) -> tuple[MOTAccumulator, set[int]]:
    """The events of the scored frames in order, and the ids of the tracks in them."""
    from motmetrics import MOTAccumulator

    record = run.record
    rows = run.tracks if isinstance(run.tracks, TrackRows) else read_tracks(run.tracks)
    scored = set(record.image_ids) if run.frames is None else set(record.image_ids) & set(run.frames)
    targets, accumulator, seen = identities(record), MOTAccumulator(), set()
    order = np.lexsort((rows.ids, rows.frames))
    places = rows.frames[order]
    for frame in sorted(scored):
        present = order[np.searchsorted(places, frame) : np.searchsorted(places, frame, side="right")]
        ids, boxes = rows.ids[present], rows.boxes[present]
        distances = gate.distances(record.boxes[frame], boxes, limit)
        accumulator.update(targets[frame], ids, distances, frameid=frame)
        seen.update(ids.tolist())
    return accumulator, seen


def _partial(accumulator: MOTAccumulator) -> dict[str, Any]:
    """All numbers of one video by motmetrics' names, with those that its sums over videos need."""
    from motmetrics import metrics

    return metrics.create().compute(accumulator, metrics=_WANTED, return_dataframe=False, return_cached=True)


def _sum(partials: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of all videos together.

    The parts of motmetrics' `compute_many`, which itself sets up the logging of the whole process.
    """
    from motmetrics import metrics

    # its mean weighs each MOTP by the matches of its video, and 0 × NaN would make the whole NaN
    partials = [p if p["num_detections"] else {**p, "motp": 0.0} for p in partials]
    return metrics.create().compute_overall(partials, metrics=_WANTED, return_dataframe=False)


def _scores(numbers: Mapping[str, Any], *, gate: str, limit: float, tracks: int) -> TrackScores:
    ratios = {name: float(numbers[name]) if math.isfinite(numbers[name]) else None for name in _RATIOS}
    counts = {field: int(numbers[name]) for field, name in _COUNTS.items()}
    return TrackScores(gate=gate, limit=limit, tracks=tracks, **ratios, **counts)


def _text(value: float | int | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def track_table(scores: Mapping[str, TrackScores]) -> str:
    """Scores of the same tracks by the name of the gate, one line a gate."""
    counts = ("switches", "fragments", "misses", "false_positives", "boxes")
    rows = [["match", "MOTA", "MOTP", "IDF1", *(name.replace("_", " ") for name in counts)]]
    for gate, row in scores.items():
        title = f"{gate} {row.limit:g}"
        values = (row.mota, row.motp, row.idf1, *(getattr(row, name) for name in counts))
        rows.append([title, *map(shown, values)])
    return section("Tracks, by what counts as a match", rows)
