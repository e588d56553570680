"""Training task of segmenters: images and masks as tensors, the loss of the maps, and pixel metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

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

if TYPE_CHECKING:
    from detectors.networks.registry import Network

MIN_TARGET_AREA = 10
"""Pixels: lower bound of the target area that the focal loss of an image is divided by."""


class MaskBatch(NamedTuple):
    """A batch of images of one size, as network input."""

    inputs: tuple[Tensor, ...]
    """The arguments of the network's `forward`: normalised images (B, channels, H, W) float32, for some
    networks followed by edge images."""
    masks: Tensor
    """(B, 1, H, W) float32, 1 on targets, else 0."""


class SegmentationTask:
    """Segments the targets of single frames; see `detectors.training.tasks.Task`.

    The loss is the network's own or one that all segmenters share. With several processes, each computes it
    over its own part of a batch. For losses that are means over images this equals the loss of the whole
    batch; soft IoU over a whole batch becomes the mean of that of the parts.

    Raises UsageError if the network does not take the crops or batches of the recipe.
    """

    headline = ("iou", "IoU")
    scores = ("iou", "niou", "f1", "precision", "recall", "pd", "fa", "false_alarms_per_image")

    def __init__(self, model: Segmenter, recipe: Recipe):
        self._model, self._recipe = model, recipe.objective
        self.terms = ("loss",) if recipe.objective.kind == "own" else ("loss", "soft_iou", "focal")
        _require_trainable(model, recipe)

    def collate(self, clips: list[Clip], device: torch.device) -> MaskBatch:
        """Returns clips of one frame and one size, with masks, as tensors on the device.

        Edge images are derived here, from the augmented image, so that they always match it.
        """
        images = np.stack([clip.frames[-1] / np.float32(np.iinfo(clip.frames.dtype).max) for clip in clips])
        masks = np.stack([_mask(clip) for clip in clips]).astype(np.float32)
        size = Geometry.native(images.shape[:0:-1], multiple=1)
        inputs = self._model.inputs(torch.from_numpy(images)[:, None], size)
        return MaskBatch(tuple(x.to(device) for x in inputs), torch.from_numpy(masks)[:, None].to(device))

    def loss(self, outputs: Any, batch: MaskBatch, group: ProcessGroup) -> tuple[Tensor, list[float]]:
        """Returns what this process's outputs add to the loss of the whole batch, and to each of `terms`.

        `outputs` are those of the network's `forward` for `batch.inputs`.
        """
        outputs, frames = _to_float32(outputs), batch.inputs[0]
        if self._recipe.kind == "own":
            values = [self._model.loss(outputs, batch.masks, frames)]
        else:
            maps = self._model.logits(outputs)
            soft_iou = [soft_iou_loss(torch.sigmoid(z), batch.masks, per_image=True) for z in maps]
            focal = [focal_loss_per_target_pixel(z, batch.masks) for z in maps]
            means = [torch.stack(losses).mean() for losses in (soft_iou, focal)]
            total = (
                means[0] + self._recipe.focal * means[1] + self._model.reconstruction_loss(outputs, frames)
            )
            values = [total, *means]
        count = int(group.all_gather([len(frames)], frames.device).sum())
        parts = [value * (len(frames) / count) for value in values]
        return parts[0], [part.item() for part in parts]

    def measure(self, model: Network, validation: Validation, *, stride: int) -> dict[str, float]:
        """Returns the scores of the default definition on every `stride`-th validation frame.

        Raises Interrupted after a signal.
        """
        assert isinstance(model, Segmenter)
        scorer = score_masks(model, validation.iterate(), stride=stride, chosen=[definition("default")])
        return {**scorer.scores()["default"].as_dict(), "images": scorer.images}

    def describe(self, scores: dict[str, float]) -> str:
        """Returns the scores of a validation as one line of text."""
        pd = "-" if scores["pd"] is None else f"{scores['pd']:.4f}"
        return (
            f"IoU {scores['iou']:.4f}, nIoU {scores['niou']:.4f}, F1 {scores['f1']:.4f}, Pd {pd}, "
            f"Fa {scores['fa'] * 1e6:.2f}e-6"
        )


def focal_loss_per_target_pixel(logits: Tensor, masks: Tensor) -> Tensor:
    """Focal loss per target pixel, averaged over images: a scalar, from logits and masks (B, 1, H, W).

    The sum over the pixels of an image is divided by the area of its targets, `MIN_TARGET_AREA` or more. If
    divided by all pixels, it would vanish beside soft IoU: targets cover a ten-thousandth of an image.
    """
    sums = focal_loss(logits, masks).flatten(1).sum(1)
    return (sums / masks.flatten(1).sum(1).clamp(min=MIN_TARGET_AREA)).mean()


def _to_float32(outputs: Any) -> Any:
    """Returns tensors, or nested tuples and lists of them, as float32: losses need more than 16 bits."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    return type(outputs)(_to_float32(output) for output in outputs)


def _mask(clip: Clip) -> np.ndarray:
    """Returns the mask (H, W) of a clip, which every clip for a segmenter has."""
    assert clip.mask is not None
    return clip.mask


def _require_trainable(model: Segmenter, recipe: Recipe) -> None:
    """Raises UsageError if the recipe's crops, batches or data do not fit the network."""
    name, (width, height) = recipe.model.name, recipe.schedule.crop
    schedule = recipe.schedule
    if model.fixed_size and (width, height) != (model.fixed_size, model.fixed_size):
        raise UsageError(
            f"schedule.crop = {width}x{height}, '{name}' as built takes {model.fixed_size}x{model.fixed_size}"
        )
    if width % model.multiple or height % model.multiple:
        raise UsageError(f"schedule.crop = {width}x{height}, '{name}' takes multiples of {model.multiple}")
    if schedule.batch < model.min_batch:
        raise UsageError(f"schedule.batch = {schedule.batch}, '{name}' needs {model.min_batch} or more")
    if schedule.whole_share > 0:
        raise UsageError(
            f"schedule.whole_share = {schedule.whole_share:g}, segmenters are trained on crops; set it to 0"
        )
    if recipe.data.synthetic_share > 0:
        raise UsageError("data.synthetic_share: synthetic sequences have no masks; set it to 0")
