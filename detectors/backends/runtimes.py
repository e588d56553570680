"""Who computes a network: torch itself, or another runtime that runs its exported graphs.

An exported network looks to the stages like the network it came from: it takes frames, pairs and windows as
tensors on the CPU, and has streams of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from detectors.backends import export_folder as exported
from detectors.backends.devices import require_compiler
from detectors.backends.export_folder import Export, Origin
from detectors.networks.tridos import TridosStream
from detectors.networks.tridos.features import FRAMES, FrameFeatures
from pipeline.config.schema import DetectorConfig
from pipeline.system.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from detectors.networks.tridos import Tridos


log = logging.getLogger(__name__)


class Runner(Protocol):
    """One graph, ready to run."""

    def __init__(self, path: Path, *, threads: int):
        """Raises any error for a file that is not such a graph."""

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """CPU tensors in the order of the graph's inputs → its outputs."""


class TorchRunner:
    """A program of torch.export; torch's own number of threads holds."""

    def __init__(self, path: Path, *, threads: int):
        self._program = torch.export.load(path).module()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """See `Runner`."""
        outputs = self._program(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)


class OnnxRuntimeRunner:
    """An ONNX graph in ONNX Runtime."""

    def __init__(self, path: Path, *, threads: int):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # threads that wait in a loop would take the cores from decoder and encoder
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors; warnings tell of optimisations that were not made
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """See `Runner`."""
        arrays = (given.contiguous().numpy() for given in inputs)
        outputs = self._session.run(None, dict(zip(self._names, arrays, strict=True)))
        return [torch.from_numpy(output) for output in outputs]


class OpenVinoRunner:
    """An ONNX graph in OpenVINO."""

    def __init__(self, path: Path, *, threads: int):
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",  # its default is bf16 where the processor has it
            "ENABLE_CPU_PINNING": False,  # decoder and encoder need the cores too
        }
        self._request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """See `Runner`."""
        arrays = [given.contiguous().numpy() for given in inputs]
        outputs = self._request.infer(arrays, share_inputs=True, share_outputs=False)
        return [torch.from_numpy(outputs[number]) for number in range(len(outputs))]


BACKENDS: dict[str, tuple[type[Runner], str, str]] = {
    "torch": (TorchRunner, "torch-export", "torch"),
    "onnxruntime": (OnnxRuntimeRunner, "onnx", "onnxruntime"),
    "openvino": (OpenVinoRunner, "onnx", "openvino"),
}
"""Name → how it runs a graph, the format it reads, the package it needs."""

ON_CPU = {"tridos": "torch", "tridos-nano": "onnxruntime"}
"""What `auto` takes on a CPU for networks that can be exported, where its package is installed."""

Graphs = dict[str, Runner]


class ExportedNetwork(nn.Module):
    """Exported graphs in place of a `Tridos` network; always in evaluation mode, on the CPU, in float32."""

    frames = FRAMES
    features = FrameFeatures

    def __init__(self, origin: Origin, graphs_for: Callable[[tuple[int, int]], Graphs]):
        """`graphs_for` gives the graphs for input of (width, height) pixels, once for each size."""
        super().__init__()
        self.origin, self.num_classes, self.width = origin, len(origin.classes), origin.width
        self._graphs_for = graphs_for
        self._graphs: dict[tuple[int, int], Graphs] = {}
        self.eval()

    def frame_features(self, images: Tensor) -> FrameFeatures:
        """As `Tridos.frame_features`."""
        return FrameFeatures(*self._run("frame", images.shape[-2:], images))

    def pair_features(self, older: Tensor, newer: Tensor) -> Tensor:
        """As `Tridos.pair_features`."""
        return self._run("pair", _pixels(newer), older, newer)[0]

    def join(self, window: FrameFeatures, pairs: Tensor) -> Tensor:
        """As `Tridos.join`."""
        return self._run("join", _pixels(window.spatial), *window, pairs)[0]

    def stream(self) -> TridosStream:
        """As `Tridos.stream`."""
        return TridosStream(self)

    def _run(self, graph: str, shape: tuple[int, int], *batches: Tensor) -> list[Tensor]:
        """The graph for input of (height, width) pixels, sample by sample.

        What a frame gives does not depend on the batch it is in so, as in `Tridos`, and it is no slower.
        """
        size = (shape[1], shape[0])
        if size not in self._graphs:
            self._graphs[size] = self._graphs_for(size)
        run = self._graphs[size][graph]
        parts = [run(*sample) for sample in zip(*(batch.split(1) for batch in batches), strict=True)]
        return [torch.cat(outputs) for outputs in zip(*parts, strict=True)]


