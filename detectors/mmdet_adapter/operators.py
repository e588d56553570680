"""Replacement for the compiled operators of mmcv if they are not installed.

mmcv-lite has no `mmcv._ext`, but `mmdet.models` imports it. The replacement has non-maximum suppression in
plain torch, the only operator of most one-stage detectors; any other operator raises an error with its name
when it is called. Models with RoIAlign (Faster R-CNN, …) or deformable convolutions need the full mmcv.
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

BUILD_COMMAND = (
    'pip uninstall mmcv-lite; pip install "setuptools>=77.0.3,<82" wheel ninja; MMCV_WITH_OPS=1 pip install'
)
"""Start of the commands that build mmcv with its operators. It needs these tools and torch."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Non-maximum suppression as in mmcv: boxes (N, 4) x1 y1 x2 y2, scores (N,) → kept indices, best first.

    A box is removed if its IoU with a better kept one exceeds the threshold; equal scores keep their order.
    With `offset` 1 the coordinates are those of the last pixels within the box, with 0 they are exclusive.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order].float()
    low, high = boxes[:, :2], boxes[:, 2:] + offset
    areas = (high - low).clamp(min=0).prod(dim=1)
    rest, kept = torch.arange(len(order), device=boxes.device), []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        sides = torch.minimum(high[best], high[rest]) - torch.maximum(low[best], low[rest])
        overlap = sides.clamp(min=0).prod(dim=1)
        rest = rest[overlap <= iou_threshold * (areas[best] + areas[rest] - overlap)]
    return order[torch.stack(kept)] if kept else order


class MissingOperators(ModuleType):
    """A module with `nms`; any other attribute is a function that raises UsageError with its name."""

    nms = staticmethod(nms)

    def __getattr__(self, name: str) -> Callable:
        if name.startswith("__"):  # looked up by Python itself
            raise AttributeError(name)

        def missing(*_, **__):
            remedy = f"{BUILD_COMMAND} --no-build-isolation mmcv==2.1.0"
            raise UsageError(
                f"this model needs '{name}' of the full mmcv, which mmcv-lite lacks; run: {remedy}"
            )

        return missing


def provide_operators() -> None:
    """Makes `mmcv._ext` importable; does nothing if the real one or a replacement is present."""
    import_module("mmcv")
    if EXTENSION not in sys.modules and find_spec(EXTENSION) is None:
        module = MissingOperators(EXTENSION)
        module.__spec__ = ModuleSpec(EXTENSION, loader=None)  # a loader would mark the real one for mmengine
        sys.modules[EXTENSION] = module
