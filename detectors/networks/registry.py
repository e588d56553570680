"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from pipeline.system.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from detectors.networks.segmenters.base import Segmenter


def _tridos(**options) -> nn.Module:
    from detectors.networks.tridos import Tridos

    return Tridos(**options)


def _tridos_nano(**options) -> nn.Module:
    from detectors.networks.tridos import Tridos

    return Tridos(**{"width": 0.25, **options})


SEGMENTERS = {
    "rdian": ("rdian", "RDIAN"),
    "madnet": ("madnet", "MADNet"),
    "datransnet": ("datransnet", "DATransNet"),
    "dconet": ("dconet", "DCONet"),
    "drtenet": ("drtenet", "DRTENet"),
    "dstransnet": ("dstransnet", "DSTransNet"),
}
"""Networks that mark the pixels of targets in single frames: name → module and class."""


def segmenter_class(name: str) -> type[Segmenter]:
    """The class of a name in `SEGMENTERS`."""
    module, kind = SEGMENTERS[name]
    return getattr(import_module(f"detectors.networks.segmenters.{module}"), kind)


def published_rate(name: str) -> Callable[..., float] | None:
    """The rule (epoch, *, epochs, base) → learning rate of a segmenter's authors; None for other networks."""
    name = canonical(name)
    return (
        import_module(f"detectors.networks.segmenters.{SEGMENTERS[name][0]}").learning_rate
        if name in SEGMENTERS
        else None
    )


def _segmenter(name: str) -> Callable[..., nn.Module]:
    return lambda **options: segmenter_class(name)(**options)


DETECTORS: dict[str, Callable[..., nn.Module]] = {
    "tridos": _tridos,
    "tridos-nano": _tridos_nano,
    **{name: _segmenter(name) for name in SEGMENTERS},
}
"""Name → builder. torch is imported when a network is built, not when the table is read."""

MMDET = "mmdet:"
"""What the name of a detector of mmdet begins with; the path of its configuration follows."""

ALIASES = {"dcnet": "dconet", "msconet": "dconet", "mad-net": "madnet"}
"""Other names in the literature → ours."""


def canonical(name: str) -> str:
    """The name in `DETECTORS` of a network that goes by several. Raises UsageError where there is none."""
    name = ALIASES.get(name.lower(), name.lower())
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return name


def canonical_segmenter(name: str) -> str:
    """The name in `SEGMENTERS` of one that goes by several. Raises UsageError where there is none."""
    known = ALIASES.get(name.lower(), name.lower())
    if known not in SEGMENTERS:
        raise unknown_name("segmenter", name, SEGMENTERS)
    return known


def build(name: str, **options) -> nn.Module:
    """The network `name` with fresh weights, in training mode.

    Raises UsageError for a name that is not in `DETECTORS` or an option the network does not have.
    """
    name = canonical(name)
    try:
        return DETECTORS[name](**options)
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:  # of torch, for sizes beyond its own
        raise UsageError(f"cannot build detector '{name}': {error}") from error
