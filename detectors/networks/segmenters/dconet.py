"""DCONet, earlier MSCoNet: dual-task collaborative optimisation network (IEEE GRSL 22, 2025).

doi 10.1109/LGRS.2025.3597969. Attribute names are those of the published checkpoints, including unused
modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.max_pool import max_pool_2x2
from detectors.networks.segmenters.base import Segmenter, bias_of
from detectors.networks.segmenters.soft_iou import soft_iou_loss

WIDTHS = (16, 32, 64, 128, 256, 512)
"""Channels of the background estimator at strides 1 to 32."""
CHANNELS = 32
"""Channels of the gated unit and of the reconstruction."""
DILATIONS = (2, 8, 12, 18)
"""Dilations of the four groups of channels in `DilatedMixture`."""
RECONSTRUCTION = 0.1
"""Weight of the mean squared error of the reconstructed image in the loss."""


class AxialConv(nn.Module):
    """The input plus a vertical and a horizontal depthwise convolution of 7 cells."""

    def __init__(self, channels: int):
        super().__init__()
        self.dw_h = nn.Conv2d(channels, channels, (7, 1), padding=(3, 0), groups=channels)
        self.dw_w = nn.Conv2d(channels, channels, (1, 7), padding=(0, 3), groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → same shape."""
        return x + self.dw_h(x) + self.dw_w(x)


class Encoder(nn.Module):
    """Axial convolution and batch norm, the skip; then 1×1 convolution, 2×2 max pooling and GELU."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.dw = AxialConv(cin)
        self.bn = nn.BatchNorm2d(cin)
        self.pw = nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, cin, H, W) → (B, cout, H / 2, W / 2) and the skip (B, cin, H, W)."""
        skip = self.bn(self.dw(x))
        return F.gelu(max_pool_2x2(self.pw(skip))), skip


class Decoder(nn.Module):
    """Concatenates the upsampled map and the skip: 1×1, batch norm, axial, 1×1 convolution, GELU."""

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
    """Multi-dilation channel refiner (MDCR): each quarter of the channels at another dilation, then mixed."""

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
        """Applies the block `out_s` to all groups (B, G, 4, h, w), in the order 0 to G − 1 → same shape.

        The published network calls the block once per group. In training, each call uses the statistics of
        its own group and updates the running statistics, which the last groups therefore dominate; trained
        networks depend on it. One batch norm of 4·G channels is equivalent.
        """
        batch, count = groups.shape[:2]
        if not self.training:
            return self.out_s(groups.flatten(0, 1)).unflatten(0, (batch, count))
        norm = self.out_s.norm
        mixed = self.out_s.conv(groups.flatten(0, 1)).unflatten(0, (batch, count)).flatten(1, 2)
        scale, offset = norm.weight.repeat(count), norm.bias.repeat(count)
        mean, var = offset.new_zeros(offset.shape), offset.new_zeros(offset.shape)
        # momentum 1 writes the statistics of this batch, with the unbiased variance, to the buffers
        mixed = F.batch_norm(mixed, mean, var, scale, offset, training=True, momentum=1.0, eps=norm.eps)
        self._update_statistics(mean.view(count, 4), var.view(count, 4))
        return torch.relu(mixed).unflatten(1, (count, 4))

    @torch.no_grad()
    def _update_statistics(self, means: Tensor, variances: Tensor) -> None:
        """Updates the running statistics of `out_s` by those of its groups (G, 4), one after another."""
        norm, count = self.out_s.norm, len(means)
        momentum, mean, var, batches = (
            norm.momentum,
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
        )
        assert momentum is not None
        assert mean is not None
        assert var is not None
        assert batches is not None
        keep = 1 - momentum
        weights = momentum * keep ** torch.arange(count - 1, -1, -1).to(means)
        for running, observed in ((mean, means), (var, variances)):
            running.mul_(keep**count).add_(weights @ observed)
        batches += count


class TokenAttention(nn.Module):
    """Token attention (SOA) with squared deviations as queries and keys; linear in the number of tokens."""

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
    """Linear attention of (B, N, C) each → (B, N, C), in at least float32 because squares are small."""
    exact = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast(value.device.type, enabled=False):
        query, key = deviation(query.to(exact)), deviation(key.to(exact))
        # queries are normalised along the channels, keys along the tokens
        memory = F.normalize(key, dim=1).transpose(1, 2) @ value.to(exact)
        attended = F.normalize(query, dim=2) @ memory * value.shape[1] ** -0.5
    return attended.to(value.dtype)


def deviation(tokens: Tensor) -> Tensor:
    """Squared deviations from the mean of each token, normalised to a sum of 1: (B, N, C) → same shape."""
    squares = (tokens - tokens.mean(-1, keepdim=True)).square()
    return squares / (squares.sum(-1, keepdim=True) + 1e-7)


