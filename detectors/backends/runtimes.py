"""Backends: torch itself, or another runtime that runs exported graphs of a network.

An `ExportedNetwork` has the interface of the network it was exported from: it takes frames, pairs and windows
as tensors on the CPU, and has streams.
"""

from __future__ import annotations

import importlib
import io
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from detectors.backends import export_folder
from detectors.backends.devices import LARGE, join_count, require_compiler, thread_count
from detectors.backends.export_folder import NETWORKS, Contents, Export, Origin
from detectors.backends.graph_cache import GraphCache
from detectors.networks.tridos import TridosStream
from detectors.networks.tridos.features import FRAMES, FrameFeatures
from detectors.networks.tridos.head import STRIDE
from pipeline.config.schema import DetectorConfig
from pipeline.structures import detector_info
from pipeline.system.errors import UsageError, WeightsError
from pipeline.system.packages import is_installed, require_package
from pipeline.system.progress import working_on

if TYPE_CHECKING:
    from detectors.networks.tridos import Tridos


log = logging.getLogger(__name__)

BackendKind = detector_info.Backend
"""Name of a backend."""


class GraphRunner(Protocol):
    """A graph that is ready to run, also in several threads at once."""

    def __init__(self, graph: bytes, *, threads: int):
        """Reads the content of a graph's file; raises any exception for files of another kind."""

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Returns the outputs for CPU tensors in the order of the graph's inputs."""


class TorchRunner:
    """A program of torch.export; the number of threads is that of torch."""

    def __init__(self, graph: bytes, *, threads: int):
        self._program = torch.export.load(io.BytesIO(graph)).module()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """See `GraphRunner`."""
        outputs = self._program(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)


