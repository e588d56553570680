"""A small synthetic scene and its rendering."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from datasets.synthesis.rendering import render
from datasets.synthesis.scene import Scene, Target

SMALL = Scene(
    width=96,
    height=64,
    frames=12,
    rate=Fraction(25),
    targets=(Target(x=30, y=30, vx=1), Target(x=92, y=20, vx=1, scr=40)),
)


def pictures(scene: Scene) -> np.ndarray:
    return np.stack([picture for picture, _ in render(scene)])


def truths(scene: Scene) -> list[dict]:
    """Returns a mapping of id to record for each frame."""
    return [{truth.id: truth for truth in records} for _, records in render(scene)]
