"""State dicts in files: read without running code, loaded completely or not at all, and written.

Files of this project are safetensors with metadata. Published checkpoints are pickles; they are read with
torch's `weights_only` guard, which executes no code. NumPy scalars in them, such as scores, are ignored.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.system.errors import OutputError, UsageError, WeightsError
from pipeline.system.files import replace_on_success
from pipeline.system.packages import require_package

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


WRAPPERS = ("state_dict", "model", "ema", "net")
"""Keys under which common training programs store a state dict in their checkpoints."""
PREFIXES = ("module.", "model.", "decode_head.")
"""Prefixes of all names in checkpoints of common training programs: attributes that hold the network."""
MAX_UNPACKED = 20
"""Maximum ratio of unpacked to packed size of an archive; torch does not compress."""


class IgnoredObject(dict):
    """Stand-in for objects in a checkpoint that are not weights; discards its state."""

    def __init__(self, *_: object, **__: object):
        super().__init__()

    def __setstate__(self, _: object) -> None:
        pass

    def __setitem__(self, *_: object) -> None:
        pass

    def update(self, *_: object, **__: object) -> None:
        """Discards its arguments."""


# Replaced while a checkpoint is read: NumPy's own constructors are not safe for untrusted data.
_NUMPY_NAMES = {
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),  # since NumPy 2
}
_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    type(name, (IgnoredObject,), {"__module__": module})
    for module, names in _NUMPY_NAMES.items()
    for name in names
]


def load_values(path: Path, device: str | torch.device = "cpu") -> Any:
    """Loads a checkpoint of tensors and plain values with torch's `weights_only` guard.

    torch's warnings, such as those about the pickle protocol of a damaged file, are not shown. Raises errors
    of many types if the file is damaged or holds anything else.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location=device, weights_only=True)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file or a checkpoint.

    Wrappers (`state_dict`, `model`, …) are unpacked and prefixes common to all names removed. Raises
    WeightsError if the file is damaged, contains anything but tensors, or could run code.
    """
    import torch

    if path.suffix == ".safetensors":
        require_package("safetensors", "reading weights")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        require_plain_archive(path)
        with torch.serialization.safe_globals(_STAND_INS):
            loaded = load_values(path)
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:  # both libraries raise various types for damaged files
        # torch's message is left out: it suggests to disable the guard
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
    invalid = [
        str(name)
        for name, value in loaded.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if invalid:
        raise WeightsError(f"{path} holds no state dict: {', '.join(invalid[:3])} are not named tensors")
    return strip_prefixes(loaded)


def require_plain_archive(path: Path) -> None:
    """Raises ValueError for an archive of implausible compression ratio or with a TorchScript program."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    unpacked, size = sum(part.file_size for part in parts), path.stat().st_size
    if unpacked > MAX_UNPACKED * size:
        raise ValueError(f"{size} bytes unpack to {unpacked}")
    if any(part.filename.endswith("/constants.pkl") for part in parts):
        raise ValueError("it is a program of TorchScript")


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes prefixes common to all names of a state dict, which wrappers of networks add."""
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads all weights of a model from a file; half precision is converted to the model's dtypes.

    Raises WeightsError, with the missing, unexpected and misshapen entries, if the file is for another
    network; the model is then unchanged.
    """
    load_tensors(model, read_state_dict(path), path)


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Loads the tensors read from `path`, as `load_weights` does."""
    require_match(model, tensors, path)
    model.load_state_dict(tensors)


def require_match(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises WeightsError if names and shapes of the tensors read from `path` are not those of the model."""
    expected = model.state_dict()
    missing = sorted(set(expected) - set(tensors))
    unexpected = sorted(set(tensors) - set(expected))
    misshapen = sorted(
        f"{name} {list(tensors[name].shape)} for {list(expected[name].shape)}"
        for name in set(tensors) & set(expected)
        if tensors[name].shape != expected[name].shape
    )
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    faults = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if faults:
        name, lists = type(model).__name__, "; ".join(faults)
        raise WeightsError(f"{path} is not for this {name}: {lists}; choose the matching --detector")


def _some(names: list[str], limit: int = 4) -> str:
    rest = f", … {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def save(state: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, Any], half: bool = False) -> None:
    """Writes a state dict as safetensors with metadata as JSON text.

    `half` converts float32 tensors to float16 if their values are in its range. Raises UsageError for empty
    metadata, OutputError if the file cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    if not metadata:
        raise UsageError("weights need metadata: at least what they were trained on")
    limit = torch.finfo(torch.float16).max
    tensors = {
        name: (value.half() if half and _convertible(value, limit) else value).contiguous().cpu()
        for name, value in state.items()
    }
    try:
        with replace_on_success(path) as partial:
            save_file(tensors, partial, metadata={key: json.dumps(value) for key, value in metadata.items()})
    except Exception as error:  # safetensors has an exception of its own for a full disk or missing folder
        raise OutputError(f"cannot write weights {path}: {error}") from error


def _convertible(value: Tensor, limit: float) -> bool:
    """Returns whether a tensor is float32 and within ±limit."""
    return value.dtype.itemsize == 4 and value.is_floating_point() and bool((value.abs() <= limit).all())
