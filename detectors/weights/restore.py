"""detectors.weights.restore."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectors.weights.state_dict import fill, read_state_dict, require_fit
from detectors.weights.zoo import ZooEntry, locate
from pipeline.config.schema import MAX_SCALE, MIN_SCALE
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn


def network(detector: str, name_or_path: str) -> tuple[nn.Module, Path, ZooEntry | None]:
    """`detector` with the named weights, the file they are in, and their row of the table when they are ours.

    Options come from the table, else from what the file's shapes tell. Raises what `locate`, `load` and
    `detectors.build` raise.
    """
    import torch

    from detectors.networks import registry

    path, entry = locate(name_or_path)
    state = read_state_dict(path)
    options = dict(entry.options) if entry else options_of(state, path, detector)
    if not entry:  # what a file tells of its network may take any amount of memory: nothing is made of it yet
        with torch.device("meta"):
            require_fit(registry.build(detector, **options), state, path)
    model = registry.build(detector, **options)
    fill(model, state, path)
    return model, path, entry


def enlargement(path: Path) -> float:
    """Network pixels per source pixel that weights were trained with, as their metadata tell; else 1."""
    try:
        scale = float(_recipe(path)["data"]["enlarge"])
    except (ValueError, TypeError, KeyError):  # not of our trainer, or from before it could enlarge
        return 1.0
    return scale if MIN_SCALE <= scale <= MAX_SCALE else 1.0


def _recipe(path: Path) -> Any:
    """The recipe in the metadata of a file of our trainer; empty for others."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("recipe", "{}")
    try:
        return json.loads(text)
    except ValueError:
        return {}


def options_of(state: Mapping[str, Tensor], path: Path, detector: str) -> dict[str, Any]:
    """Builder options that the shapes in a file tell, and those in its metadata; empty where neither does."""
    from detectors.networks import registry

    name = registry.canonical(detector)
    state = {key: tensor for key, tensor in state.items() if tensor.ndim}  # single numbers have no length
    classes = state.get("head.cls_preds.0.bias")
    told = {} if classes is None else {"num_classes": len(classes)}
    if name in registry.SEGMENTERS:
        told = registry.segmenter_class(name).options_from(state)
    try:
        model = _recipe(path)["model"]
        return {**told, **model["options"]} if registry.canonical(model["name"]) == name else told
    except (AttributeError, KeyError, TypeError, UsageError):  # not of our trainer
        return told
