"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import nn


def _tridos(**options) -> nn.Module:
    from detectors.tridos import Tridos

    return Tridos(**options)


def _tridos_nano(**options) -> nn.Module:
    from detectors.tridos import Tridos

    return Tridos(**{"width": 0.25, **options})


DETECTORS: dict[str, Callable[..., nn.Module]] = {
    "tridos": _tridos,
    "tridos-nano": _tridos_nano,
}
"""Name → builder. torch is imported when a network is built, not when the table is read."""


def build(name: str, **options) -> nn.Module:
    """The network `name` with fresh weights, in training mode.

    Raises UsageError for a name that is not in `DETECTORS` or an option the network does not have.
    """
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    try:
        return DETECTORS[name](**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"cannot build detector '{name}': {error}") from error