class OnnxRuntimeRunner:
    """An ONNX graph in ONNX Runtime."""

    def __init__(self, graph: bytes, *, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # spinning threads would keep the cores from decoder and encoder
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; warnings are about optimisations that do not apply
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._names = [tensor.name for tensor in self._session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """See `GraphRunner`."""
        arrays = (tensor.contiguous().numpy() for tensor in inputs)
        outputs = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return [torch.from_numpy(output) for output in outputs]


class OpenVinoRunner:
    """An ONNX graph in OpenVINO."""

    def __init__(self, graph: bytes, *, threads: int):
        import openvino

        requests = join_count() if threads == 1 else 1
        settings = {
            "INFERENCE_NUM_THREADS": threads * requests,
            "NUM_STREAMS": requests,
            "INFERENCE_PRECISION_HINT": "f32",  # the default is bf16 on CPUs that support it
            "ENABLE_CPU_PINNING": False,  # decoder and encoder need the cores too
        }
        core = openvino.Core()
        model = core.read_model(io.BytesIO(graph))
        self._model = core.compile_model(model, "CPU", settings)
        self._requests = threading.local()  # a request serves one thread at a time

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """See `GraphRunner`."""
        arrays = [tensor.contiguous().numpy() for tensor in inputs]
        if not hasattr(self._requests, "own"):
            self._requests.own = self._model.create_infer_request()
        outputs = self._requests.own.infer(arrays, share_inputs=True, share_outputs=False)
        return [torch.from_numpy(outputs[number]) for number in range(len(outputs))]


class Runtime(NamedTuple):
    """A runtime of exported graphs."""

    runner: type[GraphRunner]
    format: str
    """Format that it reads, a key of `export_folder.FORMATS`."""
    package: str
    """Package that it requires."""


BACKENDS: dict[BackendKind, Runtime] = {
    "torch": Runtime(TorchRunner, "torch-export", "torch"),
    "onnxruntime": Runtime(OnnxRuntimeRunner, "onnx", "onnxruntime"),
    "openvino": Runtime(OpenVinoRunner, "onnx", "openvino"),
}
"""Runtimes by the name of the backend."""

ON_CPU: dict[str, BackendKind] = {"tridos": "torch", "tridos-nano": "onnxruntime"}
"""Backend that `auto` chooses on a CPU for an exportable network, if its packages are installed."""


@dataclass(frozen=True)
class Backend:
    """Where a network is computed."""

    kind: BackendKind
    """Key of `BACKENDS`; torch for networks that are not exported."""
    device: torch.device
    threads: int = 0
    """Number of CPU threads of an operation; 0 if it depends on the network."""

    def thread_count(self, network: object) -> int:
        """Returns the number of CPU threads for a network."""
        return self.threads or thread_count(network)


def resolve_backend(
    name: str, config: DetectorConfig, device: torch.device, *, export: Export | None = None
) -> Backend:
    """Chooses the backend of the detector `name` on a device.

    `export` is the folder of graphs that is given in place of weights, if any. `auto` takes torch if another
    backend is not installed, and with a warning if it cannot be imported. Raises UsageError for requests that
    cannot be met, WeightsError for graphs that need an explicit choice.
    """
    if config.compile:
        export_folder.require_exportable(name, "--compile")
        require_compiler(device)
    if export:
        kind = _backend_of_export(export, config)
    elif config.backend == "auto":
        kind = _fastest_backend(name, config, device)
    else:
        kind = config.backend
    if kind == "torch" and not export:
        return Backend(kind, device, config.threads)
    if config.backend != "auto" or export:
        flag = f"--backend {kind}"
        export_folder.require_exportable(name, flag)
        for package in required_packages(kind):
            require_package(package, flag)
        require_cpu_fp32(config, flag)
    return Backend(kind, torch.device("cpu"), config.threads)


def _backend_of_export(export: Export, config: DetectorConfig) -> BackendKind:
    """Returns the requested backend, else the first that reads the format of a folder of graphs."""
    require_cpu_fp32(config, f"exported network {export.folder}")
    if config.backend != "auto":
        return config.backend
    if export.format == "torch-export":
        remedy = "give --backend torch if you trust it, or export with --format onnx"
        raise WeightsError(f"{export.folder} holds programs of torch, which can run any code: {remedy}")
    return next(name for name, runtime in BACKENDS.items() if runtime.format == export.format)


def _fastest_backend(name: str, config: DetectorConfig, device: torch.device) -> BackendKind:
    """Returns the backend of `ON_CPU` if it applies and is installed; else torch."""
    if name not in NETWORKS or device.type != "cpu" or config.precision != "fp32" or config.compile:
        return "torch"
    kind = ON_CPU[name]
    if kind == "torch" or not all(map(is_installed, required_packages(kind))):
        return "torch"
    try:
        importlib.import_module(BACKENDS[kind].package)
    except Exception as error:  # packages with compiled parts raise errors of many kinds
        log.warning("%s cannot be imported: %s; using torch, which is slower", kind, error)
        return "torch"
    return kind


def require_cpu_fp32(config: DetectorConfig, what: str) -> None:
    """Raises UsageError if more than float32 on the CPU is requested of exported graphs."""
    if config.device not in ("auto", "cpu"):
        raise UsageError(f"{what} computes on the CPU, not on '{config.device}'; leave --device out")
    if config.compile:
        raise UsageError(f"{what} does not use torch.compile; leave --compile out")
    if config.precision != "fp32":
        raise UsageError(f"{what} computes in fp32, not in {config.precision}; leave --precision out")


def required_packages(kind: BackendKind) -> tuple[str, ...]:
    """Returns the packages that a backend needs; those that read ONNX also need it to export."""
    runtime = BACKENDS[kind]
    return (runtime.package, "onnx") if runtime.format == "onnx" else (runtime.package,)


Graphs = dict[str, GraphRunner]
"""Runners by the names in `export_folder.GRAPHS`."""


def open_graphs(contents: Contents, kind: BackendKind, *, threads: int, place: Path) -> Graphs:
    """Opens graphs; `place` is where they come from, for messages.

    They are removed from `contents` one by one, so that no more than one is in memory twice. Raises
    WeightsError for graphs that the backend cannot read.
    """
    graphs: Graphs = {}
    for name in list(contents):
        try:
            graphs[name] = BACKENDS[kind].runner(contents.pop(name), threads=threads)
        except Exception as error:  # each runtime has exceptions of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise WeightsError(f"graph '{name}' of {place} cannot be read by {kind}: {reason}") from error
    return graphs


class GraphSource(Protocol):
    """Graphs of a network by the size of its input."""

    def get(self, size: tuple[int, int]) -> Graphs:
        """Returns the graphs for inputs of (width, height) pixels."""


class FolderGraphs:
    """Graphs of a folder, for one size.

    Raises WeightsError if they are missing or damaged, or in a format that the backend does not read.
    """

    def __init__(self, export: Export, kind: BackendKind, *, threads: int):
        if export.format != BACKENDS[kind].format:
            names = (name for name, other in BACKENDS.items() if other.format == export.format)
            remedy = f"use --backend {' or '.join(names)}"
            raise WeightsError(f"{export.folder} is in format {export.format}; {remedy}")
        self._export = export
        contents = export_folder.read_graphs(export)
        self._graphs = open_graphs(contents, kind, threads=threads, place=export.folder)

    def get(self, size: tuple[int, int]) -> Graphs:
        """See `GraphSource`. Raises UsageError for other sizes than that of the folder."""
        if size != self._export.size:
            requested, exported = (f"{width}x{height}" for width, height in (size, self._export.size))
            remedy = f"export with --size {requested}, or give --size {exported}"
            raise UsageError(
                f"{self._export.folder} is for input of {exported}, not of {requested}: {remedy}"
            )
        return self._graphs


class ModelGraphs:
    """Graphs of a network, taken from a cache, or exported, when a size is first needed."""

    def __init__(self, model: Tridos, origin: Origin, kind: BackendKind, *, threads: int, cache: GraphCache):
        self._model, self._origin, self._kind = model, origin, kind
        self._threads, self._cache = threads, cache
        self._graphs: dict[tuple[int, int], Graphs] = {}

    def get(self, size: tuple[int, int]) -> Graphs:
        """See `GraphSource`. A cache that cannot be used is a warning, not an error."""
        if size not in self._graphs:
            is_large = size[0] * size[1] > LARGE
            if is_large:
                working_on(f"preparing the network for input of {size[0]}x{size[1]}")
            kind = BACKENDS[self._kind].format
            contents = self._cache.load_or_export(self._model, self._origin, size=size, kind=kind)
            place = self._cache.folder
            self._graphs[size] = open_graphs(contents, self._kind, threads=self._threads, place=place)
            if is_large:
                working_on("computing the first frame")
        return self._graphs[size]


class ExportedNetwork(nn.Module):
    """Exported graphs with the interface of `Tridos`; in evaluation mode, on the CPU, in float32."""

    frames: int = FRAMES
    """Number of frames in the temporal window."""
    features = FrameFeatures
    """Type of the per-frame features."""

    def __init__(self, origin: Origin, graphs: GraphSource):
        super().__init__()
        self.origin, self.num_classes, self.width = origin, len(origin.classes), origin.width
        self._graphs = graphs
        self.eval()

    def frame_features(self, images: Tensor) -> FrameFeatures:
        """See `Tridos.frame_features`."""
        height, width = images.shape[-2:]
        return FrameFeatures(*self._run("frame", (width, height), images))

    def pair_features(self, older: Tensor, newer: Tensor) -> Tensor:
        """See `Tridos.pair_features`."""
        return self._run("pair", _input_size(newer), older, newer)[0]

    def join(self, window: FrameFeatures, pairs: Tensor) -> Tensor:
        """See `Tridos.join`."""
        return self._run("join", _input_size(window.spatial), *window, pairs)[0]

    def stream(self) -> TridosStream[FrameFeatures]:
        """See `Tridos.stream`."""
        return TridosStream(self)

    def _run(self, graph: str, size: tuple[int, int], *batches: Tensor) -> list[Tensor]:
        """Runs the graph for inputs of (width, height) pixels on one sample after another.

        The outputs of a frame then do not depend on its batch, as in `Tridos`, and it is no slower.
        """
        run = self._graphs.get(size)[graph]
        parts = [run(*sample) for sample in zip(*(batch.split(1) for batch in batches), strict=True)]
        return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]


def _input_size(features: Tensor) -> tuple[int, int]:
    """Returns (width, height) of the network input behind features (..., h, w)."""
    return STRIDE * features.shape[-1], STRIDE * features.shape[-2]


def network_from_folder(export: Export, kind: BackendKind, *, threads: int) -> ExportedNetwork:
    """Opens a network that was exported before; inputs of other sizes raise UsageError."""
    return ExportedNetwork(export.origin, FolderGraphs(export, kind, threads=threads))


def network_from_model(
    model: Tridos, origin: Origin, kind: BackendKind, *, threads: int, cache: GraphCache
) -> ExportedNetwork:
    """Returns a network that is exported when the size of its input is known, unless `cache` holds it."""
    return ExportedNetwork(origin, ModelGraphs(model, origin, kind, threads=threads, cache=cache))
