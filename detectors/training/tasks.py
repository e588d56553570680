"""What a network is asked for in training: clips as tensors, the loss of its output, and its scores.

The trainer knows nothing of boxes or masks: each task is a class with the methods of `Detection` here.
"""

from __future__ import annotations

from torch import nn

from detectors.networks.segmenters.base import Segmenter
from detectors.training.detection_task import Detection
from detectors.training.recipe import Recipe
from detectors.training.segmentation_task import Segmentation
from pipeline.system.errors import UsageError


def objective_for(model: nn.Module, recipe: Recipe) -> Detection | Segmentation:
    """What the recipe's network learns. Raises UsageError for a recipe that does not fit the network."""
    if isinstance(model, Segmenter):
        return Segmentation(model, recipe)
    for key, value, idle in (
        ("objective.kind", recipe.objective.kind, "own"),
        ("model.prior", recipe.model.prior, 0),
    ):
        if value != idle:
            raise UsageError(f"{key} = {value!r} is for segmenters, '{recipe.model.name}' finds boxes")
    return Detection(by_class=not recipe.data.class_agnostic and model.num_classes > 1)
