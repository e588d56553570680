"""Any detector of mmdet 3 as the stage of our pipeline that finds the targets, frame by frame."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from detectors.backends.devices import pick_device, require_precision
from detectors.inference.streaming import PRECISIONS
from detectors.mmdet_adapter import checkpoints, configuration, installation
from detectors.networks.registry import MMDET
from detectors.weights.zoo import sha256
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.intensity_scaling import network_images
from pipeline.structures.boxes import clip
from pipeline.structures.detections import Detections
from pipeline.structures.detector_info import DetectorInfo
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from mmengine.config import Config


def to_bgr(frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8 in B, G, R order, as mmdet reads files; grey is replicated.

    More than 8 bits are scaled down to 8, so that the full scale of the frame becomes 255: the normalisation
    in mmdet's configurations is made for that.
    """
    (image,), full_scale = network_images([frame])
    if full_scale != 255:
        scale = np.float32(255 / full_scale)
        image = np.rint(image * scale).clip(0, 255).astype(np.uint8)
    planes = (image,) * 3 if image.ndim == 2 else tuple(image[..., channel] for channel in (2, 1, 0))
    return np.stack(planes, axis=-1)


def to_detections(found: Any, frame: Frame, *, conf: float) -> Detections:
    """`pred_instances` of a sample (boxes in pixels of the frame) as Detections of score `conf` or more.

    Best first and cut to the picture; what is empty then, or not a number, is left out.
    """
    boxes, scores, labels = (
        getattr(found, name).detach().cpu().numpy() for name in ("bboxes", "scores", "labels")
    )
    boxes = clip(boxes.astype(np.float32), frame.width, frame.height)
    good = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (scores >= conf)  # False where there is a NaN
    rows = np.flatnonzero(good)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    return Detections(boxes[rows], scores[rows].clip(0, 1), labels[rows])


class MmdetDetector:
    """A model of mmdet with the test pipeline of its configuration, on frames as they come.

    Resizing, padding and normalisation, the score threshold and the suppression of double boxes are those of
    the configuration; of ours `conf`, `batch`, `device` and `precision` count, the others do not.
    """

    window = 1

    def __init__(self, model: torch.nn.Module, config: Config, ours: DetectorConfig, device: torch.device):
        from mmcv.transforms import Compose
        from mmdet.utils import get_test_pipeline_cfg

        self.model = model.to(device).eval()
        self._ours, self._device = ours, device
        steps = copy.deepcopy(get_test_pipeline_cfg(config))
        steps[0] = {"type": "mmdet.LoadImageFromNDArray"}  # in place of reading a file
        self._pipeline = Compose(steps)

    def reset(self) -> None:
        """Start a new sequence: frames are looked at one by one, so there is nothing to forget."""

    @torch.inference_mode()
    def __call__(self, frames: tuple[Frame, ...]) -> list[Detections]:
        """What is in each of the frames."""
        packed = [self._pipeline({"img": to_bgr(frame), "img_id": frame.index}) for frame in frames]
        batch = {key: [one[key] for one in packed] for key in ("inputs", "data_samples")}
        dtype = PRECISIONS[self._ours.precision]
        with torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            samples = self.model.test_step(batch)
        return [
            to_detections(sample.pred_instances, frame, conf=self._ours.conf)
            for sample, frame in zip(samples, frames, strict=True)
        ]

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Iterator[FrameDetections]:
        """The frames of a sequence with what is in each."""
        for frames in groups:
            started = time.perf_counter()
            found = self(frames)
            spent = {"detect": (time.perf_counter() - started) / len(frames)}
            for frame, row in zip(frames, found, strict=True):
                yield FrameDetections(frame, row, False, spent)


def load(config: DetectorConfig) -> tuple[MmdetDetector, DetectorInfo]:
    """The detector of a configuration named `mmdet:CONFIG.py`, and what run.json says of it.

    Raises UsageError for a configuration that cannot be read or describes no detector, WeightsError for
    weights that are not given or not the model's.
    """
    if not config.weights:
        raise WeightsError(f"'{config.name}' needs weights of its own; give its checkpoint with --weights")
    if config.enlarge or config.network_size():
        raise UsageError(
            f"size and enlarge are for our networks; '{config.name}' says how frames are resized"
        )
    installation.prepare()
    path, weights = Path(config.name.removeprefix(MMDET)), Path(config.weights)
    device = pick_device(config.device)
    require_precision(config.precision, device)
    if config.threads:
        torch.set_num_threads(config.threads)
    described = configuration.read(path)
    model = _build(described, path)
    checkpoint = checkpoints.read(weights)
    checkpoints.fill(model, checkpoint, weights)
    info = DetectorInfo(
        name=config.name,
        weights=config.weights,
        sha256=sha256(weights),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        classes=tuple(_classes(described, checkpoint, model)),
        device=str(device),
        precision=config.precision,
        threads=torch.get_num_threads(),
        enlarge=config.enlarge,
    )
    return MmdetDetector(model, described, config, device), info


def _build(config: Config, path: Path) -> torch.nn.Module:
    from mmdet.models import BaseDetector
    from mmdet.registry import MODELS
    from mmengine.model.utils import revert_sync_batchnorm

    try:
        model = MODELS.build(copy.deepcopy(config.model))
    except UsageError:
        raise
    except Exception as error:  # whatever the constructors of mmdet's modules raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"configuration {path} describes no model: {reason[:300]}") from error
    if not isinstance(model, BaseDetector) or not config.get("test_dataloader"):
        kind = type(model).__name__
        raise UsageError(f"configuration {path} is of a {kind}; a detector with a test_dataloader is needed")
    return revert_sync_batchnorm(model)


def _classes(config: Config, checkpoint: checkpoints.Checkpoint, model: torch.nn.Module) -> list[str]:
    """Names of the labels: those of the checkpoint, else of the configuration, else of its dataset."""
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
