"""What limits the average precision: each kind of error is taken away by an oracle, and all is matched anew.

After TIDE (Bolya et al., ECCV 2020), for targets of a few pixels: a detection belongs to a target when their
centres lie within 5 pixels, however much the boxes overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np

from pipeline.evaluation.analysis.size_regression import maps_for
from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.ground_truth import FrameTruth
from pipeline.evaluation.detection.matches import Matches
from pipeline.evaluation.detection.matching import (
    CENTRE_5,
    IOU,
    Criterion,
    match,
    nearnesses,
    overlaps,
    pairs_of,
)
from pipeline.evaluation.detection.predictions import PredictedBoxes

TOUCHING = 0.1
"""IoU from which on a detection is about a target, though its centre may lie further off; as in TIDE."""

Frame = tuple[FrameTruth, PredictedBoxes]
Fix = Callable[[FrameTruth, PredictedBoxes], Frame]


class Oracle(NamedTuple):
    """One kind of error and what takes it away in a frame."""

    name: str
    """Key in the JSON report."""
    title: str
    """For people."""
    fix: Fix


@dataclass(frozen=True)
class Removal:
    """AP50 without one kind of error."""

    name: str
    title: str
    alone: float
    """AP50 with this kind of error alone taken away."""
    together: float
    """AP50 with this kind and all those before it taken away."""


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of the detections from a score on, in frames; each detection and target counts once."""

    targets: int
    hits: int
    """Targets hit at IoU 0.5."""
    badly_boxed: int
    """Targets not hit, but with a detection whose centre is near."""
    missed: int
    """Targets with nothing near."""
    duplicates: int
    """Detections that hit nothing, near a target that another one hits."""
    far: int
    """Detections away from every target, in frames that have targets."""
    on_empty: int
    """Detections in frames without targets."""


@dataclass(frozen=True)
class VideoLimits:
    """One video; ratios are found over annotated, medians over pairs with near centres, None without any."""

    name: str
    frames: int
    ap50: float | None
    """None without targets, and so are the next two."""
    ap50_resized: float | None
    """With the boxes of the whole video resized by one factor of width and one of height."""
    centre_ap: float | None
    """Average precision with centres within 5 pixels."""
    width_ratio: float | None
    height_ratio: float | None
    counts: ErrorCounts


@dataclass(frozen=True)
class ErrorAttribution:
    """All numbers; the threshold is where one is asked for."""

    threshold: float
    ap50: float
    centre_ap: float
    ap50_resized: float
    """AP50 with one factor of width and one of height for each video."""
    ap50_mapped: float
    """AP50 with all sizes changed by one map that was fitted on other videos; see `size_map`."""
    removals: list[Removal]
    counts: ErrorCounts
    width_ratios: list[float]
    """Tenth, fiftieth and ninetieth percentile of found over annotated width; empty without pairs."""
    width_ratios_in_video: list[float]
    """The same, each ratio over the median of its video: what no factor for the video can mend."""
    videos: list[VideoLimits]

    def as_dict(self) -> dict:
        """Plain numbers, for JSON."""
        return asdict(self)


