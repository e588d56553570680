"""Loads the networks of a configuration: detectors and the segmenters that run beside them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from detectors.backends import export_folder
from detectors.backends.devices import pick_device, require_precision, thread_count
from detectors.backends.export_folder import Export
from detectors.backends.graph_cache import GraphCache
from detectors.backends.runtimes import Backend, network_from_folder, network_from_model, resolve_backend
from detectors.inference.probability_maps import ProbabilityMaps
from detectors.inference.segmentation import FrameSegmenter, SegmentingDetector
from detectors.inference.streaming import StreamingDetector, StreamingNetwork
from detectors.inference.tiling.streams import in_views
from detectors.networks import registry
from detectors.networks.plain import PlainNetwork
from detectors.networks.segmenters.base import Segmenter
from detectors.networks.tridos import Tridos
from detectors.weights import restore, zoo
from detectors.weights.restore import RestoredNetwork
from pipeline.config.plugins import build_plugin, require_part
from pipeline.config.schema import DetectorConfig, SegmentationConfig, SegmenterConfig
from pipeline.structures.detector_info import DetectorInfo, SegmenterInfo
from pipeline.structures.protocols import Detector, SegmentStage
from pipeline.system.errors import UsageError, WeightsError
from pipeline.system.files import file_sha256


def load_detector(config: DetectorConfig, *, maps: bool = False) -> tuple[Detector, DetectorInfo]:
    """Loads the detector of a configuration; returns it and its description.

    `maps` adds score maps to its results; networks of mmdet and tiles have none. Raises UsageError for
    settings that the detector does not support, WeightsError for weights that are missing, damaged or of
    another network.
    """
    return with_views(*_load_detector(config, maps=maps), config)


def with_views(
    detector: Detector, info: DetectorInfo, config: DetectorConfig
) -> tuple[Detector, DetectorInfo]:
    """Returns a detector for whole frames on the tiles and regions of a configuration, and its description.

    Raises UsageError as `in_views` does.
    """
    return in_views(detector, config), replace(info, tile=config.tile)


def _load_detector(config: DetectorConfig, *, maps: bool) -> tuple[Detector, DetectorInfo]:
    """Loads the detector of a configuration for whole frames."""
    kind = registry.kind_of(config.name)
    if config.flip_averaging and kind != "segmenter":
        raise UsageError(f"flip_averaging is for segmenters, not for '{config.name}'; leave it out")
    if kind == "plugin":
        return _load_plugin(config)
    device = pick_device(config.device)
    if kind == "mmdet":
        resolve_backend(config.name, config, device)  # refuses backends other than torch
        from detectors.mmdet_adapter import stage  # loads mmdet

        return stage.load(config)
    name = registry.canonical(config.name)
    require_precision(config.precision, device)
    weights = zoo.weights_or_default(name, config.weights)
    export = _read_export(name, Path(weights)) if Path(weights).is_dir() else None
    backend = resolve_backend(name, config, device, export=export)
    if export:
        return _load_exported(export, config, backend, maps=maps)
    return _load_network(name, weights, config, backend, maps=maps)


def describe_plugin(detector: Detector, name: str = "") -> DetectorInfo:
    """Describes a detector of another package.

    Its optional attribute `classes` holds the names of its labels, `device` and `weights` what they say.
    """
    known = f"{type(detector).__module__}:{type(detector).__qualname__}"
    return DetectorInfo(
        name=name or known,
        weights=str(getattr(detector, "weights", "")),
        sha256="",
        parameters=0,
        classes=tuple(getattr(detector, "classes", ("target",))),
        device=str(getattr(detector, "device", "cpu")),
        precision="fp32",
        threads=torch.get_num_threads(),
        enlarge=0.0,
    )


def _load_plugin(config: DetectorConfig) -> tuple[Detector, DetectorInfo]:
    """Builds a detector of another package from the class in its name, which gets the configuration."""
    detector = build_plugin(config.name, config)
    require_part(detector, "detector", config.name)
    return detector, describe_plugin(detector, config.name)


def _read_export(name: str, folder: Path) -> Export:
    """Reads a folder of graphs of the detector `name`."""
    export = export_folder.read_export(folder)
    if name != export.origin.detector:
        raise WeightsError(f"{folder} is for --detector {export.origin.detector}, not for '{name}'")
    return export


def _load_exported(
    export: Export, config: DetectorConfig, backend: Backend, *, maps: bool
) -> tuple[Detector, DetectorInfo]:
    """Loads a detector from a folder of graphs."""
    origin = export.origin
    threads = backend.thread_count(origin)
    torch.set_num_threads(threads)
    enlarge = 0.0 if config.network_size() else config.enlarge or origin.enlarge
    network = network_from_folder(export, backend.kind, threads=threads)
    info = DetectorInfo(
        name=origin.detector,
        weights=str(export.folder),
        sha256=origin.sha256,
        parameters=origin.parameters,
        classes=origin.classes,
        device=str(backend.device),
        precision=config.precision,
        threads=threads,
        enlarge=enlarge,
        backend=backend.kind,
    )
    return StreamingDetector(network, replace(config, enlarge=enlarge), backend.device, maps=maps), info


def _load_network(
    name: str, weights: str, config: DetectorConfig, backend: Backend, *, maps: bool
) -> tuple[Detector, DetectorInfo]:
    """Loads a detector from a file of weights."""
    restored = restore.restore_network(name, weights)
    model, entry = restored.model, restored.entry
    threads = backend.thread_count(model)
    torch.set_num_threads(threads)
    classes = entry.classes if entry else tuple(f"class {n}" for n in range(model.num_classes))
    config = replace(config, enlarge=_enlargement(config, restored))
    info = DetectorInfo(
        **_identity(name, weights, restored),
        classes=classes,
        device=str(backend.device),
        precision=config.precision,
        threads=torch.get_num_threads(),
        enlarge=config.enlarge,
        backend=backend.kind,
    )
    if isinstance(model, Segmenter):
        segmenter = _frame_segmenter(name, model, config, config, maps=maps)
        detector = SegmentingDetector(segmenter, conf=config.conf)
        return detector, replace(info, segmenter=True, **_map_options(config))
    network: StreamingNetwork = model
    if isinstance(model, PlainNetwork) and config.precision != "fp32":
        raise UsageError(f"precision {config.precision} is not supported by '{name}'; use fp32")
    if backend.kind != "torch":
        assert isinstance(model, Tridos)  # no others are exportable
        origin = export_folder.describe_origin(name, weights, restored.path, model, classes)
        cache = GraphCache.at(config.cache, config.cache_limit)
        network = network_from_model(model, origin, backend.kind, threads=threads, cache=cache)
    return StreamingDetector(network, config, backend.device, maps=maps), info


def load_segmenters(
    config: SegmentationConfig, detector: DetectorConfig, *, maps: bool = False
) -> tuple[list[SegmentStage], list[SegmenterInfo]]:
    """Loads the segmenters that run beside a detector; returns them and their descriptions in order.

    `maps` keeps their probability maps. Raises UsageError for names that are unknown or given twice and for
    unsupported settings, WeightsError for weights that are missing, damaged or of another network.
    """
    segmenters: list[SegmentStage] = []
    infos: list[SegmenterInfo] = []
    foreign = registry.kind_of(detector.name) in ("mmdet", "plugin")
    names = [detector.name if foreign else registry.canonical(detector.name)]
    for row in config.segmenters:
        name = registry.canonical_segmenter(row.name)
        if name in names:
            fault = "is the detector already" if name == names[0] else "is given twice"
            raise UsageError(f"segmenter '{name}' {fault}; leave one out")
        names.append(name)
        flag = f"--segmenter-weights {name}=FILE"
        weights = zoo.weights_or_default(name, row.weights, kind="segmenter", flag=flag)
        restored = restore.restore_network(name, weights)
        assert isinstance(restored.model, Segmenter)
        row = replace(row, enlarge=_enlargement(row, restored))
        segmenters.append(_frame_segmenter(name, restored.model, row, detector, maps=maps))
        identity = _identity(name, weights, restored)
        infos.append(SegmenterInfo(**identity, enlarge=row.enlarge, **_map_options(row)))
    return segmenters, infos


def _frame_segmenter(
    name: str,
    model: Segmenter,
    config: DetectorConfig | SegmenterConfig,
    detector: DetectorConfig,
    *,
    maps: bool,
) -> FrameSegmenter:
    """Wraps a segmenter; device, precision and threads are those of the detector."""
    network = ProbabilityMaps(
        model,
        size=config.network_size(),
        fit=config.fit,
        enlarge=config.enlarge or 1.0,
        flip_averaging=config.flip_averaging,
        device=detector.device,
        precision=detector.precision,
    )
    threads = detector.threads or thread_count(model)
    return FrameSegmenter(name, network, config.components, threads=threads, keep_maps=maps)


def _enlargement(config: DetectorConfig | SegmenterConfig, restored: RestoredNetwork) -> float:
    """Returns network pixels per source pixel as configured, else as in training; 0 for a fixed size."""
    fixed = getattr(restored.model, "fixed_size", None)
    if config.enlarge and fixed:
        raise UsageError(f"--enlarge {config.enlarge:g}: {config.name} takes only inputs of {fixed}x{fixed}")
    if fixed or config.network_size():
        return 0.0
    return config.enlarge or restore.trained_enlargement(restored.path)


def _identity(name: str, weights: str, restored: RestoredNetwork) -> dict[str, Any]:
    """Returns the fields of a description that identify network and weights."""
    return {
        "name": name,
        "weights": weights,
        "sha256": file_sha256(restored.path),
        "parameters": sum(parameter.numel() for parameter in restored.model.parameters()),
    }


def _map_options(config: DetectorConfig | SegmenterConfig) -> dict[str, Any]:
    """Returns the fields of a description that only segmenters have."""
    return {
        "size": config.size,
        "fit": config.fit,
        "flip_averaging": config.flip_averaging,
        "components": asdict(config.components),
    }
