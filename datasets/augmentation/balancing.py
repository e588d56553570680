"""How often training draws each sequence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datasets.sequences.clips import VideoSequence


def by_frames(sequences: Iterable[VideoSequence]) -> np.ndarray:
    """(N,) float64 weights by which all key frames are drawn alike often."""
    return np.array([len(sequence.key_frames) for sequence in sequences], dtype=float)


def by_classes(sequences: Iterable[VideoSequence]) -> np.ndarray:
    """(N,) float64 weights by which targets of all classes are drawn alike often.

    A sequence counts for the class that most of its targets belong to. One without targets keeps the weight
    that it has by its frames; the total is that of all frames.
    """
    sequences = list(sequences)
    weights = by_frames(sequences)
    main = np.array([_main_class(sequence) for sequence in sequences], dtype=int)
    known = np.unique(main[main >= 0])
    share = weights[main >= 0].sum() / max(len(known), 1)
    for label in known:
        weights[main == label] *= share / weights[main == label].sum()
    return weights


def _main_class(sequence: VideoSequence) -> int:
    """The label of most targets in the key frames; -1 where there is none."""
    labels = [sequence.labels[position] for position in sequence.key_frames]
    counts = np.bincount(np.concatenate([row[row >= 0] for row in labels] or [np.zeros(0, dtype=int)]))
    return int(counts.argmax()) if counts.any() else -1
