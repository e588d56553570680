"""Network of Tridos (Duan et al., IEEE TGRS 2024), split by what one frame, a pair and a window determine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

import torch
from torch import Tensor, nn

from detectors.networks.layers.blocks import BaseConv
from detectors.networks.tridos.backbone import Backbone
from detectors.networks.tridos.difference import TemporalDifference
from detectors.networks.tridos.features import FRAMES, Features, FrameFeatures
from detectors.networks.tridos.frequency import FrequencyFeatures
from detectors.networks.tridos.fusion import ResidualCompensation
from detectors.networks.tridos.head import Head
from detectors.networks.tridos.memory import KeyValue, MemoryReader, NonLocal
from detectors.networks.tridos.stream import TridosStream
from detectors.networks.tridos.swin import Swin

NECK_WIDTH, STEM_WIDTH, HEAD_WIDTH = 128, 32, 256  # of the published network, width 1.0


class Neck(nn.Module):
    """Joins the features of a window of five frames into one map for the key frame."""

    def __init__(self, channels: int):
        super().__init__()
        c = channels
        self.conv_ref = nn.Sequential(
            BaseConv((FRAMES - 1) * c, 2 * c, 3), BaseConv(2 * c, c, 3, act=nn.Sigmoid())
        )
        self.conv_cur = BaseConv(c, c, 3)
        self.conv_cr_mix = nn.Sequential(BaseConv(2 * c, 2 * c, 3), BaseConv(2 * c, c, 3))
        # Not trained: gamma stays 0 as in every published checkpoint, and the block is skipped.
        self.nolocal = NonLocal(c).requires_grad_(False)
        self.keyvalue_Q = KeyValue(c)
        self.keyvalue_M = KeyValue(c)
        self.memory = MemoryReader(c)
        self.tdms = TemporalDifference(c, frames=FRAMES)
        self.conv_fin_mix = nn.Sequential(BaseConv(2 * c, 2 * c, 3), BaseConv(2 * c, c, 3))
        self.agpf = FrequencyFeatures(c)
        self.conv_fre = nn.Sequential(BaseConv(FRAMES * c, FRAMES * c, 3), BaseConv(FRAMES * c, c, 3))
        self.swin = Swin(c, frames=FRAMES)
        self.conv_t = nn.Sequential(BaseConv(FRAMES * c, 2 * c, 3), BaseConv(2 * c, c, 3))
        # Unused; published checkpoints contain it, and strict loading requires it.
        self.conv_fre_mix = nn.Sequential(BaseConv(2 * c, 2 * c, 3), BaseConv(2 * c, c, 3))
        self.resblock0 = ResidualCompensation(c)
        self.resblock1 = ResidualCompensation(c)
        self.resblock2 = ResidualCompensation(c)

    def spatial_relation(self, past: Tensor, key: Tensor) -> Tensor:
        """Memory-enhanced spatial relation (MSRM) of the key frame to the frames before it.

        Past (B, (T − 1)·C, h, w), oldest first, and key (B, C, h, w) → (B, C, h, w).
        """
        current = self.conv_cur(self.conv_ref(past) * key)
        mixed = self.conv_cr_mix(torch.cat([current, key], dim=1))
        if not self.nolocal.is_identity():
            mixed = self.nolocal(mixed)
        return self.memory(self.keyvalue_M(mixed), self.keyvalue_Q(key))

    def forward(self, window: FrameFeatures, pairs: Tensor) -> Tensor:
        """Windows of features (B, T, …) and pairs (B, T − 1, C / 2, h / 2, w / 2) → (B, C, h, w)."""
        past, key = window.spatial[:, :-1].flatten(1, 2), window.spatial[:, -1]
        motion = self.tdms(pairs, key)
        joined = self.conv_fin_mix(torch.cat([self.spatial_relation(past, key), motion], dim=1))
        local = self.conv_fre(window.frequency.flatten(1, 2))
        wide = self.conv_t(self.swin(window.frequency, window.qkv).flatten(1, 2))
        return self.resblock2(self.resblock1(local, joined), self.resblock0(wide, joined))


class WindowedTridos(nn.Module, Generic[Features]):
    """Schedule of Tridos over frames, pairs and windows; subclasses implement the parts."""

    frames: int = FRAMES
    """Number of frames in the temporal window."""
    features: type[Features]
    """Type of the per-frame features."""
    num_classes: int
    width: float
    """Channel counts as a share of those of the published network."""

    def frame_features(self, images: Tensor) -> Features:
        """Computes what each image alone determines, at stride 8: (B, 3, H, W), H and W multiples of 32.

        Raises ValueError for other sizes.
        """
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"network input is {width}x{height}, expected multiples of 32")
        return self.features(*self._by_sample(self._frame, images))

    def pair_features(self, older: Tensor, newer: Tensor) -> Tensor:
        """Computes what consecutive frames determine: two (B, C, h, w) → (B, C / 2, h / 2, w / 2)."""
        return self._by_sample(self._pair, older, newer)[0]

    def join(self, window: Features, pairs: Tensor) -> Tensor:
        """Computes what the whole window determines: (B, T, …) features, (B, T − 1, …) pairs → raw output."""
        return self._by_sample(self._join, *window, pairs)[0]

    def _frame(self, images: Tensor) -> Features:
        raise NotImplementedError

    def _pair(self, older: Tensor, newer: Tensor) -> tuple[Tensor]:
        raise NotImplementedError

    def _join(self, *inputs: Tensor) -> tuple[Tensor]:
        raise NotImplementedError

    def _by_sample(self, function: Callable[..., tuple[Tensor, ...]], *batches: Tensor) -> tuple[Tensor, ...]:
        """Applies `function` to batches; on a CPU in evaluation mode to one sample after another.

        The phase of a spectrum jumps at ±π: if a rounding error crosses it, the output changes by up to
        5e-3, and CPU convolutions round differently for other batch sizes. Computed one by one, a sample
        gives the same output bit for bit in a clip, in a stream and in any batch, and the join is no slower.
        """
        if self.training or len(batches[0]) == 1 or batches[0].device.type != "cpu":
            return function(*batches)
        parts = [function(*sample) for sample in zip(*(b.split(1) for b in batches), strict=True)]
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def forward(self, clip: Tensor) -> Tensor:
        """Normalised clip (B, 3, T, H, W), oldest frame first → raw output (B, 5 + classes, H / 8, W / 8).

        All frames pass the backbone as one batch, also in training, so batch norm sees them together.
        Raises ValueError for other shapes.
        """
        if clip.ndim != 5 or clip.shape[1] != 3 or clip.shape[2] != FRAMES:
            raise ValueError(f"{tuple(clip.shape) = }, expected (B, 3, {FRAMES}, H, W)")
        batch = clip.shape[0]
        flat = self.frame_features(clip.transpose(1, 2).flatten(0, 1))  # the frames of a clip are adjacent
        window = self.features(*(x.unflatten(0, (batch, FRAMES)) for x in flat))
        older, newer = window.spatial[:, :-1], window.spatial[:, 1:]
        pairs = self.pair_features(older.flatten(0, 1), newer.flatten(0, 1))
        return self.join(window, pairs.unflatten(0, (batch, FRAMES - 1)))

    def stream(self) -> TridosStream[Features]:
        """Returns the state of a new sequence, in which each frame's features are computed once."""
        return TridosStream(self)


