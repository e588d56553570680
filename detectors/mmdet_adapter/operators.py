"""What stands for the compiled operators of mmcv where they are not installed.

mmcv-lite comes without `mmcv._ext`, which `mmdet.models` imports all the same. The module made here has
non-maximum suppression in plain torch, which is all that most one-stage detectors compute with; any other
operator raises an error with its name when it is called. Models with RoIAlign (Faster R-CNN, …) or deformable
convolutions need the full mmcv.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from pipeline.system.errors import UsageError

EXTENSION = "mmcv._ext"

BUILD = (
    'pip uninstall mmcv-lite; pip install "setuptools>=77.0.3,<82" wheel ninja; MMCV_WITH_OPS=1 pip install'
)
"""The start of the commands that build mmcv with its operators; the first lets the build see torch."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy suppression as mmcv's: boxes (N, 4) x1 y1 x2 y2, scores (N,) → kept indices, best first.

    A box goes when its IoU with a better kept one is greater than the threshold; equal scores keep their
    order. `offset` 1 counts the pixels that right and bottom lie in, 0 takes boxes as they are.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order].float()
    low, high = boxes[:, :2], boxes[:, 2:] + offset
    areas = (high - low).clamp(min=0).prod(dim=1)
    rivals, kept = torch.arange(len(order), device=boxes.device), []
    while len(rivals):
        best, rivals = rivals[0], rivals[1:]
        kept.append(best)
        sides = torch.minimum(high[best], high[rivals]) - torch.maximum(low[best], low[rivals])
        shared = sides.clamp(min=0).prod(dim=1)
        rivals = rivals[shared <= iou_threshold * (areas[best] + areas[rivals] - shared)]
    return order[torch.stack(kept)] if kept else order


class MissingOperators(ModuleType):
    """A module with `nms` and, under any other name, a function that tells that it is missing."""

    nms = staticmethod(nms)

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):  # what Python itself asks modules for
            raise AttributeError(name)

        def missing(*_, **__):
            remedy = f"{BUILD} --no-build-isolation mmcv==2.1.0"
            raise UsageError(
                f"this model needs '{name}' of the full mmcv, mmcv-lite has it not; run: {remedy}"
            )

        return missing


def stand_in() -> None:
    """Make `mmcv._ext` importable; where the real one is installed, or one stands for it, nothing happens."""
    import_module("mmcv")
    if EXTENSION not in sys.modules and find_spec(EXTENSION) is None:
        module = MissingOperators(EXTENSION)
        module.__spec__ = ModuleSpec(EXTENSION, loader=None)  # mmengine takes a loader for the real one
        sys.modules[EXTENSION] = module
