"""Operating thresholds for given false-alarm rates, and calibration of scores as probabilities of a hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.detection.curves import OperatingPoint, PrecisionRecallCurve
from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.matches import Hits, Matches
from pipeline.evaluation.detection.matching import CENTRE_5, IOU, Criterion
from pipeline.system.errors import UsageError

BIN_WIDTH = 0.05
"""Width of the score bins."""
CALIBRATION_CRITERIA = (IOU, CENTRE_5)
"""Definitions of a hit for which scores are calibrated."""

_JSON_KEYS = {
    "thresholds": "operations",
    "max_false_alarms": "false_alarms",
    "cross_validated": "elsewhere",
    "hit_rate": "hits",
    "cross_validated_error": "error_elsewhere",
}
"""Keys in the JSON that differ from the names of the fields, so that files of earlier versions compare."""


@dataclass(frozen=True)
class ScoreBin:
    """Detections with scores in one bin."""

    low: float
    """Lower bound of the bin, inclusive."""
    score: float
    """Mean score."""
    hit_rate: float
    """Hits over detections."""
    count: int
    """Detections."""


@dataclass(frozen=True)
class OperatingThreshold:
    """Lowest score threshold for a rate of false alarms."""

    max_false_alarms: float
    """Requested maximum of false alarms per frame."""
    point: OperatingPoint | None
    """Metrics on the frames that the threshold was chosen on; None if no threshold satisfies the rate."""
    cross_validated: list[OperatingPoint]
    """Metrics on one half of the videos with the threshold chosen on the other, both ways; a way without a
    threshold is left out. Empty for fewer than two videos."""


@dataclass(frozen=True)
class Calibration:
    """Thresholds and calibration under one definition of a hit."""

    name: str
    title: str
    thresholds: list[OperatingThreshold]
    bins: list[ScoreBin]
    error: float
    """Expected calibration error (Guo et al., 2017): mean |score - hit rate| of bins, weighted by count."""
    slope: float
    """Platt scaling: a score s has the hit probability 1 / (1 + exp(-slope · log(s / (1 - s)) - offset))."""
    offset: float
    error_fitted: float
    """Expected calibration error of that probability on the detections that it was fitted to."""
    cross_validated_error: float | None
    """Expected calibration error on one half of the videos after a fit on the other, mean of both ways; None
    for fewer than two videos or a half without detections."""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self, dict_factory=lambda items: {_JSON_KEYS.get(k, k): value for k, value in items})


def calibrate(
    evaluators: Sequence[Evaluator], rates: Sequence[float], *, min_score: float
) -> list[Calibration]:
    """Computes thresholds and calibration for each of `CALIBRATION_CRITERIA`.

    Args:
        evaluators: evaluators with the detections, one for each dataset; all categories must count as one.
        rates: false alarms per frame to find thresholds for.
        min_score: minimum score of the detections that the calibration takes.

    Raises:
        UsageError: no frame was added, or no detection has a score of at least `min_score`.
    """
    matches = Matches.from_frames([frame for evaluator in evaluators for frame in evaluator.results()])
    videos = _videos(evaluators)
    halves = [np.any(videos[start::2], axis=0) for start in (0, 1)] if len(videos) > 1 else []
    return [_calibrate(criterion, matches, halves, rates, min_score) for criterion in CALIBRATION_CRITERIA]


def _videos(evaluators: Sequence[Evaluator]) -> list[np.ndarray]:
    """Returns the frames of each video, (F,) bool over the frames of all evaluators, in order."""
    counts = [evaluator.frames for evaluator in evaluators]
    videos = []
    for number, evaluator in enumerate(evaluators):
        before, after = sum(counts[:number]), sum(counts[number + 1 :])
        videos += [np.pad(frames, (before, after)) for _, frames in evaluator.videos()]
    return videos


def bin_scores(scores: np.ndarray, hits: np.ndarray) -> list[ScoreBin]:
    """Bins scores (N,) in [0, 1] and hits (N,) bool by `BIN_WIDTH`; empty bins are left out."""
    # a score of exactly 1 belongs to the last bin, and 0.15 / 0.05 must not be rounded down to 2
    numbers = np.minimum(np.floor(scores / BIN_WIDTH + 1e-9), round(1 / BIN_WIDTH) - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        rows = numbers == number
        means = float(scores[rows].mean()), float(hits[rows].mean())
        bins.append(ScoreBin(number * BIN_WIDTH, *means, int(rows.sum())))
    return bins


def calibration_error(scores: np.ndarray, hits: np.ndarray) -> float:
    """Returns the expected calibration error of scores (N,) and hits (N,) bool; NaN without detections."""
    bins = bin_scores(scores, hits)
    return float(np.average([abs(b.score - b.hit_rate) for b in bins], weights=[b.count for b in bins]))


def platt_fit(scores: np.ndarray, hits: np.ndarray) -> tuple[float, float]:
    """Fits the log odds of a hit as slope · log odds of the score + offset by maximum likelihood.

    `scores` is (N,) in [0, 1], `hits` (N,) bool. As proposed by Platt (1999), the targets of the fit are
    slightly below 1 and slightly above 0, so that the fit is finite even if scores separate hits from false
    alarms.
    """
    from scipy.optimize import minimize

    odds = _log_odds(scores)
    positives, negatives = hits.sum(), (~hits).sum()
    targets = np.where(hits, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * odds + parameters[1]
        residual = 1 / (1 + np.exp(-logits)) - targets
        loss = float(np.mean(np.logaddexp(0, logits) - targets * logits))
        return loss, np.array([np.mean(residual * odds), np.mean(residual)])

    slope, offset = minimize(loss_and_gradient, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    return float(slope), float(offset)


def calibrated_probability(scores: np.ndarray, slope: float, offset: float) -> np.ndarray:
    """Returns the (N,) probabilities of a hit at scores (N,)."""
    return 1 / (1 + np.exp(-slope * _log_odds(scores) - offset))


def _log_odds(scores: np.ndarray) -> np.ndarray:
    safe = scores.clip(1e-6, 1 - 1e-6)
    return np.log(safe / (1 - safe))


def _calibrate(
    criterion: Criterion,
    matches: Matches,
    halves: Sequence[np.ndarray],
    rates: Sequence[float],
    min_score: float,
) -> Calibration:
    hits = matches.judged_by(criterion)
    rows = hits.counted & (matches.scores >= min_score)
    if not rows.any():
        raise UsageError(f"no detection has a score of {min_score:g} or more; give a lower one with --least")
    scores, right = matches.scores[rows], hits.hits[rows]
    slope, offset = platt_fit(scores, right)
    return Calibration(
        name=criterion.name,
        title=criterion.title,
        thresholds=[_operating_threshold(hits, rate, halves) for rate in rates],
        bins=bin_scores(scores, right),
        error=calibration_error(scores, right),
        slope=slope,
        offset=offset,
        error_fitted=calibration_error(calibrated_probability(scores, slope, offset), right),
        cross_validated_error=_cross_validated_error(hits, rows, halves),
    )


def _operating_threshold(hits: Hits, rate: float, halves: Sequence[np.ndarray]) -> OperatingThreshold:
    curves = [hits.curve(frames=half) for half in halves]
    cross_validated = [
        point
        for chosen_on, applied_to in zip(curves, reversed(curves), strict=True)
        if (point := _point_at_rate(chosen_on, rate, applied_to))
    ]
    whole = hits.curve()
    return OperatingThreshold(rate, _point_at_rate(whole, rate, whole), cross_validated)


def _point_at_rate(
    chosen_on: PrecisionRecallCurve, rate: float, applied_to: PrecisionRecallCurve
) -> OperatingPoint | None:
    threshold = chosen_on.threshold_at_false_alarms(rate)
    return None if threshold is None else applied_to.operating_point(threshold)


def _cross_validated_error(hits: Hits, rows: np.ndarray, halves: Sequence[np.ndarray]) -> float | None:
    matches = hits.matches
    parts = [rows & half[matches.frames] for half in halves]
    if not parts or not all(part.any() for part in parts):
        return None
    errors = []
    for fitted_on, applied_to in zip(parts, reversed(parts), strict=True):
        line = platt_fit(matches.scores[fitted_on], hits.hits[fitted_on])
        probability = calibrated_probability(matches.scores[applied_to], *line)
        errors.append(calibration_error(probability, hits.hits[applied_to]))
    return float(np.mean(errors))
