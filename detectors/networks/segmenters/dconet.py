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

from detectors.networks.segmenters.base import Segmenter, bias_of
from detectors.networks.segmenters.dconet_background import UNet
from detectors.networks.segmenters.soft_iou import soft_iou_loss

CHANNELS = 32
"""Channels of the gated unit and of the reconstruction."""
RECONSTRUCTION = 0.1
"""Weight of the mean squared error of the reconstructed image in the loss."""


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
