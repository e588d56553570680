"""Detectors of mmdet 3 as the detector of the pipeline, frame by frame."""

from __future__ import annotations

import copy
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from detectors.backends.devices import pick_device, require_precision
from detectors.inference.streaming import PRECISIONS
from detectors.mmdet_adapter import checkpoints, configuration, installation
from detectors.networks import registry
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.intensity_scaling import network_images
from pipeline.structures.boxes import clip
from pipeline.structures.detections import Detections
from pipeline.structures.detector_info import DetectorInfo
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import UsageError, WeightsError
from pipeline.system.files import file_sha256

if TYPE_CHECKING:
    from mmdet.models import BaseDetector
    from mmengine.config import Config
    from mmengine.structures import InstanceData


def to_bgr(frame: Frame) -> np.ndarray:
    """Returns a frame as (H, W, 3) uint8 in B, G, R order, as mmdet reads files; grey is replicated.

    Frames of more than 8 bits are scaled so that their full scale becomes 255, which the normalisation in
    mmdet's configurations assumes.
    """
    (image,), full_scale = network_images([frame])
    if full_scale != 255:
        scale = np.float32(255 / full_scale)
        image = np.rint(image * scale).clip(0, 255).astype(np.uint8)
    planes = (image,) * 3 if image.ndim == 2 else tuple(image[..., channel] for channel in (2, 1, 0))
    return np.stack(planes, axis=-1)


def to_detections(instances: InstanceData, frame: Frame, *, conf: float) -> Detections:
    """Converts `pred_instances`, with boxes in pixels of the frame, to Detections of score `conf` or more.

    Sorted by score, best first, and clipped to the frame. Boxes that are empty or not finite are left out.
    """
    boxes, scores, labels = (
        getattr(instances, name).detach().cpu().numpy() for name in ("bboxes", "scores", "labels")
    )
    boxes = clip(boxes.astype(np.float32), frame.width, frame.height)
    valid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (scores >= conf)  # False for NaN
    rows = np.flatnonzero(valid)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return Detections(boxes[rows], scores[rows].clip(0, 1), labels[rows])


class MmdetDetector:
    """A model of mmdet with the test pipeline of its configuration.

    Resizing, padding, normalisation, score threshold and non-maximum suppression are those of mmdet's
    configuration; of ours only `conf`, `batch`, `device` and `precision` are used.
    """

    window = 1

    def __init__(self, model: BaseDetector, config: Config, ours: DetectorConfig, device: torch.device):
        from mmcv.transforms import Compose
        from mmdet.utils import get_test_pipeline_cfg

        self.model = model.to(device).eval()
        self._ours, self._device = ours, device
        steps = copy.deepcopy(get_test_pipeline_cfg(config))
        steps[0] = {"type": "mmdet.LoadImageFromNDArray"}  # in place of reading a file
        self._pipeline = Compose(steps)

    def reset(self) -> None:
        """Starts a new sequence; does nothing, because frames are processed independently."""

    @torch.inference_mode()
    def __call__(self, frames: tuple[Frame, ...]) -> list[Detections]:
        """Returns the detections of each frame."""
        packed = [self._pipeline({"img": to_bgr(frame), "img_id": frame.index}) for frame in frames]
        batch = {key: [one[key] for one in packed] for key in ("inputs", "data_samples")}
        dtype = PRECISIONS[self._ours.precision]
        with torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            samples = self.model.test_step(batch)
        return [
            to_detections(sample.pred_instances, frame, conf=self._ours.conf)
            for sample, frame in zip(samples, frames, strict=True)
        ]

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """Yields the frames of a sequence with their detections."""
        for frames in groups:
            started = time.perf_counter()
            results = self(frames)
            seconds = {"detect": (time.perf_counter() - started) / len(frames)}
            for frame, detections in zip(frames, results, strict=True):
                yield FrameDetections(frame, detections, False, seconds)


def load(config: DetectorConfig) -> tuple[MmdetDetector, DetectorInfo]:
    """Loads the detector of a configuration named `mmdet:CONFIG.py`; returns it and its description.

    Raises UsageError if the configuration cannot be read or is not of a detector, WeightsError if the weights
    are not given or do not fit the model.
    """
    if not config.weights:
        raise WeightsError(f"'{config.name}' needs weights; give its checkpoint with --weights")
    if config.enlarge or config.network_size():
        raise UsageError(
            f"--size and --enlarge are for our networks; '{config.name}' has its own resizing of frames"
        )
    installation.prepare()
    path, weights = registry.mmdet_config(config.name), Path(config.weights)
    device = pick_device(config.device)
    require_precision(config.precision, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    mmdet_config = configuration.read(path)
    model = _build(mmdet_config, path)
    checkpoint = checkpoints.read(weights)
    checkpoints.fill(model, checkpoint, weights)
    info = DetectorInfo(
        name=config.name,
        weights=config.weights,
        sha256=file_sha256(weights),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        classes=tuple(_classes(mmdet_config, checkpoint, model)),
        device=str(device),
        precision=config.precision,
        threads=torch.get_num_threads(),
        enlarge=config.enlarge,
    )
    return MmdetDetector(model, mmdet_config, config, device), info


def _build(config: Config, path: Path) -> BaseDetector:
    from mmdet.models import BaseDetector
    from mmdet.registry import MODELS
    from mmengine.model.utils import revert_sync_batchnorm

    try:
        model = MODELS.build(copy.deepcopy(config.model))
    except UsageError:
        raise
    except Exception as error:  # constructors of mmdet's modules may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"configuration {path} describes no model: {reason[:300]}") from error
    if not isinstance(model, BaseDetector) or not config.get("test_dataloader"):
        kind = type(model).__name__
        raise UsageError(
            f"configuration {path} is of a {kind}; give one of a detector with a test_dataloader"
        )
    return revert_sync_batchnorm(model)


def _classes(config: Config, checkpoint: checkpoints.Checkpoint, model: torch.nn.Module) -> list[str]:
    """Returns the class names in the checkpoint, else in the configuration, else those of its dataset."""
    from mmdet.registry import DATASETS

    dataset = config.test_dataloader.dataset
    kind = DATASETS.get(dataset.get("type")) if isinstance(dataset.get("type"), str) else None
    trained = checkpoint.meta.get("dataset_meta")
    sources = [trained, dataset.get("metainfo"), getattr(kind, "METAINFO", None)]
    tables = [{str(key).lower(): value for key, value in dict(source or {}).items()} for source in sources]
    count = getattr(getattr(model, "bbox_head", None), "num_classes", None)
    for table in tables:
        names = [str(name) for name in table.get("classes", ())]
        if names and count in (None, len(names)):
            return names
    return [f"class {number}" for number in range(count or 1)]
