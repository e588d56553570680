"""DCONet, earlier MSCoNet: dual-task collaborative optimisation (IEEE GRSL 22, 2025).

doi 10.1109/LGRS.2025.3597969. Attribute names are those of the published checkpoints, those of modules that
never run included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.max_pool import halved
from detectors.networks.segmenters.base import Segmenter
from detectors.networks.segmenters.soft_iou import soft_iou_loss

WIDTHS = (16, 32, 64, 128, 256, 512)
"""Channels of the background estimator at strides 1 to 32."""
CHANNELS = 32  # of the gated unit and of the reconstruction
DILATIONS = (2, 8, 12, 18)
RECONSTRUCTION = 0.1
"""Weight of the mean squared error of the rebuilt image in the loss."""


class AxialConv(nn.Module):
    """The input plus a vertical and a horizontal depthwise convolution of seven cells."""

    def __init__(self, channels: int):
        super().__init__()
        self.dw_h = nn.Conv2d(channels, channels, (7, 1), padding=(3, 0), groups=channels)
        self.dw_w = nn.Conv2d(channels, channels, (1, 7), padding=(0, 3), groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        return x + self.dw_h(x) + self.dw_w(x)


class Encoder(nn.Module):
    """Axial convolution and batch norm (the skip), then 1×1, 2×2 maximum and GELU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.dw = AxialConv(cin)
        self.bn = nn.BatchNorm2d(cin)
        self.pw = nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, cin, H, W) → (B, cout, H / 2, W / 2) and the skip (B, cin, H, W)."""
        skip = self.bn(self.dw(x))
        return F.gelu(halved(self.pw(skip))), skip


class Decoder(nn.Module):
    """Joins the nearest-neighbour upsampled map with the skip: 1×1, batch norm, axial, 1×1, GELU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.pw = nn.Conv2d(cin + cout, cout, 1)
        self.bn = nn.BatchNorm2d(cout)
        self.dw = AxialConv(cout)
        self.pw2 = nn.Conv2d(cout, cout, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, cin, h, w) and (B, cout, 2h, 2w) → (B, cout, 2h, 2w)."""
        joined = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skip], dim=1)
        return F.gelu(self.pw2(self.dw(self.bn(self.pw(joined)))))


class ConvNormReLU(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int, kernel: int, *, dilation: int = 1, groups: int = 1):
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(cin, cout, kernel, padding=padding, dilation=dilation, groups=groups)
        self.norm = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) → (B, cout, H, W)."""
        return torch.relu(self.norm(self.conv(x)))


class DilatedMixture(nn.Module):
    """MDCR: four quarters of the channels at four dilations, mixed one channel of each at a time."""

    def __init__(self, channels: int):
        super().__init__()
        quarter = channels // 4
        for number, dilation in enumerate(DILATIONS, start=1):
            block = ConvNormReLU(quarter, quarter, 3, dilation=dilation, groups=quarter)
            self.add_module(f"block{number}", block)
        self.out_s = ConvNormReLU(4, 4, 1)
        self.out = ConvNormReLU(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        parts = [self.get_submodule(f"block{i}")(part) for i, part in enumerate(x.chunk(4, dim=1), start=1)]
        groups = torch.stack(parts, dim=2)  # (B, C / 4, 4, h, w): group q holds channel q of each quarter
        return self.out(self.mix(groups).flatten(1, 2))

    def mix(self, groups: Tensor) -> Tensor:
        """All groups (B, G, 4, h, w) pass the one small block `out_s`, in the order 0 to G − 1 → same shape.

        The published network calls the block once for each group. In training each call sees the statistics
        of its own group, and the running statistics move G times in a step, so that they are dominated by
        the last groups; networks trained so depend on it. One batch norm of 4·G channels does the same.
        """
        batch, count = groups.shape[:2]
        if not self.training:
            return self.out_s(groups.flatten(0, 1)).unflatten(0, (batch, count))
        norm = self.out_s.norm
        mixed = self.out_s.conv(groups.flatten(0, 1)).unflatten(0, (batch, count)).flatten(1, 2)
        scale, offset = norm.weight.repeat(count), norm.bias.repeat(count)
        mean, var = offset.new_zeros(offset.shape), offset.new_zeros(offset.shape)
        # momentum 1 leaves the statistics of this batch in the buffers, the variance without bias
        mixed = F.batch_norm(mixed, mean, var, scale, offset, training=True, momentum=1.0, eps=norm.eps)
        self._move(mean.view(count, 4), var.view(count, 4))
        return torch.relu(mixed).unflatten(1, (count, 4))

    @torch.no_grad()
    def _move(self, means: Tensor, variances: Tensor) -> None:
        """Move the running statistics of `out_s` by those of its groups (G, 4), one group after another."""
        norm, count = self.out_s.norm, len(means)
        stay = 1 - norm.momentum
        shares = norm.momentum * stay ** torch.arange(count - 1, -1, -1).to(means)
        for running, seen in ((norm.running_mean, means), (norm.running_var, variances)):
            running.mul_(stay**count).add_(shares @ seen)
        norm.num_batches_tracked += count


class TokenAttention(nn.Module):
    """SOA: attention of positions to positions through squared deviations, linear in their number."""

    def __init__(self, channels: int):
        super().__init__()
        self.lnqkv = nn.Linear(channels, 3 * channels)
        self.ln = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = self.lnqkv(tokens).chunk(3, dim=-1)
        joined = value + attend(query, key, value) + tokens
        return self.ln(joined).transpose(1, 2).unflatten(2, x.shape[-2:])


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, N, C) each → (B, N, C), in float32 or better: squares and shares of them are too small for less."""
    exact = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        query, key = deviation(query.to(exact)), deviation(key.to(exact))
        # queries are normalised along the channels, keys along the tokens
        memory = F.normalize(key, dim=1).transpose(1, 2) @ value.to(exact)
        attended = F.normalize(query, dim=2) @ memory * value.shape[1] ** -0.5
    return attended.to(value.dtype)


def deviation(tokens: Tensor) -> Tensor:
    """Squared differences from each token's mean, as shares of their sum: (B, N, C) → same shape."""
    squares = (tokens - tokens.mean(-1, keepdim=True)).square()
    return squares / (squares.sum(-1, keepdim=True) + 1e-7)


