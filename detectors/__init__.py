"""Networks that find targets, their weights, training, evaluation and inference.

The names that other programs import are loaded on first use, so that importing the package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detectors.loading import load_detector, load_segmenters
    from detectors.networks.registry import (
        DETECTORS,
        MMDET,
        SEGMENTERS,
        build,
        canonical,
        canonical_segmenter,
    )

__all__ = [
    "DETECTORS",
    "MMDET",
    "SEGMENTERS",
    "build",
    "canonical",
    "canonical_segmenter",
    "load_detector",
    "load_segmenters",
]


def __getattr__(name: str) -> Any:
    if name in ("load_detector", "load_segmenters"):
        from detectors import loading

        return getattr(loading, name)
    if name in __all__:
        from detectors.networks import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
