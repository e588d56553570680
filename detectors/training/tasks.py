"""Training tasks: what the trainer needs to know of boxes or masks.

`detectors.training.detection_task` is for networks that predict boxes,
`detectors.training.segmentation_task` for those that predict masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from datasets.sequences.clips import Clip
from detectors.networks.segmenters.base import Segmenter
from detectors.training.data import Validation
from detectors.training.detection_task import DetectionTask, PeakTask
from detectors.training.distributed import ProcessGroup
from detectors.training.recipe import Recipe
from detectors.training.segmentation_task import SegmentationTask
from pipeline.system.errors import UsageError, as_json

if TYPE_CHECKING:
    from detectors.networks.registry import Network


class Batch(Protocol):
    """A batch as a task collates it: a named tuple of tensors and lists of tensors."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The arguments of the network's `forward`."""

    def _asdict(self) -> dict[str, Any]: ...


class Task(Protocol):
    """How a kind of network is trained and validated."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the values that `loss` returns, the loss itself first."""

    @property
    def headline(self) -> tuple[str, str]:
        """Key and display name of the score that selects the best weights."""

    @property
    def scores(self) -> tuple[str, ...]:
        """Keys of the scores that log.csv has columns for."""

    def collate(self, clips: list[Clip], device: torch.device) -> Batch:
        """Returns clips of one size as tensors on the device."""

    def loss(self, outputs: Any, batch: Any, group: ProcessGroup) -> tuple[Tensor, list[float]]:
        """Returns what this process adds to the loss of the whole batch, and to each of `terms`.

        `outputs` are those of the network for `batch.inputs`; `batch` is one that `collate` returned.
        """

    def measure(self, model: Network, validation: Validation, *, stride: int) -> dict[str, float]:
        """Returns the scores on every `stride`-th validation frame. Raises Interrupted after a signal."""

    def describe(self, scores: dict[str, float]) -> str:
        """Returns the scores of a validation as one line of text."""


def task_for(model: Network, recipe: Recipe) -> Task:
    """Returns the training task of the recipe's network. Raises UsageError if the recipe does not fit it."""
    if isinstance(model, Segmenter):
        return SegmentationTask(model, recipe)
    for key, value, unused in (
        ("objective.kind", recipe.objective.kind, "own"),
        ("model.prior", recipe.model.prior, 0),
    ):
        if value != unused:
            raise UsageError(
                f"{key} = {as_json(value)} is for segmenters, '{recipe.model.name}' predicts boxes"
            )
    peak_cell = getattr(model, "peak_cell", None)
    if isinstance(peak_cell, int):
        if recipe.objective.quality != "iou":
            raise UsageError(f"objective.quality is for Tridos, '{recipe.model.name}' is trained with peaks")
        return PeakTask(cell=peak_cell)
    by_class = not recipe.data.class_agnostic and model.num_classes > 1
    return DetectionTask(by_class=by_class, quality=recipe.objective.quality)