class Tridos(WindowedTridos[FrameFeatures]):
    """Tridos: five frames in; boxes, objectness and classes of the newest frame out.

    `width` scales every channel count: 1.0 is the published network (21.5 M parameters), 0.25 is
    `tridos-nano`. Raises ValueError if the neck's 128·width channels are not a multiple of 32.
    """

    features = FrameFeatures

    def __init__(self, *, num_classes: int = 1, width: float = 1.0):
        super().__init__()
        neck, stem, hidden = (round(n * width) for n in (NECK_WIDTH, STEM_WIDTH, HEAD_WIDTH))
        if num_classes < 1:
            raise ValueError(f"{num_classes = }, expected 1 or more")
        if neck < 32 or neck % 32:
            expected = "a multiple of 32 (width 0.25, 0.5, …)"
            raise ValueError(f"{width = } gives {neck} neck channels, expected {expected}")
        self.num_classes, self.width = num_classes, width
        self.backbone = Backbone(stem)
        self.neck = Neck(neck)
        self.head = Head(neck, hidden=hidden, num_classes=num_classes)

    def _frame(self, images: Tensor) -> FrameFeatures:
        spatial = self.backbone(images)
        frequency = self.neck.agpf(spatial)
        return FrameFeatures(spatial, frequency, self.neck.swin.project(frequency))

    def _pair(self, older: Tensor, newer: Tensor) -> tuple[Tensor]:
        return (self.neck.tdms.pair(older, newer),)

    def _join(self, *inputs: Tensor) -> tuple[Tensor]:
        *window, pairs = inputs
        return (self.head(self.neck(FrameFeatures(*window), pairs)),)
