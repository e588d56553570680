"""Whether mmdet and what it needs are there, in versions that go together; then they are made ready."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from typing import NamedTuple

from detectors.mmdet_adapter import operators
from pipeline.system.errors import UsageError


class Requirement(NamedTuple):
    """A package that mmdet works with."""

    names: tuple[str, ...]
    """Distributions that provide it; of several, one must be installed and no more: they share a folder."""
    least: tuple[int, ...]
    below: tuple[int, ...]
    install: str
    """What to give to pip."""


REQUIREMENTS = (
    Requirement(("mmdet",), (3, 0), (4,), "mmdet==3.3.0"),
    Requirement(("mmengine", "mmengine-lite"), (0, 7, 1), (1,), "mmengine==0.10.7"),
    Requirement(("mmcv", "mmcv-lite"), (2, 0), (2, 2), "mmcv-lite==2.1.0"),
)
"""mmdet does not declare the other two, and refuses versions outside these bounds when it is imported."""

EXTRAS = {
    "lap": Requirement(("lap",), (0, 4), (1,), "lap==0.5.13"),
    "trackeval": Requirement(("trackeval",), (1, 0), (2,), "trackeval==1.3.0"),
}
"""What single parts of mmdet need: its trackers and its track metrics."""


def check(*extras: str) -> None:
    """Raise UsageError, with the line for pip, where a package is missing, doubled or of a wrong version.

    `extras` are names in `EXTRAS` that are needed, too. Nothing is imported.
    """
    for requirement in (*REQUIREMENTS, *(EXTRAS[name] for name in extras)):
        fault = _fault(requirement)
        if fault:
            raise UsageError(f"{fault}; run: pip install {requirement.install}")


def _fault(requirement: Requirement) -> str | None:
    """What is wrong with a package; None where it can be used."""
    found = {name: version for name in requirement.names if (version := _version(name)) is not None}
    if not found:
        return f"{requirement.names[0]} is not installed"
    if len(found) > 1:
        both = " and ".join(found)
        return f"{both} are installed and overwrite each other; run: pip uninstall {' '.join(found)}"
    [(name, version)] = found.items()
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if requirement.least <= numbers < requirement.below:
        return None
    least, below = (".".join(map(str, bound)) for bound in (requirement.least, requirement.below))
    return f"{name} {version} does not fit, {least} or newer and older than {below} is needed"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def prepare(*extras: str) -> None:
    """Import mmdet and fill its registries, our own networks included.

    Raises UsageError where something is missing or does not fit (see `check`), or cannot be imported.
    """
    check(*extras)
    try:
        _register()
    except (ImportError, AssertionError, AttributeError) as error:
        pins = " ".join(requirement.install for requirement in REQUIREMENTS)
        reason = str(error).partition("\n")[0]
        raise UsageError(f"mmdet cannot be imported: {reason}; run: pip install {pins}") from error


@cache
def _register() -> None:
    operators.stand_in()
    from mmdet.utils import register_all_modules

    from detectors.mmdet_adapter import clips, networks

    register_all_modules()
    networks.register()
    clips.register()
