"""Exported graphs on disk: a folder with one file a graph, and `export.json`, which says what they are."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.system.errors import OutputError, UsageError, WeightsError
from pipeline.system.files import replace_on_success

if TYPE_CHECKING:
    from detectors.backends.graphs import Graph
    from detectors.networks.tridos import Tridos

log = logging.getLogger(__name__)

NETWORKS = ("tridos", "tridos-nano")
"""Detectors that can be exported."""
FORMATS = {"onnx": "onnx", "torch-export": "pt2"}
"""Format → ending of its files."""
MANIFEST = "export.json"
OPSET = 18
"""Of ONNX: the least that has all that is needed, so that old runtimes read it too."""
CACHE = Path("~/.cache/mote/exported")
"""Where graphs are kept that were exported for a run."""


@dataclass(frozen=True)
class Origin:
    """Whose graphs they are: what a run needs to know of a network besides the graphs."""

    detector: str
    """Name in `detectors.DETECTORS`."""
    weights: str
    """Name or file that was exported."""
    sha256: str
    """Of the weights file."""
    classes: tuple[str, ...]
    """What the labels 0, 1, … mean."""
    enlarge: float
    """Network pixels per source pixel that the weights were trained with."""
    parameters: int
    width: float
    """Of the network, as a share of the published one."""


@dataclass(frozen=True)
class Export:
    """A folder of graphs."""

    folder: Path
    origin: Origin
    format: str
    """A name in `FORMATS`."""
    size: tuple[int, int]
    """(width, height) of the input in pixels."""

    def file(self, graph: str) -> Path:
        """Where a graph, frame, pair or join, is stored."""
        return self.folder / f"{graph}.{FORMATS[self.format]}"


def require(package: str, purpose: str) -> None:
    """Raise UsageError, with the line that installs it, where an optional package is missing."""
    if util.find_spec(package) is None:
        raise UsageError(f"{purpose} needs the package {package}; install it with: pip install {package}")


def write(model: Tridos, origin: Origin, folder: Path, *, size: tuple[int, int], kind: str) -> Export:
    """Export a network for one size of input, (width, height), in format `kind` into a folder that is made.

    The manifest comes last and all at once, so a folder with one is whole. Raises UsageError for a missing
    package, OutputError where the folder cannot be written.
    """
    if kind == "onnx":
        require("onnx", "export to ONNX")
    from detectors.backends.graphs import graphs

    export = Export(folder, origin, kind, size)
    table = {"format": kind, "size": size, "versions": versions(), **asdict(origin)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        for name, graph in graphs(model, size).items():
            _WRITERS[kind](graph, export.file(name))
        with replace_on_success(folder / MANIFEST) as partial:
            partial.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    return export


def _write_onnx(graph: Graph, path: Path) -> None:
    """One graph as ONNX with the first axis of all its tensors free.

    By torch's exporter that traces: 1 s of work for a network. The newer one takes 15 s for graphs that
    compute the same, which is long for a run that only waits for its first frame.
    """
    import torch

    names = (*graph.inputs, *graph.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its successor, and sizes that are constant on purpose
        torch.onnx.export(
            graph.module,
            graph.examples,
            str(path),
            dynamo=False,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={name: {0: "samples"} for name in names},
            opset_version=OPSET,
        )


def _write_torch(graph: Graph, path: Path) -> None:
    """One graph as a program of torch.export, with the first axis of all its tensors free."""
    import torch

    samples = torch.export.Dim("samples")
    shapes = tuple({0: samples} for _ in graph.examples)
    torch.export.save(torch.export.export(graph.module, graph.examples, dynamic_shapes=shapes), path)


_WRITERS = {"onnx": _write_onnx, "torch-export": _write_torch}


def read(folder: Path) -> Export:
    """What a folder holds. Raises WeightsError where it is no export, or not a whole one."""
    try:
        table = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = {field.name: table[field.name] for field in fields(Origin)}
        origin = Origin(**{**known, "classes": tuple(known["classes"])})
        export = Export(folder, origin, table["format"], tuple(table["size"]))
        missing = [path for path in map(export.file, ("frame", "pair", "join")) if not path.is_file()]
    except FileNotFoundError as error:
        remedy = "give a weights file, or a folder written by python -m detectors.export"
        raise WeightsError(f"weights {folder} is a folder without {MANIFEST}; {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder / MANIFEST} is damaged; export again") from error
    if missing:
        raise WeightsError(f"exported graph {missing[0]} is missing; export again")
    return export


def cached(
    model: Tridos, origin: Origin, *, size: tuple[int, int], kind: str, cache: Path | None = None
) -> Export:
    """The export of a network that was made before, else a new one that is kept in the folder `cache`.

    Another run that does the same at the same time is not disturbed. Raises what `write` raises.
    """
    key = {"size": size, "format": kind, "code": _code(), "versions": versions(), **asdict(origin)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{origin.detector}-{origin.sha256[:12]}-{size[0]}x{size[1]}-{digest}"
    folder = (cache or CACHE).expanduser() / name
    if (folder / MANIFEST).is_file():
        return read(folder)
    own, started = folder.with_name(f"{name}.{os.getpid()}.part"), time.perf_counter()
    try:
        write(model, origin, own, size=size, kind=kind)
        if not (folder / MANIFEST).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            own.rename(folder)
    except OSError as error:
        if not (folder / MANIFEST).is_file():  # else another run was faster
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(own, ignore_errors=True)
    told = "exported %s for input of %dx%d in %.1f s; later runs take it from %s"
    log.warning(told, origin.detector, *size, time.perf_counter() - started, folder)
    return read(folder)


def unwritable(cache: Path | None = None) -> str:
    """Why nothing can be kept in the folder `cache`, which is made where it is missing; empty if it can."""
    folder = (cache or CACHE).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return "" if os.access(folder, os.W_OK) else f"{folder}: it may not be written"


def versions() -> Mapping[str, str]:
    """The packages that decide what an export looks like."""
    return {name: metadata.version(name) for name in ("torch", "onnx") if util.find_spec(name)}


def _code() -> str:
    """SHA-256 of the modules that decide what a graph computes, so that a change exports again."""
    from detectors import backends
    from detectors.networks import layers, tridos

    folders = [Path(package.__file__).parent for package in (backends, tridos, layers)]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def origin_of(name: str, chosen: str, path: Path, model: Tridos, classes: tuple[str, ...]) -> Origin:
    """What is to be known of `model`, whose weights `chosen` are in the file `path`."""
    from detectors.weights import restore, zoo

    return Origin(
        detector=name,
        weights=chosen,
        sha256=zoo.sha256(path),
        classes=classes,
        enlarge=restore.enlargement(path),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        width=model.width,
    )


def require_exportable(name: str, what: str) -> None:
    """Raise UsageError for a detector that has no graphs; `what` asks for them."""
    if name not in NETWORKS:
        raise UsageError(f"{what} is for {' and '.join(NETWORKS)}, not for '{name}'")
