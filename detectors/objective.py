"""What a detector is asked for in training: clips as tensors, and the loss of its raw output.

The trainer knows nothing of boxes; another task brings another class with these methods.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.clips import Clip
from detectors.losses import detection_loss
from detectors.parallel import World
from pipeline.boxes import to_centres
from pipeline.normalise import to_network_input


class Batch(NamedTuple):
    """Clips of one size as the network takes them."""

    frames: Tensor
    """(B, 3, T, H, W) float32, normalised."""
    boxes: list[Tensor]
    """Per clip (N, 4) float32 centre x, centre y, width, height in network pixels."""
    labels: list[Tensor]
    """Per clip (N,) int64."""


class Detection:
    """Boxes, objectness and classes of the key frame, by the loss of Tridos."""

    terms = ("loss", "ciou", "objectness", "classes")
    """Names of the numbers that `loss` tells of a batch."""

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

    def loss(self, raw: Tensor, batch: Batch, world: World) -> tuple[Tensor, list[float]]:
        """What this process's raw output adds to the loss of the whole batch, and to each of `terms`."""
        loss = detection_loss(raw, batch.boxes, batch.labels)
        cells = int(world.gather([loss.foreground], batch.frames.device).sum())
        total = loss.share(cells)
        sums = (loss.ciou_sum, loss.objectness_sum, loss.class_sum)
        return total, [total.item(), *(value.item() / max(cells, 1) for value in sums)]
