"""Further training datasets of a run, the tables of `data.kinds`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from datasets.augmentation.kinds import DataKind
from datasets.layouts.registry import load_dataset
from datasets.sequences.clips import VideoSequence, read_sequences
from datasets.sequences.frame_store import FrameStore
from datasets.sequences.moving_stills import animate_still
from datasets.sequences.views import scale_intensity
from detectors.training.recipe import DataRecipe
from pipeline.config.parsing import build
from pipeline.system.errors import UsageError
from pipeline.system.progress import Mode
from pipeline.system.signals import StopRequest


def parse_kinds(data: DataRecipe) -> dict[str, DataKind]:
    """Returns the kinds by name. Raises UsageError for unknown keys and invalid values."""
    return {name: build(DataKind, table, f"data.kinds.{name}.") for name, table in data.kinds.items()}


def read_kind(
    kind: DataKind, data: DataRecipe, stop: StopRequest, *, progress: Mode = "auto"
) -> Iterator[VideoSequence]:
    """Yields the sequences of a kind, with label 0 for all targets.

    Raises UsageError if stills without masks are to be animated, SourceError if a video cannot be read,
    Interrupted after a signal.
    """
    dataset = load_dataset(kind.layout, kind.root, kind.split)
    # stills have many sizes and are read once: they are held in memory
    store = FrameStore(data.store) if data.store and not kind.moving else None
    decoded = read_sequences(dataset.records, dataset.root, store=store, mode=progress)
    grown = np.array([-kind.margin] * 2 + [kind.margin] * 2, dtype=np.float32)
    with closing(decoded):  # ends the progress bar before an error is reported
        for number, sequence in enumerate(decoded):
            stop.check()
            if kind.moving:
                sequence = _animate(sequence, kind, number)
            sequence = scale_intensity(sequence, data.scaling)
            yield replace(
                sequence,
                boxes=tuple(boxes + grown for boxes in sequence.boxes),
                labels=tuple(np.zeros_like(labels) for labels in sequence.labels),
            )


def _animate(sequence: VideoSequence, kind: DataKind, number: int) -> VideoSequence:
    """Returns an animation of the first frame of a sequence."""
    if not sequence.masks:
        raise UsageError(f"{sequence.name} of '{kind.layout}' has no mask, which stills in motion need")
    return animate_still(sequence.name, sequence.frames[0], sequence.masks[0], seed=number)
