"""Checkpoints of mmengine, read without running what is in them, and weights on their way in and out.

mmengine stores more than tensors: histories of numbers, configurations, scalars of NumPy. torch refuses such
files unless told which types to trust. Two ways lead round its guard, and the guard itself stays up:

- to read weights, every type of a known package (`PASSED_OVER`) is replaced by a stand-in that takes what is
  stored and keeps nothing; no code of the real type runs, and any other type is refused by its name;
- to go on with a run of one's own, `resuming` admits the few types that mmengine's state is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import is_zipfile

from detectors.weights import state_dict
from pipeline.system.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

PASSED_OVER = ("mmengine", "mmdet", "mmcv", "numpy")
"""Packages whose objects in a checkpoint are of no use for its weights."""

GETATTR = "builtins.getattr"
"""Stands in mmengine's histories, to name their methods; never the real one when a file is read."""

STATISTICS = ("min", "max", "current", "mean")
"""The methods that it names."""

LEFT_OVER = "ema_"
"""How names begin that older versions of mmdet stored beside the weights: running means of them."""


class Checkpoint(NamedTuple):
    """What is read of a file."""

    state: dict[str, Tensor]
    """Name → tensor."""
    meta: Mapping[str, Any]
    """What mmengine noted beside the weights (`dataset_meta`, `epoch`, …); empty where there is nothing."""


def read(path: Path) -> Checkpoint:
    """A checkpoint of mmengine or mmdet, a plain state dict, or a safetensors file.

    Raises WeightsError for a file that is missing, damaged, holds no state dict, or types that are not known.
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
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist")
    strangers: list[str] = []
    try:
        state_dict.require_plain_archive(path)
        # files from before torch 1.6 are no archives and cannot be asked; most hold nothing but plain values
        names = get_unsafe_globals_in_checkpoint(path) if is_zipfile(path) else []
        strangers = [name for name in names if not (name == GETATTR or _package(name) in PASSED_OVER)]
        if not strangers:
            with safe_globals([(state_dict.PassedOver, name) for name in names]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:  # torch raises many kinds for bad bytes, and advises to drop the guard
        raise WeightsError(f"{path} is damaged or no checkpoint") from error
    raise WeightsError(f"{path} is not a safe weights file: it asks for {', '.join(sorted(strangers)[:3])}")


def _package(name: str) -> str:
    return name.partition(".")[0]


def _tensors(state: Any, path: Path) -> dict[str, Tensor]:
    import torch

    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path} holds no state dict")
    state = {name: value for name, value in state.items() if not str(name).startswith(LEFT_OVER)}
    strange = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise WeightsError(f"{path} holds no state dict: {', '.join(strange[:3])} are not named tensors")
    return state


def fill(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Load the weights into a model of mmdet, with its own renaming of older names, in whole.

    Raises WeightsError with what is missing, unexpected or misshapen.
    """
    try:
        left = model.load_state_dict(checkpoint.state, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{path} is not for this {type(model).__name__}: {reason[:300]}") from error
    lists = {"missing": left.missing_keys, "unexpected": left.unexpected_keys}
    faults = [f"{len(names)} {kind} ({', '.join(names[:3])})" for kind, names in lists.items() if names]
    if faults:
        raise WeightsError(
            f"{path} is not for this {type(model).__name__}: {'; '.join(faults)}; choose the fitting config"
        )


def export(path: Path, output: Path) -> int:
    """Write the weights of one of our networks, trained by mmengine, as a file of ours; returns their number.

    Names and values stay: mmengine keeps them below the attribute `model`, which is taken off. Raises
    WeightsError for a file that cannot be read, OutputError for one that cannot be written.
    """
    checkpoint = read(path)
    state = state_dict.bare(checkpoint.state)
    meta = {key: checkpoint.meta[key] for key in ("epoch", "iter") if key in checkpoint.meta}
    state_dict.save(state, output, metadata={"trained_by": "mmengine", **meta})
    return len(state)


def _statistic(kind: type, name: str) -> Callable:
    """In place of getattr: one of the methods that mmengine's histories name, and nothing else."""
    if kind.__name__ != "HistoryBuffer" or name not in STATISTICS:
        raise WeightsError(f"a checkpoint asks for {name} of {kind}, which no state of mmengine does")
    return getattr(kind, name)


@contextmanager
def resuming() -> Iterator[None]:
    """While a run of one's own is taken up again: torch admits what mmengine's state holds."""
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer
    from torch.serialization import safe_globals

    rebuild, scalar = np.array(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")}
    with safe_globals([HistoryBuffer, (_statistic, GETATTR), np.ndarray, np.dtype, rebuild, scalar, *kinds]):
        yield