class Bottleneck(nn.Module):
    """Dilated mixture and token attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.att = TokenAttention(channels)
        self.mdcr = DilatedMixture(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return self.att(self.mdcr(x))


class UNet(nn.Module):
    """U-Net that estimates the background of an image."""

    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(1, WIDTHS[0], 7, padding=3)
        for level in range(1, len(WIDTHS)):
            self.add_module(f"e{level}", Encoder(WIDTHS[level - 1], WIDTHS[level]))
            self.add_module(f"d{level}", Decoder(WIDTHS[level], WIDTHS[level - 1]))
        self.b5 = Bottleneck(WIDTHS[-1])
        self.conv_out = nn.Conv2d(WIDTHS[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W), H and W multiples of 32 → same shape."""
        x, skips = self.conv_in(image), []
        for level in range(1, len(WIDTHS)):
            x, skip = self.get_submodule(f"e{level}")(x)
            skips.append(skip)
        x = self.b5(x)
        for level in range(len(WIDTHS) - 1, 0, -1):
            x = self.get_submodule(f"d{level}")(x, skips.pop())
        return self.conv_out(x)


def mapping(*, middle: int) -> nn.Sequential:
    """3×3 convolutions 1 → 32 → … → 1, `middle` of them 32 → 32; all but the last with norm and ReLU."""
    layers: list[nn.Module] = []
    for cin in (1, *[CHANNELS] * middle):
        conv = nn.Conv2d(cin, CHANNELS, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(CHANNELS, 1, 3, padding=1))


class Background(nn.Module):
    """Container of the background estimator."""

    def __init__(self):
        super().__init__()
        self.convs = mapping(middle=3)  # unused; published checkpoints contain it
        self.unet = UNet()


class GatedUnit(nn.Module):
    """Convolutional LSTM cell, carried from stage to stage."""

    conv_c2: nn.Conv2d
    conv_f: nn.Conv2d
    conv_i: nn.Conv2d
    conv_o: nn.Conv2d
    cell_state: nn.Conv2d

    def __init__(self):
        super().__init__()
        self.epsilon_per_channel = nn.Parameter(torch.full((CHANNELS,), 0.01))
        self.conv_x = nn.Conv2d(1, CHANNELS, 3, padding=1)
        # conv_h, conv_h2 and conv_x2 have no effect, nor conv_c2 in the first stage and conv_c in later ones;
        # published checkpoints contain them all
        self.conv_h, self.conv_c = nn.Conv2d(1, CHANNELS, 3, padding=1), nn.Conv2d(1, CHANNELS, 3, padding=1)
        for name in ("conv_x2", "conv_h2", "conv_c2", "conv_f", "conv_i", "conv_o", "cell_state"):
            self.add_module(name, nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1))
        self.conv_out = nn.Conv2d(CHANNELS, 1, 3, padding=1)

    def _kernels(self) -> tuple[Tensor, Tensor]:
        """Returns kernels (128, 32, 3, 3) and biases (128,) of forget, input, output gate and new state."""
        gates = (self.conv_f, self.conv_i, self.conv_o, self.cell_state)
        return torch.cat([gate.weight for gate in gates]), torch.cat([bias_of(gate) for gate in gates])

    def gates_in_two_steps(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) → forget, input, output gate and new state before activation (B, 128, H, W)."""
        kernels, biases = self._kernels()
        return F.conv2d(self.conv_x(x), kernels, biases, padding=1)

    def gates(self, x: Tensor) -> Tensor:
        """As `gates_in_two_steps`, by one 5×5 convolution with a tenth of the operations.

        The two 3×3 convolutions are linear without an activation in between. The border is computed in two
        steps, because the second convolution is padded with zeros.
        """
        kernels, biases = self._kernels()
        joint = F.conv2d(kernels, self.conv_x.weight.transpose(0, 1).flip(2, 3), padding=2)
        result = F.conv2d(x, joint, biases + kernels.sum((2, 3)) @ bias_of(self.conv_x), padding=2)
        for axis in (2, 3):
            for start, cell in ((0, 0), (x.shape[axis] - 3, -1)):
                strip = self.gates_in_two_steps(x.narrow(axis, start, 3))
                result.select(axis, cell).copy_(strip.select(axis, cell))
        return result

    def forward(self, x: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W), cell (B, 32, H, W) or None in the first stage → update (B, 1, H, W), new cell."""
        gates = self.gates_in_two_steps(x) if self.training else self.gates(x)
        forget, take, give, new = gates.chunk(4, dim=1)
        # the published first stage convolves a map of zeros, which gives the bias, also at the border
        before = bias_of(self.conv_c)[:, None, None] if cell is None else self.conv_c2(cell)
        cell = torch.sigmoid(forget) * before + torch.sigmoid(take) * torch.tanh(new)
        shown = torch.sigmoid(give) * torch.tanh(cell) * self.epsilon_per_channel[:, None, None]
        return self.conv_out(shown), cell