class Bottleneck(nn.Module):
    """Dilated mixture, then token attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.att = TokenAttention(channels)
        self.mdcr = DilatedMixture(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return self.att(self.mdcr(x))


class UNet(nn.Module):
    """Estimates the background of an image."""

    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(1, WIDTHS[0], 7, padding=3)
        for level in range(1, len(WIDTHS)):
            self.add_module(f"e{level}", Encoder(WIDTHS[level - 1], WIDTHS[level]))
            self.add_module(f"d{level}", Decoder(WIDTHS[level], WIDTHS[level - 1]))
        self.b5 = Bottleneck(WIDTHS[-1])
        self.conv_out = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W), sides multiples of 32 → same shape."""
        x, skips = self.conv_in(image), []
        for level in range(1, len(WIDTHS)):
            x, skip = self.get_submodule(f"e{level}")(x)
            skips.append(skip)
        x = self.b5(x)
        for level in range(len(WIDTHS) - 1, 0, -1):
            x = self.get_submodule(f"d{level}")(x, skips.pop())
        return self.conv_out(x)


def mapping(*, middle: int) -> nn.Sequential:
    """3×3 convolutions 1 → 32 → … → 1, `middle` of them inside; all but the last with batch norm and ReLU."""
    layers = []
    for cin in (1, *[CHANNELS] * middle):
        conv = nn.Conv2d(cin, CHANNELS, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(CHANNELS, 1, 3, padding=1))


class Background(nn.Module):
    """Holds the background estimator."""

    def __init__(self):
        super().__init__()
        self.convs = mapping(middle=3)  # never used; published checkpoints hold it
        self.unet = UNet()


class GatedUnit(nn.Module):
    """A convolutional cell with forget, input and output gates, carried from stage to stage."""

    def __init__(self):
        super().__init__()
        self.epsilon_per_channel = nn.Parameter(torch.full((CHANNELS,), 0.01))
        self.conv_x = nn.Conv2d(1, CHANNELS, 3, padding=1)
        # conv_h, conv_h2 and conv_x2 never change the output, conv_c2 does not in the first stage, nor conv_c
        # in later ones; published checkpoints hold them all.
        self.conv_h, self.conv_c = nn.Conv2d(1, CHANNELS, 3, padding=1), nn.Conv2d(1, CHANNELS, 3, padding=1)
        for name in ("conv_x2", "conv_h2", "conv_c2", "conv_f", "conv_i", "conv_o", "cell_state"):
            self.add_module(name, nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))
        self.conv_out = nn.Conv2d(CHANNELS, 1, 3, padding=1)

    def _kernels(self) -> tuple[Tensor, Tensor]:
        """Of forget, input and output gate and new state: kernels (128, 32, 3, 3) and biases (128,)."""
        gates = (self.conv_f, self.conv_i, self.conv_o, self.cell_state)
        return torch.cat([gate.weight for gate in gates]), torch.cat([gate.bias for gate in gates])

    def gates_directly(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) → forget, input and output gate and new state before activation, (B, 128, H, W)."""
        return F.conv2d(self.conv_x(x), *self._kernels(), padding=1)

    def gates(self, x: Tensor) -> Tensor:
        """The same by one 5×5 convolution, a tenth of the work: nothing lies between the two of 3×3.

        At the border they differ, for the second convolution sees zeros around the first one's map.
        """
        kernels, biases = self._kernels()
        joint = F.conv2d(kernels, self.conv_x.weight.transpose(0, 1).flip(2, 3), padding=2)
        result = F.conv2d(x, joint, biases + kernels.sum((2, 3)) @ self.conv_x.bias, padding=2)
        for axis in (2, 3):
            for start, cell in ((0, 0), (x.shape[axis] - 3, -1)):
                strip = self.gates_directly(x.narrow(axis, start, 3))
                result.select(axis, cell).copy_(strip.select(axis, cell))
        return result

    def forward(self, x: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) and the cell (B, 32, H, W), None in the first stage → update (B, 1, H, W), cell."""
        gates = self.gates_directly(x) if self.training else self.gates(x)
        forget, take, give, new = gates.chunk(4, dim=1)
        # the published first stage convolves a map of zeros: what is left is the bias, also at the border
        before = self.conv_c.bias[:, None, None] if cell is None else self.conv_c2(cell)
        cell = torch.sigmoid(forget) * before + torch.sigmoid(take) * torch.tanh(new)
        shown = torch.sigmoid(give) * torch.tanh(cell) * self.epsilon_per_channel[:, None, None]
        return self.conv_out(shown), cell


