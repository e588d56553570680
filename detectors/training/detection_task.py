"""Training tasks of detectors: clips and boxes as tensors, the losses, and average precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.sequences.clips import Clip
from detectors.evaluation.detection import evaluate_scores, fill_evaluator
from detectors.inference.normalisation import to_network_input
from detectors.networks.plain.objective import BOX_WEIGHT, peak_loss
from detectors.networks.segmenters.base import Segmenter
from detectors.training.data import Validation
from detectors.training.detection_loss import detection_loss
from detectors.training.distributed import ProcessGroup
from pipeline.config.schema import DetectorConfig
from pipeline.structures.boxes import to_centres

if TYPE_CHECKING:
    from detectors.networks.registry import Network


class ClipBatch(NamedTuple):
    """A batch of clips of one size, as network input."""

    frames: Tensor
    """(B, 3, T, H, W) float32, normalised, oldest frame first."""
    boxes: list[Tensor]
    """Per clip (N, 4) float32 centre x, centre y, width, height in network pixels, of the key frame."""
    labels: list[Tensor]
    """Per clip (N,) int64, negative if the class is not known."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The arguments of the network's `forward`."""
        return (self.frames,)


class DetectionTask:
    """Detects the targets of the key frame; see `detectors.training.tasks.Task`.

    All classes are scored as one, or `by_class`: then AP50 is the mean over the classes. `quality` is the
    target of class scores, as in `detection_loss`.
    """

    terms: tuple[str, ...] = ("loss", "ciou", "objectness", "classes")
    headline = ("ap50", "AP50")
    scores = ("ap50", "ap", "recall50", "best_f1", "best_threshold")

    def __init__(self, *, by_class: bool = False, quality: Literal["iou", "wasserstein"] = "iou"):
        self.by_class, self.quality = by_class, quality

    def collate(self, clips: list[Clip], device: torch.device) -> ClipBatch:
        """Returns clips of one size as tensors on the device."""
        frames = [
            to_network_input(
                list(clip.frames), full_scale=int(np.iinfo(clip.frames.dtype).max), device=device
            )
            for clip in clips
        ]
        boxes = [torch.from_numpy(to_centres(c.boxes).astype(np.float32)).to(device) for c in clips]
        return ClipBatch(
            torch.stack(frames).transpose(1, 2), boxes, [torch.from_numpy(c.labels).to(device) for c in clips]
        )

    def loss(self, raw: Tensor, batch: ClipBatch, group: ProcessGroup) -> tuple[Tensor, list[float]]:
        """Returns what this process's raw output adds to the loss of the whole batch, and to each of `terms`.

        `raw` is (B, 5 + classes, h, w).
        """
        loss = detection_loss(raw, batch.boxes, batch.labels, quality=self.quality)
        cells = int(group.all_gather([loss.foreground], batch.frames.device).sum())
        total = loss.contribution(cells)
        sums = (loss.ciou_sum, loss.objectness_sum, loss.class_sum)
        return total, [total.item(), *(value.item() / max(cells, 1) for value in sums)]

    def measure(self, model: Network, validation: Validation, *, stride: int) -> dict[str, float]:
        """Returns the scores on every `stride`-th validation frame. Raises Interrupted after a signal.

        By class there are also `ap50_as_one`, which ignores classes, and `ap50_NAME` of each class.
        """
        assert not isinstance(model, Segmenter)
        data = validation.records, validation.iterate(), validation.truth
        if not self.by_class:
            return evaluate_scores(model, *data, stride=stride).as_dict()
        report = fill_evaluator(model, *data, stride=stride, classes=True).report(DetectorConfig.conf)
        as_one = (report.class_agnostic or report.scores).ap50
        classes = {f"ap50_{row.name}": row.ap50 for row in report.per_class if row.ap50 is not None}
        return {**report.scores.as_dict(), "ap50_as_one": as_one, **classes}

    def describe(self, scores: dict[str, float]) -> str:
        """Returns the scores of a validation as one line of text."""
        text = f"AP50 {scores['ap50']:.4f}, best F1 {scores['best_f1']:.4f}"
        per_class = {k.removeprefix("ap50_"): v for k, v in scores.items() if k.startswith("ap50_")}
        if not per_class:
            return text
        as_one = per_class.pop("as_one")
        classes = ", ".join(f"{name} {value:.4f}" for name, value in per_class.items())
        return f"{text}, AP50 as one class {as_one:.4f}, of each class: {classes}"


class PeakTask(DetectionTask):
    """Detects targets of one class by peaks at their centres; see `detectors.networks.plain.objective`.

    `cell` is the size of a cell of the raw output in network pixels.
    """

    terms = ("loss", "peaks", "boxes")

    def __init__(self, *, cell: int):
        super().__init__()
        self.cell = cell

    def loss(self, raw: Tensor, batch: ClipBatch, group: ProcessGroup) -> tuple[Tensor, list[float]]:
        """Returns what this process's raw output adds to the loss of the whole batch, and to each of `terms`.

        `raw` is (B, 6, h, w).
        """
        loss = peak_loss(raw, batch.boxes, cell=self.cell)
        counts = group.all_gather([loss.peaks, loss.cells], raw.device).sum(dim=0)
        peak_count, cell_count = (max(int(count), 1) for count in counts)
        peaks, boxes = loss.peak_sum / peak_count, loss.box_sum / cell_count
        total = peaks + BOX_WEIGHT * boxes
        return total, [total.item(), peaks.item(), boxes.item()]
