"""Sequences with pixels, and the clips that networks are trained on: T frames that end at the key frame."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from datasets.synthesis.rendering import render
from datasets.synthesis.scene import Scene
from pipeline.imaging.mask_files import read_mask
from pipeline.sources.sequences import grey_images, record_location
from pipeline.stages.ring_buffer import window_indices
from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError
from pipeline.system.progress import Mode, Progress

if TYPE_CHECKING:
    from datasets.sequences.frame_store import FrameStore


class FrameArray(Protocol):
    """Frames (T, H, W), uint8 or uint16 grey, that are indexed along the first axis like a numpy array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows, columns."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """uint8 or uint16."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class VideoSequence:
    """One sequence: ground truth in memory, pixels in memory or in a store."""

    name: str
    frames: FrameArray
    """(T, H, W) uint8 or uint16 grey: an array, frames in a store, or a view of either."""
    boxes: tuple[np.ndarray, ...]
    """Per frame (N, 4) float32 x1 y1 x2 y2 in pixels."""
    labels: tuple[np.ndarray, ...]
    """Per frame (N,) int64."""
    masks: tuple[np.ndarray, ...] = ()
    """Per frame (H, W) bool, True on targets; empty if the dataset has only boxes."""
    annotated: tuple[int, ...] | None = None
    """Frames whose targets are annotated, ascending; None for all. Others may hold targets without boxes."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def key_frames(self) -> tuple[int, ...] | range:
        """Frames that a clip may end at."""
        return range(len(self)) if self.annotated is None else self.annotated


@dataclass(frozen=True, eq=False)
class Clip:
    """A window of frames with the ground truth of the key frame."""

    frames: np.ndarray
    """(T, H, W) uint8 or uint16, oldest first; the key frame is the last."""
    boxes: np.ndarray
    """(N, 4) float32 x1 y1 x2 y2 in the clip's pixels."""
    labels: np.ndarray
    """(N,) int64."""
    mask: np.ndarray | None = None
    """(H, W) bool of the key frame, True on targets; None if there is none."""


def read_sequence(
    record: VideoRecord, root: Path, *, store: FrameStore | None = None, progress: Progress | None = None
) -> VideoSequence:
    """Reads the grey video or image files of a record, 8 or 16 bits, with the readers of the pipeline.

    All frames are decoded into memory, or into the `store`, from which they are read when indexed; masks are
    in memory. `progress` advances by each decoded frame. Raises UsageError if pixels and annotations differ
    in number or size, SourceError if a file cannot be read, OutputError if the store cannot be written.
    """
    name, location = record.file_name or record.name, record_location(record, root)
    frames: FrameArray
    if store is not None:
        frames = store.open(name, location, progress=progress)
    else:
        frames = np.stack(list(grey_images(location, name=name, progress=progress)))
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
) -> Generator[VideoSequence, None, None]:
    """Yields the result of `read_sequence` for each record, with one progress bar for all of them."""
    records = list(records)
    to_decode = [r for r in records if store is None or not store.contains(record_location(r, root))]
    with Progress(sum(map(len, to_decode)), mode=mode) as progress:
        for record in records:
            yield read_sequence(record, root, store=store, progress=progress)


def synthetic_sequences(
    count: int, *, frames: int, seed: int, width: int, height: int
) -> Iterator[VideoSequence]:
    """Yields `count` random scenes of `frames` frames; the same seed gives the same sequences."""
    for number in range(count):
        scene = Scene.random(seed + number, width=width, height=height, frames=frames)
        images, targets = zip(*render(scene), strict=True)
        boxes = tuple(np.array([t.box for t in row], dtype=np.float32).reshape(-1, 4) for row in targets)
        labels = tuple(np.zeros(len(b), dtype=np.int64) for b in boxes)
        yield VideoSequence(f"synthetic-{seed + number}", np.stack(images), boxes, labels)


def clip_at(
    sequence: VideoSequence, position: int, *, length: int, stride: int = 1, missing: int | None = None
) -> Clip:
    """Returns the window of `length` frames that ends at `position`, as in the ring buffer of a stream.

    If `missing` is given, the frame so many steps before the key frame is treated as lost and replaced by the
    one before it. Raises ValueError if `missing` is not from 1 to `length` - 1.
    """
    indices = window_indices(position, length, stride=stride)
    if missing is not None:
        if not 1 <= missing < length:
            raise ValueError(f"{missing = }, expected 1 to {length - 1}")
        indices[-1 - missing] = max(position - stride * (missing + 1), 0)
    mask = sequence.masks[position] if sequence.masks else None
    return Clip(sequence.frames[indices], sequence.boxes[position], sequence.labels[position], mask)
