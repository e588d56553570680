"""Weights supplied with the project: table, checksums and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectors.networks.registry import canonical
from pipeline.system.bounded_reads import MAX_WEIGHTS_BYTES, require_bounded
from pipeline.system.errors import UsageError, WeightsError, unknown_name
from pipeline.system.files import file_sha256

ZOO = Path(__file__).parents[1] / "zoo"
DEFAULT_DETECTOR = "tridos-nano"
"""Network of a weights file if none is named."""


@dataclass(frozen=True)
class ZooEntry:
    """A file of supplied weights."""

    file: str
    """File name in the folder of the zoo."""
    sha256: str
    """Hexadecimal digest of the file."""
    detector: str
    """Name in `detectors.DETECTORS`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the network."""
    classes: tuple[str, ...] = ("target",)
    """Names of the labels 0, 1, …"""
    note: str = ""
    """One line for `--list`: training data and properties."""


ZOO_TABLE: dict[str, ZooEntry] = {
    "tridos-nano-drone-ir": ZooEntry(
        file="tridos-nano-drone-ir.safetensors",
        sha256="8a64cabb56b12d1eeeb1ec50d1806e65848594e3015cffaae05cf2396b40d3bd",
        detector="tridos-nano",
        note="one class for airplanes, birds, drones and helicopters in 320x256 infrared video",
    ),
    "tridos-nano-drone-ir-fine": ZooEntry(
        file="tridos-nano-drone-ir-fine.safetensors",
        sha256="6a519a46842b9387233bbda4a8a78649438a49a16085ddbd9dda4fbf43c9dc6d",
        detector="tridos-nano",
        note="the same on frames enlarged by 1.5: detects dimmer targets at less than half the speed",
    ),
    "tridos-nano-drone-ir-4c": ZooEntry(
        file="tridos-nano-drone-ir-4c.safetensors",
        sha256="9bb5f0cfc26137b02b207f191fe33cfb2081b98b4877c9171632ac79d77a10ad",
        detector="tridos-nano",
        options={"num_classes": 4},
        classes=("airplane", "bird", "drone", "helicopter"),
        note="four classes, fine-tuned from the default; distant airplanes and birds are often confused",
    ),
    "plain-specks": ZooEntry(
        file="plain-specks.safetensors",
        sha256="b3e05cdb96d9d0ba097510b7c8c21b5471d91db71d60adb220a015f5c30fc017",
        detector="plain",
        options={"aligned": True},
        note="targets of 2 to 8 pixels in infrared video of several cameras, also moving ones",
    ),
    "datransnet-nuaa-sirst": ZooEntry(
        file="datransnet-nuaa-sirst.safetensors",
        sha256="e00f35e0badae8cb3135595235c4bb502c02a40f88249e24b7f6384651b20916",
        detector="datransnet",
        note="target pixels in single infrared images of many cameras",
    ),
    "rdian-nuaa-sirst": ZooEntry(
        file="rdian-nuaa-sirst.safetensors",
        sha256="41f3ecc1612f135fcd36d812367c23588f60164040b80fe80cf45b71b02e6fd0",
        detector="rdian",
        note="the same with a thirteenth of the parameters; fewer false areas, and fewer targets detected",
    ),
    "dconet-nuaa-sirst": ZooEntry(
        file="dconet-nuaa-sirst.safetensors",
        sha256="79410d06a8e94b988be4974fb4b0b0a0b049d9645fed043f509d2cef8769025e",
        detector="dconet",
        note="the same at a quarter of the speed; detects more, with an occasional large false area",
    ),
}
"""Name → weights. The first entry for a detector is its default."""


def default_weights(detector: str) -> str | None:
    """Returns the name of the default weights of a detector; None if it has none."""
    return next((name for name, entry in ZOO_TABLE.items() if entry.detector == detector), None)


def network_of(weights: str, detector: str | None) -> str:
    """Returns the name of the network that weights are for.

    That of weights in the table is known; a file is for the `detector` that is given, by default tridos-nano.
    Raises UsageError if another detector is given than that of the table.
    """
    entry = ZOO_TABLE.get(weights)
    if entry is None:
        return detector or DEFAULT_DETECTOR
    if detector and canonical(detector) != entry.detector:
        raise UsageError(
            f"--detector {detector}: weights '{weights}' are for '{entry.detector}'; leave it out"
        )
    return entry.detector


def weights_or_default(
    detector: str, given: str | None, *, kind: str = "detector", flag: str = "--weights"
) -> str:
    """Returns the given weights, else the name of the default ones.

    Raises WeightsError, naming `kind` and `flag`, if there are neither.
    """
    name = given or default_weights(detector)
    if name is None:
        raise WeightsError(f"no weights ship for {kind} '{detector}'; give a file with {flag}")
    return name


def locate_weights(name_or_path: str) -> tuple[Path, ZooEntry | None]:
    """Returns the file of a zoo name or path, and its row of the table if it is in the zoo.

    Raises WeightsError if the file is missing or, for a zoo name, its checksum is wrong.
    """
    if name_or_path in ZOO_TABLE:
        entry = ZOO_TABLE[name_or_path]
        path = ZOO / entry.file
        if not path.is_file():
            raise WeightsError(f"weights '{name_or_path}' are missing: no file {path}; reinstall the project")
        if file_sha256(path) != entry.sha256:
            raise WeightsError(f"weights '{name_or_path}' are damaged: wrong checksum of {path}; reinstall")
        return path, entry
    path = Path(name_or_path)
    if not path.exists() and not path.suffix:
        unknown = unknown_name("weights", name_or_path, ZOO_TABLE)
        raise WeightsError(f"{unknown}, and no such file")
    if path.is_dir():
        raise WeightsError(f"weights {path} is a folder; give a file")
    if not path.exists():
        raise WeightsError(f"weights file {path} does not exist")
    try:
        require_bounded(path, limit=MAX_WEIGHTS_BYTES)
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror}") from error
    return path, None