def limits_of(evaluator: Evaluator, threshold: float) -> ErrorAttribution:
    """The limits of what an evaluator of one category was given, `threshold` being a score.

    Raises UsageError where no frame was added.
    """
    frames, videos = evaluator.results(), evaluator.videos()
    resized, mapped = list(frames), list(frames)
    rows, ratios, relative = [], [np.zeros((0, 2))], [np.zeros((0, 2))]
    pairs = [
        size_pairs([frames[place] for place in np.flatnonzero(inside)], threshold) for _, inside in videos
    ]
    for (name, inside), sizes, size_map in zip(videos, pairs, maps_for(pairs), strict=True):
        places = np.flatnonzero(inside)
        own = [frames[place] for place in places]
        found = sizes[0] / sizes[1]
        median = np.median(found, axis=0) if len(found) else np.ones(2)
        mended = [resize(frame, 1 / median) for frame in own]
        for place, frame in zip(places, mended, strict=True):
            resized[place] = frame
            if size_map:
                mapped[place] = resize(frames[place], size_map.factors(frames[place][1].boxes[:, 2:]))
        ratios.append(found)
        relative.append(found / median)
        rows.append(_video(name, own, mended, median if len(found) else None, threshold))
    if not videos:
        found, labels = size_pairs(frames, threshold)
        ratios.append(found / labels)
    return ErrorAttribution(
        threshold=threshold,
        ap50=_precision(frames, IOU) or 0.0,
        centre_ap=_precision(frames, CENTRE_5) or 0.0,
        ap50_resized=_precision(resized, IOU) or 0.0,
        ap50_mapped=_precision(mapped, IOU) or 0.0,
        removals=removals(frames, threshold),
        counts=count_errors(frames, threshold),
        width_ratios=_percentiles(np.concatenate(ratios)[:, 0]),
        width_ratios_in_video=_percentiles(np.concatenate(relative)[:, 0]),
        videos=rows,
    )


def removals(frames: Sequence[Frame], threshold: float) -> list[Removal]:
    """AP50 with each kind of error removed, alone and together with those before it."""
    rows, left = [], list(frames)
    for oracle in oracles(threshold):
        alone = [oracle.fix(*frame) for frame in frames]
        left = [oracle.fix(*frame) for frame in left]
        values = (_precision(changed, IOU) or 0.0 for changed in (alone, left))
        rows.append(Removal(oracle.name, oracle.title, *values))
    return rows


def oracles(threshold: float) -> tuple[Oracle, ...]:
    """All kinds of errors; a target is missed when nothing of score `threshold` or more is near it."""
    return (
        Oracle("sizes", "sizes: the label's, round the found centre", right_sizes),
        Oracle("centres", "centres: the label's, of the found size", right_centres),
        Oracle("duplicates", "second boxes on targets that are hit", without_duplicates),
        Oracle("empty_frames", "false alarms in frames without labels", without_empty_frames),
        Oracle("far", "false alarms far from any label", without_far),
        Oracle("missed", "targets with nothing near", lambda t, f: without_missed(t, f, threshold)),
    )


def near(truth: FrameTruth, found: PredictedBoxes, criterion: Criterion = CENTRE_5) -> np.ndarray:
    """(N,) int64: the target that each detection belongs to, one detection each, best first; -1 for none."""
    crowds = truth.crowds
    return match(pairs_of(found, truth), criterion, count=len(found.scores), ignored=crowds, crowds=crowds)


def right_sizes(truth: FrameTruth, found: PredictedBoxes) -> Frame:
    """Boxes near a target get its width and height and keep their centre."""
    return _reboxed(truth, found, lambda mine, label: _box(mine[:, :2] + mine[:, 2:] / 2, label[:, 2:]))


def right_centres(truth: FrameTruth, found: PredictedBoxes) -> Frame:
    """Boxes near a target are moved to its centre and keep their width and height."""
    return _reboxed(truth, found, lambda mine, label: _box(label[:, :2] + label[:, 2:] / 2, mine[:, 2:]))


def without_duplicates(truth: FrameTruth, found: PredictedBoxes) -> Frame:
    """What hits nothing while another detection hits the target it is about is dropped."""
    return truth, _kept(found, ~_duplicates(truth, found))


def without_empty_frames(truth: FrameTruth, found: PredictedBoxes) -> Frame:
    """A frame without labels has no detections."""
    return truth, _kept(found, np.full(len(found.scores), len(truth.boxes) > 0))


def without_far(truth: FrameTruth, found: PredictedBoxes) -> Frame:
    """What is about no target is dropped, but in frames without labels, which have an oracle of their own."""
    return truth, found if not len(truth.boxes) else _kept(found, _about(truth, found).any(axis=1))


def without_missed(truth: FrameTruth, found: PredictedBoxes, threshold: float) -> Frame:
    """Targets that no detection of score `threshold` or more is about need not be found."""
    noticed = _about(truth, _kept(found, found.scores >= threshold)).any(axis=0)
    return truth._replace(crowds=truth.crowds | ~noticed), found


