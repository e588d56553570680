"""Maps of what a network believes, before boxes are made of it, and where their cells lie in the picture."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from detectors.networks.tridos.head import STRIDE, decode_scores
from pipeline.imaging.geometry import Geometry
from pipeline.structures.detections import ScoreMap

DETECTOR = "detector"
"""Name of the detector's map; those of segmenters beside it have the segmenters' names."""
OF_CELLS = "objectness times the largest class probability of each cell, before suppression of doubles"
OF_PIXELS = "probability that a pixel belongs to a target"


def of_cells(raw: Tensor, geometry: Geometry) -> list[ScoreMap]:
    """Raw output (B, 5 + classes, h, w) → the map of each sample; its cells may lie outside the picture."""
    objectness, classes = decode_scores(raw)
    best = (objectness * classes.amax(dim=-1)).reshape(len(raw), *raw.shape[2:])
    (wide, high), (left, top) = geometry.scale.tolist(), geometry.offset
    cell, origin = (STRIDE / wide, STRIDE / high), (-left / wide, -top / high)
    return [ScoreMap(values, cell, origin, OF_CELLS) for values in best.cpu().numpy().astype(np.float16)]


def of_pixels(probability: np.ndarray) -> ScoreMap:
    """(H, W) in [0, 1] at source resolution → its map."""
    return ScoreMap(probability.astype(np.float16), (1.0, 1.0), (0.0, 0.0), OF_PIXELS)