def _pixels(features: Tensor) -> tuple[int, int]:
    """(height, width) of the input behind features (..., h, w) at stride 8."""
    return 8 * features.shape[-2], 8 * features.shape[-1]


def choose(name: str, config: DetectorConfig, device: torch.device) -> str:
    """The backend for detector `name` on a device. Raises UsageError for one that is asked for and cannot."""
    if config.compile:
        exported.require_exportable(name, "--compile")
        require_compiler(device)
    backend, flag = config.backend, f"--backend {config.backend}"
    if backend == "auto":
        fits = name in exported.NETWORKS and device.type == "cpu" and config.precision == "fp32"
        fits = fits and not config.compile
        return ON_CPU[name] if fits and all(map(util.find_spec, packages(ON_CPU[name]))) else "torch"
    if backend == "torch":
        return backend
    exported.require_exportable(name, flag)
    for package in packages(backend):
        exported.require(package, flag)
    require_plain(config, flag)
    return backend


def or_torch(backend: str, config: DetectorConfig) -> str:
    """The chosen backend; torch where `auto` chose one for whose graphs there is no place, which is told."""
    if backend == "torch" or config.backend != "auto":
        return backend
    reason = exported.unwritable(Path(config.cache) if config.cache else None)
    if not reason:
        return backend
    log.warning("graphs for %s cannot be kept in %s; torch computes, somewhat slower", backend, reason)
    return "torch"


def require_plain(config: DetectorConfig, what: str) -> None:
    """Raise UsageError where more is asked of exported graphs than float32 on the CPU."""
    if config.device not in ("auto", "cpu"):
        raise UsageError(f"{what} computes on the CPU, not on '{config.device}'; leave --device out")
    if config.compile:
        raise UsageError(f"{what} computes by itself; leave --compile out")
    if config.precision != "fp32":
        raise UsageError(f"{what} computes in fp32, not in {config.precision}; leave --precision out")


def packages(backend: str) -> tuple[str, ...]:
    """The packages that a backend needs; those of format ONNX need it to export."""
    _, kind, package = BACKENDS[backend]
    return (package, "onnx") if kind == "onnx" else (package,)


def of_format(kind: str) -> str:
    """The first backend that reads graphs of a format of `detectors.backends.export_folder.FORMATS`."""
    return next(name for name, row in BACKENDS.items() if row[1] == kind)


def open_graphs(export: Export, backend: str, *, threads: int) -> Graphs:
    """The graphs of a folder, ready to run. Raises WeightsError for damaged ones or another format."""
    runner, kind, _ = BACKENDS[backend]
    if export.format != kind:
        remedy = " or ".join(name for name, row in BACKENDS.items() if row[1] == export.format)
        raise WeightsError(f"{export.folder} is in format {export.format}; use --backend {remedy}")
    graphs = {}
    for name in ("frame", "pair", "join"):
        try:
            graphs[name] = runner(export.file(name), threads=threads)
        except Exception as error:  # each runtime has errors of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise WeightsError(f"{export.file(name)} cannot be read by {backend}: {reason}") from error
    return graphs


def from_folder(export: Export, backend: str, *, threads: int) -> ExportedNetwork:
    """A network from graphs that were exported before. They are for one size: others raise UsageError."""
    graphs = open_graphs(export, backend, threads=threads)

    def graphs_for(size: tuple[int, int]) -> Graphs:
        if size != export.size:
            asked, there = (f"{width}x{height}" for width, height in (size, export.size))
            remedy = f"export with --size {asked}, or give --size {there}"
            raise UsageError(f"{export.folder} is for input of {there}, not of {asked}: {remedy}")
        return graphs

    return ExportedNetwork(export.origin, graphs_for)


def from_model(model: Tridos, origin: Origin, backend: str, *, threads: int, cache: str) -> ExportedNetwork:
    """A network whose graphs are exported when the size of its input is known, or taken from the cache."""
    kind, place = BACKENDS[backend][1], Path(cache) if cache else None

    def graphs_for(size: tuple[int, int]) -> Graphs:
        export = exported.cached(model, origin, size=size, kind=kind, cache=place)
        return open_graphs(export, backend, threads=threads)

    return ExportedNetwork(origin, graphs_for)