class Merge(nn.Module):
    """Rebuilds the image from background and target."""

    def __init__(self):
        super().__init__()
        self.mapping = mapping(middle=2)


class Stage(nn.Module):
    """One iteration: background, target, image."""

    def __init__(self):
        super().__init__()
        self.lowrank = Background()
        self.sparse = GatedUnit()
        self.merge = Merge()

    def separate(self, image: Tensor, target: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Image and target (B, 1, H, W) and the cell → background, target, cell."""
        background = self.lowrank.unet(image - target)
        x = image - background + target
        update, cell = self.sparse(x, cell)
        return background, x - update, cell

    def rebuild(self, background: Tensor, target: Tensor) -> Tensor:
        """(B, 1, H, W) each → image of the same shape."""
        return self.merge.mapping(background + target)


class DCONet(Segmenter):
    """Rebuilt image and target logits, both (B, 1, H, W), for grey frames (B, 1, H, W) in [0, 1].

    Sides are multiples of 32. `stage_num` iterations, 5 in the published code (its logs speak of 7). Upstream
    trains and tests with `mode="train"`, which returns both; `mode="test"` returns the logits alone.
    """

    multiple = 32

    def __init__(self, *, stage_num: int = 5, mode: Literal["train", "test"] = "train"):
        super().__init__()
        if stage_num < 1:
            raise ValueError(f"{stage_num = }, expected 1 or more")
        if mode not in ("train", "test"):
            raise ValueError(f"{mode = }, expected 'train' or 'test'")
        self.mode = mode
        self.decos = nn.ModuleList(Stage() for _ in range(stage_num))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
        for stage in self.decos:
            for module in stage.sparse.children():
                nn.init.zeros_(module.bias)

    def _separate(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Background and target logits of the last stage, both (B, 1, H, W)."""
        self._check(frames)
        image, target, cell = frames, torch.zeros_like(frames), None
        for number, stage in enumerate(self.decos, start=1):
            background, target, cell = stage.separate(image, target, cell)
            if number < len(self.decos):
                image = stage.rebuild(background, target)
        return background, target

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """See the class; the same in training and evaluation."""
        background, target = self._separate(frames)
        if self.mode == "test":
            return target
        return self.decos[-1].rebuild(background, target), target

    def prediction(self, frames: Tensor) -> Tensor:
        """Logits (B, 1, H, W), without rebuilding the image at the end."""
        return self._separate(frames)[1]

    def loss(
        self, outputs: tuple[Tensor, Tensor] | Tensor, target: Tensor, frames: Tensor | None = None
    ) -> Tensor:
        """Soft IoU of each image, averaged, and a tenth of the mean squared error of the rebuilt frames.

        Raises ValueError where `outputs` hold a rebuilt image and `frames` are not given.
        """
        (logits,) = self.logits(outputs)
        loss = soft_iou_loss(torch.sigmoid(logits), target, per_image=True)
        if isinstance(outputs, Tensor):
            return loss
        if frames is None:
            raise ValueError("the loss of DCONet needs the frames that it rebuilds; give frames")
        return loss + self.unmasked_loss(outputs, frames)

    @torch.no_grad()
    def set_prior(self, probability: float) -> None:
        """As in other segmenters; here the last convolution is taken off the logits, not added to them."""
        self.decos[-1].sparse.conv_out.bias.fill_(-math.log(probability / (1 - probability)))

    def logits(self, outputs: tuple[Tensor, Tensor] | Tensor) -> list[Tensor]:
        """Logits (B, 1, H, W) of the one map that masks supervise."""
        return [outputs if isinstance(outputs, Tensor) else outputs[1]]

    def unmasked_loss(self, outputs: tuple[Tensor, Tensor] | Tensor, frames: Tensor) -> Tensor | float:
        """A tenth of the mean squared error of the rebuilt frames, where they are given."""
        if isinstance(outputs, Tensor):
            return 0.0
        exact = torch.promote_types(outputs[0].dtype, torch.float32)
        return RECONSTRUCTION * F.mse_loss(outputs[0].to(exact), frames.to(exact))

    @staticmethod
    def options_from(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """`stage_num`, from the names."""
        stages = {name.split(".")[1] for name in state if name.startswith("decos.")}
        return {"stage_num": len(stages)} if stages else {}


def learning_rate(epoch: float, *, epochs: int = 400, base: float = 1e-4) -> float:
    """Polynomial decay with every iteration: `epoch` is the iteration, from 0, over those of an epoch."""
    return base * (1 - epoch / epochs) ** 0.9
