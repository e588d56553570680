"""Checkpoints of mmengine, read without executing code in them, and weights in both directions.

mmengine stores more than tensors: histories of values, configurations, NumPy scalars. With `weights_only`
torch refuses such types. It stays on, with two exceptions:

- to read weights, each type of the packages in `IGNORED_PACKAGES` is replaced by a placeholder that discards
  what is stored; no code of the real type is executed, and any other type is an error;
- to resume one's own run, `allow_training_state` admits the few types that mmengine's state consists of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import is_zipfile

from detectors.weights import state_dict
from pipeline.system.bounded_reads import MAX_WEIGHTS_BYTES, require_bounded
from pipeline.system.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED_PACKAGES = ("mmengine", "mmdet", "mmcv", "numpy")
"""Packages whose objects in a checkpoint are not needed to read its weights."""

GETATTR = "builtins.getattr"
"""Referenced by mmengine's histories to name their methods; always replaced when a file is read."""

HISTORY_METHODS = ("min", "max", "current", "mean")
"""Methods that mmengine's histories reference."""

EMA_PREFIX = "ema_"
"""Prefix of the averaged weights that older versions of mmdet stored beside the weights."""


class Checkpoint(NamedTuple):
    """Contents of a weights file."""

    state: dict[str, Tensor]
    """Name → tensor."""
    meta: Mapping[str, Any]
    """Metadata of mmengine (`dataset_meta`, `epoch`, …); empty if there are none."""


def read(path: Path) -> Checkpoint:
    """Reads a checkpoint of mmengine or mmdet, a plain state dict, or a safetensors file.

    Raises WeightsError if the file is missing or damaged, has no state dict, or holds unknown types.
    """
    if path.suffix == ".safetensors":
        return Checkpoint(state_dict.read_state_dict(path), {})
    loaded = _load(path)
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path} holds no state dict")
    meta = loaded.get("meta")
    state = loaded.get("state_dict", loaded)
    return Checkpoint(_tensors(state, path), meta if isinstance(meta, Mapping) else {})


def _load(path: Path) -> Any:
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    if not path.exists():
        raise WeightsError(f"weights file {path} does not exist")
    unknown: list[str] = []
    try:
        require_bounded(path, limit=MAX_WEIGHTS_BYTES)
        state_dict.require_plain_archive(path)
        # files from before torch 1.6 are not archives and cannot be searched; most hold plain values only
        names = get_unsafe_globals_in_checkpoint(path) if is_zipfile(path) else []
        unknown = [name for name in names if not (name == GETATTR or _package(name) in IGNORED_PACKAGES)]
        if not unknown:
            with safe_globals([(state_dict.IgnoredObject, name) for name in names]):
                return state_dict.load_values(path)
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises many kinds for bad bytes, and suggests weights_only=False
        raise WeightsError(f"{path} is damaged or not a checkpoint") from error
    raise WeightsError(f"{path} is not a safe weights file: it refers to {', '.join(sorted(unknown)[:3])}")


def _package(name: str) -> str:
    return name.partition(".")[0]


def _tensors(state: Any, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path} holds no state dict")
    state = {name: value for name, value in state.items() if not str(name).startswith(EMA_PREFIX)}
    others = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise WeightsError(f"{path} holds no state dict: {', '.join(others[:3])} are not named tensors")
    return state


def fill(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Loads all weights into a model of mmdet, which renames tensors of older versions itself.

    Raises WeightsError if tensors are missing, unexpected or of another shape.
    """
    try:
        difference = model.load_state_dict(checkpoint.state, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} is not for this {type(model).__name__}: {reason[:300]}") from error
    lists = {"missing": difference.missing_keys, "unexpected": difference.unexpected_keys}
    faults = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in lists.items() if names]
    if faults:
        raise WeightsError(
            f"{path} is not for this {type(model).__name__}: {'; '.join(faults)}; choose the config it was "
            "trained with"
        )


def export_weights(path: Path, output: Path) -> int:
    """Converts a checkpoint of one of our networks, trained by mmengine, to safetensors.

    The prefix `model.` of the names, of mmengine's wrapper, is removed. Returns the number of tensors. Raises
    WeightsError if the file cannot be read, OutputError if `output` cannot be written.
    """
    checkpoint = read(path)
    state = state_dict.strip_prefixes(checkpoint.state)
    meta = {key: checkpoint.meta[key] for key in ("epoch", "iter") if key in checkpoint.meta}
    state_dict.save(state, output, metadata={"trained_by": "mmengine", **meta})
    return len(state)


def _history_method(kind: type, name: str) -> Callable:
    """Replaces getattr in a checkpoint: returns a method that mmengine's histories reference.

    Raises WeightsError for any other attribute.
    """
    if kind.__name__ != "HistoryBuffer" or name not in HISTORY_METHODS:
        raise WeightsError(f"a checkpoint refers to {name} of {kind}, which is no state of mmengine")
    return getattr(kind, name)


@contextmanager
def allow_training_state() -> Iterator[None]:
    """Lets torch load the types of mmengine's training state, to resume a run of the user's own."""
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer
    from torch.serialization import safe_globals

    dtypes = {type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")}
    allowed: list = [HistoryBuffer, (_history_method, GETATTR), np.ndarray, np.dtype, *dtypes]
    allowed += [
        value.__reduce__()[0] for value in (np.array(0), np.float64(0))
    ]  # NumPy's private constructors
    with safe_globals(allowed):
        yield
