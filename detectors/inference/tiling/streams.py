"""A detector on tiles and regions of frames, each with a window of its own; results are of whole frames."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeVar

from detectors.inference.multi_stream import MultiStreamDetector, TaggedFrames
from detectors.inference.streaming import StreamingDetector
from detectors.inference.tiling.layout import Region, merge, split
from pipeline.config.schema import DetectorConfig
from pipeline.config.units import region
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Detector
from pipeline.structures.rectangle import Rectangle
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import UsageError
from pipeline.system.progress import working_on

Tag = TypeVar("Tag")

BATCH_ON_GPU = 16
"""Tiles that a GPU computes as one batch; a CPU computes one after another in any case."""
MANY = 8
"""Tiles of a round above which the progress tells which one is computed."""


class Views(NamedTuple):
    """The parts of frames of one size that the network sees."""

    tiles: tuple[Rectangle, ...]
    regions: tuple[Region, ...]
    """Where detections are wanted."""
    size: tuple[int, int]
    """(width, height) of the frames."""

    @classmethod
    def of(cls, config: DetectorConfig, size: tuple[int, int]) -> Views:
        """Returns the tiles and regions of a configuration for frames of (width, height).

        Raises UsageError for a region outside of the frame.
        """
        regions = regions_of(config, size)
        tile = config.tile_size()
        tiles = [
            part
            for region in regions
            for part in (split(region.rectangle, tile, config.tile_overlap) if tile else [region.rectangle])
        ]
        return cls(tuple(dict.fromkeys(tiles)), regions, size)


def regions_of(config: DetectorConfig, size: tuple[int, int]) -> tuple[Region, ...]:
    """Returns the regions of a configuration in frames of (width, height); the whole frame if it has none.

    Raises UsageError for a region outside of the frame.
    """
    whole = Rectangle(0, 0, *size)
    if not config.roi:
        return (Region(whole),)
    regions = []
    for text in config.roi:
        parsed = region(text)
        across, down = size if parsed.shares else (1, 1)
        corners = tuple((x * across, y * down) for x, y in parsed.corners)
        xs, ys = zip(*corners, strict=True)
        around = Rectangle.around((min(xs), min(ys), max(xs), max(ys)))
        left, top = max(around.left, 0), max(around.top, 0)
        right, bottom = min(around.right, size[0]), min(around.bottom, size[1])
        if right <= left or bottom <= top:
            raise UsageError(
                f"--roi {text} lies outside of the frames, which have {size[0]}x{size[1]} pixels"
            )
        regions.append(Region(Rectangle(left, top, right, bottom), corners if parsed.polygon else ()))
    return tuple(regions)


@dataclass
class _Piece(Generic[Tag]):
    """Some tiles of the frames of a round on their way through the network."""

    frames: list[tuple[int, Frame]]
    keys: dict[int, tuple[int, int]]
    """Number of the stream of each tile → number of the sequence, and of the tile."""
    tag: Tag
    last: bool
    """Whether no further tiles of these frames follow."""


class TiledStreams:
    """A detector on tiles of the frames of several sequences; each tile has the state of a stream of its own.

    Results do not depend on how many tiles are computed together.
    """

    def __init__(self, detector: Detector, config: DetectorConfig):
        self.window = detector.window
        """Number of frames in the temporal window."""
        self._config = config
        self._streams = MultiStreamDetector(detector, 0)
        on_gpu = isinstance(detector, StreamingDetector) and detector.device.type == "cuda"
        self._together = BATCH_ON_GPU if on_gpu else 1
        self._views: dict[tuple[int, int], Views] = {}
        self._numbers: dict[tuple[int, int], int] = {}  # sequence and tile → stream

    def detect(
        self, rounds: Iterable[TaggedFrames[Tag]]
    ) -> Generator[tuple[list[tuple[int, FrameDetections]], Tag]]:
        """Yields the detections of each round of frames, as `MultiStreamDetector.detect` does."""
        parts: dict[int, list[list[FrameDetections]]] = {}
        with closing(self._streams.detect(self._pieces(rounds))) as results:
            for found, piece in results:
                for number, item in found:
                    sequence, tile = piece.keys[number]
                    rows = parts.setdefault(sequence, [])
                    if tile == len(rows):
                        rows.append([])
                    rows[tile].append(item)
                if piece.last:
                    yield list(self._whole(piece.frames, parts)), piece.tag
                    parts = {}

    def end(self, number: int) -> None:
        """Resets the state of a sequence that has ended."""
        for (sequence, _), stream in self._numbers.items():
            if sequence == number:
                self._streams.end(stream)

    def _of(self, frame: Frame) -> Views:
        size = frame.width, frame.height
        if size not in self._views:
            self._views[size] = Views.of(self._config, size)
        return self._views[size]

    def _pieces(self, rounds: Iterable[TaggedFrames[Tag]]) -> Iterator[TaggedFrames[_Piece[Tag]]]:
        """Yields the tiles of each round, some at a time, with what is needed to join their results."""
        for frames, tag in rounds:
            frames = list(frames)
            rows = [
                ((number, tile), rectangle)
                for number in dict.fromkeys(number for number, _ in frames)
                for tile, rectangle in enumerate(self._of(next(f for n, f in frames if n == number)).tiles)
            ]
            starts = range(0, max(len(rows), 1), self._together)
            for start in starts:
                part = rows[start : start + self._together]
                keys = {self._stream_number(key): key for key, _ in part}
                tiles = [
                    (stream, _crop(frame, rectangle))
                    for stream, (key, rectangle) in zip(keys, part, strict=True)
                    for number, frame in frames
                    if number == key[0]
                ]
                if len(rows) > MANY:
                    working_on(f"computing frame {frames[0][1].index}, tile {start + 1} of {len(rows)}")
                yield tiles, _Piece(frames, keys, tag, last=start == starts[-1])

    def _stream_number(self, key: tuple[int, int]) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _whole(
        self, frames: list[tuple[int, Frame]], parts: dict[int, list[list[FrameDetections]]]
    ) -> Iterator[tuple[int, FrameDetections]]:
        """Yields the detections of whole frames from those of their tiles."""
        count: dict[int, int] = {}
        for number, frame in sorted(frames, key=lambda item: item[0]):
            place = count[number] = count.get(number, -1) + 1
            tiles, views = [row[place] for row in parts[number]], self._of(frame)
            found = merge([tile.detections for tile in tiles], views.tiles, views.regions, views.size)
            spent: dict[str, float] = {}
            for tile in tiles:
                for stage, seconds in tile.timings.items():
                    spent[stage] = spent.get(stage, 0.0) + seconds
            yield number, FrameDetections(frame, found, any(tile.warmup for tile in tiles), spent)


def _crop(frame: Frame, rectangle: Rectangle) -> Frame:
    """Returns the part of a frame in a rectangle as a frame."""
    place = rectangle.slices()
    seen = None if frame.seen is None else frame.seen[place]
    return replace(frame, image=frame.image[place], seen=seen)


class TiledDetector:
    """A detector on tiles or regions of the frames of one sequence."""

    def __init__(self, detector: Detector, config: DetectorConfig):
        self._detector, self._config = detector, config
        self._streams = TiledStreams(detector, config)
        self.window = detector.window
        """Number of frames in the temporal window."""

    def detect(self, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
        """Yields the detections of each frame of the sequence."""
        rounds = (([(0, frame) for frame in group], None) for group in groups)
        with closing(self._streams.detect(rounds)) as results:
            for found, _ in results:
                yield from (item for _, item in found)

    def reset(self) -> None:
        """Starts a new sequence."""
        self._streams.end(0)

    def shared(self) -> TiledStreams:
        """Returns the detector for several sequences."""
        return TiledStreams(self._detector, self._config)


def share(detector: Detector, count: int) -> MultiStreamDetector | TiledStreams:
    """Returns a detector for `count` sequences, each with a state of its own."""
    return detector.shared() if isinstance(detector, TiledDetector) else MultiStreamDetector(detector, count)


def in_views(detector: Detector, config: DetectorConfig) -> Detector:
    """Returns the detector on the tiles and regions of a configuration, or as it is if there are none.

    Raises UsageError for a detector of another package that has a window.
    """
    if config.tile_size() is None and not config.roi:
        return detector
    if not isinstance(detector, StreamingDetector) and detector.window > 1:
        flag = "--roi" if config.roi else "--tile"
        raise UsageError(f"{flag} is not for a detector of another package with a window of several frames")
    return TiledDetector(detector, config)
