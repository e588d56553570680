"""What a training run reads before its first step: sequences to learn from, and those it is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from datasets.augmentation.sampler import ClipSampler
from datasets.layouts.registry import Dataset, load
from datasets.sequences.clips import Clip, VideoSequence, read_sequences, synthetic_sequences
from datasets.sequences.frame_store import FrameStore
from datasets.sequences.views import resized, resized_record, scaled
from detectors.networks.registry import SEGMENTERS, canonical
from detectors.training.recipe import EDGE, DataRecipe, Recipe
from pipeline.imaging.geometry import Geometry
from pipeline.system.errors import UsageError
from pipeline.system.progress import Mode
from pipeline.system.signals import StopRequest

UNKNOWN = -1  # label of a target whose class is not known
SYNTHETIC_SEED = 1_000_003  # synthetic scenes must not share seeds with those of tests and demo


class Validation:
    """The sequences that a run is measured on."""

    def __init__(self, recipe: Recipe, stop: StopRequest):
        dataset, self.sequences = read_split(recipe, recipe.data.val, stop)
        self.records, self.truth, self._stop = dataset.records, dataset.coco(), stop

    def coming(self) -> Iterator[VideoSequence]:
        """The sequences, until a signal has come: then Interrupted is raised."""
        return unless_stopped(self.sequences, self._stop)


def read_split(
    recipe: Recipe, split: str, stop: StopRequest, *, progress: Mode = "auto"
) -> tuple[Dataset, list[VideoSequence]]:
    """A split and its pixels, resized where the recipe says so; a signal ends it with Interrupted.

    Raises UsageError for a split without masks where the network learns from them.
    """
    data = recipe.data
    dataset = load(data.layout, data.root, split)
    dataset = replace(dataset, records=dataset.records[: data.videos or None])
    store = FrameStore(data.store) if data.store else None
    found = read_sequences(dataset.records, dataset.root, store=store, mode=progress)
    sequences = [scaled(sequence, data.scaling) for sequence in unless_stopped(found, stop)]
    if data.letterbox or data.enlarge != 1:
        geometries = [_geometry(data, (r.width, r.height)) for r in dataset.records]
        sequences = [resized(s, g) for s, g in zip(sequences, geometries, strict=True)]
        records = [resized_record(r, g) for r, g in zip(dataset.records, geometries, strict=True)]
        dataset = replace(dataset, records=records, table=None)
    bare = next((sequence.name for sequence in sequences if not sequence.masks), None)
    if bare is not None and canonical(recipe.model.name) in SEGMENTERS:
        raise UsageError(
            f"{bare} of '{data.layout}' has no mask, which '{recipe.model.name}' needs; choose other data"
        )
    return dataset, sequences


def _geometry(data: DataRecipe, size: tuple[int, int]) -> Geometry:
    """How frames of a size are resized before anything else."""
    if data.letterbox:
        return Geometry.letterbox(size, data.letterbox)
    return Geometry.native(size, scale=data.enlarge, multiple=1)


def unless_stopped(items: Iterable, stop: StopRequest) -> Iterator:
    """The items, until a signal has come: then Interrupted is raised."""
    for item in items:
        stop.check()
        yield item


def training_clips(
    recipe: Recipe, stop: StopRequest, *, frames: int, num_classes: int, progress: Mode = "auto"
) -> ClipSampler:
    """The clips that a network of `frames` and `num_classes` learns from.

    Raises UsageError for data that the recipe or the network does not fit, SourceError for a video that
    cannot be read.
    """
    data = recipe.data
    _, real = read_split(recipe, data.train, stop, progress=progress)
    if data.class_agnostic:
        real = [_labelled(s, 0) for s in real]
    _check_classes(real, num_classes)
    _check_sizes(real, recipe)
    synthetic = _synthetic(recipe, real[0].frames.shape[:0:-1])
    if num_classes > 1 and not data.class_agnostic:
        synthetic = (_labelled(s, UNKNOWN) for s in synthetic)
    return ClipSampler(
        real,
        unless_stopped(synthetic, stop),
        length=frames,
        synthetic_share=data.synthetic_share,
        seed=recipe.schedule.seed,
        augment=recipe.augment,
        balanced=data.balance,
    )


def _labelled(sequence: VideoSequence, label: int) -> VideoSequence:
    """The sequence with one label for all its targets."""
    return replace(sequence, labels=tuple(np.full_like(labels, label) for labels in sequence.labels))


def _synthetic(recipe: Recipe, size: tuple[int, int]) -> Iterator[VideoSequence]:
    """Rendered sequences; `size` is that of the real frames, which may have been enlarged."""
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
        if not data.scaling.startswith("fixed"):  # those are levels of a camera, and this is none
            sequence = scaled(sequence, data.scaling)
        yield sequence if data.enlarge == 1 else resized(sequence, geometry)


def batch_clips(sampler: ClipSampler, recipe: Recipe, number: int, places: Iterable[int]) -> list[Clip]:
    """The clips at some places of a batch, numbered from 0, as the network is to see them."""
    schedule = recipe.schedule
    whole = number >= schedule.steps * recipe.optimiser.accumulate * (1 - schedule.whole_share)
    size = None if whole else schedule.crop
    return [sampler.clip(number, place, crop_size=size) for place in places]


def _check_classes(sequences: list[VideoSequence], known: int) -> None:
    """Raise UsageError for labels that the network does not have."""
    labels = [labels for s in sequences for labels in s.labels if len(labels)]
    classes = 1 + max((int(row.max()) for row in labels), default=0)
    if classes > known:
        raise UsageError(
            f"the annotations have {classes} classes, the network {known}; "
            "set model.options.num_classes or data.class_agnostic"
        )


def _check_sizes(sequences: list[VideoSequence], recipe: Recipe) -> None:
    """Raise UsageError for whole frames that the network cannot take as one batch."""
    if recipe.schedule.whole_share == 0:
        return
    sizes = sorted({s.frames.shape[:0:-1] for s in sequences})
    if len(sizes) > 1 or any(side % EDGE for side in sizes[0]):
        named = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
        raise UsageError(
            f"whole frames need one size of multiples of {EDGE}, the videos are {named}; "
            "set data.letterbox, or schedule.whole_share=0 to train on crops alone"
        )
