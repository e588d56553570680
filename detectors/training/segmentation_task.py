"""What a segmenter is asked for in training: single pictures as tensors, and the loss of its maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.sequences.clips import Clip
from detectors.evaluation.segmentation import score_masks
from detectors.networks.segmenters.base import Segmenter
from detectors.networks.segmenters.soft_iou import soft_iou_loss
from detectors.training.data import Validation
from detectors.training.detection_loss import focal_loss
from detectors.training.distributed import ProcessGroup
from detectors.training.recipe import Recipe
from pipeline.evaluation.segmentation.definitions import definition
from pipeline.imaging.geometry import Geometry
from pipeline.system.errors import UsageError

MIN_TARGET = 10
"""Pixels: smaller targets, and none, count as so many where a loss is divided by the target's area."""


class MaskBatch(NamedTuple):
    """Pictures of one size as the network takes them."""

    inputs: tuple[Tensor, ...]
    """All that `forward` takes: normalised pictures (B, channels, H, W) float32, and edge images or none."""
    masks: Tensor
    """(B, 1, H, W) float32, 1 on targets, else 0."""


class Segmentation:
    """Masks of single frames, by the network's own loss or by one that all segmenters share.

    Of several processes each forms its loss over its own part of a batch. For losses that are means over
    pictures this is the loss of the whole batch; soft IoU over a whole batch becomes that over each part.

    Raises UsageError for crops and batches that the network does not take.
    """

    headline = ("iou", "IoU")
    """Key and name of the score by which the best weights are chosen."""
    scores = ("iou", "niou", "f1", "precision", "recall", "pd", "fa", "false_alarms_per_image")
    """Keys of a measurement that a table of the run has columns for."""

    def __init__(self, model: Segmenter, recipe: Recipe):
        self._model, self._recipe = model, recipe.objective
        self.terms = ("loss",) if recipe.objective.kind == "own" else ("loss", "soft_iou", "focal")
        """Names of the numbers that `loss` tells of a batch."""
        _check(model, recipe)

    def collate(self, clips: list[Clip], device: torch.device) -> MaskBatch:
        """Clips of one frame and one size, with masks, as tensors on the device.

        What a network takes beside the picture is derived from the picture as it is here, so that no change
        made to a clip can tear the two apart.
        """
        pictures = np.stack([clip.frames[-1] / np.float32(np.iinfo(clip.frames.dtype).max) for clip in clips])
        masks = np.stack([clip.mask for clip in clips]).astype(np.float32)
        size = Geometry.native(pictures.shape[:0:-1], multiple=1)
        inputs = self._model.inputs(torch.from_numpy(pictures)[:, None], size)
        return MaskBatch(tuple(x.to(device) for x in inputs), torch.from_numpy(masks)[:, None].to(device))

    def loss(self, outputs: Any, batch: MaskBatch, world: ProcessGroup) -> tuple[Tensor, list[float]]:
        """What the outputs of this process add to the loss of the whole batch, and to each of `terms`."""
        outputs, frames = _exact(outputs), batch.inputs[0]
        if self._recipe.kind == "own":
            values = [self._model.loss(outputs, batch.masks, frames)]
        else:
            maps = self._model.logits(outputs)
            soft_iou = [soft_iou_loss(torch.sigmoid(z), batch.masks, per_image=True) for z in maps]
            focal = [focal_per_target_pixel(z, batch.masks) for z in maps]
            parts = [torch.stack(losses).mean() for losses in (soft_iou, focal)]
            total = parts[0] + self._recipe.focal * parts[1] + self._model.unmasked_loss(outputs, frames)
            values = [total, *parts]
        whole = int(world.gather([len(frames)], frames.device).sum())
        shares = [value * (len(frames) / whole) for value in values]
        return shares[0], [share.item() for share in shares]

    def measure(self, model: Segmenter, validation: Validation, *, stride: int) -> dict[str, float]:
        """Scores of the default definition on every `stride`-th frame of each validation sequence."""
        scorer = score_masks(model, validation.coming(), stride=stride, chosen=[definition("default")])
        return {**scorer.scores()["default"].as_dict(), "images": scorer.images}

    def told(self, scores: dict[str, float]) -> str:
        """A measurement for people."""
        pd = "-" if scores["pd"] is None else f"{scores['pd']:.4f}"
        return (
            f"IoU {scores['iou']:.4f}, nIoU {scores['niou']:.4f}, F1 {scores['f1']:.4f}, Pd {pd}, "
            f"Fa {scores['fa'] * 1e6:.2f}e-6"
        )


def focal_per_target_pixel(logits: Tensor, masks: Tensor) -> Tensor:
    """Focal loss of logits and masks, both (B, 1, H, W): the sum over a picture's pixels, divided by those of
    its targets; a scalar, the mean over the pictures.

    Divided by all pixels it would be nothing beside soft IoU: targets are a ten-thousandth of a picture.
    """
    sums = focal_loss(logits, masks).flatten(1).sum(1)
    return (sums / masks.flatten(1).sum(1).clamp(min=MIN_TARGET)).mean()


def _exact(outputs: Any) -> Any:
    """Tensors, or tuples and lists of such, in float32: losses need what half precision rounds away."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return type(outputs)(_exact(output) for output in outputs)


def _check(model: Segmenter, recipe: Recipe) -> None:
    """Raise UsageError for pictures that cannot be put into the network."""
    name, (width, height) = recipe.model.name, recipe.schedule.crop
    schedule = recipe.schedule
    if model.fixed_size and (width, height) != (model.fixed_size, model.fixed_size):
        raise UsageError(
            f"schedule.crop = {width}x{height}, '{name}' as built takes {model.fixed_size}x{model.fixed_size}"
        )
    if width % model.multiple or height % model.multiple:
        raise UsageError(f"schedule.crop = {width}x{height}, '{name}' takes multiples of {model.multiple}")
    if schedule.batch < model.least_batch:
        raise UsageError(f"schedule.batch = {schedule.batch}, '{name}' needs {model.least_batch} or more")
    if schedule.whole_share > 0:
        raise UsageError(
            f"schedule.whole_share = {schedule.whole_share:g}, segmenters learn from crops; set it to 0"
        )
    if recipe.data.synthetic_share > 0:
        raise UsageError("data.synthetic_share: synthetic sequences have no masks; set it to 0")
