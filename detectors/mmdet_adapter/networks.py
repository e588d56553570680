"""Our networks as models of mmdet: `MoteTridos`, `MoteTridosNano` and `MoteSegmenter` in its registry.

Each keeps the network itself as `model` and has the three modes of mmengine's models: `loss`, `predict` and
`tensor`. Inputs are what `clips.PackClip` and `clips.PackPicture` make; a model takes them as a list or as
one batch. Ground truth and predictions are those of the key frame: in a TrackDataSample that of its last
video data sample, in a DetDataSample its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detectors.inference.postprocess import decode
from detectors.networks import registry
from detectors.training.detection_loss import detection_loss
from detectors.weights import state_dict as files
from detectors.weights import zoo
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.geometry import Geometry
from pipeline.structures.boxes import clip, to_centres
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample, TrackDataSample


def key_frames(samples: Sequence[DetDataSample | TrackDataSample]) -> list[DetDataSample]:
    """Of each sample the one of its newest frame, which boxes and masks belong to."""
    return [s.video_data_samples[-1] if "video_data_samples" in s else s for s in samples]


class _Modes:
    """The part of a model that all of ours have alike; mmengine's BaseModel is put behind it."""

    def __init__(
        self, network: str, options: dict, *, weights: str = "", data_preprocessor=None, init_cfg=None
    ):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.model = registry.build(network, **options)
        if weights:
            files.load(self.model, zoo.locate(weights)[0])

    def forward(
        self, inputs: Tensor | Sequence[Tensor], data_samples: list | None = None, mode: str = "tensor"
    ):
        """`loss` gives a dict of scalars, `predict` the samples with predictions, `tensor` the raw output."""
        frames = inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))
        if mode == "tensor":
            return self.model(*self._inputs(frames))
        if mode not in ("loss", "predict"):
            raise UsageError(f"mode '{mode}' of {type(self).__name__}, expected loss, predict or tensor")
        if not data_samples:
            raise UsageError(f"mode '{mode}' of {type(self).__name__} needs data_samples")
        return getattr(self, mode)(frames, data_samples)

    def _inputs(self, frames: Tensor) -> tuple[Tensor, ...]:
        """All that the network takes."""
        return (frames,)


class ClipDetector(_Modes):
    """Tridos: clips (B, 3, 5, H, W), normalised, oldest frame first; boxes of the newest.

    Args:
        num_classes: kinds of targets.
        weights: a name of `run_pipeline.py --list` or a file to start from; empty for fresh ones.
        conf: least score of a predicted box.
        iou: overlap from which on the better of two boxes is kept.
        data_preprocessor: of mmengine; by default its BaseDataPreprocessor, which moves to the device.
        init_cfg: as in mmengine.
    """

    network: str
    """Name in `detectors.DETECTORS`."""

    def __init__(
        self,
        *,
        num_classes: int = 1,
        weights: str = "",
        conf: float = 0.01,
        iou: float = DetectorConfig.iou,
        **base: Any,
    ):
        super().__init__(self.network, {"num_classes": num_classes}, weights=weights, **base)
        self.conf, self.iou = conf, iou

    def loss(self, frames: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The loss of Tridos, and two of its sums per assigned cell, which mmengine only logs."""
        truths = [sample.gt_instances for sample in key_frames(data_samples)]
        centres = [torch.from_numpy(to_centres(truth.bboxes.cpu().numpy())) for truth in truths]
        boxes = [found.to(frames.device, torch.float32) for found in centres]
        found = detection_loss(self.model(frames), boxes, [t.labels.to(frames.device) for t in truths])
        cells = max(found.foreground, 1)
        parts = {"ciou": found.ciou_sum, "objectness": found.objectness_sum, "classes": found.class_sum}
        return {"loss": found.total, **{name: part.detach() / cells for name, part in parts.items()}}

    @torch.inference_mode()
    def predict(self, frames: Tensor, data_samples: list) -> list:
        """The samples, with `pred_instances` of the key frames in pixels of the source, best first."""
        from mmengine.structures import InstanceData

        found = decode(self.model(frames), conf=self.conf, iou=self.iou)
        for sample, (boxes, scores, labels) in zip(key_frames(data_samples), found, strict=True):
            height, width = sample.ori_shape[:2]
            boxes = torch.from_numpy(clip(boxes.cpu().numpy(), width, height)).to(scores.device)
            inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            sample.pred_instances = InstanceData(
                bboxes=boxes[inside], scores=scores[inside], labels=labels[inside]
            )
        return data_samples


class PictureSegmenter(_Modes):
    """A single-frame segmenter: grey pictures (B, 1, H, W) in [0, 1]; a map of two classes for each.

    Args:
        network: a name in `detectors.SEGMENTERS`.
        options: of the network.
        weights: a name of `run_pipeline.py --list` or a file to start from; empty for fresh ones.
        threshold: probability above which a pixel belongs to a target.
        data_preprocessor: of mmengine; by default its BaseDataPreprocessor, which moves to the device.
        init_cfg: as in mmengine.
    """

    def __init__(self, *, network: str, options: dict | None = None, threshold: float = 0.5, **base: Any):
        if registry.canonical(network) not in registry.SEGMENTERS:
            raise UsageError(f"MoteSegmenter takes {', '.join(registry.SEGMENTERS)}, not '{network}'")
        super().__init__(network, dict(options or {}), **base)
        self.threshold = threshold

    def loss(self, frames: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The network's own loss."""
        masks = [sample.gt_sem_seg.sem_seg for sample in key_frames(data_samples)]
        target = torch.stack(masks).to(frames)
        inputs = self._inputs(frames)
        return {"loss": self.model.loss(self.model(*inputs), target, inputs[0])}

    @torch.inference_mode()
    def predict(self, frames: Tensor, data_samples: list) -> list:
        """The samples, with `pred_sem_seg`: `sem_seg` (1, H, W) int64, 1 on targets, and `probability`."""
        from mmengine.structures import PixelData

        found = self.model.probability(frames)
        for sample, probability in zip(key_frames(data_samples), found, strict=True):
            marked = (probability > self.threshold).long()
            sample.pred_sem_seg = PixelData(sem_seg=marked, probability=probability)
        return data_samples

    def _inputs(self, frames: Tensor) -> tuple[Tensor, ...]:
        return self.model.inputs(frames, Geometry.native((frames.shape[-1], frames.shape[-2]), multiple=1))


KINDS: dict[str, tuple[type, dict]] = {
    "MoteTridos": (ClipDetector, {"network": "tridos"}),
    "MoteTridosNano": (ClipDetector, {"network": "tridos-nano"}),
    "MoteSegmenter": (PictureSegmenter, {}),
}
"""Name in mmdet's registry → what the model does, and attributes of its class."""


def register() -> None:
    """Put our models into mmdet's registry."""
    from mmdet.registry import MODELS
    from mmengine.model import BaseModel

    for name, (kind, attributes) in KINDS.items():
        model = type(name, (kind, BaseModel), {**attributes, "__module__": __name__, "__doc__": kind.__doc__})
        MODELS.register_module(module=model, force=True)
