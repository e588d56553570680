"""Our networks as models of mmdet: `MoteTridos`, `MoteTridosNano` and `MoteSegmenter` in its registry.

Each holds the network as `model` and has the three modes of mmengine's models: `loss`, `predict` and
`tensor`. Inputs are those of `clips.PackClip` and `clips.PackImage`, as a list or as one batch. Ground truth
and predictions are those of the key frame: in a TrackDataSample the last video data sample, in a
DetDataSample the sample itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

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
    from mmengine.model import BaseModel

    from detectors.networks.segmenters.base import Segmenter
else:
    BaseModel = object  # mmengine is imported in `register`


def key_frames(samples: Sequence[DetDataSample | TrackDataSample]) -> list[DetDataSample]:
    """Returns the data sample of the key frame of each sample."""
    return [s.video_data_samples[-1] if "video_data_samples" in s else s for s in samples]


class _Model(BaseModel):
    """Common part of our models. `register` adds mmengine's BaseModel as the second base class."""

    model: nn.Module

    def __init__(
        self,
        network: str,
        options: dict,
        *,
        weights: str = "",
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.model = registry.build(network, **options)
        if weights:
            files.load_weights(self.model, zoo.locate_weights(weights)[0])

    def forward(
        self, inputs: Tensor | Sequence[Tensor], data_samples: list | None = None, mode: str = "tensor"
    ) -> Any:
        """Returns a dict of scalars in mode `loss`, the samples in `predict`, the raw output in `tensor`.

        Raises UsageError for another mode, and if `loss` or `predict` is called without samples.
        """
        frames = inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))
        if mode == "tensor":
            return self.model(*self._inputs(frames))
        if mode not in ("loss", "predict"):
            raise UsageError(f"mode '{mode}' of {type(self).__name__}, expected loss, predict or tensor")
        if not data_samples:
            raise UsageError(f"mode '{mode}' of {type(self).__name__} needs data_samples")
        return getattr(self, mode)(frames, data_samples)

    def _inputs(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Returns the arguments of the network's `forward`."""
        return (frames,)


class ClipDetector(_Model):
    """Tridos: detects targets in the last frame of clips (B, 3, 5, H, W), normalised, oldest frame first.

    Args:
        num_classes: number of classes.
        weights: initial weights, a name of `run_pipeline.py --list` or a file; empty for random ones.
        conf: minimum score of a predicted box.
        iou: IoU threshold of the non-maximum suppression.
        data_preprocessor: of mmengine; by default its BaseDataPreprocessor, which moves data to the device.
        init_cfg: as in mmengine.
    """

    network: str
    """Name in `detectors.networks.registry.DETECTORS`, set in subclasses."""

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
        """Returns the loss of Tridos, and three of its terms per assigned cell, which mmengine only logs."""
        truths = [sample.gt_instances for sample in key_frames(data_samples)]
        centres = [torch.from_numpy(to_centres(truth.bboxes.cpu().numpy())) for truth in truths]
        boxes = [rows.to(frames.device, torch.float32) for rows in centres]
        loss = detection_loss(self.model(frames), boxes, [t.labels.to(frames.device) for t in truths])
        cells = max(loss.foreground, 1)
        terms = {"ciou": loss.ciou_sum, "objectness": loss.objectness_sum, "classes": loss.class_sum}
        return {"loss": loss.total, **{name: term.detach() / cells for name, term in terms.items()}}

    @torch.inference_mode()
    def predict(self, frames: Tensor, data_samples: list) -> list:
        """Adds `pred_instances`, best first and in source pixels, to the key frames; returns the samples."""
        from mmengine.structures import InstanceData

        decoded = decode(self.model(frames), conf=self.conf, iou=self.iou)
        for sample, (boxes, scores, labels) in zip(key_frames(data_samples), decoded, strict=True):
            height, width = sample.ori_shape[:2]
            boxes = torch.from_numpy(clip(boxes.cpu().numpy(), width, height)).to(scores.device)
            inside = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            sample.pred_instances = InstanceData(
                bboxes=boxes[inside], scores=scores[inside], labels=labels[inside]
            )
        return data_samples


class ImageSegmenter(_Model):
    """A single-frame segmenter: grey images (B, 1, H, W) in [0, 1] to maps of two classes.

    Args:
        network: a name in `detectors.networks.registry.SEGMENTERS`.
        options: options of its constructor.
        weights: initial weights, a name of `run_pipeline.py --list` or a file; empty for random ones.
        threshold: probability above which a pixel belongs to a target.
        data_preprocessor: of mmengine; by default its BaseDataPreprocessor, which moves data to the device.
        init_cfg: as in mmengine.
    """

    model: Segmenter

    def __init__(self, *, network: str, options: dict | None = None, threshold: float = 0.5, **base: Any):
        if registry.canonical(network) not in registry.SEGMENTERS:
            raise UsageError(f"MoteSegmenter takes {', '.join(registry.SEGMENTERS)}, not '{network}'")
        super().__init__(network, dict(options or {}), **base)
        self.threshold = threshold

    def loss(self, frames: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Returns the network's own loss."""
        masks = [sample.gt_sem_seg.sem_seg for sample in key_frames(data_samples)]
        target = torch.stack(masks).to(frames)
        inputs = self._inputs(frames)
        return {"loss": self.model.loss(self.model(*inputs), target, inputs[0])}

    @torch.inference_mode()
    def predict(self, frames: Tensor, data_samples: list) -> list:
        """Adds `pred_sem_seg` to the key frames and returns the samples.

        It has `sem_seg` (1, H, W) int64, 1 on targets, and `probability` (1, H, W).
        """
        from mmengine.structures import PixelData

        probabilities = self.model.probability(frames)
        for sample, probability in zip(key_frames(data_samples), probabilities, strict=True):
            is_target = (probability > self.threshold).long()
            sample.pred_sem_seg = PixelData(sem_seg=is_target, probability=probability)
        return data_samples

    def _inputs(self, frames: Tensor) -> tuple[Tensor, ...]:
        return self.model.inputs(frames, Geometry.native((frames.shape[-1], frames.shape[-2]), multiple=1))


MODEL_CLASSES: dict[str, tuple[type, dict]] = {
    "MoteTridos": (ClipDetector, {"network": "tridos"}),
    "MoteTridosNano": (ClipDetector, {"network": "tridos-nano"}),
    "MoteSegmenter": (ImageSegmenter, {}),
}
"""Name in mmdet's registry → base class and attributes of the model."""


def register() -> None:
    """Registers our models with mmdet."""
    from mmdet.registry import MODELS
    from mmengine.model import BaseModel

    for name, (kind, attributes) in MODEL_CLASSES.items():
        model = type(name, (kind, BaseModel), {**attributes, "__module__": __name__, "__doc__": kind.__doc__})
        MODELS.register_module(module=model, force=True)
