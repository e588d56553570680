"""Training and validation data of a run: reads, resizes and labels the sequences before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from datasets.augmentation.kinds import KindSampler
from datasets.augmentation.sampler import ClipSampler
from datasets.layouts.registry import Dataset, load_dataset
from datasets.sequences.clips import Clip, VideoSequence, read_sequences, synthetic_sequences
from datasets.sequences.frame_store import FrameStore
from datasets.sequences.views import resize_record, resize_sequence, scale_intensity
from detectors.networks.registry import SEGMENTERS, canonical
from detectors.training.mixed_data import parse_kinds, read_kind
from detectors.training.recipe import DataRecipe, Recipe
from pipeline.imaging.geometry import SIZE_MULTIPLE, Geometry
from pipeline.system.errors import UsageError
from pipeline.system.progress import Mode
from pipeline.system.signals import StopRequest

Item = TypeVar("Item")

UNKNOWN_CLASS = -1
"""Label of a target whose class is not known."""

SYNTHETIC_SEED = 1_000_003
"""First seed of synthetic training scenes: tests and demo use smaller ones."""


class Validation:
    """The validation split of a run, in memory. Raises as `read_split`."""

    def __init__(self, recipe: Recipe, stop: StopRequest):
        dataset, self.sequences = read_split(recipe, recipe.data.val, stop)
        self.records, self.truth, self._stop = dataset.records, dataset.to_coco(), stop

    def iterate(self) -> Iterator[VideoSequence]:
        """Yields the sequences. Raises Interrupted after a signal."""
        return until_stopped(self.sequences, self._stop)


def read_split(
    recipe: Recipe, split: str, stop: StopRequest, *, progress: Mode = "auto"
) -> tuple[Dataset, list[VideoSequence]]:
    """Reads a split and its pixels, with the intensity scaling and the resizing of the recipe.

    Raises SourceError if a video cannot be read, UsageError if the network learns from masks and the split
    has none, Interrupted after a signal.
    """
    data = recipe.data
    dataset = load_dataset(data.layout, data.root, split)
    dataset = replace(dataset, records=dataset.records[: data.videos or None])
    store = FrameStore(data.store) if data.store else None
    decoded = read_sequences(dataset.records, dataset.root, store=store, mode=progress)
    sequences = [scale_intensity(sequence, data.scaling) for sequence in until_stopped(decoded, stop)]
    if data.letterbox or data.enlarge != 1:
        geometries = [_geometry(data, (r.width, r.height)) for r in dataset.records]
        sequences = [resize_sequence(s, g) for s, g in zip(sequences, geometries, strict=True)]
        records = [resize_record(r, g) for r, g in zip(dataset.records, geometries, strict=True)]
        dataset = replace(dataset, records=records, coco=None)
    unmasked = next((sequence.name for sequence in sequences if not sequence.masks), None)
    if unmasked is not None and canonical(recipe.model.name) in SEGMENTERS:
        raise UsageError(
            f"{unmasked} of '{data.layout}' has no mask, which '{recipe.model.name}' needs; choose other data"
        )
    return dataset, sequences


def _geometry(data: DataRecipe, size: tuple[int, int]) -> Geometry:
    """Returns how frames of a size (width, height) are resized after reading."""
    if data.letterbox:
        return Geometry.letterbox(size, data.letterbox)
    return Geometry.native(size, scale=data.enlarge, multiple=1)


def until_stopped(items: Iterable[Item], stop: StopRequest) -> Iterator[Item]:
    """Yields the items. Raises Interrupted after a signal."""
    for item in items:
        stop.check()
        yield item


def training_clips(
    recipe: Recipe, stop: StopRequest, *, frames: int, num_classes: int, progress: Mode = "auto"
) -> ClipSampler:
    """Returns the sampler of training clips for a network with windows of `frames` and `num_classes` classes.

    Raises UsageError if the data do not fit the recipe or the network, SourceError if a video cannot be read,
    Interrupted after a signal.
    """
    data = recipe.data
    _, real = read_split(recipe, data.train, stop, progress=progress)
    if data.class_agnostic:
        real = [_with_label(s, 0) for s in real]
    _check_classes(real, num_classes)
    _check_sizes(real, recipe)
    height, width = real[0].frames.shape[1:]
    synthetic = _synthetic(recipe, (width, height))
    if data.kinds:
        return _mixed_clips(recipe, real, until_stopped(synthetic, stop), stop, frames, progress)
    if num_classes > 1 and not data.class_agnostic:
        synthetic = (_with_label(s, UNKNOWN_CLASS) for s in synthetic)
    return ClipSampler(
        real,
        until_stopped(synthetic, stop),
        length=frames,
        synthetic_share=data.synthetic_share,
        seed=recipe.schedule.seed,
        augment=recipe.augment,
        balanced=data.balance,
    )


def _mixed_clips(
    recipe: Recipe,
    real: list[VideoSequence],
    synthetic: Iterable[VideoSequence],
    stop: StopRequest,
    frames: int,
    progress: Mode,
) -> ClipSampler:
    """Returns the sampler of clips of the recipe's own dataset and of all its kinds."""
    data, kinds = recipe.data, parse_kinds(recipe.data)
    own = 1 - data.synthetic_share - sum(kind.share for kind in kinds.values())
    if own < 0:
        raise UsageError("the shares of data.kinds and data.synthetic_share add up to more than 1")
    more = [(kind.share, read_kind(kind, data, stop, progress=progress)) for kind in kinds.values()]
    return KindSampler(
        [(own, real), (data.synthetic_share, synthetic), *more],
        length=frames,
        seed=recipe.schedule.seed,
        augment=recipe.augment,
        sized=data.sized,
        sizes=data.sizes,
        margin=data.margin,
    )


