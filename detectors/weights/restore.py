"""Networks restored from weights: options, parameters and the scale they were trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from detectors.weights.state_dict import load_tensors, read_state_dict, require_match
from detectors.weights.zoo import ZooEntry, locate_weights
from pipeline.config.schema import MAX_SCALE, MIN_SCALE
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from detectors.networks.registry import Network


class RestoredNetwork(NamedTuple):
    """A network with its weights."""

    model: Network
    path: Path
    """File of the weights."""
    entry: ZooEntry | None
    """Row of the weights table; None for other files."""


def restore_network(detector: str, name_or_path: str) -> RestoredNetwork:
    """Builds `detector` with the named weights.

    Options come from the weights table, else from the shapes and metadata of the file. Raises UsageError for
    unknown detectors, WeightsError for files that are missing, damaged or for another network.
    """
    import torch

    from detectors.networks import registry

    path, entry = locate_weights(name_or_path)
    state = read_state_dict(path)
    options = dict(entry.options) if entry else infer_options(state, path, detector)
    if not entry:  # checked without allocating memory, since the file may imply a network of any size
        with torch.device("meta"):
            require_match(registry.build(detector, **options), state, path)
    model = registry.build(detector, **options)
    load_tensors(model, state, path)
    return RestoredNetwork(model, path, entry)


def trained_enlargement(path: Path) -> float:
    """Returns network pixels per source pixel in the training of weights; 1 if not in their metadata."""
    try:
        scale = float(_recipe(path)["data"]["enlarge"])
    except (ValueError, TypeError, KeyError):  # written by another program or an old version
        return 1.0
    return scale if MIN_SCALE <= scale <= MAX_SCALE else 1.0


def _recipe(path: Path) -> Any:
    """Returns the recipe in the metadata of a file; empty if it has none."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("recipe", "{}")
    try:
        return json.loads(text)
    except ValueError:
        return {}


def infer_options(state: Mapping[str, Tensor], path: Path, detector: str) -> dict[str, Any]:
    """Infers the options of a network from the shapes of its tensors and the metadata of their file."""
    from detectors.networks import registry

    name = registry.canonical(detector)
    state = {key: tensor for key, tensor in state.items() if tensor.ndim}  # scalars have no length
    classes = state.get("head.cls_preds.0.bias")
    options: dict[str, Any] = {} if classes is None else {"num_classes": len(classes)}
    if name in registry.SEGMENTERS:
        options = registry.segmenter_class(name).infer_options(state)
    try:
        model = _recipe(path)["model"]
        return {**options, **model["options"]} if registry.canonical(model["name"]) == name else options
    except (AttributeError, KeyError, TypeError, UsageError):  # written by another program
        return options
