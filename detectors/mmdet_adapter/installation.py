"""Checks that mmdet and its dependencies are installed in compatible versions, and initialises them."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from typing import NamedTuple

from detectors.mmdet_adapter import operators
from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package


class Requirement(NamedTuple):
    """A package that mmdet needs, and the versions that work."""

    names: tuple[str, ...]
    """Distributions that provide it; exactly one must be installed, because they share a folder."""
    minimum: tuple[int, ...]
    """Lowest version that works."""
    below: tuple[int, ...]
    """Lowest later version that does not work."""
    install: str
    """The argument of `pip install`."""


REQUIREMENTS = (
    Requirement(("mmdet",), (3, 0), (4,), "mmdet==3.3.0"),
    Requirement(("mmengine", "mmengine-lite"), (0, 7, 1), (1,), "mmengine==0.10.7"),
    Requirement(("mmcv", "mmcv-lite"), (2, 0), (2, 2), "mmcv-lite==2.1.0"),
)
"""mmdet does not declare the other two as dependencies, and fails at import with versions outside these
bounds."""

EXTRAS = {
    "lap": Requirement(("lap",), (0, 4), (1,), "lap==0.5.13"),
    "trackeval": Requirement(("trackeval",), (1, 0), (2,), "trackeval==1.3.0"),
}
"""Dependencies of parts of mmdet: its trackers and its track metrics."""


def check(*extras: str) -> None:
    """Checks the installed packages, including `extras`, which are names in `EXTRAS`, without importing them.

    Raises UsageError, with the command for pip, if a package is missing, installed twice or of a wrong
    version.
    """
    for requirement in (*REQUIREMENTS, *(EXTRAS[name] for name in extras)):
        fault = _fault(requirement)
        if fault:
            raise UsageError(f"{fault}; run: pip install {requirement.install}")


def _fault(requirement: Requirement) -> str | None:
    """Returns what is wrong with a package; None if it can be used."""
    installed = {name: version for name in requirement.names if (version := _version(name)) is not None}
    if not installed:
        return f"{requirement.names[0]} is not installed"
    if len(installed) > 1:
        both = " and ".join(installed)
        return f"{both} are installed and overwrite each other; run: pip uninstall {' '.join(installed)}"
    [(name, version)] = installed.items()
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if requirement.minimum <= numbers < requirement.below:
        return None
    minimum, below = (".".join(map(str, bound)) for bound in (requirement.minimum, requirement.below))
    return f"{name} {version} is not supported, {minimum} or newer and older than {below} is needed"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def prepare(*extras: str) -> None:
    """Imports mmdet and fills its registries, including our datasets and networks.

    Raises UsageError as `check`, and if mmdet cannot be imported.
    """
    check(*extras)
    for name in extras:
        require_package(name, "mmdet")
    try:
        _register()
    except (ImportError, AssertionError, AttributeError) as error:
        pins = " ".join(requirement.install for requirement in REQUIREMENTS)
        reason = str(error).partition("\n")[0]
        raise UsageError(f"mmdet cannot be imported: {reason}; run: pip install {pins}") from error


@cache
def _register() -> None:
    operators.provide_operators()
    from mmdet.utils import register_all_modules

    from detectors.mmdet_adapter import clips, networks

    register_all_modules()
    networks.register()
    clips.register()
