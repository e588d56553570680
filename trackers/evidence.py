"""Evidence that a track follows a target: the logarithm of a likelihood ratio, for each track of a tracker.

The detections of a track are explained by one of three hypotheses:

- a *target*, which is detected near the prediction of its motion;
- *random false alarms*, which occur anywhere, each score with the density measured on the run
  (`trackers.clutter.ScoreDensity`);
- *persistent clutter*, which stays at its place or drifts slowly: in the scene, such as a lamp or a cloud, or
  in the sensor, such as a hot pixel or burnt-in text. Where the camera stands, these two are the same.

`chance` is the logarithm of the odds of a target against random false alarms: the sum over the detections of
log(P_D p(z) / λ(s)), where P_D is the probability of detection, p(z) the density of the predicted position,
in 1/px², and λ(s) the density of false alarms of that score, per pixel; and log(1 − P_D) for each frame
without a detection. It starts with the number of targets that appear per frame, compared with that of false
alarms. See Sittler, "An Optimal Data Association Problem in Surveillance Theory", IEEE Transactions on
Military Electronics, 1964, and Blackman and Popoli, "Design and Analysis of Modern Tracking Systems", 1999,
chapter 6.

`motion` is the logarithm of the likelihood ratio of the predicted position to the best explanation by
clutter: the track's own place, a place where detections recur, or a random false alarm. It tells a dim target
that moves from a lamp. A target that stands still looks like a lamp and can only have better scores: those of
successive detections of one thing are alike, so that their mean counts like `SCORE_HITS` detections at most.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from pipeline.structures.frame import Frame
from trackers.clutter import Crowds, PlaceMap, ScoreDensity

DETECTED = 0.7
"""Probability that a target is detected in a frame."""
APPEARANCES = 1e-3
"""Expected number of targets that appear per frame."""
CONFIRMED = 6.0
"""Value of `chance` that confirms: odds of 400 to 1."""
MAX_CHANCE = 60.0
"""Upper bound of `chance`: a track with it ends after 50 frames without a detection."""
MAX_FALL = 4.0
"""A track that is not confirmed ends if `chance` falls this far below its first value."""
MAX_MISSES = 10
"""Number of successive frames without a detection after which such a track ends; fewer after few hits."""
HOVERING = 0.3
"""Share of the targets that stand still."""
LAMPS = 24.0
"""How many times as numerous as targets persistent clutter is."""
DRIFTING = 0.1
"""Share of the persistent clutter that drifts steadily, such as a cloud; known where the camera stands."""
MOTION_RANGE = (-5.0, 30.0)
"""Bounds of `motion`: a target that has stood for long is still found soon after it moves."""
MAX_STEP = 1.5
"""Maximum increase of `motion` by a detection, so that a jump to other clutter counts little."""
MOVED = 6.0
"""Value of `motion` after which a track is never again taken for persistent clutter."""
LAMP_ENDS = -4.0
"""A confirmed track that never moved ends if the evidence against persistent clutter falls below this."""
SCORE_RANGE = (-1.5, 3.0)
"""Bounds of the log likelihood ratio of a score, targets, whose scores are uniform, to persistent clutter."""
SCORE_HITS = 4
"""Number of independent detections that the scores of a track count like, at most."""
MEAN_HITS = 10
"""Number of detections over which the mean score of a track is taken."""
RANDOM_SHARE = 0.1
"""Share of the detections of persistent clutter that are random false alarms nearby."""
SPREAD_HITS, SPREAD_PRIOR = 30, 4.0
"""Number of detections over which the spread around the own place is taken, and the weight of the expected
one."""
WANDER = 0.1
"""Standard deviation of the motion of persistent clutter in px/frame."""
SLOW, MIN_AGE = 0.35, 5.0
"""Maximum steady speed of persistent clutter, such as a cloud, in px/frame, and the age in frame intervals
from which it is known."""
DRIFT = 0.2
"""Standard deviation of the errors of the camera's motion in px/frame, while it moves."""
SENSOR_DEVIATION = 0.3
"""Standard deviation of the places of detections that are fixed in the sensor, in pixels."""
STANDING = 0.05
"""Shift of the centre of the picture, in px/frame, below which the camera stands."""
SETTLING = 0.9
"""Factor by which the shift that is remembered decreases in each frame: the camera stands again later."""
MIN_SOURCES = 4
"""Minimum number of standing sources that agree on what the motion of the camera missed."""
MANY_SOURCES, SURE_ERRORS, MIN_SHIFT = 8, 3.0, 0.3
"""Their minimum number if the camera is said to stand, and the minimum of their mean shift, in standard
errors and in pixels."""
AGREEMENT = 2.0
"""Maximum distance of their residuals in pixels."""
LAG = 30
"""Number of frames after which detections are known to belong to no confirmed track, and become clutter."""
SIMILAR = 0.1
"""Scores that differ by less are similar."""
DIM_SHARE = 0.4
"""Minimum score of the detections of a confirmed track, as a share of its mean score."""
TINY = 1e-12
"""Lower bound of densities, so that their logarithms are finite."""

