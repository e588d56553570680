"""Tridos on a running sequence: the features of each frame and of each pair of frames are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

import torch
from torch import Tensor

from detectors.networks.tridos.features import Features, WindowedNetwork
from pipeline.stages.ring_buffer import RingBuffer

Parts = tuple
"""Arguments of the second phase, `TridosStream.join`; their types depend on the network."""


class TridosStream(Generic[Features]):
    """State of one sequence: ring buffers of features. For every frame, outputs equal those of whole clips.

    Inference has two phases, which may run in two threads: `extract` computes the features of new frames and
    changes the state, `join` turns the windows that they complete into raw outputs.

    The model must be in evaluation mode: the batch statistics of a clip do not exist in a stream.
    """

    def __init__(self, model: WindowedNetwork[Features]):
        self.model: WindowedNetwork[Features] = model
        self._features = [RingBuffer(model.frames) for _ in model.features._fields]
        self._pairs = RingBuffer(model.frames - 1)
        self.frames_seen = 0
        """Number of frames pushed since the start of the sequence."""

    @property
    def warmup(self) -> bool:
        """Whether the window of the newest output holds fewer real frames than its length."""
        return self.frames_seen < self.model.frames

    def reset(self) -> None:
        """Starts a new sequence."""
        for ring in (*self._features, self._pairs):
            ring.reset()
        self.frames_seen = 0

    def push(self, frames: Tensor) -> Tensor:
        """Appends frames (B, 3, H, W) and returns the raw outputs (B, 5 + classes, H / 8, W / 8) of each.

        Raises RuntimeError if the model is in training mode.
        """
        return self.join(self.extract(frames))

    @torch.inference_mode()
    def extract(self, frames: Tensor) -> Parts:
        """First phase of `push`: computes features, changes the state and returns the arguments of `join`.

        It may run again before the parts returned earlier are joined.
        """
        if self.model.training:
            raise RuntimeError("a stream needs the model in evaluation mode: call model.eval() first")
        features = self.model.frame_features(frames)
        pairs = self.model.pair_features(self.previous(features.spatial), features.spatial)
        return self.start_join(*self.append(features, pairs))

    def start_join(self, window: Features, pairs: Tensor) -> Parts:
        """Starts the join of windows (B, T, …) in the first phase; returns the arguments of `join`.

        Here it computes nothing; subclasses may move a part of the join to the first phase.
        """
        return window, pairs

    @torch.inference_mode()
    def join(self, parts: Parts) -> Tensor:
        """Second phase of `push`: returns the raw outputs from the result of `extract`."""
        return self.model.join(*parts)

    @torch.inference_mode()
    def repeat(self, count: int) -> None:
        """Appends the newest frame `count` more times in place of missing frames.

        Does nothing at the start of a sequence.
        """
        latest = [ring.latest for ring in self._features]
        newest = [item[None] for item in latest if item is not None]
        if not newest or not count:
            return
        features = self.model.features(*newest)
        pairs = self.model.pair_features(features.spatial, features.spatial)
        for _ in range(count):
            self.append(features, pairs)

    def previous(self, spatial: Tensor) -> Tensor:
        """Returns the spatial features of the frame before each of the next frames, (B, C, h, w) as given.

        The first frame of a sequence is its own predecessor.
        """
        before = self._features[0].latest
        return torch.cat([spatial[:1] if before is None else before[None], spatial[:-1]])

    def append(self, features: Features, pairs: Tensor) -> tuple[Features, Tensor]:
        """Appends the features and pairs of the next frames; returns the windows (B, T, …) that they end."""
        parts = [ring.push(part) for ring, part in zip(self._features, features, strict=True)]
        self.frames_seen += len(pairs)
        return type(features)(*parts), self._pairs.push(pairs)


@torch.inference_mode()
def extract_batched(streams: Sequence[TridosStream[Features]], frames: Sequence[Tensor]) -> Parts:
    """First phase of `push_batched`, as `TridosStream.extract` is of `push`."""
    if len(streams) == 1:
        return streams[0].extract(frames[0])
    model, counts = streams[0].model, [len(part) for part in frames]
    features = model.frame_features(torch.cat(list(frames)))
    make = type(features)
    own = [make(*parts) for parts in zip(*(part.split(counts) for part in features), strict=True)]
    older = [stream.previous(part.spatial) for stream, part in zip(streams, own, strict=True)]
    pairs = model.pair_features(torch.cat(older), features.spatial).split(counts)
    windows, joined_pairs = zip(*map(TridosStream.append, streams, own, pairs), strict=True)
    window = make(*(torch.cat(parts) for parts in zip(*windows, strict=True)))
    return streams[0].start_join(window, torch.cat(joined_pairs))


@torch.inference_mode()
def push_batched(streams: Sequence[TridosStream[Features]], frames: Sequence[Tensor]) -> list[Tensor]:
    """Appends frames (B, 3, H, W) to each stream; returns the raw outputs of each, as `push` does.

    The streams, each given once, share one model in evaluation mode, and H and W are equal for all; B may
    differ. On a CPU, where the network computes sample by sample, the outputs equal those of `push` bit for
    bit.
    """
    raw = streams[0].join(extract_batched(streams, frames))
    return list(raw.split([len(part) for part in frames]))
