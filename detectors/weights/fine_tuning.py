"""Initial weights of a training run from another run, possibly with other classes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from detectors.weights import state_dict

CLASS_BRANCH = ("head.cls_convs.", "head.cls_preds.")
"""Prefixes of the names of the classification branch."""
CLASS_ROWS = "head.cls_preds.0.bias"
"""Entry of a state dict with one number per class."""


def initialise_from(model: nn.Module, path: Path) -> str | None:
    """Loads the weights of a model from a file that may be for another number of classes.

    In that case the classification branch keeps its fresh weights, and a message is returned. A branch
    trained on a single class gives all targets the same features, and copies of its one row of weights would
    have equal gradients. Raises WeightsError for other differences.
    """
    tensors, own = state_dict.read_state_dict(path), model.state_dict()
    ours, theirs = (len(state.get(CLASS_ROWS, ())) for state in (own, tensors))
    message = None
    if ours and theirs and ours != theirs:
        tensors |= {name: value for name, value in own.items() if name.startswith(CLASS_BRANCH)}
        classes = f"{theirs} class{'es' * (theirs > 1)}"
        message = f"{path.name} has {classes}: the classification branch for {ours} starts from fresh weights"
    state_dict.load_tensors(model, tensors, path)
    return message