class Merge(nn.Module):
    """Reconstructs the image from background and target."""

    def __init__(self):
        super().__init__()
        self.mapping = mapping(middle=2)


class Stage(nn.Module):
    """One iteration: background, target, reconstructed image."""

    def __init__(self):
        super().__init__()
        self.lowrank = Background()
        self.sparse = GatedUnit()
        self.merge = Merge()

    def separate(self, image: Tensor, target: Tensor, cell: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Image and target (B, 1, H, W), cell or None → background, target, cell."""
        background = self.lowrank.unet(image - target)
        x = image - background + target
        update, cell = self.sparse(x, cell)
        return background, x - update, cell

    def reconstruct(self, background: Tensor, target: Tensor) -> Tensor:
        """(B, 1, H, W) each → image of the same shape."""
        return self.merge.mapping(background + target)


class DCONet(Segmenter):
    """DCONet: grey frames (B, 1, H, W) in [0, 1] → reconstructed image and target logits, (B, 1, H, W) each.

    H and W are multiples of 32. `stage_num` is the number of iterations, 5 in the published code (7 in its
    logs). The authors train and test with `mode="train"`, which returns both outputs; `mode="test"` returns
    only the logits.
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
        for stage in self._stages():
            for module in stage.sparse.children():
                nn.init.zeros_(bias_of(module))

    def _stages(self) -> list[Stage]:
        return [stage for stage in self.decos if isinstance(stage, Stage)]

    def _separate(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Returns background and target logits of the last stage, (B, 1, H, W) each."""
        self._check(frames)
        stages, image, target = self._stages(), frames, torch.zeros_like(frames)
        cell: Tensor | None = None
        for number, stage in enumerate(stages, start=1):
            background, target, cell = stage.separate(image, target, cell)
            if number < len(stages):
                image = stage.reconstruct(background, target)
        return background, target

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """See the class."""
        background, target = self._separate(frames)
        if self.mode == "test":
            return target
        return self._stages()[-1].reconstruct(background, target), target

    def prediction(self, frames: Tensor) -> Tensor:
        """Logits (B, 1, H, W); the final image is not reconstructed."""
        return self._separate(frames)[1]

    def loss(
        self, outputs: tuple[Tensor, Tensor] | Tensor, target: Tensor, frames: Tensor | None = None
    ) -> Tensor:
        """Mean soft IoU loss of the images plus a tenth of the mean squared error of the reconstruction.

        Raises ValueError if `outputs` contain a reconstruction and `frames` are not given.
        """
        (logits,) = self.logits(outputs)
        loss = soft_iou_loss(torch.sigmoid(logits), target, per_image=True)
        if isinstance(outputs, Tensor):
            return loss
        if frames is None:
            raise ValueError("the loss of DCONet needs the frames that it reconstructs; give frames")
        return loss + self.reconstruction_loss(outputs, frames)

    @torch.no_grad()
    def set_prior(self, probability: float) -> None:
        """See `Segmenter`; here the last convolution is subtracted from the logits."""
        bias_of(self._stages()[-1].sparse.conv_out).fill_(-math.log(probability / (1 - probability)))

    def logits(self, outputs: tuple[Tensor, Tensor] | Tensor) -> list[Tensor]:
        """Outputs of `forward` → logits (B, 1, H, W) of the map that masks supervise."""
        return [outputs if isinstance(outputs, Tensor) else outputs[1]]

    def reconstruction_loss(self, outputs: tuple[Tensor, Tensor] | Tensor, frames: Tensor) -> Tensor | float:
        """A tenth of the mean squared error of the reconstruction; 0 if the outputs contain none."""
        if isinstance(outputs, Tensor):
            return 0.0
        exact = torch.promote_types(outputs[0].dtype, torch.float32)
        return RECONSTRUCTION * F.mse_loss(outputs[0].to(exact), frames.to(exact))

    @staticmethod
    def infer_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Infers `stage_num` from the names."""
        stages = {name.split(".")[1] for name in state if name.startswith("decos.")}
        return {"stage_num": len(stages)} if stages else {}


def learning_rate(epoch: float, *, epochs: int = 400, base: float = 1e-4) -> float:
    """Published learning rate: polynomial decay at every step; `epoch` is fractional and counts from 0."""
    return base * (1 - epoch / epochs) ** 0.9
