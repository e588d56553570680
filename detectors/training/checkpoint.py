"""Checkpoints of a training run: written atomically, loaded only into a run with the same recipe.

A run keeps the latest one, last.pt, and the one before it, previous.pt, in case the latest is damaged later.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from detectors.training.recipe import Recipe
from detectors.weights.state_dict import load_values
from pipeline.system.bounded_reads import MAX_WEIGHTS_BYTES, require_bounded
from pipeline.system.errors import OutputError, UsageError, WeightsError, as_json
from pipeline.system.files import replace_on_success

LOCATION_KEYS = ("root", "store")
"""Keys of the section `data` that locate it on disk; they may change between two parts of a run."""


def write_error(folder: Path, error: Exception) -> OutputError:
    """Returns the error for a run folder that cannot be written."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return OutputError(f"cannot write {folder}: {reason}; choose another record.output")


def save(state: dict[str, Any], path: Path, *, previous: Path | None = None) -> None:
    """Writes a state of tensors and plain values, which is on the disk before it replaces an earlier one.

    The earlier one is kept as `previous`, if that is given. Raises OutputError if a file cannot be written.
    """
    try:
        with replace_on_success(path) as partial:
            torch.save(state, partial)
            if previous is not None and path.is_file():
                _add_name(path, previous)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise write_error(path.parent, error) from error


def _add_name(path: Path, name: Path) -> None:
    """Gives a file a second name, replacing another file; unlike renamed ones, it has a name at all times."""
    with replace_on_success(name, sync=False) as partial:
        try:
            partial.hardlink_to(path)
        except OSError:  # some file systems have no links
            shutil.copyfile(path, partial)


def load(path: Path, recipe: dict[str, Any], *, device: torch.device) -> dict[str, Any]:
    """Returns the state in a checkpoint of a run with the given recipe.

    Keys that do not change a training step may differ: the section `record` and `LOCATION_KEYS`. The scaling
    "auto" agrees with that of any checkpoint, which the run then goes on with. Raises
    WeightsError if the file is not a checkpoint, UsageError naming the first other key that differs.
    """
    try:
        require_bounded(path, limit=MAX_WEIGHTS_BYTES)
        state = load_values(path, device)
        theirs = with_defaults(state["recipe"])
        if recipe["data"]["scaling"] == "auto":
            recipe = {**recipe, "data": {**recipe["data"], "scaling": theirs["data"]["scaling"]}}
        differing = first_difference(_fixed_settings(recipe), _fixed_settings(theirs))
    except Exception as error:  # torch raises many kinds for bad bytes
        raise not_a_checkpoint(path) from error
    if differing:
        key, wanted, made = differing
        values = f"{key} = {as_json(made)}, not {as_json(wanted)}"
        raise UsageError(f"{path} was made with {values}; choose another record.output")
    return state


def missing(path: Path, previous: Path) -> WeightsError:
    """Returns the error for a checkpoint that is missing beside the one before it."""
    return WeightsError(f"{path} is missing; delete {previous.name}, too, to start from the beginning")


def not_a_checkpoint(path: Path) -> WeightsError:
    """Returns the error for a file that is not a checkpoint of this trainer."""
    return WeightsError(
        f"{path} is damaged or not a checkpoint of this trainer; delete it or choose another record.output"
    )


def _fixed_settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a recipe that must not change when a run is resumed."""
    fixed = {section: values for section, values in recipe.items() if section != "record"}
    return {
        **fixed,
        "data": {key: value for key, value in recipe["data"].items() if key not in LOCATION_KEYS},
    }


def with_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """Returns a recipe of an earlier version with the defaults of keys that were added since."""
    return {section: values | recipe.get(section, {}) for section, values in asdict(Recipe()).items()}


def first_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Returns the first dotted key in which two nested tables differ, and both values; None if they agree."""
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            if inner := first_difference(mine, other):
                return f"{key}.{inner[0]}", *inner[1:]
        elif mine != other:
            return key, mine, other
    return None
