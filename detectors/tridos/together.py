"""Frames of several running sequences as one batch of the network, which has a state for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detectors.tridos.stream import TridosStream


@torch.inference_mode()
def begin_together(streams: Sequence[TridosStream], frames: Sequence[Tensor]) -> tuple:
    """The first half of `push_together`, as `TridosStream.begin` is that of `push`."""
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
def push_together(streams: Sequence[TridosStream], frames: Sequence[Tensor]) -> list[Tensor]:
    """The next frames of each stream, (B, 3, H, W) → what its `push` gives, (B, 5 + classes, H / 8, W / 8).

    The streams, each named once, are of one model in evaluation mode; H and W are those of all. B may differ
    from stream to stream. Where the network computes sample by sample, on a CPU, the outputs are those of
    `push` to the bit.
    """
    raw = streams[0].finish(begin_together(streams, frames))
    return list(raw.split([len(part) for part in frames]))
