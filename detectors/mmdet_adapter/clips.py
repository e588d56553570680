"""Our data for mmengine's Runner: a dataset of clips and the transforms that vary and pack them.

What travels through a pipeline is a dict with `clip` (a `datasets.sequences.clips.Clip`) and the facts of
its key frame that mmdet's metrics ask for; the packing transforms, which come last, turn it into `inputs` and
`data_samples`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datasets.augmentation import transforms
from datasets.layouts import registry as registry_module
from datasets.sequences.clips import Clip, clip_at, read_sequences
from datasets.sequences.frame_store import FrameStore
from detectors.inference.normalisation import to_network_input
from pipeline.imaging.geometry import MULTIPLE
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample


class Clips(torch.utils.data.Dataset):
    """The clips of a dataset that `datasets.layouts.registry` knows: one for each key frame, sequence by
    sequence.

    Args:
        layout: a name in `datasets.layouts.registry.LAYOUTS`.
        root: folder of the dataset.
        split: a split of it.
        frames: length of a clip; the key frame is the last.
        stride: every which annotated frame is a key frame.
        videos: how many sequences are read, from the first; 0 for all.
        class_agnostic: take all classes as one, `target`.
        store: folder for decoded frames; empty to hold them in memory.
        pipeline: transforms, as mmengine builds them.

    Raises UsageError and SourceError as `datasets.layouts.registry.load` and
    `datasets.sequences.clips.read_sequence` do.
    """

    def __init__(
        self,
        *,
        layout: str,
        root: str,
        split: str,
        frames: int = 5,
        stride: int = 1,
        videos: int = 0,
        class_agnostic: bool = False,
        store: str = "",
        pipeline: Sequence[dict | Callable] = (),
    ):
        from mmengine.dataset import Compose

        dataset = registry_module.load(layout, root, split)
        self._records, self._root = dataset.records[: videos or None], dataset.root
        self._frames, self._agnostic, self._store = frames, class_agnostic, store
        self.metainfo = {"classes": ("target",) if class_agnostic else dataset.classes}
        self.pipeline = Compose(pipeline)
        self._places = [
            (number, frame)
            for number, record in enumerate(self._records)
            for frame in sorted(record.image_ids)[::stride]
        ]
        self._sequences = []

    def __len__(self) -> int:
        return len(self._places)

    def full_init(self) -> None:
        """Read the pixels; the Runner does it before it starts workers, which then share them."""
        if not self._sequences:
            store = FrameStore(self._store) if self._store else None
            self._sequences = list(read_sequences(self._records, self._root, store=store, mode="off"))

    def __getitem__(self, index: int) -> Any:
        """What the pipeline makes of the clip at `index`."""
        self.full_init()
        number, frame = self._places[index]
        record, clip = self._records[number], clip_at(self._sequences[number], frame, length=self._frames)
        if self._agnostic:
            clip = replace(clip, labels=np.zeros_like(clip.labels))
        facts = {"img_id": record.image_ids[frame], "frame_id": frame, "video_id": number}
        return self.pipeline({"clip": clip, "ori_video_length": len(record), **facts})


class RandomCrop:
    """The same opening of (width, height) in all frames, mostly placed on a target.

    Pictures that are smaller are first padded with their edge.
    """

    def __init__(self, *, size: tuple[int, int]):
        self._size = tuple(size)

    def __call__(self, results: dict) -> dict:
        """With another `clip`."""
        clip = transforms.pad(results["clip"], self._size)
        clip = transforms.random_crop(clip, self._size, _generator())
        return {**results, "clip": clip}


class RandomFlip:
    """Mirrored to the right, downward, both or neither, with equal chances."""

    def __call__(self, results: dict) -> dict:
        """With another `clip`."""
        horizontal, vertical = _generator().random(2) < 0.5
        return {**results, "clip": transforms.flip(results["clip"], horizontal=horizontal, vertical=vertical)}


def _generator() -> np.random.Generator:
    """A generator that follows NumPy's global seed: mmengine sets it, another one in each worker."""
    return np.random.default_rng(np.random.randint(2**31))


def _padded(clip: Clip, multiple: int) -> Clip:
    height, width = clip.frames.shape[1:]
    return transforms.pad(clip, (-(-width // multiple) * multiple, -(-height // multiple) * multiple))


class PackClip:
    """`inputs` (3, T, H, W) float32, normalised, oldest frame first; `data_samples` a TrackDataSample.

    Sides are padded to multiples of 32 to the right and below, so boxes stay in pixels of the clip. The
    sample holds one video data sample, of the key frame, with `gt_instances` and what CocoVideoMetric asks
    for.
    """

    def __call__(self, results: dict) -> dict:
        """What the model takes."""
        from mmdet.structures import TrackDataSample

        clip, padded = results["clip"], _padded(results["clip"], MULTIPLE)
        scale = int(np.iinfo(clip.frames.dtype).max)
        inputs = to_network_input(padded.frames, full_scale=scale).transpose(0, 1)
        track = TrackDataSample()
        track.video_data_samples = [_sample(results, padded)]
        track.set_metainfo({"key_frames_inds": [0], "ref_frames_inds": []})
        return {"inputs": inputs.contiguous(), "data_samples": track}


class PackPicture:
    """`inputs` (1, H, W) float32 in [0, 1]; `data_samples` a DetDataSample with `gt_sem_seg`, 1 on targets.

    Of a clip the key frame is taken. Raises UsageError where it has no mask.
    """

    def __call__(self, results: dict) -> dict:
        """What the model takes."""
        from mmengine.structures import PixelData

        clip = results["clip"]
        if clip.mask is None:
            raise UsageError(f"image {results['img_id']} has no mask, and MoteSegmenter learns from masks")
        scale = np.iinfo(clip.frames.dtype).max
        picture = torch.from_numpy(clip.frames[-1:] / np.float32(scale))
        sample = _sample(results, clip)
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(clip.mask[None].astype(np.int64)))
        return {"inputs": picture, "data_samples": sample}


def _sample(results: dict, padded: Clip) -> DetDataSample:
    """The DetDataSample of the key frame."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    clip = results["clip"]
    boxes, labels = clip.boxes.astype(np.float32), clip.labels
    facts = {key: value for key, value in results.items() if key != "clip"}
    rows = zip(boxes.tolist(), labels.tolist(), strict=True)
    facts["instances"] = [{"bbox": box, "bbox_label": label, "ignore_flag": 0} for box, label in rows]
    shapes = {"ori_shape": clip.frames.shape[1:], "img_shape": padded.frames.shape[1:]}
    sample = DetDataSample(metainfo={**facts, **shapes, "scale_factor": (1.0, 1.0)})
    sample.gt_instances = InstanceData(bboxes=torch.from_numpy(boxes), labels=torch.from_numpy(labels))
    return sample


TRANSFORMS = {
    "MoteRandomCrop": RandomCrop,
    "MoteRandomFlip": RandomFlip,
    "PackMoteClip": PackClip,
    "PackMotePicture": PackPicture,
}
"""Name in mmdet's registry → transform."""


def register() -> None:
    """Put the dataset (`MoteClips`) and the transforms into mmdet's registries."""
    from mmdet import registry

    registry.DATASETS.register_module(name="MoteClips", module=Clips, force=True)
    for name, transform in TRANSFORMS.items():
        registry.TRANSFORMS.register_module(name=name, module=transform, force=True)
