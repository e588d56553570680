"""Packages of other projects: one message for those that are missing or cannot be imported."""

from __future__ import annotations

import importlib
import sys
from importlib import util

from pipeline.system.errors import UsageError

PROJECT = ("pipeline", "datasets", "detectors", "trackers", "run_pipeline", "mote", "tests")
"""Top-level names of this project."""

DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "google": "protobuf",
    "mmcv": "mmcv-lite",
    "paho": "paho-mqtt",
    "PIL": "pillow",
    "prometheus_client": "prometheus-client",
    "tomli_w": "tomli-w",
    "yaml": "PyYAML",
}
"""Name in an import statement → name for pip, where the two differ."""


class MissingPackage(UsageError):
    """A package that is needed is not installed, or cannot be imported; exit code 2."""


def is_installed(package: str) -> bool:
    """Returns whether a top-level package can be found. It is not imported."""
    try:
        return util.find_spec(package) is not None
    except ImportError:  # of a program's own finder
        return False
    except ValueError:  # a module without a specification: it was made in a program
        return True


def require_package(package: str, purpose: str) -> None:
    """Imports a package that not every installation has.

    Called before work whose result would otherwise be lost. Raises MissingPackage, whose message begins with
    the `purpose` and ends with the command for pip, if the package, or one that it needs, is missing or
    cannot be imported.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        what = f"{purpose} needs the package {package}"
        missing = _missing_name(error)
        if missing == package:
            raise MissingPackage(f"{what}; {_remedy(package)}") from error
        if missing:
            raise MissingPackage(f"{what}, which needs {missing}; {_remedy(missing)}") from error
        raise MissingPackage(f"{what}, which cannot be imported: {error}; {_remedy(package)}") from error


def import_failure(error: ImportError) -> MissingPackage | None:
    """Returns the error to report for a package that could not be imported.

    None if it belongs to this project or to Python, so that the program itself is at fault.
    """
    package = (error.name or "").partition(".")[0]
    if not package or package in PROJECT or package in sys.stdlib_module_names:
        return None
    if _missing_name(error):
        return MissingPackage(f"the package {package} is not installed; {_remedy(package)}")
    return MissingPackage(f"the package {package} cannot be imported: {error}; {_remedy(package)}")


def _missing_name(error: ImportError) -> str:
    """Returns the top-level package that is not installed; empty if something else is wrong."""
    package = (error.name or "").partition(".")[0]
    missing = isinstance(error, ModuleNotFoundError) and package and not is_installed(package)
    return package if missing else ""


def _remedy(package: str) -> str:
    """Returns the part of a message that says how a package is installed."""
    return f"install it with: pip install {DISTRIBUTIONS.get(package, package)}"
