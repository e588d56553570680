"""Our data for mmengine's Runner: a dataset of clips and the transforms that augment and pack them.

A pipeline passes on a dict with `clip` (a `datasets.sequences.clips.Clip`) and the metadata of its key frame
that mmdet's metrics need; the packing transform, the last one, turns it into `inputs` and `data_samples`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datasets.augmentation import transforms
from datasets.layouts import registry as registry_module
from datasets.sequences.clips import Clip, VideoSequence, clip_at, read_sequences
from datasets.sequences.frame_store import FrameStore
from detectors.inference.normalisation import to_network_input
from pipeline.imaging.geometry import SIZE_MULTIPLE
from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from mmdet.structures import DetDataSample


class ClipDataset(torch.utils.data.Dataset):
    """Clips of a dataset in one of our layouts: one for each key frame, in the order of the sequences.

    Args:
        layout: a name in `datasets.layouts.registry.LAYOUTS`.
        root: folder of the dataset.
        split: split of the dataset.
        frames: length of a clip; the last frame is the key frame.
        stride: every `stride`-th annotated frame is a key frame.
        videos: number of sequences to use, from the first; 0 for all.
        class_agnostic: treat all classes as one, `target`.
        store: cache folder for decoded frames; empty to hold them in memory.
        pipeline: transforms, or configurations from which mmengine builds them.

    Raises UsageError and SourceError as `datasets.layouts.registry.load_dataset` and
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

        dataset = registry_module.load_dataset(layout, root, split)
        self._records, self._root = dataset.records[: videos or None], dataset.root
        self._frames, self._agnostic, self._store = frames, class_agnostic, store
        self.metainfo = {"classes": ("target",) if class_agnostic else dataset.classes}
        self.pipeline = Compose(pipeline)
        self._key_frames = [
            (number, frame)
            for number, record in enumerate(self._records)
            for frame in sorted(record.image_ids)[::stride]
        ]
        self._sequences: list[VideoSequence] = []

    def __len__(self) -> int:
        return len(self._key_frames)

    def full_init(self) -> None:
        """Reads the pixels; the Runner calls this before it starts workers, which then share them."""
        if not self._sequences:
            store = FrameStore(self._store) if self._store else None
            self._sequences = list(read_sequences(self._records, self._root, store=store, mode="off"))

    def __getitem__(self, index: int) -> Any:
        """Returns the clip at `index`, transformed by the pipeline."""
        self.full_init()
        number, frame = self._key_frames[index]
        record, clip = self._records[number], clip_at(self._sequences[number], frame, length=self._frames)
        if self._agnostic:
            clip = replace(clip, labels=np.zeros_like(clip.labels))
        metadata = {"img_id": record.image_ids[frame], "frame_id": frame, "video_id": number}
        return self.pipeline({"clip": clip, "ori_video_length": len(record), **metadata})


class RandomCrop:
    """Crops all frames of a clip to (width, height) at the same place, mostly around a target.

    Smaller frames are padded first, by repeating their edge.
    """

    def __init__(self, *, size: tuple[int, int]):
        width, height = size  # a list in a configuration
        self._size = width, height

    def __call__(self, results: dict) -> dict:
        """Replaces `clip`."""
        clip = transforms.pad(results["clip"], self._size)
        clip = transforms.random_crop(clip, self._size, _generator())
        return {**results, "clip": clip}


class RandomFlip:
    """Flips a clip horizontally, vertically, both or not at all, with equal probability."""

    def __call__(self, results: dict) -> dict:
        """Replaces `clip`."""
        horizontal, vertical = _generator().random(2) < 0.5
        return {**results, "clip": transforms.flip(results["clip"], horizontal=horizontal, vertical=vertical)}


def _generator() -> np.random.Generator:
    """Returns a generator seeded by NumPy's global one, which mmengine seeds differently in each worker."""
    return np.random.default_rng(np.random.randint(2**31))


def _pad_to_multiple(clip: Clip, multiple: int) -> Clip:
    height, width = clip.frames.shape[1:]
    return transforms.pad(clip, (-(-width // multiple) * multiple, -(-height // multiple) * multiple))


class PackClip:
    """Packs a clip as network input and a TrackDataSample.

    `inputs` is (3, T, H, W) float32, normalised, oldest frame first, padded on the right and at the bottom to
    multiples of 32, so that boxes stay in pixels of the clip. The sample holds one video data sample, of the
    key frame, with `gt_instances` and the metadata that CocoVideoMetric needs.
    """

    def __call__(self, results: dict) -> dict:
        """Returns `inputs` and `data_samples`."""
        from mmdet.structures import TrackDataSample

        clip, padded = results["clip"], _pad_to_multiple(results["clip"], SIZE_MULTIPLE)
        scale = int(np.iinfo(clip.frames.dtype).max)
        inputs = to_network_input(list(padded.frames), full_scale=scale).transpose(0, 1)
        track = TrackDataSample()
        track.video_data_samples = [_key_frame_sample(results, padded)]
        track.set_metainfo({"key_frames_inds": [0], "ref_frames_inds": []})
        return {"inputs": inputs.contiguous(), "data_samples": track}


class PackImage:
    """Packs the key frame of a clip as an image and a DetDataSample.

    `inputs` is (1, H, W) float32 in [0, 1]; the sample has `gt_sem_seg`, 1 on targets. Raises UsageError if
    the frame has no mask.
    """

    def __call__(self, results: dict) -> dict:
        """Returns `inputs` and `data_samples`."""
        from mmengine.structures import PixelData

        clip = results["clip"]
        if clip.mask is None:
            raise UsageError(f"image {results['img_id']} has no mask, which MoteSegmenter needs")
        scale = np.iinfo(clip.frames.dtype).max
        image = torch.from_numpy(clip.frames[-1:] / np.float32(scale))
        sample = _key_frame_sample(results, clip)
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(clip.mask[None].astype(np.int64)))
        return {"inputs": image, "data_samples": sample}


def _key_frame_sample(results: dict, padded: Clip) -> DetDataSample:
    """Returns the DetDataSample of the key frame."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    clip = results["clip"]
    boxes, labels = clip.boxes.astype(np.float32), clip.labels
    metadata = {key: value for key, value in results.items() if key != "clip"}
    rows = zip(boxes.tolist(), labels.tolist(), strict=True)
    metadata["instances"] = [{"bbox": box, "bbox_label": label, "ignore_flag": 0} for box, label in rows]
    shapes = {"ori_shape": clip.frames.shape[1:], "img_shape": padded.frames.shape[1:]}
    sample = DetDataSample(metainfo={**metadata, **shapes, "scale_factor": (1.0, 1.0)})
    sample.gt_instances = InstanceData(bboxes=torch.from_numpy(boxes), labels=torch.from_numpy(labels))
    return sample


TRANSFORMS = {
    "MoteRandomCrop": RandomCrop,
    "MoteRandomFlip": RandomFlip,
    "PackMoteClip": PackClip,
    "PackMotePicture": PackImage,
}
"""Name in mmdet's registry → transform."""


def register() -> None:
    """Registers the dataset (`MoteClips`) and the transforms with mmdet."""
    from mmdet import registry

    registry.DATASETS.register_module(name="MoteClips", module=ClipDataset, force=True)
    for name, transform in TRANSFORMS.items():
        registry.TRANSFORMS.register_module(name=name, module=transform, force=True)
