"""Weights by name or path: verified, loaded safely, and never in part.

Files of this project are safetensors with plain metadata. Published checkpoints are pickles: they are read
with torch's `weights_only` guard, which executes no code. Beside the weights they may hold scores as numbers
of NumPy, which are passed over.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import GREATEST_SCALE, LEAST_SCALE
from pipeline.errors import OutputError, UsageError, WeightsError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

ZOO = Path(__file__).parent / "zoo"
WRAPPERS = ("state_dict", "model", "ema", "net")
"""Keys under which programs of the field store a state dict inside their checkpoint."""
PREFIXES = ("module.", "model.", "decode_head.")
"""What programs of the field put before all names: the attribute under which they keep the network."""
MOST_UNPACKED = 20
"""Times its own size that an archive may unpack to: torch packs without compressing, others by a little."""


class PassedOver(dict):
    """Stands for an object in a checkpoint that is no weight: takes all that is stored and keeps nothing."""

    def __init__(self, *_, **__):
        super().__init__()

    def __setstate__(self, _):
        pass

    def __setitem__(self, *_):
        pass

    def update(self, *_, **__):
        """Takes entries and keeps none."""


# In place of NumPy's own constructors, which are not made for data from strangers.
_NUMPY_NAMES = {
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("scalar", "_reconstruct"),
    "numpy._core.multiarray": ("scalar", "_reconstruct"),  # since NumPy 2
}
_STAND_INS = [
    type(name, (PassedOver,), {"__module__": module})
    for module, names in _NUMPY_NAMES.items()
    for name in names
]


@dataclass(frozen=True)
class ZooEntry:
    """Weights that ship with the project."""

    file: str
    """File name inside the zoo."""
    sha256: str
    detector: str
    """Name in `detectors.DETECTORS`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options the network is built with."""
    classes: tuple[str, ...] = ("target",)
    """What the labels 0, 1, … mean."""
    note: str = ""
    """One line: trained on what."""


ZOO_TABLE: dict[str, ZooEntry] = {
    "tridos-nano-drone-ir": ZooEntry(
        file="tridos-nano-drone-ir.safetensors",
        sha256="8a64cabb56b12d1eeeb1ec50d1806e65848594e3015cffaae05cf2396b40d3bd",
        detector="tridos-nano",
        note="one class, airplanes, birds, drones and helicopters in 320x256 infrared video",
    ),
    "tridos-nano-drone-ir-fine": ZooEntry(
        file="tridos-nano-drone-ir-fine.safetensors",
        sha256="6a519a46842b9387233bbda4a8a78649438a49a16085ddbd9dda4fbf43c9dc6d",
        detector="tridos-nano",
        note="the same on frames enlarged by 1.5: finds dimmer targets at less than half the speed",
    ),
    "tridos-nano-drone-ir-4c": ZooEntry(
        file="tridos-nano-drone-ir-4c.safetensors",
        sha256="9bb5f0cfc26137b02b207f191fe33cfb2081b98b4877c9171632ac79d77a10ad",
        detector="tridos-nano",
        options={"num_classes": 4},
        classes=("airplane", "bird", "drone", "helicopter"),
        note="four classes, from the default's weights; classes are often wrong for far airplanes and birds",
    ),
    "datransnet-nuaa-sirst": ZooEntry(
        file="datransnet-nuaa-sirst.safetensors",
        sha256="e00f35e0badae8cb3135595235c4bb502c02a40f88249e24b7f6384651b20916",
        detector="datransnet",
        note="pixels of targets in single infrared pictures of many cameras",
    ),
    "rdian-nuaa-sirst": ZooEntry(
        file="rdian-nuaa-sirst.safetensors",
        sha256="41f3ecc1612f135fcd36d812367c23588f60164040b80fe80cf45b71b02e6fd0",
        detector="rdian",
        note="the same, of a thirteenth of the size; fewer false areas, and fewer targets found",
    ),
    "dconet-nuaa-sirst": ZooEntry(
        file="dconet-nuaa-sirst.safetensors",
        sha256="79410d06a8e94b988be4974fb4b0b0a0b049d9645fed043f509d2cef8769025e",
        detector="dconet",
        note="the same, four times as slow; finds more, and now and then a large false area",
    ),
}
"""Name → weights. The first entry for a detector is its default."""


def default_weights(detector: str) -> str | None:
    """Name of the weights that ship for a detector; None where there are none."""
    return next((name for name, entry in ZOO_TABLE.items() if entry.detector == detector), None)


def chosen(detector: str, given: str | None, *, kind: str = "detector", flag: str = "--weights") -> str:
    """The weights that are given, else those that ship. Raises WeightsError, naming `flag`, where none do."""
    name = given or default_weights(detector)
    if name is None:
        raise WeightsError(f"no weights ship for {kind} '{detector}'; give a file with {flag}")
    return name


def locate(name_or_path: str) -> tuple[Path, ZooEntry | None]:
    """The file behind a zoo name or a path, verified against the table's checksum when it is ours."""
    if name_or_path in ZOO_TABLE:
        entry = ZOO_TABLE[name_or_path]
        path = ZOO / entry.file
        if not path.is_file():
            raise WeightsError(f"weights '{name_or_path}' are missing: no file {path}; reinstall the project")
        if sha256(path) != entry.sha256:
            raise WeightsError(f"weights '{name_or_path}' are damaged: wrong checksum of {path}; reinstall")
        return path, entry
    path = Path(name_or_path)
    if not path.exists() and not path.suffix:
        unknown = unknown_name("weights", name_or_path, ZOO_TABLE)
        raise WeightsError(f"{unknown}, and no such file")
    if path.is_dir():
        raise WeightsError(f"weights {path} is a folder; give a file")
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist")
    return path, None


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a checkpoint, under bare names.

    Wrappers (`state_dict`, `model`, …) are opened and prefixes common to all names are taken off.
    Raises WeightsError when the file is damaged, holds anything but tensors, or could run code.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        require_plain_archive(path)
        with torch.serialization.safe_globals(_STAND_INS):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"cannot read weights {path}: {error.strerror or error}") from error
    except Exception as error:  # both libraries raise many kinds for bad bytes
        # What torch says is left out: it advises to turn the guard against foreign code off.
        reason = "not safetensors and not a plain checkpoint"
        if path.suffix == ".safetensors":
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = f"not safetensors ({first_line[:120]})"
        raise WeightsError(f"{path} is not a safe weights file: {reason}") from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path} holds no state dict")
    strangers = [
        str(name)
        for name, value in loaded.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if strangers:
        raise WeightsError(f"{path} holds no state dict: {', '.join(strangers[:3])} are not named tensors")
    return bare(loaded)


def require_plain_archive(path: Path) -> None:
    """Raise ValueError for an archive that unpacks to more than it can mean, or that holds a program."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    unpacked, size = sum(part.file_size for part in parts), path.stat().st_size
    if unpacked > MOST_UNPACKED * size:
        raise ValueError(f"{size} bytes unpack to {unpacked}")
    if any(part.filename.endswith("/constants.pkl") for part in parts):
        raise ValueError("it is a program of TorchScript")


def bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without prefixes common to all its names, as wrappers of networks add them."""
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def load(model: nn.Module, path: Path) -> None:
    """Fill `model` from a file, whole or not at all.

    Half-precision files are widened. Raises WeightsError with the lists of missing, unexpected and misshapen
    entries when the file belongs to another network.
    """
    fill(model, read_state_dict(path), path)


def fill(model: nn.Module, found: Mapping[str, Tensor], path: Path) -> None:
    """What `load` does, with the tensors that were read from `path`."""
    require_fit(model, found, path)
    model.load_state_dict(found)


def require_fit(model: nn.Module, found: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError, as `load` does, where the tensors read from `path` are not those of the model."""
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(found))
    unexpected = sorted(set(found) - set(wanted))
    misshapen = sorted(
        f"{name} {list(found[name].shape)} for {list(wanted[name].shape)}"
        for name in set(found) & set(wanted)
        if found[name].shape != wanted[name].shape
    )
    kinds = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    faults = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]
    if faults:
        name, lists = type(model).__name__, "; ".join(faults)
        raise WeightsError(f"{path} is not for this {name}: {lists}; choose the fitting --detector")


def network(detector: str, name_or_path: str) -> tuple[nn.Module, Path, ZooEntry | None]:
    """`detector` with the named weights, the file they are in, and their row of the table when they are ours.

    Options come from the table, else from what the file's shapes tell. Raises what `locate`, `load` and
    `detectors.build` raise.
    """
    import torch

    import detectors

    path, entry = locate(name_or_path)
    state = read_state_dict(path)
    options = dict(entry.options) if entry else options_of(state, path, detector)
    if not entry:  # what a file tells of its network may take any amount of memory: nothing is made of it yet
        with torch.device("meta"):
            require_fit(detectors.build(detector, **options), state, path)
    model = detectors.build(detector, **options)
    fill(model, state, path)
    return model, path, entry


def _some(names: list[str], limit: int = 4) -> str:
    rest = f", … {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def save(state: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, Any], half: bool = False) -> None:
    """Write a state dict as safetensors, metadata as JSON text.

    `half` stores float32 tensors in 16 bits, those that do not fit the range excepted. Raises OutputError
    when the file cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    if not metadata:
        raise UsageError("weights need metadata: at least what they were trained on")
    limit = torch.finfo(torch.float16).max
    tensors = {
        name: (value.half() if half and _fits(value, limit) else value).contiguous().cpu()
        for name, value in state.items()
    }
    partial = path.with_suffix(".part")
    try:
        save_file(tensors, partial, metadata={key: json.dumps(value) for key, value in metadata.items()})
        partial.replace(path)
    except Exception as error:  # safetensors reports a full disk or a missing folder in an error of its own
        raise OutputError(f"cannot write weights {path}: {error}") from error


def _fits(value: Tensor, limit: float) -> bool:
    """Whether a tensor is float32 and within ±limit."""
    return value.dtype.itemsize == 4 and value.is_floating_point() and bool((value.abs() <= limit).all())


def enlargement(path: Path) -> float:
    """Network pixels per source pixel that weights were trained with, as their metadata tell; else 1."""
    try:
        scale = float(_recipe(path)["data"]["enlarge"])
    except (ValueError, TypeError, KeyError):  # not of our trainer, or from before it could enlarge
        return 1.0
    return scale if LEAST_SCALE <= scale <= GREATEST_SCALE else 1.0


def _recipe(path: Path) -> Any:
    """The recipe in the metadata of a file of our trainer; empty for others."""
    if path.suffix != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get("recipe", "{}")
    try:
        return json.loads(text)
    except ValueError:
        return {}


def options_of(state: Mapping[str, Tensor], path: Path, detector: str) -> dict[str, Any]:
    """Builder options that the shapes in a file tell, and those in its metadata; empty where neither does."""
    import detectors

    name = detectors.canonical(detector)
    state = {key: tensor for key, tensor in state.items() if tensor.ndim}  # single numbers have no length
    classes = state.get("head.cls_preds.0.bias")
    told = {} if classes is None else {"num_classes": len(classes)}
    if name in detectors.SEGMENTERS:
        told = detectors.segmenter_class(name).options_from(state)
    try:
        model = _recipe(path)["model"]
        return {**told, **model["options"]} if detectors.canonical(model["name"]) == name else told
    except (AttributeError, KeyError, TypeError, UsageError):  # not of our trainer
        return told
