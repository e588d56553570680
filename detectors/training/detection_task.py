"""detectors.training.detection_task."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from datasets.sequences.clips import Clip
from detectors.evaluation.detection import evaluate_scores, fill_evaluator
from detectors.inference.normalisation import to_network_input
from detectors.training.data import Validation
from detectors.training.detection_loss import detection_loss
from detectors.training.distributed import ProcessGroup
from pipeline.config.schema import DetectorConfig
from pipeline.structures.boxes import to_centres


class Batch(NamedTuple):
    """Clips of one size as the network takes them."""

    frames: Tensor
    """(B, 3, T, H, W) float32, normalised."""
    boxes: list[Tensor]
    """Per clip (N, 4) float32 centre x, centre y, width, height in network pixels."""
    labels: list[Tensor]
    """Per clip (N,) int64."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All that `forward` takes."""
        return (self.frames,)


class Detection:
    """Boxes, objectness and classes of the key frame, by the loss of Tridos.

    Measured as one class, or `by_class`: then AP50 is the mean over the classes.
    """

    terms = ("loss", "ciou", "objectness", "classes")
    """Names of the numbers that `loss` tells of a batch."""
    headline = ("ap50", "AP50")
    """Key and name of the score by which the best weights are chosen."""
    scores = ("ap50", "ap", "recall50", "best_f1", "best_threshold")
    """Keys of a measurement that a table of the run has columns for."""

    def __init__(self, *, by_class: bool = False):
        self.by_class = by_class

    def collate(self, clips: list[Clip], device: torch.device) -> Batch:
        """Clips of one size as tensors on the device."""
        frames = [
            to_network_input(clip.frames, full_scale=int(np.iinfo(clip.frames.dtype).max), device=device)
            for clip in clips
        ]
        boxes = [torch.from_numpy(to_centres(c.boxes).astype(np.float32)).to(device) for c in clips]
        return Batch(
            torch.stack(frames).transpose(1, 2), boxes, [torch.from_numpy(c.labels).to(device) for c in clips]
        )

    def loss(self, raw: Tensor, batch: Batch, world: ProcessGroup) -> tuple[Tensor, list[float]]:
        """What this process's raw output adds to the loss of the whole batch, and to each of `terms`."""
        loss = detection_loss(raw, batch.boxes, batch.labels)
        cells = int(world.gather([loss.foreground], batch.frames.device).sum())
        total = loss.share(cells)
        sums = (loss.ciou_sum, loss.objectness_sum, loss.class_sum)
        return total, [total.item(), *(value.item() / max(cells, 1) for value in sums)]

    def measure(self, model: nn.Module, validation: Validation, *, stride: int) -> dict[str, float]:
        """Scores on every `stride`-th validation frame; a signal ends it with Interrupted.

        By class there are also `ap50_as_one`, which leaves classes aside, and `ap50_NAME` of each class.
        """
        material = validation.records, validation.coming(), validation.truth
        if not self.by_class:
            return evaluate_scores(model, *material, stride=stride).as_dict()
        report = fill_evaluator(model, *material, stride=stride, classes=True).report(DetectorConfig.conf)
        as_one = (report.class_agnostic or report.scores).ap50
        classes = {f"ap50_{row.name}": row.ap50 for row in report.per_class if row.ap50 is not None}
        return {**report.scores.as_dict(), "ap50_as_one": as_one, **classes}

    def told(self, scores: dict[str, float]) -> str:
        """A measurement for people."""
        told = f"AP50 {scores['ap50']:.4f}, best F1 {scores['best_f1']:.4f}"
        single = {k.removeprefix("ap50_"): v for k, v in scores.items() if k.startswith("ap50_")}
        if not single:
            return told
        as_one = single.pop("as_one")
        classes = ", ".join(f"{name} {value:.4f}" for name, value in single.items())
        return f"{told}, AP50 as one class {as_one:.4f}, of each class: {classes}"
