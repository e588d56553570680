"""Tridos on a running sequence: each frame's features once, each pair's once, then the join."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.buffer import Ring

if TYPE_CHECKING:
    from detectors.tridos.network import Tridos


class TridosStream:
    """The feature rings of one sequence. Its outputs equal those of whole clips, for every frame.

    The model must be in evaluation mode: batch statistics of a clip do not exist in a stream.
    """

    def __init__(self, model: Tridos):
        self.model = model
        self._features = [Ring(model.frames) for _ in range(3)]  # spatial, frequency, qkv
        self._pairs = Ring(model.frames - 1)
        self.frames_seen = 0
        """Frames pushed since the start of the sequence."""

    @property
    def warmup(self) -> bool:
        """True while fewer real frames than a window holds stood behind the newest output."""
        return self.frames_seen < self.model.frames

    def reset(self) -> None:
        """Start a new sequence."""
        for ring in (*self._features, self._pairs):
            ring.reset()
        self.frames_seen = 0

    @torch.inference_mode()
    def push(self, frames: Tensor) -> Tensor:
        """The next B frames (B, 3, H, W) → raw (B, 5 + classes, H / 8, W / 8), each as newest of its window.

        Raises RuntimeError when the model is in training mode.
        """
        if self.model.training:
            raise RuntimeError("a stream needs the model in evaluation mode: call model.eval() first")
        features = self.model.frame_features(frames)
        before = self._features[0].newest
        first = features.spatial[:1] if before is None else before[None]
        older = torch.cat([first, features.spatial[:-1]])
        pairs = self._pairs.windows(self.model.pair_features(older, features.spatial))
        window = type(features)(*(r.windows(x) for r, x in zip(self._features, features, strict=True)))
        self.frames_seen += len(frames)
        return self.model.join(window, pairs)
