"""Score maps of detectors and segmenters with the positions of their cells in the source image."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from detectors.networks.tridos.head import decode_scores
from pipeline.imaging.geometry import Geometry
from pipeline.structures.detections import ScoreMap

DETECTOR = "detector"
"""Name of the detector's map; maps of segmenters beside it have the names of the segmenters."""
CELL_MEANING = "objectness times the largest class probability of each cell, before suppression of doubles"
PIXEL_MEANING = "probability that a pixel belongs to a target"
"""Meaning of the values of a map, as written to stores."""


def cell_maps(raw: Tensor, geometry: Geometry) -> list[ScoreMap]:
    """Raw output (B, 5 + classes, h, w) → score map of each sample; cells may be outside of the image."""
    objectness, classes = decode_scores(raw)
    best = (objectness * classes.amax(dim=-1)).reshape(len(raw), *raw.shape[2:])
    (wide, high), (left, top) = geometry.scale.tolist(), geometry.offset
    stride = geometry.network[0] / raw.shape[3]
    cell, origin = (stride / wide, stride / high), (-left / wide, -top / high)
    return [ScoreMap(values, cell, origin, CELL_MEANING) for values in best.cpu().numpy().astype(np.float16)]


def pixel_map(probability: np.ndarray) -> ScoreMap:
    """Probability (H, W) in [0, 1] at source resolution → score map."""
    return ScoreMap(probability.astype(np.float16), (1.0, 1.0), (0.0, 0.0), PIXEL_MEANING)
