"""Tridos for evaluation alone: the network of `network.py`, arranged for speed.

Batch norm is folded into the convolutions, activations are fused with them, large ones take fewer products.
Maps keep their channels last, so that tokens are maps seen otherwise, and what attention and feed-forward
layers hold in between fits a processor's cache. Only rounding differs; in half precision the spectra, the
head's output and the statistics of norms stay float32.
"""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.blocks import BaseConv, PReLUConv, PReLUResidual
from detectors.networks.tridos.features import FRAMES
from detectors.networks.tridos.frequency import FrequencyBlock
from detectors.networks.tridos.fusion import ResidualCompensation
from detectors.networks.tridos.memory import MemoryReader
from detectors.networks.tridos.network import Neck, Tridos
from detectors.networks.tridos.optimised.convolutions import (
    Activation,
    Convolution,
    as_map,
    by_onednn,
    channels_last,
    convolve,
    of_map,
    packed,
)
from detectors.networks.tridos.optimised.window_attention import Windows, softmax
from detectors.networks.tridos.stream import TridosStream
from detectors.networks.tridos.swin import Swin

QUERIES = 256
"""Positions that a CPU reads the memory for at once."""


def _tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h·w, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _read(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of scaled queries (N, c) over keys (M, c) and values (M, C) → (N, C), some after another.

    Products are 1×1 convolutions where oneDNN is: torch's own are half as fast on some CPUs in float32.
    """
    if not by_onednn(queries):
        return torch.cat([softmax(part @ keys.T) @ values for part in queries.split(QUERIES)])
    (count, width), size = keys.shape, min(QUERIES, len(queries))
    keys = packed(keys[:, :, None, None], size=(1, width, size, 1))
    values = packed(values.T[:, :, None, None], size=(1, count, size, 1))
    read = []
    for part in queries.split(QUERIES):
        scores = of_map(convolve(as_map(part), keys, None), part)
        read.append(of_map(convolve(as_map(softmax(scores)), values, None), part))
    return torch.cat(read)


class Reader(nn.Module):
    """A `MemoryReader` that takes some positions of the query after another."""

    def __init__(self, reader: MemoryReader):
        super().__init__()
        self.reduce = Convolution(reader.memory_reduce.con1x1, reader.memory_reduce.bn, "relu")

    def forward(self, memory: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
        """(keys, values) of memory and query, (B, C / 2, h, w) and (B, C, h, w) → (B, C, h, w)."""
        keys, values = map(_tokens, memory)
        queries = _tokens(query[0]) * keys.shape[-1] ** -0.5
        if queries.device.type == "cpu":
            read = torch.stack([_read(*sample) for sample in zip(queries, keys, values, strict=True)])
        else:  # filled up with zeros to the width of the values, as the kernel that stores no scores asks
            missing = (0, values.shape[-1] - keys.shape[-1])
            queries, keys = F.pad(queries, missing), F.pad(keys, missing)
            read = F.scaled_dot_product_attention(*(x[:, None] for x in (queries, keys, values)), scale=1.0)
            read = read[:, 0]
        read = read.unflatten(1, query[1].shape[2:]).permute(0, 3, 1, 2)
        return self.reduce(torch.cat([read, query[1]], dim=1))


class Compensation(nn.Module):
    """A `ResidualCompensation` without its norms."""

    def __init__(self, block: ResidualCompensation):
        super().__init__()
        self.conv1 = Convolution(block.conv1, block.bn1, "relu", lenient=True)
        self.conv2 = Convolution(block.conv2, block.bn2, lenient=True)
        self.shortcut = Convolution(*block.shortcut, "relu")
        self.ca, self.sa = block.ca, block.sa

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (B, C, h, w) → (B, C, h, w)."""
        x = torch.cat([first, second], dim=1)
        y = self.conv2(self.conv1(x))
        y *= self.ca(y)
        y *= self.sa(y)
        return self.shortcut.onto(y, x)


class PReLUPair(nn.Module):
    """A `PReLUResidual`."""

    def __init__(self, block: PReLUResidual):
        super().__init__()
        self.slope = block.act.weight.item()
        self.conv1 = Convolution(block.conv1, None, "leaky_relu", slope=self.slope, lenient=True)
        self.conv2 = Convolution(block.conv2, lenient=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return F.leaky_relu_(self.conv2(self.conv1(x)).add_(x), self.slope)


def _activation(module: nn.Module) -> tuple[Activation, float]:
    """The name of an activation, and the slope of the one that has one."""
    if isinstance(module, nn.PReLU):
        return "leaky_relu", module.weight.item()
    return {nn.SiLU: "swish", nn.Sigmoid: "sigmoid"}[type(module)], 0.0


def arranged(module: nn.Module, *, lenient: bool = False) -> nn.Module:
    """The module with every part that has a faster form replaced by it.

    Convolutions are `lenient` where nothing that follows makes much of small differences.
    """
    if isinstance(module, Swin):
        return Windows(module, frames=FRAMES)
    forms = {MemoryReader: Reader, ResidualCompensation: Compensation, PReLUResidual: PReLUPair}
    if type(module) in forms:
        return forms[type(module)](module)
    if isinstance(module, BaseConv | PReLUConv):
        norm = module.bn if isinstance(module, BaseConv) else None
        act, slope = _activation(module.act)
        return Convolution(module.conv, norm, act, slope=slope, lenient=lenient)
    if isinstance(module, nn.Conv2d):
        return Convolution(module, lenient=lenient)
    for name, child in module.named_children():
        setattr(module, name, arranged(child, lenient=lenient))
    return module


class JoinedFeatures(NamedTuple):
    """What one frame contributes to the windows it is part of; its projections are cheap to compute again."""

    spatial: Tensor
    """(B, C, h, w) backbone output."""
    frequency: Tensor
    """(B, C, h, w) output of the frequency block."""


class FusedTridos(Tridos):
    """A network that was loaded, for evaluation alone; `model` itself stays as it is.

    Inputs, outputs (float32) and streams are those of `Tridos`; parameters have other names and shapes.
    `dtype` is that of the computation: float32, bfloat16 or float16.
    """

    features = JoinedFeatures

    def __init__(self, model: Tridos, *, dtype: torch.dtype = torch.float32):
        nn.Module.__init__(self)
        self.num_classes, self.width, self.dtype = model.num_classes, model.width, dtype
        copy = deepcopy(model).requires_grad_(False)
        del copy.neck.conv_fre_mix
        self.backbone = arranged(copy.backbone)  # the phases of spectra jump: what leads to them stays exact
        self.neck, self.head = (arranged(part, lenient=True) for part in (copy.neck, copy.head))
        exact = [(m, deepcopy(m.state_dict())) for m in self.modules() if isinstance(m, FrequencyBlock)]
        self.eval().to(dtype, memory_format=torch.channels_last)
        for module, state in exact:
            module.float().load_state_dict(state)

    def _features(self, images: Tensor) -> JoinedFeatures:
        spatial = self.backbone(channels_last(images.to(self.dtype)))
        # spectra are computed over whole planes: there each channel is best kept together
        return JoinedFeatures(spatial, channels_last(self.neck.agpf(spatial.contiguous())))

    def compile_parts(self, **options: str) -> None:
        """Have torch.compile translate what one frame, two and a window decide, each for every shape anew.

        The first frames of a shape then take minutes; CUDA graphs are recorded. `options` are others of
        torch.compile.
        """
        options = options or {"mode": "reduce-overhead"}
        for part in ("_features", "_pair", "_begun", "_finished"):
            setattr(self, part, torch.compile(getattr(self, part), dynamic=False, **options))

    def begin(self, window: JoinedFeatures, pairs: Tensor) -> tuple[Tensor, ...]:
        """About half of the work of `join`: everything but attention over time and what follows it."""
        return self._in_parts(self._begun, *window, pairs)

    def finish(self, *begun: Tensor) -> Tensor:
        """The raw output from what `begin` gave."""
        return self._in_parts(self._finished, *begun)[0]

    def _begun(self, spatial: Tensor, frequency: Tensor, pairs: Tensor) -> tuple[Tensor, ...]:
        neck: Neck = self.neck
        past, key = _side_by_side(spatial[:, :-1]), spatial[:, -1]
        motion = neck.tdms(_side_by_side(pairs)[:, None], key)
        joined = neck.conv_fin_mix(torch.cat([neck.spatial_relation(past, key), motion], dim=1))
        frequency = _side_by_side(frequency)
        return neck.resblock1(neck.conv_fre(frequency), joined), joined, frequency

    def _finished(self, first: Tensor, joined: Tensor, frequency: Tensor) -> tuple[Tensor]:
        neck: Neck = self.neck
        wide = neck.conv_t(neck.swin(frequency))
        return (self.head(neck.resblock2(first, neck.resblock0(wide, joined))).float(),)

    def _joined(self, *inputs: Tensor) -> tuple[Tensor]:
        return self._finished(*self._begun(*inputs))

    def stream(self) -> FusedStream:
        """A state that takes frames one after another and computes each frame's share only once."""
        return FusedStream(self)


def _side_by_side(maps: Tensor) -> Tensor:
    """(B, T, C, h, w) → (B, T·C, h, w), in the layout in memory of the maps."""
    return torch.cat(maps.unbind(1), dim=1)


class FusedStream(TridosStream):
    """A stream whose two halves cost about the same, so that two threads share a narrow network well."""

    def begun(self, window: JoinedFeatures, pairs: Tensor) -> tuple:
        """See `TridosStream`."""
        return self.model.begin(window, pairs)

    def finish(self, begun: tuple) -> Tensor:
        """See `TridosStream`."""
        with torch.inference_mode():
            return self.model.finish(*begun)
