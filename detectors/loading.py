"""From the names in a configuration to networks that are ready to run, and what run.json says of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from detectors.backends import export_folder as exported
from detectors.backends import runtimes
from detectors.backends.devices import pick_device, require_precision, thread_count
from detectors.inference.probability_maps import ProbabilityMaps
from detectors.inference.segmentation import FrameSegmenter, SegmentingDetector
from detectors.inference.streaming import StreamingDetector
from detectors.networks import registry
from detectors.networks.segmenters.base import Segmenter
from detectors.weights import restore, zoo
from pipeline.config.schema import ComponentsConfig, DetectorConfig, SegmentationConfig, SegmenterConfig
from pipeline.structures.detector_info import DetectorInfo, SegmenterInfo
from pipeline.structures.protocols import Detector, SegmentStage
from pipeline.system.errors import UsageError, WeightsError


def load_detector(config: DetectorConfig, *, maps: bool = False) -> tuple[Detector, DetectorInfo]:
    """The network with its weights, and what run.json says of it.

    `maps` asks it for score maps, too; networks of mmdet have none.
    """
    mmdet = config.name.startswith(registry.MMDET)
    if config.flip_averaging and (mmdet or registry.canonical(config.name) not in registry.SEGMENTERS):
        raise UsageError(f"flip_averaging is for segmenters, not for '{config.name}'; leave it out")
    if mmdet:
        runtimes.choose(config.name, config, pick_device(config.device))
        from detectors.mmdet_adapter import stage  # loads mmdet

        return stage.load(config)
    name = registry.canonical(config.name)
    device = pick_device(config.device)
    require_precision(config.precision, device)
    backend = runtimes.choose(name, config, device)
    chosen = zoo.chosen(name, config.weights)
    if Path(chosen).is_dir():
        return _load_exported(name, Path(chosen), config, maps=maps)
    backend = runtimes.or_torch(backend, config)
    if backend != "torch":
        device = torch.device("cpu")
    model, path, entry = restore.network(name, chosen)
    threads = config.threads or thread_count(model)
    torch.set_num_threads(threads)
    classes = list(entry.classes) if entry else [f"class {n}" for n in range(model.num_classes)]
    config = replace(config, enlarge=_enlargement(config, model, path))
    info = DetectorInfo(
        **_identity(name, chosen, path, model),
        classes=tuple(classes),
        device=str(device),
        precision=config.precision,
        threads=torch.get_num_threads(),
        enlarge=config.enlarge,
        backend=backend,
    )
    if backend != "torch":
        origin = exported.origin_of(name, chosen, path, model, tuple(classes))
        model = runtimes.from_model(model, origin, backend, threads=threads, cache=config.cache)
    if name not in registry.SEGMENTERS:
        return StreamingDetector(model, config, device, maps=maps), info
    segmenter = _segmenter(name, model, config, config, maps=maps)
    return SegmentingDetector(segmenter, conf=config.conf), replace(
        info, segmenter=True, **_map_options(config)
    )


def _load_exported(
    name: str, folder: Path, config: DetectorConfig, *, maps: bool
) -> tuple[Detector, DetectorInfo]:
    """A detector from graphs that were exported before, in a folder, and what run.json says of it."""
    export = exported.read(folder)
    if name != export.origin.detector:
        raise WeightsError(f"{folder} is for --detector {export.origin.detector}, not for '{name}'")
    runtimes.require_plain(config, f"exported network {folder}")
    if config.backend == "auto" and export.format == "torch-export":
        remedy = "give --backend torch where you trust it, or export with --format onnx"
        raise WeightsError(f"{folder} holds programs of torch, which can run any code: {remedy}")
    backend = runtimes.of_format(export.format) if config.backend == "auto" else config.backend
    device = torch.device("cpu")
    runtimes.choose(name, replace(config, backend=backend), device)
    threads = config.threads or thread_count(export.origin)
    torch.set_num_threads(threads)
    scale = 0.0 if config.network_size() else config.enlarge or export.origin.enlarge
    model = runtimes.from_folder(export, backend, threads=threads)
    origin = export.origin
    info = DetectorInfo(
        name=origin.detector,
        weights=str(export.folder),
        sha256=origin.sha256,
        parameters=origin.parameters,
        classes=origin.classes,
        device=str(device),
        precision=config.precision,
        threads=threads,
        enlarge=scale,
        backend=backend,
    )
    return StreamingDetector(model, replace(config, enlarge=scale), device, maps=maps), info


def load_segmenters(
    config: SegmentationConfig, detector: DetectorConfig, *, maps: bool = False
) -> tuple[list[SegmentStage], list[SegmenterInfo]]:
    """The networks that run beside a detector, in their order, and what run.json says of each.

    `maps` asks them for their probability maps, too.
    Raises UsageError for names that are unknown or given twice, WeightsError, and what the network raises.
    """
    mmdet = detector.name.startswith(registry.MMDET)
    segmenters: list[SegmentStage] = []
    infos: list[SegmenterInfo] = []
    names = [detector.name if mmdet else registry.canonical(detector.name)]
    for row in config.segmenters:
        name = registry.canonical_segmenter(row.name)
        if name in names:
            twice = "is the detector already" if name == names[0] else "is given twice"
            raise UsageError(f"segmenter '{name}' {twice}; leave one out")
        names.append(name)
        flag = f"--segmenter-weights {name}=FILE"
        chosen = zoo.chosen(name, row.weights, kind="segmenter", flag=flag)
        model, path, _ = restore.network(name, chosen)
        row = replace(row, enlarge=_enlargement(row, model, path))
        segmenters.append(_segmenter(name, model, row, detector, maps=maps))
        identity = _identity(name, chosen, path, model)
        infos.append(SegmenterInfo(**identity, enlarge=row.enlarge, **_map_options(row)))
    return segmenters, infos


def _segmenter(
    name: str,
    model: Segmenter,
    config: DetectorConfig | SegmenterConfig,
    detector: DetectorConfig,
    *,
    maps: bool,
) -> FrameSegmenter:
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


def _enlargement(config: DetectorConfig | SegmenterConfig, model: torch.nn.Module, path: Path) -> float:
    """Network pixels per source pixel: what is asked for, else as the weights were trained; 0 for a size."""
    fixed = getattr(model, "fixed_size", None)
    if config.enlarge and fixed:
        raise UsageError(f"enlarge = {config.enlarge}: {config.name} takes {fixed}x{fixed} alone")
    if fixed or config.network_size():
        return 0.0
    return config.enlarge or restore.enlargement(path)


def _identity(name: str, chosen: str, path: Path, model: torch.nn.Module) -> dict[str, Any]:
    return {
        "name": name,
        "weights": chosen,
        "sha256": zoo.sha256(path),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _map_options(config: DetectorConfig | SegmenterConfig) -> dict[str, Any]:
    components: ComponentsConfig = config.components
    return {
        "size": config.size,
        "fit": config.fit,
        "flip_averaging": config.flip_averaging,
        "components": asdict(components),
    }
