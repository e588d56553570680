"""Tridos optimised for inference; equals `detectors.networks.tridos.network` up to rounding.

Batch norm is folded into the convolutions, activations are fused with them, and large convolutions use
Winograd's algorithm. Maps are channels last, so that tokens are views of maps. The intermediate results of
attention and feed-forward layers fit a CPU's cache. In half precision the spectra, the output of the head and
the statistics of norms stay float32.
"""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.networks.layers.blocks import BaseConv, PReLUConv, PReLUResidual
from detectors.networks.tridos.features import FRAMES, FusedFeatures
from detectors.networks.tridos.frequency import FrequencyBlock
from detectors.networks.tridos.fusion import ResidualCompensation
from detectors.networks.tridos.memory import MemoryReader
from detectors.networks.tridos.network import Neck, Tridos, WindowedTridos
from detectors.networks.tridos.optimised.convolutions import (
    Activation,
    Convolution,
    channels_last,
    convolve,
    from_map,
    pack_weight,
    to_map,
    uses_onednn,
)
from detectors.networks.tridos.optimised.window_attention import WindowLayers, softmax
from detectors.networks.tridos.stream import Parts, TridosStream
from detectors.networks.tridos.swin import Swin

QUERIES, MIN_QUERIES = 256, 16
"""Most and fewest query positions that a CPU computes at a time, a multiple of 16."""
SCORES = 1 << 23
"""Maximum number of their scores, 32 MB: glibc maps larger arrays again for each chunk, at twice the time."""


