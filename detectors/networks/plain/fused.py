"""The plain network optimised for inference; equals `detectors.networks.plain.network` up to rounding.

Batch norm is folded into the convolutions, and activations are fused with them.
"""

from __future__ import annotations

from copy import deepcopy

from torch import nn

from detectors.networks.plain.network import PlainNetwork
from detectors.networks.tridos.optimised.convolutions import Convolution


class FusedPlain(PlainNetwork):
    """A `PlainNetwork` in evaluation mode and float32 whose layers are fused."""

    def __init__(self, model: PlainNetwork):
        nn.Module.__init__(self)
        self.aligned = model.aligned
        for name, part in model.named_children():
            setattr(self, name, _fuse(deepcopy(part)))
        self.eval()


def _fuse(module: nn.Module) -> nn.Module:
    """Returns the module with its convolutions, norms and activations fused."""
    if isinstance(module, nn.Conv2d):
        return Convolution(module)
    if isinstance(module, nn.Sequential):
        return _fuse_sequence(list(module))
    for name, part in module.named_children():
        setattr(module, name, _fuse(part))
    return module


def _fuse_sequence(parts: list[nn.Module]) -> nn.Sequential:
    """Returns the parts in order, each convolution fused with its norm and with an activation after it."""
    fused = []
    while parts:
        first = parts.pop(0)
        layers = list(first) if isinstance(first, nn.Sequential) else []
        if len(layers) != 2:
            fused.append(_fuse(first))
            continue
        conv, norm = layers
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            fused.append(_fuse(first))
            continue
        swish = bool(parts) and isinstance(parts[0], nn.SiLU)
        fused.append(Convolution(conv, norm, "swish" if swish else "none"))
        parts = parts[swish:]
    return nn.Sequential(*fused)