def resize(frame: Frame, factors: np.ndarray) -> Frame:
    """All detections of a frame with width and height times `factors`, (2,) or (N, 2), round their centre."""
    truth, found = frame
    boxes = _box(found.boxes[:, :2] + found.boxes[:, 2:] / 2, found.boxes[:, 2:] * factors)
    return truth, found._replace(boxes=boxes)


def size_pairs(frames: Sequence[Frame], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Found and annotated width and height, (P, 2) each, of detections from a score on near targets."""
    rows = [np.zeros((0, 2, 2))]
    for truth, found in frames:
        target = near(truth, found)
        pairs = (target >= 0) & (found.scores >= threshold)
        both = np.stack([found.boxes[pairs, 2:], truth.boxes[target[pairs], 2:]], axis=1)
        rows.append(both[(both > 0).all(axis=(1, 2))])
    both = np.concatenate(rows)
    return both[:, 0], both[:, 1]


def count_errors(frames: Sequence[Frame], threshold: float) -> ErrorCounts:
    """The errors of detections of score `threshold` or more."""
    counts = np.zeros(7, dtype=int)
    for truth, found in frames:
        found = _kept(found, found.scores >= threshold)
        wanted = ~truth.crowds
        hit = np.isin(np.arange(len(wanted)), near(truth, found, IOU)) & wanted
        about = _about(truth, found)
        noticed = about.any(axis=0) & wanted & ~hit
        away = 0 if about.size == 0 else int((~about.any(axis=1)).sum())
        missed = wanted & ~hit & ~noticed
        empty = 0 if len(truth.boxes) else len(found.scores)
        duplicates = int(_duplicates(truth, found).sum())
        counts += [wanted.sum(), hit.sum(), noticed.sum(), missed.sum(), duplicates, away, empty]
    return ErrorCounts(*counts.tolist())


def _video(name, frames, mended, median, threshold) -> VideoLimits:
    return VideoLimits(
        name=name,
        frames=len(frames),
        ap50=_precision(frames, IOU),
        ap50_resized=_precision(mended, IOU),
        centre_ap=_precision(frames, CENTRE_5),
        width_ratio=None if median is None else float(median[0]),
        height_ratio=None if median is None else float(median[1]),
        counts=count_errors(frames, threshold),
    )


def _precision(frames: Sequence[Frame], criterion: Criterion) -> float | None:
    return Matches.of(frames).under(criterion).average_precision()


def _about(truth: FrameTruth, found: PredictedBoxes) -> np.ndarray:
    """(N, M) bool: whether a detection is about a target, right or wrong."""
    close = nearnesses(found, truth) >= CENTRE_5.least
    return close | (overlaps(found, truth) >= TOUCHING)


def _duplicates(truth: FrameTruth, found: PredictedBoxes) -> np.ndarray:
    """(N,) bool."""
    hit = near(truth, found, IOU)
    taken = np.isin(np.arange(len(truth.boxes)), hit)
    return (hit < 0) & _about(truth, found)[:, taken].any(axis=1)


def _reboxed(truth: FrameTruth, found: PredictedBoxes, change: Callable) -> Frame:
    """Detections near targets with the boxes that `change` makes of theirs and the labels', (P, 4) each."""
    target = near(truth, found)
    pairs = target >= 0
    boxes = found.boxes.copy()
    boxes[pairs] = change(boxes[pairs], truth.boxes[target[pairs]])
    return truth, found._replace(boxes=boxes)


def _box(centres: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(N, 2) and (N, 2) → (N, 4) left, top, width, height."""
    return np.concatenate([centres - sizes / 2, sizes], axis=1)


def _kept(found: PredictedBoxes, rows: np.ndarray) -> PredictedBoxes:
    return PredictedBoxes(*(column[rows] for column in found))


def _percentiles(values: np.ndarray) -> list[float]:
    return np.percentile(values, [10, 50, 90]).tolist() if len(values) else []
