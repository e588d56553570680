"""Tridos on a running sequence: each frame's features once, each pair's once, then the join."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.stages.ring_buffer import RingBuffer

if TYPE_CHECKING:
    from detectors.networks.tridos.features import FrameFeatures
    from detectors.networks.tridos.network import Tridos


class TridosStream:
    """The feature rings of one sequence. Its outputs equal those of whole clips, for every frame.

    The model must be in evaluation mode: batch statistics of a clip do not exist in a stream.
    """

    def __init__(self, model: Tridos):
        self.model = model
        self._features = [RingBuffer(model.frames) for _ in model.features._fields]
        self._pairs = RingBuffer(model.frames - 1)
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

    def push(self, frames: Tensor) -> Tensor:
        """The next B frames (B, 3, H, W) → raw (B, 5 + classes, H / 8, W / 8), each as newest of its window.

        Raises RuntimeError when the model is in training mode.
        """
        return self.finish(self.begin(frames))

    @torch.inference_mode()
    def begin(self, frames: Tensor) -> tuple:
        """The first half of `push`: what changes the state. The next may begin while this one is finished."""
        if self.model.training:
            raise RuntimeError("a stream needs the model in evaluation mode: call model.eval() first")
        features = self.model.frame_features(frames)
        pairs = self.model.pair_features(self.older(features.spatial), features.spatial)
        return self.begun(*self.windows(features, pairs))

    def begun(self, window: FrameFeatures, pairs: Tensor) -> tuple:
        """What `begin` gives of the windows that the newest frames complete."""
        return window, pairs

    @torch.inference_mode()
    def finish(self, begun: tuple) -> Tensor:
        """The second half of `push`, of what `begin` gave."""
        return self.model.join(*begun)

    @torch.inference_mode()
    def repeat(self, count: int) -> None:
        """Let the newest frame stand in for `count` that are missing, as if it were pushed so often again.

        At the start of a sequence there is none, and nothing changes.
        """
        if self._features[0].latest is None or not count:
            return
        features = self.model.features(*(ring.latest[None] for ring in self._features))
        pairs = self.model.pair_features(features.spatial, features.spatial)
        for _ in range(count):
            self.windows(features, pairs)

    def older(self, spatial: Tensor) -> Tensor:
        """Of the next B frames' spatial features (B, C, h, w), those of the frame before each, alike."""
        before = self._features[0].latest
        return torch.cat([spatial[:1] if before is None else before[None], spatial[:-1]])

    def windows(self, features: FrameFeatures, pairs: Tensor) -> tuple[FrameFeatures, Tensor]:
        """Take in what the next B frames and their pairs decided; returns what `Tridos.join` asks for."""
        window = type(features)(*(r.push(x) for r, x in zip(self._features, features, strict=True)))
        self.frames_seen += len(pairs)
        return window, self._pairs.push(pairs)


@torch.inference_mode()
def begin_batched(streams: Sequence[TridosStream], frames: Sequence[Tensor]) -> tuple:
    """The first half of `push_batched`, as `TridosStream.begin` is that of `push`."""
    if len(streams) == 1:
        return streams[0].begin(frames[0])
    model, counts = streams[0].model, [len(part) for part in frames]
    features = model.frame_features(torch.cat(list(frames)))
    own = [type(features)(*parts) for parts in zip(*(x.split(counts) for x in features), strict=True)]
    older = torch.cat([stream.older(part.spatial) for stream, part in zip(streams, own, strict=True)])
    pairs = model.pair_features(older, features.spatial).split(counts)
    windows, pairs = zip(*map(TridosStream.windows, streams, own, pairs), strict=True)
    joined = type(features)(*(torch.cat(parts) for parts in zip(*windows, strict=True)))
    return streams[0].begun(joined, torch.cat(pairs))


@torch.inference_mode()
def push_batched(streams: Sequence[TridosStream], frames: Sequence[Tensor]) -> list[Tensor]:
    """The next frames of each stream, (B, 3, H, W) → what its `push` gives, (B, 5 + classes, H / 8, W / 8).

    The streams, each named once, are of one model in evaluation mode; H and W are those of all. B may differ
    from stream to stream. Where the network computes sample by sample, on a CPU, the outputs are those of
    `push` to the bit.
    """
    raw = streams[0].finish(begin_batched(streams, frames))
    return list(raw.split([len(part) for part in frames]))
