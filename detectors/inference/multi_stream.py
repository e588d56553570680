"""One network for several sequences: frames of all of them computed as one batch, each with its own state."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple, TypeVar

from detectors.inference.streaming import PendingBatch, RawOutput, StreamingDetector
from detectors.networks.tridos.stream import begin_batched
from pipeline.stages.overlap import run_two_phase
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Detector
from pipeline.structures.results import FrameDetections

Tag = TypeVar("Note")

TaggedFrames = tuple[Iterable[tuple[int, Frame]], Tag]
"""Frames, each with the number of its sequence, and whatever is to come out after what was found in them."""


class BatchInProgress(NamedTuple):
    """Frames of several sequences that the network is half through with."""

    parts: tuple
    """What the `finish` of any of their streams asks for."""
    begun: dict[int, PendingBatch]
    """The frames of each sequence, by its number, with parts that are empty: they are those above."""
    seconds: float
    """Spent on all of them so far."""


class MultiStreamDetector:
    """A detector on sequences numbered from 0, each of which it sees as if it were the only one.

    Streaming networks compute the frames of sequences whose network input is of the same size together.
    Others, which look at each frame by itself, take the frames of one sequence after those of another.
    """

    def __init__(self, detector: Detector, count: int):
        self._streaming = isinstance(detector, StreamingDetector)
        self.window = detector.window
        """Frames that it looks at together."""
        more = (detector.sibling() if self._streaming else detector for _ in range(count - 1))
        self._detectors = [detector, *more]

    def detect(
        self, turns: Iterable[TaggedFrames]
    ) -> Generator[tuple[list[tuple[int, FrameDetections]], Tag]]:
        """Turn by turn what is in its frames, each with the number of its sequence, and its note.

        None but the first frame of a sequence in a turn may follow a gap. Those of one sequence come in their
        order, before and after; the sequences in that of their numbers. While this is not closed, `turns` may
        be in use by a thread, which is some turns ahead.
        """
        if not self._streaming:
            yield from ((list(self._one_by_one(items)), note) for items, note in turns)
            return
        with closing(run_two_phase(turns, self._begin, self._finish, self._detectors[0].halves)) as finished:
            for features, note in finished:
                yield list(self._found(features)), note

    def end(self, number: int) -> None:
        """The sequence has ended, and all that is in it was given out: let go of its state."""
        if self._streaming:
            self._detectors[number].reset()

    def _one_by_one(self, items: Iterable[tuple[int, Frame]]) -> Iterator[tuple[int, FrameDetections]]:
        for number, group in _by_sequence(items).items():
            yield from ((number, item) for item in self._detectors[number].detect([group]))

    def _begin(self, turn: TaggedFrames) -> tuple[list[BatchInProgress], Tag]:
        groups, by_size = _by_sequence(turn[0]), defaultdict(dict)
        started = time.perf_counter()
        for number, group in groups.items():
            pixels = self._detectors[number].pixels(group)
            by_size[pixels.shape[2:]][number] = pixels
        together = []
        for pixels in by_size.values():
            detectors = {number: self._detectors[number] for number in pixels}
            streams = [detector.stream for detector in detectors.values()]
            parts = begin_batched(streams, list(pixels.values()))
            begun = {number: detector.begun(groups[number]) for number, detector in detectors.items()}
            spent, started = time.perf_counter() - started, time.perf_counter()
            together.append(BatchInProgress(parts, begun, spent))
        return together, turn[1]

    def _finish(self, turn: tuple[list[BatchInProgress], Tag]) -> tuple[dict[int, RawOutput], Tag]:
        return {n: item for together in turn[0] for n, item in self._finished(together)}, turn[1]

    def _finished(self, together: BatchInProgress) -> Iterator[tuple[int, RawOutput]]:
        numbers, rows = list(together.begun), list(together.begun.values())
        frames = tuple(frame for begun in rows for frame in begun.frames)
        whole = rows[0]._replace(frames=frames, parts=together.parts, seconds=together.seconds)
        whole = self._detectors[numbers[0]].finish(whole)
        counts = [len(begun.frames) for begun in rows]
        raws = whole.raw.split(counts)
        settled = whole.settled.split(counts) if whole.settled else [None] * len(rows)
        for number, begun, raw, boxes in zip(numbers, rows, raws, settled, strict=True):
            share = whole.seconds * len(raw) / len(frames)
            own = whole._replace(frames=begun.frames, geometry=begun.geometry, warmup=begun.warmup)
            yield number, own._replace(raw=raw, settled=boxes, seconds=share)

    def _found(self, features: dict[int, RawOutput]) -> Iterator[tuple[int, FrameDetections]]:
        for number in sorted(features):
            found = self._detectors[number].found([features[number].arrived()])
            yield from ((number, item) for item in found)


def _by_sequence(items: Iterable[tuple[int, Frame]]) -> dict[int, tuple[Frame, ...]]:
    """The frames of each sequence, in the order of their numbers."""
    groups: dict[int, tuple[Frame, ...]] = {}
    for number, frame in items:
        groups[number] = (*groups.get(number, ()), frame)
    return dict(sorted(groups.items()))
