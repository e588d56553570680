"""Sequences with pixels, and the clips a network is trained on: T frames that end at the key frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datasets.layouts.mask_folders import read_mask
from datasets.synthesis.rendering import render
from datasets.synthesis.scene import Scene
from pipeline.sources.sequences import Location, grey_pictures
from pipeline.stages.ring_buffer import window_indices
from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError
from pipeline.system.progress import Mode, Progress

if TYPE_CHECKING:
    from datasets.sequences.frame_store import FrameStore, StoredFrames


@dataclass(frozen=True, eq=False)
class VideoSequence:
    """One sequence: the ground truth in memory, the pixels there or in a store."""

    name: str
    frames: np.ndarray | StoredFrames
    """(T, H, W) uint8 or uint16 grey; both kinds are indexed alike along the first axis."""
    boxes: tuple[np.ndarray, ...]
    """Per frame (N, 4) float32 x1 y1 x2 y2 in pixels."""
    labels: tuple[np.ndarray, ...]
    """Per frame (N,) int64."""
    masks: tuple[np.ndarray, ...] = ()
    """Per frame (H, W) bool, True on targets; empty where the data set has boxes alone."""
    annotated: tuple[int, ...] | None = None
    """Frames whose targets are known, ascending; None for all. Others may hold targets without boxes."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def key_frames(self) -> tuple[int, ...] | range:
        """Frames that a clip may end at."""
        return range(len(self)) if self.annotated is None else self.annotated


@dataclass(frozen=True, eq=False)
class Clip:
    """A window of frames with the key frame's ground truth."""

    frames: np.ndarray
    """(T, H, W) uint8 or uint16, oldest first; the key frame is the last."""
    boxes: np.ndarray
    """(N, 4) float32 x1 y1 x2 y2 in the clip's pixels."""
    labels: np.ndarray
    """(N,) int64."""
    mask: np.ndarray | None = None
    """(H, W) bool of the key frame, True on targets; None where there is none."""


def read_sequence(
    record: VideoRecord, root: Path, *, store: FrameStore | None = None, progress: Progress | None = None
) -> VideoSequence:
    """The pixels of a grey video or of picture files, 8 or 16 bits, through the same reader as the pipeline.

    Decoded whole into memory, or with a `store` left there and read when indexed; masks are in memory.
    `progress` advances by each decoded frame. Raises UsageError when pixels and annotations do not fit each
    other, SourceError when a file cannot be read, OutputError when the store cannot be written.
    """
    name, location = record.file_name or record.name, _location(record, root)
    if store is not None:
        frames = store.open(name, location, progress=progress)
    else:
        frames = np.stack(list(grey_pictures(location, name=name, progress=progress)))
    if frames.shape != (len(record), record.height, record.width):
        raise UsageError(
            f"{name}: decoded frames, height, width {frames.shape}, annotated "
            f"{(len(record), record.height, record.width)}"
        )
    masks = tuple(read_mask(root / file) for file in record.masks)
    for number, mask in enumerate(masks):
        if mask.shape != frames.shape[1:]:
            raise UsageError(
                f"{name}: mask {number} has height, width {mask.shape}, its frame {frames.shape[1:]}"
            )
    return VideoSequence(
        record.name, frames, record.boxes, record.labels, masks, tuple(sorted(record.image_ids))
    )


def read_sequences(
    records: Iterable[VideoRecord], root: Path, *, store: FrameStore | None = None, mode: Mode = "auto"
) -> Iterator[VideoSequence]:
    """`read_sequence` for one record after the other, with a progress bar over all that has to be decoded."""
    records = list(records)
    coming = [r for r in records if store is None or not store.holds(_location(r, root))]
    with Progress(sum(map(len, coming)), mode=mode) as progress:
        for record in records:
            yield read_sequence(record, root, store=store, progress=progress)


def _location(record: VideoRecord, root: Path) -> Location:
    if not record.files and not record.file_name:
        raise UsageError(f"{record.name}: the annotations name neither a video nor pictures for it")
    if not record.files:
        return root / record.file_name
    if "" in record.files:
        missing = record.files.index("")
        raise UsageError(f"{record.name}: frame {missing} has no picture, and a sequence needs all of them")
    return [root / file for file in record.files]


def synthetic_sequences(
    count: int, *, frames: int, seed: int, width: int, height: int
) -> Iterator[VideoSequence]:
    """`count` random scenes of `frames` frames each; the same seed gives the same sequences."""
    for number in range(count):
        scene = Scene.random(seed + number, width=width, height=height, frames=frames)
        pictures, truths = zip(*render(scene), strict=True)
        boxes = tuple(np.array([t.box for t in row], dtype=np.float32).reshape(-1, 4) for row in truths)
        labels = tuple(np.zeros(len(b), dtype=np.int64) for b in boxes)
        yield VideoSequence(f"synthetic-{seed + number}", np.stack(pictures), boxes, labels)


def clip_at(
    sequence: VideoSequence, position: int, *, length: int, stride: int = 1, missing: int | None = None
) -> Clip:
    """The window of `length` frames that ends at `position`, as the streaming ring buffer would hold it.

    The frame `missing` steps before the key frame is taken for lost: the one before it stands in for it.
    """
    indices = window_indices(position, length, stride=stride)
    if missing is not None:
        if not 1 <= missing < length:
            raise ValueError(f"{missing = }, expected 1 to {length - 1}")
        indices[-1 - missing] = max(position - stride * (missing + 1), 0)
    mask = sequence.masks[position] if sequence.masks else None
    return Clip(sequence.frames[indices], sequence.boxes[position], sequence.labels[position], mask)
