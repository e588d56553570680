"""Exported graphs on disk: a folder with one file per graph and a manifest, `export.json`.

The manifest holds the size and the digest of each graph, and a digest of itself: a graph is used only if its
bytes are those that were written.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.system.errors import UsageError, WeightsError
from pipeline.system.files import file_sha256, output_error, replace_on_success
from pipeline.system.packages import is_installed, require_package

if TYPE_CHECKING:
    from detectors.backends.graphs import Graph
    from detectors.networks.tridos import Tridos

NETWORKS = ("tridos", "tridos-nano")
"""Names of the detectors that can be exported."""
FORMATS = {"onnx": "onnx", "torch-export": "pt2"}
"""Format → extension of its files."""
GRAPHS = ("frame", "pair", "join")
"""Names of the graphs; see `detectors.backends.graphs`."""
MANIFEST = "export.json"
OPSET = 18
"""ONNX operator set: the lowest that suffices, so that old runtimes can read the files."""
MAX_MANIFEST = 1 << 20
"""Bytes of the largest manifest that is read; they have a few hundred."""

Contents = dict[str, bytes]
"""The bytes of each graph of `GRAPHS`."""


class GraphFile(NamedTuple):
    """What a manifest says of the file of a graph."""

    bytes: int
    """Size of the file."""
    sha256: str
    """Hexadecimal digest of its content."""


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
    files: Mapping[str, GraphFile] = field(default_factory=dict)
    """The graphs of `GRAPHS` as they were written."""

    def file(self, graph: str) -> Path:
        """Returns the file of a graph of `GRAPHS`."""
        return self.folder / f"{graph}.{FORMATS[self.format]}"


def export_network(
    model: Tridos, origin: Origin, folder: Path, *, size: tuple[int, int], kind: str
) -> Export:
    """Exports a network to a folder, for inputs of one size (width, height) in the format `kind`.

    Raises UsageError for a missing package, OutputError if the folder cannot be written.
    """
    contents = encode_network(model, size=size, kind=kind)
    try:
        return write_export(contents, origin, folder, size=size, kind=kind)
    except OSError as error:
        raise output_error(folder, error) from error


def encode_network(model: Tridos, *, size: tuple[int, int], kind: str) -> Contents:
    """Returns the graphs of a network for inputs of one size (width, height) in the format `kind`.

    Raises UsageError for a missing package.
    """
    if kind == "onnx":
        require_package("onnx", "export to ONNX")
    from detectors.backends.graphs import graphs

    return {name: _ENCODERS[kind](graph) for name, graph in graphs(model, size).items()}


def write_export(
    contents: Contents, origin: Origin, folder: Path, *, size: tuple[int, int], kind: str
) -> Export:
    """Writes the graphs of a network, for inputs of `size` in the format `kind`, to a folder.

    The manifest is removed first and written last. When this returns, the files are on the disk. Raises
    OSError if the folder cannot be written.
    """
    files = {name: GraphFile(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    export = Export(folder, origin, kind, size, files)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, data in contents.items():
        with replace_on_success(export.file(name)) as partial:
            partial.write_bytes(data)
    with replace_on_success(folder / MANIFEST) as partial:
        partial.write_text(json.dumps(_manifest(export), indent=2) + "\n", encoding="utf-8")
    return export


def _manifest(export: Export) -> dict[str, Any]:
    table = {
        "format": export.format,
        "size": export.size,
        "versions": versions(),
        **asdict(export.origin),
        "graphs": {name: file._asdict() for name, file in export.files.items()},
    }
    return {**table, "digest": _digest_of(table)}


def _digest_of(table: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a table that JSON can hold, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _encode_onnx(graph: Graph) -> bytes:
    """Returns a graph as ONNX with a variable first axis of all tensors.

    Uses torch's tracing exporter, which takes 1 s for a network. The newer exporter takes 15 s for equivalent
    graphs, which would delay the first frame of a run.
    """
    import torch

    names, file = (*graph.inputs, *graph.outputs), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its deprecation, and about sizes that are constant on purpose
        torch.onnx.export(
            graph.module,
            graph.examples,
            file,  # type: ignore[arg-type]  # the tracing exporter also writes to memory
            dynamo=False,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={name: {0: "samples"} for name in names},
            opset_version=OPSET,
        )
    return file.getvalue()


def _encode_torch(graph: Graph) -> bytes:
    """Returns a graph as a program of torch.export with a variable first axis of all tensors."""
    import torch

    samples, file = torch.export.Dim("samples"), io.BytesIO()
    shapes = tuple({0: samples} for _ in graph.examples)
    torch.export.save(torch.export.export(graph.module, graph.examples, dynamic_shapes=shapes), file)
    return file.getvalue()


_ENCODERS = {"onnx": _encode_onnx, "torch-export": _encode_torch}


def read_export(folder: Path) -> Export:
    """Reads the manifest of a folder; the graphs are read by `read_graphs`.

    Raises WeightsError if there is none, or it is damaged or of an earlier version.
    """
    path = folder / MANIFEST
    if folder.is_dir() and not path.exists():
        remedy = "give a weights file, or a folder written by python -m detectors.export"
        raise WeightsError(f"weights {folder} is a folder without {MANIFEST}; {remedy}")
    try:
        table = json.loads(_read_regular(path, MAX_MANIFEST))
        if isinstance(table, dict) and "detector" in table and "digest" not in table:
            raise WeightsError(f"{path} holds no digests, as in earlier versions; export again")
        if table.pop("digest") != _digest_of(table):
            raise ValueError("another digest")
        known = {item.name: table[item.name] for item in fields(Origin)}
        origin = Origin(**{**known, "classes": tuple(known["classes"])})
        rows = {name: table["graphs"][name] for name in GRAPHS}
        files = {name: GraphFile(int(row["bytes"]), str(row["sha256"])) for name, row in rows.items()}
        kind, (width, height) = table["format"], map(int, table["size"])
        if kind not in FORMATS:
            raise ValueError(f"format {kind}")
        return Export(folder, origin, kind, (width, height), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged; export again") from error


def read_graphs(export: Export) -> Contents:
    """Reads the graphs of a folder. Raises WeightsError unless they are as they were written."""
    return {name: _read_graph(export.file(name), file) for name, file in export.files.items()}


def _read_graph(path: Path, expected: GraphFile) -> bytes:
    try:
        data = _read_regular(path, expected.bytes)
    except FileNotFoundError as error:
        raise WeightsError(f"exported graph {path} is missing; export again") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"exported graph {path} is damaged: {reason}; export again") from error
    if len(data) != expected.bytes:
        sizes = f"{len(data)} bytes instead of {expected.bytes}"
        raise WeightsError(f"exported graph {path} is damaged: {sizes}; export again")
    if hashlib.sha256(data).hexdigest() != expected.sha256:
        raise WeightsError(f"exported graph {path} is damaged: its digest is another one; export again")
    return data


def _read_regular(path: Path, limit: int) -> bytes:
    """Returns the content of a file. Raises ValueError if it has more than `limit` bytes or is no file."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"more than {limit} bytes")
    return data


def versions() -> Mapping[str, str]:
    """Returns the versions of the packages that determine an export."""
    return {name: metadata.version(name) for name in ("torch", "onnx") if is_installed(name)}


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
