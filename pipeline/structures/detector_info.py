"""Descriptions of loaded networks: which weights, on which device, with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Backend = Literal["torch", "onnxruntime", "openvino"]
"""Runtimes of networks."""


@dataclass(frozen=True)
class SegmenterInfo:
    """A segmenter that runs beside a detector."""

    name: str
    """Canonical name in the registry of segmenters."""
    weights: str
    """Name in the weights table, or path of a file."""
    sha256: str
    """Hexadecimal digest of the weights file."""
    parameters: int
    """Number of parameters of the network."""
    enlarge: float
    """Network pixels per source pixel; 0 if the network input has a fixed size."""
    size: str
    """Network input as configured: native or WxH."""
    fit: str
    """How a frame fills an input of fixed size: letterbox or stretch."""
    flip_averaging: bool
    """Whether probabilities are averaged over mirrored views."""
    components: Mapping[str, Any]
    """Options of the connected components, as in the configuration."""

    def record(self) -> dict[str, Any]:
        """Returns the table of this segmenter in run.json."""
        return {
            "name": self.name,
            "weights": self.weights,
            "sha256": self.sha256,
            "parameters": self.parameters,
            "enlarge": self.enlarge,
            **_map_options(self),
        }


@dataclass(frozen=True)
class DetectorInfo:
    """The detector of a run."""

    name: str
    """Canonical name in the registry of detectors, or `mmdet:CONFIG.py`."""
    weights: str
    """Name in the weights table, or path of a file or of a folder of exported graphs."""
    sha256: str
    """Hexadecimal digest of the weights file."""
    parameters: int
    """Number of parameters of the network."""
    classes: tuple[str, ...]
    """Names of the labels 0, 1, …"""
    device: str
    """Device of the network: cpu or cuda:N."""
    precision: str
    """Number format: fp32, bf16 or fp16."""
    threads: int
    """Number of CPU threads of an operation."""
    enlarge: float
    """Network pixels per source pixel; 0 if the network input has a fixed size."""
    backend: Backend | None = None
    """Runtime of the network; None for detectors of mmdet, which always run in torch."""
    tile: str = "none"
    """Size of the tiles into which frames are divided, WxH; none or auto: they are not."""
    segmenter: bool = False
    """Whether the detector is a segmenter; the fields below are set only then."""
    size: str | None = None
    """Network input as configured: native or WxH."""
    fit: str | None = None
    """How a frame fills an input of fixed size: letterbox or stretch."""
    flip_averaging: bool | None = None
    """Whether probabilities are averaged over mirrored views."""
    components: Mapping[str, Any] | None = None
    """Options of the connected components, as in the configuration."""

    def record(self) -> dict[str, Any]:
        """Returns the table of this detector in run.json."""
        return {
            "name": self.name,
            "weights": self.weights,
            "sha256": self.sha256,
            "parameters": self.parameters,
            "classes": list(self.classes),
            "device": self.device,
            "precision": self.precision,
            "threads": self.threads,
            "enlarge": self.enlarge,
            **({"backend": self.backend} if self.backend else {}),
            **({} if self.tile in ("auto", "none") else {"tile": self.tile}),
            **(_map_options(self) if self.segmenter else {}),
        }


def _map_options(info: SegmenterInfo | DetectorInfo) -> dict[str, Any]:
    """Returns the options of a segmenter's probability maps."""
    return {
        "size": info.size,
        "fit": info.fit,
        "flip_averaging": info.flip_averaging,
        "components": dict(info.components or {}),
    }
