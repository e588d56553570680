"""Sampling weights of sequences: how often training draws each of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from datasets.sequences.clips import VideoSequence


def frame_weights(sequences: Iterable[VideoSequence]) -> np.ndarray:
    """Returns (N,) float64 weights with which all key frames are drawn equally often."""
    return np.array([len(sequence.key_frames) for sequence in sequences], dtype=float)


def class_balanced_weights(sequences: Iterable[VideoSequence]) -> np.ndarray:
    """Returns (N,) float64 weights with which targets of all classes are drawn equally often.

    A sequence counts for the class of most of its targets. Sequences without targets keep the weight of
    `frame_weights`, and so does the sum of all others.
    """
    sequences = list(sequences)
    weights = frame_weights(sequences)
    main = np.array([_main_class(sequence) for sequence in sequences], dtype=int)
    known = np.unique(main[main >= 0])
    share = weights[main >= 0].sum() / max(len(known), 1)
    for label in known:
        weights[main == label] *= share / weights[main == label].sum()
    return weights


def _main_class(sequence: VideoSequence) -> int:
    """Returns the label of most targets in the key frames; -1 if there are no targets."""
    labels = [sequence.labels[position] for position in sequence.key_frames]
    counts = np.bincount(np.concatenate([row[row >= 0] for row in labels] or [np.zeros(0, dtype=int)]))
    return int(counts.argmax()) if counts.any() else -1
