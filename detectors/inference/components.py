"""Connected components of probability maps as segments with boxes and scores."""

from __future__ import annotations

import numpy as np

from pipeline.config.schema import ComponentsConfig
from pipeline.imaging.connected_components import Regions, find_regions
from pipeline.structures.detections import Detections, Segments


def extract_components(probability: np.ndarray, config: ComponentsConfig) -> Segments:
    """Extracts the 8-connected components above the threshold of a probability map (H, W) float32.

    Sorted by score, best first; equal scores keep raster order. Boxes enclose the pixels exactly: a single
    pixel in row r and column c has the box (c, r, c + 1, r + 1).
    """
    found = find_regions(probability > config.threshold)
    scores = _scores(found, probability, config)
    order = np.argsort(-scores, kind="stable")
    kept = order[found.areas[order] >= config.min_area][: config.max_count]
    number = np.zeros(len(found), np.int32)
    number[kept] = np.arange(1, len(kept) + 1)
    numbered = np.zeros(probability.shape, np.int32)
    numbered[found.rows, found.columns] = number[found.labels]
    return Segments(numbered, Detections(_boxes(found)[kept], scores[kept], np.zeros(len(kept))))


def to_detections(segments: Segments, *, conf: float) -> Detections:
    """Returns the components of score `conf` or more as detections with masks."""
    chosen = segments.components.scores >= conf
    masks = [mask for mask, wanted in zip(segments.masks(), chosen, strict=True) if wanted]
    found = segments.components[chosen]
    shape = (len(found), *segments.regions.shape)
    return Detections(found.boxes, found.scores, found.labels, np.reshape(masks, shape))


def _scores(found: Regions, probability: np.ndarray, config: ComponentsConfig) -> np.ndarray:
    """Returns the score (R,) of each component: peak or mean of its probability (H, W)."""
    if config.score == "peak":
        return found.maxima(probability)
    values = probability[found.rows, found.columns]
    return np.bincount(found.labels, weights=values, minlength=len(found)) / found.areas


def _boxes(found: Regions) -> np.ndarray:
    """Returns the box (R, 4) x1 y1 x2 y2 of each component, right and bottom exclusive."""
    low = np.full((len(found), 2), np.iinfo(np.int64).max)
    high = np.zeros((len(found), 2), np.int64)
    for axis, values in enumerate((found.columns, found.rows)):
        np.minimum.at(low[:, axis], found.labels, values)
        np.maximum.at(high[:, axis], found.labels, values + 1)
    return np.concatenate([low, high], axis=1)
