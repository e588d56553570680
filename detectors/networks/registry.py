"""Registry of networks: names of the command line and of configurations, and how each network is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pipeline.config.plugins import is_plugin
from pipeline.system.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from detectors.networks.plain import PlainNetwork
    from detectors.networks.segmenters.base import Segmenter
    from detectors.networks.tridos import Tridos

    Network: TypeAlias = Tridos | PlainNetwork | Segmenter
    """A network of this project: boxes in the last frame of a window, or a mask of one frame."""

Kind = Literal["detector", "segmenter", "mmdet", "plugin"]
"""Multi-frame detectors, which predict boxes; single-frame segmenters (masks); models of mmdet; detectors of
other packages."""


@dataclass(frozen=True)
class NetworkEntry:
    """A row of the registry."""

    kind: Kind
    build: Callable[..., Network]
    """Builds the network from its options; torch is imported when it is called."""
    module: str = ""
    """Module of a segmenter's class and of its `learning_rate`."""
    class_name: str = ""
    """Name of a segmenter's class."""


def segmenter_entry(module: str, class_name: str) -> NetworkEntry:
    """Returns the row of the segmenter `class_name` of a module with a function `learning_rate`."""

    def build(**options: Any) -> Segmenter:
        return getattr(import_module(module), class_name)(**options)

    return NetworkEntry("segmenter", build, module, class_name)


def _tridos(**options: Any) -> Tridos:
    from detectors.networks.tridos import Tridos

    return Tridos(**options)


def _tridos_nano(**options: Any) -> Tridos:
    return _tridos(**{"width": 0.25, **options})


def _plain(**options: Any) -> PlainNetwork:
    from detectors.networks.plain import PlainNetwork

    return PlainNetwork(**options)


SEGMENTERS: dict[str, NetworkEntry] = {
    "rdian": segmenter_entry("detectors.networks.segmenters.rdian", "RDIAN"),
    "madnet": segmenter_entry("detectors.networks.segmenters.madnet", "MADNet"),
    "datransnet": segmenter_entry("detectors.networks.segmenters.datransnet", "DATransNet"),
    "dconet": segmenter_entry("detectors.networks.segmenters.dconet", "DCONet"),
    "drtenet": segmenter_entry("detectors.networks.segmenters.drtenet", "DRTENet"),
    "dstransnet": segmenter_entry("detectors.networks.segmenters.dstransnet", "DSTransNet"),
}
"""Networks that segment the targets of single frames, by name."""

DETECTORS: dict[str, NetworkEntry] = {
    "tridos": NetworkEntry("detector", _tridos),
    "tridos-nano": NetworkEntry("detector", _tridos_nano),
    "plain": NetworkEntry("detector", _plain),
    **SEGMENTERS,
}
"""All networks that can detect targets, by name; a segmenter's connected components are its detections."""

MMDET = "mmdet:"
"""Prefix of the names of mmdet's detectors, followed by the path of their configuration."""

ALIASES = {"dcnet": "dconet", "msconet": "dconet", "mad-net": "madnet"}
"""Other names in the literature → name in `DETECTORS`."""


def kind_of(name: str) -> Kind:
    """Returns the kind of a detector. Raises UsageError for unknown names."""
    if name.startswith(MMDET):
        return "mmdet"
    return "plugin" if is_plugin(name) else DETECTORS[canonical(name)].kind


def mmdet_config(name: str) -> Path:
    """Returns the path of the configuration in the name of a detector of mmdet."""
    return Path(name.removeprefix(MMDET))


def canonical(name: str) -> str:
    """Returns the name in `DETECTORS` of a name or alias. Raises UsageError for unknown names."""
    name = ALIASES.get(name.lower(), name.lower())
    if name not in DETECTORS:
        raise unknown_name("detector", name, DETECTORS)
    return name


def canonical_segmenter(name: str) -> str:
    """Returns the name in `SEGMENTERS` of a name or alias. Raises UsageError for unknown names."""
    known = ALIASES.get(name.lower(), name.lower())
    if known not in SEGMENTERS:
        raise unknown_name("segmenter", name, SEGMENTERS)
    return known


def segmenter_class(name: str) -> type[Segmenter]:
    """Returns the class of a name in `SEGMENTERS`."""
    entry = SEGMENTERS[name]
    return getattr(import_module(entry.module), entry.class_name)


def published_rate(name: str) -> Callable[..., float] | None:
    """Returns the published learning rate schedule of a segmenter; None for other networks.

    The schedule is a function (epoch, *, epochs, base) → learning rate. Raises UsageError for unknown names.
    """
    name = canonical(name)
    return import_module(SEGMENTERS[name].module).learning_rate if name in SEGMENTERS else None


def build(name: str, **options: Any) -> Network:
    """Builds a network with fresh weights, in training mode.

    Raises UsageError for unknown names and for options that the network does not accept.
    """
    name = canonical(name)
    try:
        return DETECTORS[name].build(**options)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # torch raises them for huge sizes
        raise UsageError(f"cannot build detector '{name}': {error}") from error
