"""The weights that a training run begins with, where they are those of another run."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from detectors.weights import state_dict

CLASS_BRANCH = ("head.cls_convs.", "head.cls_preds.")
"""What the names of the layers that tell classes apart begin with."""
CLASS_ROWS = "head.cls_preds.0.bias"
"""The entry of a state dict that has one number for each class."""


def start_from(model: nn.Module, path: Path) -> str | None:
    """Fill `model` from a file; returns one line where the file is for another number of classes.

    Then the whole class branch keeps its fresh weights: one that has learned a single class gives all targets
    the same features, and with one row of weights repeated for every class none has a gradient that would
    tell them apart. Raises WeightsError as `weights.load` does for all else that differs.
    """
    found, own = state_dict.read_state_dict(path), model.state_dict()
    ours, theirs = (len(state.get(CLASS_ROWS, ())) for state in (own, found))
    remark = None
    if ours and theirs and ours != theirs:
        found |= {name: value for name, value in own.items() if name.startswith(CLASS_BRANCH)}
        remark = (
            f"{path.name} knows {theirs} class{'es' * (theirs > 1)}: the class branch for {ours} is fresh"
        )
    state_dict.fill(model, found, path)
    return remark