_RECORD = np.dtype(
    [
        ("chance", np.float64),
        ("first_chance", np.float64),
        ("motion", np.float64),
        ("moved", np.bool_),
        ("hits", np.int64),
        ("misses", np.int64),  # successive frames without a detection
        ("score", np.float64),  # running mean
        ("ratio", np.float64),  # running mean of the log likelihood ratios of the scores
        ("scene", np.float64, 2),  # place, if it is fixed in the scene, in pixels of this frame
        ("scene_variance", np.float64),
        ("first", np.float64, 2),  # place of the first detection, likewise
        ("age", np.float64),  # frame intervals since then
        ("squares", np.float64),  # sum of squared distances to it along one axis
        ("spread", np.float64),  # variance around the own place along one axis, in px²
        ("sensor", np.float64, 2),
        ("sensor_variance", np.float64),
    ]
)


class Hits(NamedTuple):
    """Detections assigned to K tracks in one frame."""

    centres: np.ndarray
    """(K, 2) x y in pixels."""
    scores: np.ndarray
    """(K,)."""
    likelihood: np.ndarray
    """(K,): density of the predicted distribution of the detected centres at these, in 1/px²."""
    variance: np.ndarray
    """(K,): variances of the detected centres around the true ones, along each axis, in px²."""


class Evidence:
    """The evidence of N tracks, a row each in the order of the tracker's rows, and what clutter it learned.

    In each frame the tracker calls `advance`, `observe`, `hit` and `miss`, `add` for new tracks, and
    `remember`; and `keep` whenever it removes tracks.
    """

    def __init__(self) -> None:
        self._density = ScoreDensity()
        self._crowds = Crowds()
        self._scene, self._sensor = PlaceMap(), PlaceMap()
        self.clear()

    def __len__(self) -> int:
        return len(self._records)

    def clear(self) -> None:
        """Forgets all tracks and all clutter."""
        self._records = np.zeros(0, dtype=_RECORD)
        self._density.clear()
        self._crowds.clear()
        self._sensor.clear()
        self._area = 1.0
        self._elapsed = 0.0
        self._camera_moved = False
        self.leave_scene()

    def leave_scene(self) -> None:
        """Forgets what is fixed in the scene, after a cut or a new connection; what the sensor adds stays."""
        self._scene.clear()
        self._to_scene = np.eye(3)  # from pixels of this frame to those of the map
        self._shift = 0.0  # greatest recent shift by the camera in px/frame
        self._recent: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = deque()

    def keep(self, rows: np.ndarray) -> None:
        """Keeps only `rows`, an index array or a (N,) boolean mask."""
        self._records = self._records[rows]

    def advance(self, elapsed: float, frame: Frame) -> None:
        """Moves all places to `frame`, `elapsed` frame intervals after the one before."""
        for places in (self._scene, self._sensor):
            places.fit(frame.width, frame.height)
            places.forget(elapsed)
        self._crowds.fit(frame.width, frame.height)
        self._area, self._elapsed = float(frame.width * frame.height), elapsed
        self._shift *= SETTLING
        if frame.motion is not None:
            centre = np.array([frame.width, frame.height]) / 2
            shift = float(np.linalg.norm(_moved(centre, frame.motion) - centre))
            self._shift, self._camera_moved = max(self._shift, shift), True
            self._move_scene(frame.motion)
        records = self._records
        records["age"] += elapsed
        velocity = (records["scene"] - records["first"]) / np.maximum(records["age"], MIN_AGE)[:, None]
        speed = np.linalg.norm(velocity, axis=1)[:, None]
        records["scene"] += elapsed * velocity * np.minimum(1, SLOW / np.maximum(speed, TINY))
        records["sensor_variance"] += WANDER**2 * elapsed
        records["scene_variance"] += (WANDER**2 + self._moves * DRIFT**2) * elapsed

    @property
    def _moves(self) -> bool:
        """True if the camera moves, or did so shortly before."""
        return self._shift > STANDING

    def _move_scene(self, motion: np.ndarray) -> None:
        """Moves all that is fixed in the scene by an affine motion (2, 3) in pixels."""
        for place in ("scene", "first"):
            self._records[place] = _moved(self._records[place], motion)
        self._to_scene = self._to_scene @ np.linalg.inv(np.vstack([motion, (0, 0, 1)]))

    def observe(self, centres: np.ndarray, scores: np.ndarray) -> None:
        """Learns `centres` (M, 2) and `scores` (M,) of detections that are assigned to no confirmed track."""
        self._density.observe(scores, self._elapsed)
        self._crowds.observe(centres, self._elapsed)

    def add(self, centres: np.ndarray, scores: np.ndarray, variance: np.ndarray) -> None:
        """Appends a row per detection; arrays as those of `Hits`."""
        born = np.zeros(len(centres), dtype=_RECORD)
        odds = (
            APPEARANCES
            / (self._false_alarms(centres, scores) * self._area)
            * (1 - self._persistent(centres) + TINY)
        )
        born["chance"] = born["first_chance"] = np.log(odds)
        born["hits"] = 1
        born["score"], born["ratio"] = scores, self._score_ratio(scores)
        born["scene"] = born["sensor"] = born["first"] = centres
        born["scene_variance"], born["sensor_variance"] = variance, SENSOR_DEVIATION**2
        born["spread"] = variance
        self._records = np.concatenate([self._records, born])

    def hit(self, rows: np.ndarray, hits: Hits) -> None:
        """Adds the evidence of detections of the tracks `rows` (K,), all different."""
        if not len(rows):
            return
        self._correct_motion(rows, hits.centres)
        records = self._records[rows]
        records["spread"] = _spread(records, hits.variance)
        target = np.maximum(hits.likelihood, TINY)
        false_alarm = self._false_alarms(hits.centres, hits.scores)
        known = self._persistent(hits.centres) * _density(0, hits.variance)
        clutter = np.maximum(self._own_place(records, hits), known)
        records["chance"] += np.log(DETECTED * target / (false_alarm + known / 2))
        records["chance"] = np.minimum(records["chance"], MAX_CHANCE)
        ratio = target / (clutter + RANDOM_SHARE * false_alarm + TINY)
        records["motion"] += np.minimum(np.log(ratio), MAX_STEP)
        records["motion"] = np.clip(records["motion"], *MOTION_RANGE)
        records["moved"] |= records["motion"] > MOVED
        records["hits"] += 1
        records["misses"] = 0
        weight = np.maximum(1 / records["hits"], 1 / MEAN_HITS)
        records["score"] += weight * (hits.scores - records["score"])
        records["ratio"] += weight * (self._score_ratio(hits.scores) - records["ratio"])
        squared = ((hits.centres - records["scene"]) ** 2).mean(axis=1)
        records["squares"] += squared - records["squares"] * (records["hits"] > SPREAD_HITS) / SPREAD_HITS
        for place, variance in (("scene", hits.variance), ("sensor", SENSOR_DEVIATION**2)):
            spread = records[f"{place}_variance"]
            gain = spread / (spread + variance)
            records[place] += gain[:, None] * (hits.centres - records[place])
            records[f"{place}_variance"] = (1 - gain) * spread
        self._records[rows] = records

    def miss(self, rows: np.ndarray) -> None:
        """Adds the evidence of a frame without a detection of the tracks `rows` (K,)."""
        self._records["chance"][rows] += math.log(1 - DETECTED)
        self._records["misses"][rows] += 1

    def confirms(self) -> np.ndarray:
        """Returns whether the evidence of each track confirms it, (N,) bool."""
        return (self._records["chance"] > CONFIRMED) & (self._against_lamp() > 0)

    def ends(self, confirmed: np.ndarray) -> np.ndarray:
        """Returns whether the evidence ends each track, (N,) bool; some are `confirmed` (N,) bool."""
        records = self._records
        fell = records["chance"] < records["first_chance"] - MAX_FALL
        hidden = records["misses"] > np.minimum(2 + records["hits"], MAX_MISSES)
        lamp = ~records["moved"] & (self._against_lamp() < LAMP_ENDS)
        return np.where(confirmed, (records["chance"] < 0) | lamp, fell | hidden)

    def lowest_scores(self) -> np.ndarray:
        """Returns the lowest score (N,) of a detection that may belong to each track.

        It is 1 for tracks that never moved: with lower scores they are taken for persistent clutter. One that
        has come farther than clutter wanders has moved.
        """
        moved = self._records["moved"] | (self._explained_share() < 2 * DRIFTING)
        return np.where(moved, DIM_SHARE * self._records["score"], 1.0)

    def score_costs(self, scores: np.ndarray) -> np.ndarray:
        """Returns what detections of `scores` (M,) cost more than rare ones, in −2 log likelihood, 0 or more.

        It is 2 log of the number of false alarms of a similar score: near a bright detection, a faint one is
        often its duplicate.
        """
        return 2 * np.log(np.maximum(self._density.at(scores) * SIMILAR, 1))

    def remember(self, centres: np.ndarray, ids: np.ndarray, confirmed: np.ndarray) -> None:
        """Notes detections that are assigned to no confirmed track.

        They become clutter `LAG` frames later, unless their track is confirmed by then. `centres` (K, 2) are
        in pixels, `ids` (K,) those of their tracks, and `confirmed` those of all confirmed tracks now.
        """
        self._recent.append((centres, self._in_scene(centres), ids))
        if len(self._recent) > LAG:
            centres, places, ids = self._recent.popleft()
            clutter = ~np.isin(ids, confirmed)
            self._scene.add(places[clutter])
            if self._camera_moved:
                self._sensor.add(centres[clutter])

    def _false_alarms(self, centres: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Returns the density (K,) of random false alarms per frame, pixel and unit of score."""
        return self._density.at(scores) * self._crowds.at(centres) / self._area

    def _in_scene(self, centres: np.ndarray) -> np.ndarray:
        return _moved(centres, self._to_scene[:2])

    def _persistent(self, centres: np.ndarray) -> np.ndarray:
        """Returns the probability (K,) of known persistent clutter at `centres` (K, 2)."""
        probability = self._scene.probability(self._in_scene(centres))
        if self._camera_moved:
            probability = np.maximum(probability, self._sensor.probability(centres))
        return probability

    def _own_place(self, records: np.ndarray, hits: Hits) -> np.ndarray:
        """Returns the density (K,) of the detections if the tracks `records` (K,) are persistent clutter."""

        offset = ((hits.centres - records["scene"]) ** 2).sum(axis=1)
        density = _density(offset, np.maximum(records["scene_variance"] + hits.variance, records["spread"]))
        if self._moves:
            offset = ((hits.centres - records["sensor"]) ** 2).sum(axis=1)
            variance = records["sensor_variance"] + SENSOR_DEVIATION**2
            density = np.maximum(density, _density(offset, variance))
        return density

    def _score_ratio(self, scores: np.ndarray) -> np.ndarray:
        """Returns the log likelihood ratios (K,) of scores, targets to persistent clutter."""
        return np.clip(-self._density.log_share(scores), *SCORE_RANGE)

    def _against_lamp(self) -> np.ndarray:
        """Returns the log odds (N,) of a target against persistent clutter."""
        records = self._records
        moves = np.log(HOVERING + (1 - HOVERING) * np.exp(records["motion"]))
        prior = math.log(LAMPS) + np.log(self._explained_share())
        return moves - prior + records["ratio"] * np.minimum(records["hits"], SCORE_HITS)

    def _explained_share(self) -> np.ndarray:
        """Returns the share (N,) of the persistent clutter that could have come as far as each track.

        What stays at its place cannot, unless the motion of the camera is part of the way. It is 1 before
        `MEAN_HITS` hits.
        """
        records = self._records
        if self._camera_moved or self._shift > 0:
            return np.ones(len(records))
        variance = records["spread"] + WANDER**2 * records["age"]
        way = ((records["scene"] - records["first"]) ** 2).sum(axis=1)
        share = DRIFTING + (1 - DRIFTING) * np.exp(-way / (2 * variance))
        return np.where(records["hits"] >= MEAN_HITS, share, 1.0)

    def _correct_motion(self, rows: np.ndarray, centres: np.ndarray) -> None:
        """Corrects the motion of the camera by standing sources that all moved alike.

        The motion that is measured on the picture is often too small where the fixed pattern of the sensor is
        seen through it, or unknown. `centres` (K, 2) are the detections of the tracks `rows` (K,).
        """
        records = self._records[rows]
        standing = (records["hits"] >= MIN_SOURCES) & ~records["moved"]
        residuals = (centres - records["scene"])[standing]
        if len(residuals) < (MIN_SOURCES if self._moves else MANY_SOURCES):
            return
        agreeing = residuals[np.linalg.norm(residuals - np.median(residuals, axis=0), axis=1) < AGREEMENT]
        count = len(agreeing)
        if count < max(MIN_SOURCES, len(residuals) / 2):
            return
        shift = agreeing.mean(axis=0)
        error = math.sqrt(agreeing.var(axis=0).sum() / count)
        if not self._moves and np.linalg.norm(shift) < max(SURE_ERRORS * error, MIN_SHIFT):
            return
        shift = shift * count / (count + MIN_SOURCES)
        self._shift = max(self._shift, float(np.linalg.norm(shift)))
        self._move_scene(np.column_stack([np.eye(2), shift]))


def _moved(points: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Returns `points` (..., 2) after an affine motion (2, 3)."""
    return points @ motion[:, :2].T + motion[:, 2]


def _spread(records: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Returns the variance (K,) of detections of `records` around their own places along one axis, in px².

    `variance` (K,) is that of detected centres, which is expected before there are many.
    """
    count = np.minimum(records["hits"], SPREAD_HITS)
    return (SPREAD_PRIOR * variance + records["squares"]) / (SPREAD_PRIOR + count)


def _density(squared: np.ndarray | float, variance: np.ndarray) -> np.ndarray:
    """Returns the density in 1/px² of a normal distribution of `variance` along each axis."""
    return np.exp(-squared / (2 * variance)) / (2 * math.pi * variance)
