"""One network for several sequences: frames of all of them computed as one batch, each with its own state."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from detectors.tridos.together import push_together
from pipeline.frame import Frame
from pipeline.stages import Detector, Features, Found, StreamingDetector


class SharedDetector:
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

    def detect(self, frames: Iterable[tuple[int, Frame]]) -> Iterator[tuple[int, Found]]:
        """The next frames, each with the number of its sequence, with what is in each.

        None but the first of a sequence may follow a gap.
        Those of one sequence come in their order, before and after; the sequences in that of their numbers.
        """
        groups: dict[int, tuple[Frame, ...]] = {}
        for number, frame in frames:
            groups[number] = (*groups.get(number, ()), frame)
        numbers = sorted(groups)
        if self._streaming and numbers:
            together = extract_together([self._detectors[n] for n in numbers], [groups[n] for n in numbers])
        for row, number in enumerate(numbers):
            detector = self._detectors[number]
            found = detector.found([together[row]]) if self._streaming else detector.detect([groups[number]])
            yield from ((number, item) for item in found)

    def end(self, number: int) -> None:
        """The sequence has ended: let go of its state."""
        if self._streaming:
            self._detectors[number].reset()


def extract_together(
    detectors: Sequence[StreamingDetector], groups: Sequence[tuple[Frame, ...]]
) -> list[Features]:
    """The next frames of each detector's sequence through the network that they share."""
    started = time.perf_counter()
    pixels = [detector.pixels(group) for detector, group in zip(detectors, groups, strict=True)]
    by_size = defaultdict(list)
    for row, part in enumerate(pixels):
        by_size[part.shape[2:]].append(row)
    raw = [None] * len(pixels)
    with detectors[0].computing():
        for rows in by_size.values():
            streams = [detectors[row].stream for row in rows]
            parts = push_together(streams, [pixels[row] for row in rows])
            for row, part in zip(rows, parts, strict=True):
                raw[row] = part
    seconds = (time.perf_counter() - started) / sum(map(len, groups))
    return [
        detector.features(group, part, seconds * len(group))
        for detector, group, part in zip(detectors, groups, raw, strict=True)
    ]
