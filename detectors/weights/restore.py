"""Networks restored from weights: options, parameters and the scale they were trained with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from detectors.weights.state_dict import load_tensors, read_state_dict, require_match
from detectors.weights.zoo import ZooEntry, locate_weights
from pipeline.config.schema import MAX_SCALE, MIN_SCALE
from pipeline.system.errors import UsageError, WeightsError

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


@dataclass(frozen=True)
class Calibration:
    """A score s becomes 1 / (1 + exp(-slope · log(s / (1 - s)) - offset)), its chance to be a hit.

    Raises ValueError unless the numbers are finite and the slope is positive.
    """

    slope: float
    offset: float

    def __post_init__(self):
        if not (0 < self.slope < math.inf and math.isfinite(self.offset)):
            raise ValueError(f"slope {self.slope}, offset {self.offset}")


def restore_network(detector: str, name_or_path: str) -> RestoredNetwork:
    """Builds `detector` with the named weights.

    Options come from the weights table, else from the shapes and metadata of the file. Scores are calibrated
    if the metadata have a calibration. Raises UsageError for unknown detectors, WeightsError for files that
    are missing, damaged or for another network.
    """
    import torch

    from detectors.networks import registry
    from detectors.networks.plain import PlainNetwork

    path, entry = locate_weights(name_or_path)
    state = read_state_dict(path)
    options = dict(entry.options) if entry else infer_options(state, path, detector)
    if not entry:  # checked without allocating memory, since the file may imply a network of any size
        with torch.device("meta"):
            require_match(registry.build(detector, **options), state, path)
    model = registry.build(detector, **options)
    load_tensors(model, state, path)
    if calibration := read_calibration(path):
        if not isinstance(model, PlainNetwork):
            raise WeightsError(f"{path} holds a calibration of scores, which '{detector}' does not support")
        model.calibrate(calibration.slope, calibration.offset)
    return RestoredNetwork(model, path, entry)


def read_calibration(path: Path) -> Calibration | None:
    """Returns the calibration in the metadata of a file; None if it has none. Raises WeightsError."""
    table = _metadata(path, "calibration")
    if not table:
        return None
    try:
        return Calibration(float(table["slope"]), float(table["offset"]))
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} has a damaged calibration: {error}") from error


def trained_enlargement(path: Path) -> float:
    """Returns network pixels per source pixel in the training of weights; 1 if not in their metadata."""
    try:
        scale = float(_recipe(path)["data"]["enlarge"])
    except (ValueError, TypeError, KeyError):  # written by another program or an old version
        return 1.0
    return scale if MIN_SCALE <= scale <= MAX_SCALE else 1.0


def _recipe(path: Path) -> Any:
    """Returns the recipe in the metadata of a file; empty if it has none."""
    return _metadata(path, "recipe")


def _metadata(path: Path, key: str) -> Any:
    """Returns a value of the metadata of a file; empty if it has none.

    It is empty for a damaged file, too; reading its tensors raises the error.
    """
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {}).get(key, "{}"))
    except (ValueError, SafetensorError):
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
