"""Operating thresholds, and whether a score is the chance of a hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from pipeline.evaluation.detection.curves import Curve, OperatingPoint
from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.matches import Hits, Matches
from pipeline.evaluation.detection.matching import CENTRE_5, IOU, Criterion
from pipeline.system.errors import UsageError

WIDTH = 0.05
"""Of the bins of scores."""
CRITERIA = (IOU, CENTRE_5)


@dataclass(frozen=True)
class Bin:
    """Detections of about the same score."""

    low: float
    """Least score of the bin."""
    score: float
    """Mean of its scores."""
    hits: float
    """The share of them that hit a target."""
    count: int


@dataclass(frozen=True)
class OperatingThreshold:
    """A threshold for a rate of false alarms, and what it gives."""

    false_alarms: float
    """Most false alarms per frame that are wanted."""
    point: OperatingPoint | None
    """On the frames it was chosen on; None where even the best detections have more false alarms."""
    elsewhere: list[OperatingPoint]
    """Chosen on every second video and used on the others, and the other way round; empty where there are
    fewer than two videos or no threshold does."""


@dataclass(frozen=True)
class Calibration:
    """Under one definition of a hit."""

    name: str
    title: str
    operations: list[OperatingThreshold]
    bins: list[Bin]
    error: float
    """Expected calibration error: mean of |score - share of hits| of the bins, weighted by their counts."""
    slope: float
    """The chance of a hit is 1 / (1 + exp(-slope · log(s / (1 - s)) - offset)) for a score s, as fitted."""
    offset: float
    error_fitted: float
    """Expected calibration error of that chance, on the detections it was fitted to."""
    cross_validated_error: float | None
    """The same, fitted on every second video and used on the others, mean of both ways; None for fewer than
    two videos with detections."""

    def as_dict(self) -> dict:
        """Plain numbers, for JSON."""
        return asdict(self)


def calibrations(evaluator: Evaluator, levels: Sequence[float], *, least: float) -> list[Calibration]:
    """Thresholds for these false alarms per frame; scores of `least` or more are held against chance.

    Raises UsageError where no frame was added or no detection has that score.
    """
    matches = Matches.of(evaluator.results())
    videos = [frames for _, frames in evaluator.videos()]
    halves = [np.any(videos[start::2], axis=0) for start in (0, 1)] if len(videos) > 1 else []
    return [_calibration(criterion, matches, halves, levels, least) for criterion in CRITERIA]


def binned(scores: np.ndarray, hits: np.ndarray) -> list[Bin]:
    """Scores (N,) in [0, 1] and hits (N,) bool by bins of `WIDTH`; empty bins are left out."""
    # a score of exactly 1 belongs to the last bin, and 0.15 / 0.05 must not round down to 2
    numbers = np.minimum(np.floor(scores / WIDTH + 1e-9), round(1 / WIDTH) - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        row = numbers == number
        bins.append(Bin(number * WIDTH, float(scores[row].mean()), float(hits[row].mean()), int(row.sum())))
    return bins


def calibration_error(scores: np.ndarray, hits: np.ndarray) -> float:
    """Mean of |score - share of hits| of the bins, weighted by their counts; NaN without detections."""
    bins = binned(scores, hits)
    return float(np.average([abs(b.score - b.hits) for b in bins], weights=[b.count for b in bins]))


def platt_fit(scores: np.ndarray, hits: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the chance of a hit in the log odds of the score, by maximum likelihood (Platt).

    As Platt has it, hits and misses are aimed at by a little less than 1 and a little more than 0, so that
    the fit is finite where scores tell them apart without fault.
    """
    from scipy.optimize import minimize

    odds = _odds(scores)
    right, wrong = hits.sum(), (~hits).sum()
    aims = np.where(hits, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        line = parameters[0] * odds + parameters[1]
        slack = 1 / (1 + np.exp(-line)) - aims
        return float(np.mean(np.logaddexp(0, line) - aims * line)), np.array(
            [np.mean(slack * odds), np.mean(slack)]
        )

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return float(slope), float(offset)


def calibrated_probability(scores: np.ndarray, slope: float, offset: float) -> np.ndarray:
    """(N,) scores → (N,) chances of a hit."""
    return 1 / (1 + np.exp(-slope * _odds(scores) - offset))


def _odds(scores: np.ndarray) -> np.ndarray:
    safe = scores.clip(1e-6, 1 - 1e-6)
    return np.log(safe / (1 - safe))


def _calibration(
    criterion: Criterion, matches: Matches, halves: list[np.ndarray], levels: Sequence[float], least: float
) -> Calibration:
    hits = matches.under(criterion)
    rows = hits.counted & (matches.scores >= least)
    if not rows.any():
        raise UsageError(f"no detection has a score of {least:g} or more; give a lower one with --least")
    scores, right = matches.scores[rows], hits.hits[rows]
    slope, offset = platt_fit(scores, right)
    return Calibration(
        name=criterion.name,
        title=criterion.title,
        operations=[_operation(hits, level, halves) for level in levels],
        bins=binned(scores, right),
        error=calibration_error(scores, right),
        slope=slope,
        offset=offset,
        error_fitted=calibration_error(calibrated_probability(scores, slope, offset), right),
        error_elsewhere=_error_elsewhere(hits, rows, halves),
    )


def _operation(hits: Hits, level: float, halves: list[np.ndarray]) -> OperatingThreshold:
    curves = [hits.curve(frames=half) for half in halves]
    elsewhere = [
        point
        for chosen, used in zip(curves, reversed(curves), strict=True)
        if (point := _at(chosen, level, used))
    ]
    whole = hits.curve()
    return OperatingThreshold(level, _at(whole, level, whole), elsewhere)


def _at(chosen: Curve, level: float, used: Curve) -> OperatingPoint | None:
    """What the threshold chosen on one curve gives on another."""
    threshold = chosen.threshold_at(level)
    return None if threshold is None else used.at(threshold)


def _error_elsewhere(hits: Hits, rows: np.ndarray, halves: list[np.ndarray]) -> float | None:
    m = hits.matches
    parts = [rows & half[m.frames] for half in halves]
    if not parts or not all(part.any() for part in parts):
        return None
    errors = []
    for chosen, used in zip(parts, reversed(parts), strict=True):
        line = platt_fit(m.scores[chosen], hits.hits[chosen])
        errors.append(calibration_error(calibrated_probability(m.scores[used], *line), hits.hits[used]))
    return float(np.mean(errors))
