"""Reference arrays of the published segmenters, read as their notes describe."""

from __future__ import annotations

import json

import numpy as np
import torch


def arrays_of(shared_root, name: str) -> dict[str, np.ndarray]:
    """All arrays of parity/NAME.npz."""
    with np.load(shared_root / "parity" / f"{name}.npz") as stored:
        return dict(stored)


def published_keys(shared_root, name: str) -> dict[str, tuple[list[int], str]]:
    """State-dict entry → shape and dtype, from parity/NAME.keys.tsv."""
    lines = (shared_root / "parity" / f"{name}.keys.tsv").read_text().splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return {
        key: (json.loads(f"[{shape.strip('(),')}]"), dtype)  # shapes are written as Python tuples
        for key, shape, dtype in rows
    }


def keys_of(network) -> dict[str, tuple[list[int], str]]:
    """The same of a network."""
    state = network.state_dict()
    return {name: (list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()}


def filled(network, parity, *, gain: float = 1.0):
    """The network in evaluation mode with the weights of the references; matrices and kernels times gain."""
    state = parity.fill_state_dict(network.state_dict())
    network.load_state_dict({name: t * gain if t.ndim >= 2 else t for name, t in state.items()})
    return network.eval()


def record(network, names: dict[str, str], *arguments) -> dict[str, torch.Tensor]:
    """Reference name → output of the named submodule during one evaluation; `result` is the whole's."""
    seen = {}

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    hooks = [network.get_submodule(path).register_forward_hook(keep(name)) for name, path in names.items()]
    with torch.inference_mode():
        seen["result"] = network(*arguments)
    for hook in hooks:
        hook.remove()
    return seen


def strides(found: torch.Tensor, expected: np.ndarray, channels: int, side: int) -> torch.Tensor:
    """Every n-th channel and cell, as stored; fails when that is not the stored shape."""
    part = found[:, ::channels, ::side, ::side]
    assert tuple(part.shape) == expected.shape
    return part


def largest_error(found: torch.Tensor, expected: np.ndarray) -> float:
    """Largest absolute difference; fails for another shape."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.detach().numpy() - expected).max())