def _with_label(sequence: VideoSequence, label: int) -> VideoSequence:
    """Returns the sequence with one label for all its targets."""
    return replace(sequence, labels=tuple(np.full_like(labels, label) for labels in sequence.labels))


def _synthetic(recipe: Recipe, size: tuple[int, int]) -> Iterator[VideoSequence]:
    """Yields rendered sequences of `size` (width, height): that of the real frames after enlargement."""
    data = recipe.data
    width, height = (round(side / data.enlarge) for side in size)
    geometry = Geometry((width, height), size, size)
    for sequence in synthetic_sequences(
        data.synthetic_videos if data.synthetic_share > 0 else 0,
        frames=data.synthetic_frames,
        seed=SYNTHETIC_SEED + recipe.schedule.seed,
        width=width,
        height=height,
    ):
        if not data.scaling.startswith("fixed"):  # fixed levels are those of a real camera
            sequence = scale_intensity(sequence, data.scaling)
        yield sequence if data.enlarge == 1 else resize_sequence(sequence, geometry)


def batch_clips(sampler: ClipSampler, recipe: Recipe, number: int, indices: Iterable[int]) -> list[Clip]:
    """Returns the clips at some indices of batch `number`, both counted from 0, cropped by the schedule."""
    schedule = recipe.schedule
    whole = number >= schedule.steps * recipe.optimiser.accumulate * (1 - schedule.whole_share)
    size = None if whole else schedule.crop
    return [sampler.clip(number, index, crop_size=size) for index in indices]


def _check_classes(sequences: list[VideoSequence], known: int) -> None:
    """Raises UsageError if a label exceeds the classes of the network."""
    labels = [labels for s in sequences for labels in s.labels if len(labels)]
    classes = 1 + max((int(row.max()) for row in labels), default=0)
    if classes > known:
        raise UsageError(
            f"the annotations have {classes} classes, the network {known}; "
            "set model.options.num_classes or data.class_agnostic"
        )


def _check_sizes(sequences: list[VideoSequence], recipe: Recipe) -> None:
    """Raises UsageError if whole frames are trained on and cannot form one batch."""
    if recipe.schedule.whole_share == 0:
        return
    sizes = sorted({s.frames.shape[:0:-1] for s in sequences})
    if len(sizes) > 1 or any(side % SIZE_MULTIPLE for side in sizes[0]):
        named = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
        raise UsageError(
            f"whole frames need one size of multiples of {SIZE_MULTIPLE}, the videos are {named}; "
            "set data.letterbox, or schedule.whole_share=0 to train on crops alone"
        )
