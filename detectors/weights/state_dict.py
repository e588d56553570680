"""Weights by name or path: verified, loaded safely, and never in part.

Files of this project are safetensors with plain metadata. Published checkpoints are pickles: they are read
with torch's `weights_only` guard, which executes no code. Beside the weights they may hold scores as numbers
of NumPy, which are passed over.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.system.errors import OutputError, UsageError, WeightsError
from pipeline.system.files import replace_on_success

if TYPE_CHECKING:
    from torch import Tensor, nn


WRAPPERS = ("state_dict", "model", "ema", "net")
"""Keys under which programs of the field store a state dict inside their checkpoint."""
PREFIXES = ("module.", "model.", "decode_head.")
"""What programs of the field put before all names: the attribute under which they keep the network."""
MAX_UNPACKED = 20
"""Times its own size that an archive may unpack to: torch packs without compressing, others by a little."""


class PassedOver(dict):
    """Stands for an object in a checkpoint that is no weight: takes all that is stored and keeps nothing."""

    def __init__(self, *_, **__):
        super().__init__()

    def __setstate__(self, _):
        pass

    def __setitem__(self, *_):
        pass

    def update(self, *_, **__):
        """Takes entries and keeps none."""


# In place of NumPy's own constructors, which are not made for data from strangers.
_NUMPY_NAMES = {
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),  # since NumPy 2
}
_STAND_INS = [
    type(name, (PassedOver,), {"__module__": module})
    for module, names in _NUMPY_NAMES.items()
    for name in names
]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a checkpoint, under bare names.

    Wrappers (`state_dict`, `model`, …) are opened and prefixes common to all names are taken off.
    Raises WeightsError when the file is damaged, holds anything but tensors, or could run code.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        require_plain_archive(path)
        with torch.serialization.safe_globals(_STAND_INS):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:  # both libraries raise many kinds for bad bytes
        # What torch says is left out: it advises to turn the guard against foreign code off.
        reason = "not safetensors and not a plain checkpoint"
        if path.suffix == ".safetensors":
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = f"not safetensors ({first_line[:120]})"
        raise WeightsError(f"{path} is not a safe weights file: {reason}") from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path} holds no state dict")
    strangers = [
        str(name)
        for name, value in loaded.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if strangers:
        raise WeightsError(f"{path} holds no state dict: {', '.join(strangers[:3])} are not named tensors")
    return bare(loaded)


def require_plain_archive(path: Path) -> None:
    """Raise ValueError for an archive that unpacks to more than it can mean, or that holds a program."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    unpacked, size = sum(part.file_size for part in parts), path.stat().st_size
    if unpacked > MAX_UNPACKED * size:
        raise ValueError(f"{size} bytes unpack to {unpacked}")
    if any(part.filename.endswith("/constants.pkl") for part in parts):
        raise ValueError("it is a program of TorchScript")


def bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without prefixes common to all its names, as wrappers of networks add them."""
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def load(model: nn.Module, path: Path) -> None:
    """Fill `model` from a file, whole or not at all.

    Half-precision files are widened. Raises WeightsError with the lists of missing, unexpected and misshapen
    entries when the file belongs to another network.
    """
    fill(model, read_state_dict(path), path)


def fill(model: nn.Module, found: Mapping[str, Tensor], path: Path) -> None:
    """What `load` does, with the tensors that were read from `path`."""
    require_fit(model, found, path)
    model.load_state_dict(found)


def require_fit(model: nn.Module, found: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError, as `load` does, where the tensors read from `path` are not those of the model."""
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(found))
    unexpected = sorted(set(found) - set(wanted))
    misshapen = sorted(
        f"{name} {list(found[name].shape)} for {list(wanted[name].shape)}"
        for name in set(found) & set(wanted)
        if found[name].shape != wanted[name].shape
    )
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    faults = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if faults:
        name, lists = type(model).__name__, "; ".join(faults)
        raise WeightsError(f"{path} is not for this {name}: {lists}; choose the fitting --detector")


def _some(names: list[str], limit: int = 4) -> str:
    rest = f", … {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def save(state: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, Any], half: bool = False) -> None:
    """Write a state dict as safetensors, metadata as JSON text.

    `half` stores float32 tensors in 16 bits, those that do not fit the range excepted. Raises OutputError
    when the file cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    if not metadata:
        raise UsageError("weights need metadata: at least what they were trained on")
    limit = torch.finfo(torch.float16).max
    tensors = {
        name: (value.half() if half and _fits(value, limit) else value).contiguous().cpu()
        for name, value in state.items()
    }
    try:
        with replace_on_success(path) as partial:
            save_file(tensors, partial, metadata={key: json.dumps(value) for key, value in metadata.items()})
    except Exception as error:  # safetensors reports a full disk or a missing folder in an error of its own
        raise OutputError(f"cannot write weights {path}: {error}") from error


def _fits(value: Tensor, limit: float) -> bool:
    """Whether a tensor is float32 and within ±limit."""
    return value.dtype.itemsize == 4 and value.is_floating_point() and bool((value.abs() <= limit).all())
