"""The state of a training run on disk: written whole or not at all, read back only into the same run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from detectors.training.recipe import Recipe
from pipeline.system.errors import OutputError, UsageError, WeightsError
from pipeline.system.files import replace_on_success

PLACES = ("root", "store")
"""Keys of the section `data` that say where it lies: it may be moved while a run is stopped."""


def cannot_write(folder: Path, error: Exception) -> OutputError:
    """The error for a folder of a run that does not take what is written."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return OutputError(f"cannot write {folder}: {reason}; choose another record.output")


def save(state: dict[str, Any], path: Path) -> None:
    """Write a state of tensors and plain values. Raises OutputError when it cannot be written."""
    try:
        with replace_on_success(path) as partial:
            torch.save(state, partial)
    except (OSError, RuntimeError) as error:  # torch reports a full disk in an error of its own
        raise cannot_write(path.parent, error) from error


def load(path: Path, recipe: dict[str, Any], *, device: torch.device) -> dict[str, Any]:
    """The state in a checkpoint that was made with the same recipe, but for what does not change a step.

    Raises WeightsError when the file is none, UsageError naming the first key that differs.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        differing = first_difference(_lasting(recipe), _lasting(with_defaults(state["recipe"])))
    except Exception as error:  # torch raises many kinds for bad bytes
        raise no_checkpoint(path) from error
    if differing:
        key, ours, theirs = differing
        raise UsageError(
            f"{path} was made with {key} = {theirs!r}, not {ours!r}; choose another record.output"
        )
    return state


def no_checkpoint(path: Path) -> WeightsError:
    """The error for a file that holds something else."""
    return WeightsError(
        f"{path} is damaged or not a checkpoint of this trainer; delete it or choose another record.output"
    )


def _lasting(recipe: dict[str, Any]) -> dict[str, Any]:
    """What must not change while a run is going on: all but what it leaves behind, and where its data lie."""
    lasting = {section: values for section, values in recipe.items() if section != "record"}
    return {**lasting, "data": {key: value for key, value in recipe["data"].items() if key not in PLACES}}


def with_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier version: keys that it did not have do as before, by their defaults."""
    return {section: values | recipe.get(section, {}) for section, values in asdict(Recipe()).items()}


def first_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key, dotted, in which two nested tables differ, with both values; None where they agree."""
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            if inner := first_difference(mine, other):
                return f"{key}.{inner[0]}", *inner[1:]
        elif mine != other:
            return key, mine, other
    return None
