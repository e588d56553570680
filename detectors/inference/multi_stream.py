"""One network for several sequences: their frames form one batch, and each sequence has its own state."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from detectors.inference.streaming import PendingBatch, RawOutput, StreamingDetector
from detectors.networks.tridos.stream import Parts, TridosStream, extract_batched
from pipeline.stages.overlap import run_two_phase
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Detector
from pipeline.structures.results import FrameDetections

Tag = TypeVar("Tag")

TaggedFrames = tuple[Iterable[tuple[int, Frame]], Tag]
"""Frames with the numbers of their sequences, and a tag that is returned with their results."""


class BatchInProgress(NamedTuple):
    """Frames of several sequences between the two phases of inference."""

    parts: Parts
    """Argument of the `join` of any of the streams."""
    pending: dict[int, PendingBatch]
    """Frames of each sequence by its number; their own parts are empty."""
    seconds: float
    """Time spent on the whole batch so far."""


class MultiStreamDetector:
    """A detector on `count` sequences, numbered from 0; results equal those of one detector for each.

    More sequences may come later. Streaming networks compute frames with network inputs of the same size as
    one batch. Other detectors, which have no temporal window, compute one sequence after another.
    """

    def __init__(self, detector: Detector, count: int):
        self.window = detector.window
        """Number of frames in the temporal window."""
        self._detector = detector
        self._streaming: list[StreamingDetector] = []
        if isinstance(detector, StreamingDetector):
            self._streaming = [detector, *(detector.sibling() for _ in range(count - 1))]

    def detect(
        self, rounds: Iterable[TaggedFrames[Tag]]
    ) -> Generator[tuple[list[tuple[int, FrameDetections]], Tag]]:
        """Yields the detections of each round of frames, with the numbers of their sequences, and its tag.

        Results are sorted by sequence and keep the order of its frames. Only the first frame of a sequence in
        a round may follow a gap. Close the generator before using `rounds` elsewhere: a thread may be reading
        from it.
        """
        if not isinstance(self._detector, StreamingDetector):
            yield from ((list(self._detect_by_sequence(frames)), tag) for frames, tag in rounds)
            return
        first = self._detector
        phases = run_two_phase(rounds, self._extract, self._join, first.schedule, first.joins_at_once)
        with closing(phases) as results:
            for outputs, tag in results:
                yield list(self._postprocess(outputs)), tag

    def end(self, number: int) -> None:
        """Resets the state of a sequence that has ended."""
        if isinstance(self._detector, StreamingDetector):
            self._stream(number).reset()

    def _stream(self, number: int) -> StreamingDetector:
        """Returns the detector of a sequence, which is made when it is first needed."""
        assert isinstance(self._detector, StreamingDetector)
        while len(self._streaming) <= number:
            self._streaming.append(self._detector.sibling() if self._streaming else self._detector)
        return self._streaming[number]

    def _detect_by_sequence(
        self, frames: Iterable[tuple[int, Frame]]
    ) -> Iterator[tuple[int, FrameDetections]]:
        for number, group in _by_sequence(frames).items():
            yield from ((number, item) for item in self._detector.detect([group]))

    def _extract(self, tagged: TaggedFrames[Tag]) -> tuple[list[BatchInProgress], Tag]:
        frames, tag = tagged
        groups = _by_sequence(frames)
        by_size: defaultdict[tuple[int, ...], dict[int, Tensor]] = defaultdict(dict)
        started = time.perf_counter()
        for number, group in groups.items():
            images = self._stream(number).preprocess(group)
            by_size[images.shape[2:]][number] = images
        batches = []
        for inputs in by_size.values():
            detectors = {number: self._streaming[number] for number in inputs}
            streams: list[TridosStream[Any]] = [detector.stream for detector in detectors.values()]
            parts = extract_batched(streams, list(inputs.values()))
            pending = {number: detector.pending(groups[number]) for number, detector in detectors.items()}
            seconds, started = time.perf_counter() - started, time.perf_counter()
            batches.append(BatchInProgress(parts, pending, seconds))
        return batches, tag

    def _join(self, tagged: tuple[list[BatchInProgress], Tag]) -> tuple[dict[int, RawOutput], Tag]:
        batches, tag = tagged
        return {number: output for batch in batches for number, output in self._join_batch(batch)}, tag

    def _join_batch(self, batch: BatchInProgress) -> Iterator[tuple[int, RawOutput]]:
        """Yields the raw output of each sequence; the time of the batch is shared by number of frames."""
        numbers, rows = list(batch.pending), list(batch.pending.values())
        frames = tuple(frame for pending in rows for frame in pending.frames)
        whole = rows[0]._replace(frames=frames, parts=batch.parts, seconds=batch.seconds)
        joined = self._streaming[numbers[0]].join(whole)
        counts = [len(pending.frames) for pending in rows]
        detections = joined.detections.split(counts) if joined.detections else [None] * len(rows)
        for number, pending, raw, boxes in zip(
            numbers, rows, joined.raw.split(counts), detections, strict=True
        ):
            seconds = joined.seconds * len(raw) / len(frames)
            own = joined._replace(frames=pending.frames, geometry=pending.geometry, warmup=pending.warmup)
            yield number, own._replace(raw=raw, detections=boxes, seconds=seconds)

    def _postprocess(self, outputs: dict[int, RawOutput]) -> Iterator[tuple[int, FrameDetections]]:
        for number in sorted(outputs):
            found = self._streaming[number].postprocess([outputs[number].wait()])
            yield from ((number, item) for item in found)


def _by_sequence(frames: Iterable[tuple[int, Frame]]) -> dict[int, tuple[Frame, ...]]:
    """Groups frames by the number of their sequence, in ascending order."""
    groups: dict[int, tuple[Frame, ...]] = {}
    for number, frame in frames:
        groups[number] = (*groups.get(number, ()), frame)
    return dict(sorted(groups.items()))
