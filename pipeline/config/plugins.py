"""Detectors, trackers and sinks of other packages, named `package.module:Class` in a configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.system.errors import UsageError

MEMBERS = {
    "detector": ("window", "detect"),
    "tracker": ("update", "reset"),
    "sink": ("__enter__", "write", "__exit__"),
}
"""Kind of a part → what each object of this kind has."""


def is_plugin(name: str) -> bool:
    """Returns whether a name has the form `package.module:Class`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load_plugin(name: str) -> Callable[..., Any]:
    """Imports the class or function `package.module:Class`; modules in the current folder are found, too.

    Raises UsageError if there is no such module or class, or if the module cannot be imported.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # a command that is installed as a script does not look there
        sys.path.append(here)
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = f"there is no module '{error.name}'"
        raise UsageError(f"cannot load '{name}': {missing}; install it, or run in its folder") from error
    except AttributeError as error:
        raise UsageError(f"cannot load '{name}': module '{module}' has no '{attribute}'") from error
    except Exception as error:
        raise UsageError(f"cannot load '{name}': {type(error).__name__}: {error}") from error
    if not callable(found):
        raise UsageError(f"cannot load '{name}': it is neither a class nor a function")
    return found


def build_plugin(name: str, *given: Any, **options: Any) -> Any:
    """Calls the class or function `package.module:Class`; returns the object that it makes.

    Raises UsageError as `load_plugin` does, and if it does not take these arguments.
    """
    make = load_plugin(name)
    try:
        return make(*given, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"cannot build '{name}': {error}") from error


def require_part(part: Any, kind: str, name: str = "") -> None:
    """Raises UsageError if an object lacks what a detector, tracker or sink has, as `MEMBERS` lists it.

    `name` is what the user typed; an object is named by its class.
    """
    if isinstance(part, type):
        raise UsageError(
            f"'{name or part.__name__}' is a class, expected a {kind} that is made by calling it"
        )
    for member in MEMBERS[kind]:
        if not hasattr(part, member):
            raise UsageError(f"'{name or type(part).__name__}' is no {kind}: it has no '{member}'")
