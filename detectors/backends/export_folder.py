"""Exported graphs on disk: a folder with one file per graph and a manifest, `export.json`."""

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
from pipeline.system.files import file_sha256, replace_on_success

if TYPE_CHECKING:
    from detectors.backends.graphs import Graph
    from detectors.networks.tridos import Tridos

log = logging.getLogger(__name__)

NETWORKS = ("tridos", "tridos-nano")
"""Names of the detectors that can be exported."""
FORMATS = {"onnx": "onnx", "torch-export": "pt2"}
"""Format → extension of its files."""
GRAPHS = ("frame", "pair", "join")
"""Names of the graphs; see `detectors.backends.graphs`."""
MANIFEST = "export.json"
OPSET = 18
"""ONNX operator set: the lowest that suffices, so that old runtimes can read the files."""
CACHE = Path("~/.cache/mote/exported")
"""Default folder of the graphs that runs export."""


@dataclass(frozen=True)
class Origin:
    """The network that was exported: what a run needs to know besides the graphs."""

    detector: str
    """Name in `detectors.networks.registry.DETECTORS`."""
    weights: str
    """Name or file of the weights."""
    sha256: str
    """Hexadecimal digest of the weights file."""
    classes: tuple[str, ...]
    """Names of the labels 0, 1, …"""
    enlarge: float
    """Network pixels per source pixel in training."""
    parameters: int
    """Number of parameters."""
    width: float
    """Channel counts as a share of those of the published network."""


@dataclass(frozen=True)
class Export:
    """A folder of exported graphs."""

    folder: Path
    origin: Origin
    format: str
    """Key of `FORMATS`."""
    size: tuple[int, int]
    """(width, height) of the input in pixels."""

    def file(self, graph: str) -> Path:
        """Returns the file of a graph of `GRAPHS`."""
        return self.folder / f"{graph}.{FORMATS[self.format]}"


def require_package(package: str, purpose: str) -> None:
    """Raises UsageError, with the command that installs it, if an optional package is missing."""
    if util.find_spec(package) is None:
        raise UsageError(f"{purpose} needs the package {package}; install it with: pip install {package}")


def export_network(
    model: Tridos, origin: Origin, folder: Path, *, size: tuple[int, int], kind: str
) -> Export:
    """Exports a network to a folder, for inputs of one size (width, height) in the format `kind`.

    The manifest is written last and atomically, so a folder with a manifest is complete. Raises UsageError
    for a missing package, OutputError if the folder cannot be written.
    """
    if kind == "onnx":
        require_package("onnx", "export to ONNX")
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
    """Writes a graph as ONNX with a variable first axis of all tensors.

    Uses torch's tracing exporter, which takes 1 s for a network. The newer exporter takes 15 s for equivalent
    graphs, which would delay the first frame of a run.
    """
    import torch

    names = (*graph.inputs, *graph.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its deprecation, and about sizes that are constant on purpose
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
    """Writes a graph as a program of torch.export with a variable first axis of all tensors."""
    import torch

    samples = torch.export.Dim("samples")
    shapes = tuple({0: samples} for _ in graph.examples)
    torch.export.save(torch.export.export(graph.module, graph.examples, dynamic_shapes=shapes), path)


_WRITERS = {"onnx": _write_onnx, "torch-export": _write_torch}


def read_export(folder: Path) -> Export:
    """Reads the manifest of a folder. Raises WeightsError if it is not an export or incomplete."""
    try:
        table = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known = {field.name: table[field.name] for field in fields(Origin)}
        origin = Origin(**{**known, "classes": tuple(known["classes"])})
        export = Export(folder, origin, table["format"], tuple(table["size"]))
        missing = [path for path in map(export.file, GRAPHS) if not path.is_file()]
    except FileNotFoundError as error:
        remedy = "give a weights file, or a folder written by python -m detectors.export"
        raise WeightsError(f"weights {folder} is a folder without {MANIFEST}; {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder / MANIFEST} is damaged; export again") from error
    if missing:
        raise WeightsError(f"exported graph {missing[0]} is missing; export again")
    return export


def cached_export(
    model: Tridos, origin: Origin, *, size: tuple[int, int], kind: str, cache: Path | None = None
) -> Export:
    """Returns the export of a network from the folder `cache`, to which it is exported if missing.

    Runs may do so concurrently. Raises as `export_network` does.
    """
    key = {"size": size, "format": kind, "code": code_digest(), "versions": versions(), **asdict(origin)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{origin.detector}-{origin.sha256[:12]}-{size[0]}x{size[1]}-{digest}"
    folder = (cache or CACHE).expanduser() / name
    if (folder / MANIFEST).is_file():
        return read_export(folder)
    temporary, started = folder.with_name(f"{name}.{os.getpid()}.part"), time.perf_counter()
    try:
        export_network(model, origin, temporary, size=size, kind=kind)
        if not (folder / MANIFEST).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
    except OSError as error:
        if not (folder / MANIFEST).is_file():  # else another run has exported it meanwhile
            raise OutputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    message = "exported %s for input of %dx%d in %.1f s; later runs take it from %s"
    log.warning(message, origin.detector, *size, time.perf_counter() - started, folder)
    return read_export(folder)


def cache_fault(cache: Path | None = None) -> str:
    """Creates the folder `cache`; returns why it cannot be written to, empty if it can."""
    folder = (cache or CACHE).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return "" if os.access(folder, os.W_OK) else f"{folder}: no permission to write"


def versions() -> Mapping[str, str]:
    """Returns the versions of the packages that determine an export."""
    return {name: metadata.version(name) for name in ("torch", "onnx") if util.find_spec(name)}


def code_files() -> list[Path]:
    """Returns the modules that determine what a graph computes."""
    from detectors import backends
    from detectors.networks import layers, tridos

    folders = [Path(folder) for package in (backends, tridos, layers) for folder in package.__path__]
    return [file for folder in folders for file in sorted(folder.glob("*.py"))]


def code_digest() -> str:
    """Returns the SHA-256 of `code_files`, so that a changed network is exported again."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in code_files())).hexdigest()


def describe_origin(name: str, weights: str, path: Path, model: Tridos, classes: tuple[str, ...]) -> Origin:
    """Describes the detector `name` with `weights`, a name or file, read from the file `path`."""
    from detectors.weights import restore

    return Origin(
        detector=name,
        weights=weights,
        sha256=file_sha256(path),
        classes=classes,
        enlarge=restore.trained_enlargement(path),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        width=model.width,
    )


def require_exportable(name: str, purpose: str) -> None:
    """Raises UsageError for a detector that cannot be exported; `purpose` begins the message."""
    if name not in NETWORKS:
        raise UsageError(f"{purpose} is for {' and '.join(NETWORKS)}, not for '{name}'")