def _tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) → (B, h·w, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _read(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of scaled queries (N, c) over keys (M, c) and values (M, C) → (N, C), in chunks of queries.

    With oneDNN, products are 1×1 convolutions: torch's are half as fast on some CPUs in float32. Each result
    is copied at once: kept in between, these small arrays take room from the freed scores, so that the
    allocator would find none for the next scores, and all of them would stay in memory.
    """
    read = values.new_empty(len(queries), values.shape[1])
    size = min(QUERIES, max(SCORES // len(keys) // MIN_QUERIES, 1) * MIN_QUERIES)
    parts = zip(queries.split(size), read.split(size), strict=True)
    if not uses_onednn(queries):
        for part, out in parts:
            out.copy_(softmax(part @ keys.T) @ values)
        return read
    (count, width), size = keys.shape, min(size, len(queries))
    keys = pack_weight(keys[:, :, None, None], size=(1, width, size, 1))
    values = pack_weight(values.T[:, :, None, None], size=(1, count, size, 1))
    for part, out in parts:
        scores = from_map(convolve(to_map(part), keys, None), part)
        out.copy_(from_map(convolve(to_map(softmax(scores)), values, None), part))
    return read


class Reader(nn.Module):
    """Optimised `MemoryReader`, which computes a chunk of query positions at a time."""

    def __init__(self, reader: MemoryReader):
        super().__init__()
        self.reduce = Convolution(reader.memory_reduce.con1x1, reader.memory_reduce.bn, "relu")

    def forward(self, memory: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
        """Keys (B, C / 2, h, w) and values (B, C, h, w) of memory and query → (B, C, h, w)."""
        keys, values = map(_tokens, memory)
        queries = _tokens(query[0]) * keys.shape[-1] ** -0.5
        if queries.device.type == "cpu":
            read = torch.stack([_read(*sample) for sample in zip(queries, keys, values, strict=True)])
        else:  # padded with zeros to the width of the values, as torch's fused kernel requires
            missing = (0, values.shape[-1] - keys.shape[-1])
            q, k, v = (x[:, None] for x in (F.pad(queries, missing), F.pad(keys, missing), values))
            read = F.scaled_dot_product_attention(q, k, v, scale=1.0)[:, 0]
        read = read.unflatten(1, query[1].shape[2:]).permute(0, 3, 1, 2)
        return self.reduce(torch.cat([read, query[1]], dim=1))


class Compensation(nn.Module):
    """Optimised `ResidualCompensation`."""

    def __init__(self, block: ResidualCompensation):
        super().__init__()
        self.conv1 = Convolution(block.conv1, block.bn1, "relu", winograd=True)
        self.conv2 = Convolution(block.conv2, block.bn2, winograd=True)
        conv, norm = cast(tuple[nn.Conv2d, nn.BatchNorm2d], tuple(block.shortcut))
        self.shortcut = Convolution(conv, norm, "relu")
        self.ca, self.sa = block.ca, block.sa

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (B, C, h, w) → (B, C, h, w)."""
        x = torch.cat([first, second], dim=1)
        y = self.conv2(self.conv1(x))
        y *= self.ca(y)
        y *= self.sa(y)
        return self.shortcut.add_to(y, x)


class PReLUPair(nn.Module):
    """Optimised `PReLUResidual`."""

    def __init__(self, block: PReLUResidual):
        super().__init__()
        self.slope = block.act.weight.item()
        self.conv1 = Convolution(block.conv1, None, "leaky_relu", slope=self.slope, winograd=True)
        self.conv2 = Convolution(block.conv2, winograd=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → same shape."""
        return F.leaky_relu_(self.conv2(self.conv1(x)).add_(x), self.slope)


def _activation(module: nn.Module) -> tuple[Activation, float]:
    """Returns the name of an activation and its negative slope; 0 for activations without one."""
    if isinstance(module, nn.PReLU):
        return "leaky_relu", module.weight.item()
    names: dict[type[nn.Module], Activation] = {nn.SiLU: "swish", nn.Sigmoid: "sigmoid"}
    return names[type(module)], 0.0


def _optimised(module: nn.Module, *, winograd: bool) -> nn.Module | None:
    """Returns the optimised form of a module; None if there is none for its class."""
    if isinstance(module, Swin):
        return WindowLayers(module, frames=FRAMES)
    if isinstance(module, MemoryReader):
        return Reader(module)
    if isinstance(module, ResidualCompensation):
        return Compensation(module)
    if isinstance(module, PReLUResidual):
        return PReLUPair(module)
    if isinstance(module, BaseConv | PReLUConv):
        norm = module.bn if isinstance(module, BaseConv) else None
        act, slope = _activation(module.act)
        return Convolution(module.conv, norm, act, slope=slope, winograd=winograd)
    if isinstance(module, nn.Conv2d):
        return Convolution(module, winograd=winograd)
    return None


def optimise(module: nn.Module, *, winograd: bool) -> None:
    """Replaces the descendants of a module by their optimised forms.

    `winograd` allows Winograd convolutions; set it only if the layers after them tolerate small differences.
    """
    for name, child in module.named_children():
        if (form := _optimised(child, winograd=winograd)) is not None:
            setattr(module, name, form)
        else:
            optimise(child, winograd=winograd)


class FusedTridos(WindowedTridos[FusedFeatures]):
    """Optimised copy of a loaded network in evaluation mode; `model` itself does not change.

    Inputs, outputs (float32) and streams are those of `Tridos`; parameters have other names and shapes.
    `dtype` is that of the computation: float32, bfloat16 or float16.
    """

    features = FusedFeatures

    def __init__(self, model: Tridos, *, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.num_classes, self.width, self.dtype = model.num_classes, model.width, dtype
        copy = deepcopy(model).requires_grad_(False)
        del copy.neck.conv_fre_mix
        # the phase of a spectrum jumps at ±π: small differences before the frequency block would grow
        optimise(copy.backbone, winograd=False)
        optimise(copy.neck, winograd=True)
        optimise(copy.head, winograd=True)
        self.backbone, self.neck, self.head = copy.backbone, copy.neck, copy.head
        exact = [(m, deepcopy(m.state_dict())) for m in self.modules() if isinstance(m, FrequencyBlock)]
        layout = torch.channels_last
        self.eval().to(dtype, memory_format=layout)  # type: ignore[call-overload]  # missing in torch's stub
        for module, state in exact:
            module.float().load_state_dict(state)

    def _frame(self, images: Tensor) -> FusedFeatures:
        spatial = self.backbone(channels_last(images.to(self.dtype)))
        # contiguous, since spectra are computed over whole planes
        return FusedFeatures(spatial, channels_last(self.neck.agpf(spatial.contiguous())))

    def _pair(self, older: Tensor, newer: Tensor) -> tuple[Tensor]:
        return (self.neck.tdms.pair(older, newer),)

    def _join(self, *inputs: Tensor) -> tuple[Tensor]:
        return self._finish_join(*self._start_join(*inputs))

    def compile_parts(self, *, backend: str = "inductor") -> None:
        """Compiles the parts with torch.compile, again for every input shape.

        With inductor, the first frames of a shape take minutes, and CUDA graphs are recorded.
        """
        mode = "reduce-overhead" if backend == "inductor" else None
        for part in ("_frame", "_pair", "_start_join", "_finish_join"):
            compiled = torch.compile(getattr(self, part), dynamic=False, backend=backend, mode=mode)
            setattr(self, part, compiled)

    def start_join(self, window: FusedFeatures, pairs: Tensor) -> tuple[Tensor, ...]:
        """Computes about half of `join`: everything before the attention over time."""
        return self._by_sample(self._start_join, *window, pairs)

    def finish_join(self, *parts: Tensor) -> Tensor:
        """Returns the raw output from the result of `start_join`."""
        return self._by_sample(self._finish_join, *parts)[0]

    def _start_join(self, spatial: Tensor, frequency: Tensor, pairs: Tensor) -> tuple[Tensor, ...]:
        neck: Neck = self.neck
        past, key = _concatenate_frames(spatial[:, :-1]), spatial[:, -1]
        motion = neck.tdms(_concatenate_frames(pairs)[:, None], key)
        joined = neck.conv_fin_mix(torch.cat([neck.spatial_relation(past, key), motion], dim=1))
        frequency = _concatenate_frames(frequency)
        return neck.resblock1(neck.conv_fre(frequency), joined), joined, frequency

    def _finish_join(self, local: Tensor, joined: Tensor, frequency: Tensor) -> tuple[Tensor]:
        neck: Neck = self.neck
        wide = neck.conv_t(neck.swin(frequency))
        return (self.head(neck.resblock2(local, neck.resblock0(wide, joined))).float(),)

    def stream(self) -> FusedStream:
        """Returns the state of a new sequence, in which each frame's features are computed once."""
        return FusedStream(self)


def _concatenate_frames(maps: Tensor) -> Tensor:
    """(B, T, C, h, w) → (B, T·C, h, w) in the memory layout of the maps."""
    return torch.cat(maps.unbind(1), dim=1)


class FusedStream(TridosStream[FusedFeatures]):
    """A stream whose two phases take similar time, so that two threads share a narrow network evenly."""

    def __init__(self, model: FusedTridos):
        super().__init__(model)
        self._network = model

    def start_join(self, window: FusedFeatures, pairs: Tensor) -> Parts:
        """See `TridosStream`; computes the first half of the join."""
        return self._network.start_join(window, pairs)

    @torch.inference_mode()
    def join(self, parts: Parts) -> Tensor:
        """See `TridosStream`; computes the second half of the join."""
        return self._network.finish_join(*parts)
