"""Plain network: stacked frames, a residual encoder and decoder, and a map of centres and boxes at stride 4.

Frames t - 8, t - 4, t - 2, t - 1 and t are the channels of one image. The output has a peak at the centre of
each target, as in CenterNet (Zhou et al., "Objects as Points", arXiv 1904.07850), and a box in each cell.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.plain.alignment import align
from detectors.networks.tridos.features import PixelFeatures
from detectors.networks.tridos.head import STRIDE, cell_grid
from detectors.networks.tridos.stream import TridosStream

FRAMES_BACK = (8, 4, 2, 1, 0)
"""Distances to the key frame of the stacked frames, oldest first."""
CELL = 4
"""Network pixels per cell of the output map."""
CERTAIN = 12.0
"""Logit of the only class: objectness alone determines the score."""
NO_PEAK = -20.0
"""Objectness logit, in evaluation mode, of a cell that is no local maximum."""


class Residual(nn.Module):
    """Two 3×3 convolutions with batch norm, added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(_conv(channels, channels), nn.SiLU(), _conv(channels, channels, zero=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return F.silu(x + self.body(x))


def _conv(cin: int, cout: int, *, stride: int = 1, zero: bool = False) -> nn.Sequential:
    """Returns a 3×3 convolution and batch norm, whose scale is initialised to 0 if `zero`."""
    norm = nn.BatchNorm2d(cout)
    if zero:
        nn.init.zeros_(norm.weight)
    return nn.Sequential(nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=False), norm)


def _down(cin: int, cout: int, blocks: int) -> nn.Sequential:
    """Returns a level that halves both sides, followed by residual blocks."""
    return nn.Sequential(_conv(cin, cout, stride=2), nn.SiLU(), *(Residual(cout) for _ in range(blocks)))


class PlainNetwork(nn.Module):
    """Nine frames in, of which five are stacked; raw output at stride 4 in the encoding of `decode_boxes`.

    `widths` are the channels of the four levels of the encoder. With `aligned` the older frames are moved
    against the motion of the camera before they are stacked.
    """

    frames: int = FRAMES_BACK[0] + 1
    """Number of frames in the temporal window."""
    features: type[PixelFeatures] = PixelFeatures
    """Type of the per-frame features."""
    num_classes: int = 1
    peak_cell: int = CELL
    """Network pixels per cell: the network is trained with `detectors.networks.plain.objective`."""

    def __init__(self, *, widths: tuple[int, ...] = (24, 48, 72, 112), aligned: bool = False):
        super().__init__()
        self.aligned = aligned
        one, two, three, four = widths
        self.encoder = nn.ModuleList(
            [
                _down(len(FRAMES_BACK), one, 1),
                _down(one, two, 2),
                _down(two, three, 2),
                _down(three, four, 2),
            ]
        )
        self.lateral = nn.ModuleList([nn.Conv2d(three, four, 1), nn.Conv2d(two, two, 1)])
        self.merge = nn.ModuleList(
            [
                nn.Sequential(_conv(four, two), nn.SiLU(), Residual(two)),
                nn.Sequential(_conv(two, two), nn.SiLU(), Residual(two)),
            ]
        )
        self.head = nn.Sequential(_conv(two, two), nn.SiLU())
        self.peaks = nn.Conv2d(two, 1, 1)
        self.boxes = nn.Conv2d(two, 4, 1)
        assert self.peaks.bias is not None
        assert self.boxes.bias is not None
        nn.init.constant_(self.peaks.bias, -math.log(99.0))  # prior probability 0.01
        nn.init.zeros_(self.boxes.weight)
        nn.init.constant_(self.boxes.bias, 0.5)

    def calibrate(self, slope: float, offset: float) -> None:
        """Replaces the log odds x of all scores by slope · x + offset, in place."""
        with torch.no_grad():
            for parameter in self.peaks.parameters():
                parameter.mul_(slope)
            assert self.peaks.bias is not None
            self.peaks.bias.add_(offset)

    def frame_features(self, images: Tensor) -> PixelFeatures:
        """Returns one of the three equal channels of images (B, 3, H, W), H and W multiples of 32.

        Raises ValueError for other sizes.
        """
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"network input is {width}x{height}, expected multiples of 32")
        return PixelFeatures(images[:, :1])

    def pair_features(self, older: Tensor, newer: Tensor) -> Tensor:
        """Returns the features of consecutive frames (B, 1, H, W), (B, 0): this network has none."""
        return newer[:, 0, 0, :0]

    def join(self, window: PixelFeatures, pairs: Tensor) -> Tensor:
        """Windows (B, 9, 1, H, W), oldest frame first → raw output (B, 6, H / 4, W / 4).

        On a CPU in evaluation mode it computes sample by sample, so that the output of a frame is equal bit
        for bit in every batch.
        """
        stacked = window.spatial[:, [self.frames - 1 - back for back in FRAMES_BACK], 0]
        if self.training or len(stacked) == 1 or stacked.device.type != "cpu":
            return self._raw(stacked)
        return torch.cat([self._raw(sample) for sample in stacked.split(1)])

    def forward(self, clip: Tensor) -> Tensor:
        """Normalised clip (B, 3, 9, H, W), oldest frame first → raw output (B, 6, H / 4, W / 4), float32.

        The encoding is that of `decode_boxes`, with cells of 8 pixels. In evaluation mode only cells that are
        the maximum of their 3×3 neighbourhood keep their objectness. Raises ValueError for other shapes.
        """
        if clip.ndim != 5 or clip.shape[1] != 3 or clip.shape[2] != self.frames:
            raise ValueError(f"{tuple(clip.shape) = }, expected (B, 3, {self.frames}, H, W)")
        batch = clip.shape[0]
        grey = self.frame_features(clip.transpose(1, 2).flatten(0, 1)).spatial.unflatten(0, (batch, -1))
        return self.join(PixelFeatures(grey), grey[:, :0])

    def stream(self) -> TridosStream[PixelFeatures]:
        """Returns the state of a new sequence."""
        return TridosStream(self)

    def _raw(self, stacked: Tensor) -> Tensor:
        """Stacked frames (B, 5, H, W) → raw output (B, 6, H / 4, W / 4)."""
        if self.aligned:
            stacked = align(stacked)
        stacked = stacked - stacked[:, -1:].mean(dim=(2, 3), keepdim=True)
        # channels last throughout: a tenth less time on a CPU, in training and in evaluation
        maps, x = [], stacked.contiguous(memory_format=torch.channels_last)
        for level in self.encoder:
            x = level(x)
            maps.append(x)
        x = self.merge[0](_upsample(x) + self.lateral[0](maps[2]))
        x = self.head(self.merge[1](_upsample(x) + self.lateral[1](maps[1])))
        peaks, boxes = self.peaks(x).float(), self.boxes(x).float()
        return encode_output(boxes, peaks if self.training else local_maxima(peaks))


def local_maxima(peaks: Tensor) -> Tensor:
    """Returns logits (B, 1, h, w), with `NO_PEAK` in cells that one of their eight neighbours exceeds."""
    return torch.where(F.max_pool2d(peaks, 3, 1, 1) == peaks, peaks, NO_PEAK)


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def encode_output(boxes: Tensor, peaks: Tensor) -> Tensor:
    """Boxes (B, 4, h, w) and peaks (B, 1, h, w) → raw output (B, 6, h, w) in the encoding of `decode_boxes`.

    Boxes are offsets and log sizes in cells of 4 pixels; those of the raw output have 8.
    """
    height, width = boxes.shape[-2:]
    grid = cell_grid(height, width, boxes.device).T.reshape(2, height, width)
    ratio = CELL / STRIDE
    centres = (boxes[:, :2] + grid) * ratio - grid
    sizes = boxes[:, 2:] + math.log(ratio)
    return torch.cat([centres, sizes, peaks, torch.full_like(peaks, CERTAIN)], dim=1)
