"""Detection and tracking of frames that come one by one, from any camera's own loop."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from math import isfinite
from numbers import Rational
from typing import Any, Self

import numpy as np

from mote.runs import prepare, require_effect
from pipeline.config.schema import RunConfig
from pipeline.events.engine import EventEngine
from pipeline.events.opening import check_events
from pipeline.events.rules import rules_of
from pipeline.runner.parts import Networks, load_networks
from pipeline.runner.steps import detect, select_and_fuse
from pipeline.sources.preparation import SensorPreprocessing
from pipeline.stages.camera_motion import marking
from pipeline.stages.gaps import GapMarker
from pipeline.stages.segmentation import segment
from pipeline.stages.tracking import NumberedTracker, track
from pipeline.structures.events import Event
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.protocols import Detector, Tracker
from pipeline.structures.results import FrameDetections, Result

NAME = "frames"
"""Name of the source in results."""

APPLICABLE = ("source.scaling", "source.bad_pixels", "source.offset", "live.on_gap")
"""Keys of the sections `source` and `live` that apply to frames of any origin."""


class Finder:
    """Finds and follows targets in frames that are passed one by one.

        finder = Finder(rate=25)
        result = finder(image)

    The networks are loaded with the first frame, whose size, depth and channels hold for the sequence;
    `close`, or the end of a `with` block, releases them. Not thread-safe; each sequence needs a `Finder` of
    its own.

    Args:
        rate: frames per second of the sequence.
        bits: significant bits per sample; None for all of the dtype, 8 or 16.
        detector: as for `mote.watch`.
        tracker: as for `mote.watch`.
        on_event: called with each message about an event, as for `mote.watch`; with the ends of events that
            go on when the sequence ends, too, by `close` or `reset`.
        settings: as for `mote.watch`, without those that say how a source is read.

    Raises UsageError for settings that are unknown or have no effect, ValueError for a rate or a number of
    bits out of range, and other MoteErrors with the first frame.
    """

    def __init__(
        self,
        *,
        rate: float = 30.0,
        bits: int | None = None,
        detector: str | Detector | None = None,
        tracker: str | Tracker | None = None,
        on_event: Callable[[Event], None] | None = None,
        **settings: Any,
    ):
        if not rate > 0:
            raise ValueError(f"{rate = }, expected more than 0")
        if bits is not None and not 1 <= bits <= 16:
            raise ValueError(f"{bits = }, expected 1 to 16")
        of_a_source = ("source", "live", "service", "output")
        require_effect(settings, of_a_source, APPLICABLE, "frames are passed to a Finder one by one")
        self._rate, self._bits = _fraction(rate, "rate").limit_denominator(1_000_000), bits
        self._config, self._parts = prepare(detector, tracker, settings)
        self._tell = on_event
        self._networks: Networks | None = None
        self._stages: _Stages | None = None
        self._count = 0

    def __call__(self, image: np.ndarray, *, time: float | None = None) -> Result:
        """Returns the detections of the next frame, the tracks alive in it, and events if there are rules.

        Args:
            image: (H, W) grey or (H, W, 3) in R, G, B order; uint8 or uint16 of either byte order. It is
                copied, so that a camera may use its buffer again.
            time: seconds since any fixed moment; None for the previous time plus one frame interval. Missing
                frames are recognised by it.

        Raises TypeError for what is no numpy array, and ValueError for images of other shapes and dtypes, of
        another size, depth or number of channels than the first, and for samples of more than `bits`.
        """
        image = _native_copy(image)
        depth = 8 * image.dtype.itemsize if self._bits is None else self._bits
        pts = self._count / self._rate if time is None else _fraction(time, "time")
        frame = Frame(image, self._count, pts, NAME, bit_depth=depth)
        if self._bits is not None and (peak := int(image.max())) >> self._bits:
            raise ValueError(f"the image holds {peak}, more than bits = {self._bits} can")
        stages = self._stages or self._begin(frame)
        result = stages(frame)
        self._stages = stages  # only now: the form of a frame that failed does not hold for the sequence
        self._count += 1
        self._pass_on(result.events)
        return result

    def _begin(self, frame: Frame) -> _Stages:
        """Returns the stages of a sequence of frames like this one."""
        channels = 1 if frame.image.ndim == 2 else 3
        info = SourceInfo(NAME, frame.width, frame.height, self._rate, None, frame.bit_depth, channels)
        if self._networks is None:
            self._networks = load_networks(self._config, self._parts, [info])
        config = self._config.tracker
        tracker = self._parts.build_tracker(config.name, config.options)
        return _Stages(info, self._config, self._networks, tracker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the sequence and releases the networks; a further frame loads them again."""
        self._end()
        self._networks = None

    def _end(self) -> None:
        """Ends the sequence and its events."""
        stages, self._count, self._stages = self._stages, 0, None
        if stages and stages.engine:
            self._pass_on(stages.engine.finish())

    def _pass_on(self, events: Iterable[Event]) -> None:
        if self._tell is None:
            return
        for event in events:
            self._tell(event)

    def reset(self) -> None:
        """Starts a new sequence: windows are empty, all tracks end, and ids count from 1 again.

        The next frame may have another size, depth and number of channels. The networks stay loaded.
        """
        self._end()
        reset = getattr(self._networks and self._networks.detector, "reset", None)
        if reset is None:  # a detector that cannot be reset is loaded again
            self._networks = None
        else:
            reset()


class _Stages:
    """The stages of one sequence, from a frame to its result."""

    def __init__(self, info: SourceInfo, config: RunConfig, networks: Networks, tracker: Tracker):
        self._info, self._config, self._networks = info, config, networks
        self._tracker = NumberedTracker(tracker)
        self._tracker.reset()
        self._prepare = SensorPreprocessing(config.source, info)
        live = config.live
        gaps = GapMarker(info, window=networks.detector.window, policy=live.on_gap, cuts=live.scene_cuts)
        self._mark = marking(gaps, config.tracker.camera_motion)
        self.engine = _engine(config, info, networks)
        """Finds the events; None without rules."""

    def __call__(self, frame: Frame) -> Result:
        """Returns the result of the next frame. Raises ValueError if its form is not that of the first."""
        if (frame.width, frame.height) != (self._info.width, self._info.height):
            size = f"{self._info.width}x{self._info.height}"
            raise ValueError(
                f"a frame of {frame.width}x{frame.height} in a sequence of {size}; reset() starts another one"
            )
        channels = 1 if frame.image.ndim == 2 else 3
        if (frame.bit_depth, channels) != (self._info.bit_depth, self._info.channels):
            form = f"{self._info.channels} channels of {self._info.bit_depth} bits"
            raise ValueError(
                f"a frame of {channels} channels of {frame.bit_depth} bits in a sequence of {form}"
            )
        marked = self._mark(self._prepare(frame))
        with closing(detect(self._networks.detector, [(marked,)])) as detected:
            found: Iterable[FrameDetections] = detected
            for segmenter in self._networks.segmenters:
                found = segment(found, segmenter, batch=1)
            found = select_and_fuse(found, self._config, self._networks)
            (result,) = track(found, self._tracker)
        events = self.engine.update(result) if self.engine else ()
        return replace(result, events=tuple(events)) if events else result


def _engine(config: RunConfig, info: SourceInfo, networks: Networks) -> EventEngine | None:
    """Returns what finds the events of a sequence; None without rules. Raises UsageError for wrong ones."""
    section, classes = config.events, networks.info.classes
    kept = classes if networks.kept_labels is None else [classes[label] for label in networks.kept_labels]
    check_events(section, {NAME: info}, names=[NAME], classes=kept)
    if not rules_of(section, NAME):
        return None
    return EventEngine(section, info, NAME, classes, run=secrets.token_hex(6))


def _native_copy(image: np.ndarray) -> np.ndarray:
    """Returns a copy of an image in the byte order of this machine.

    Raises TypeError for what is no numpy array, ValueError for an image without pixels.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"the image is of type {type(image).__name__}, expected a numpy array")
    if image.size == 0:
        raise ValueError(f"an image of shape {image.shape} without pixels, expected (H, W) or (H, W, 3)")
    return np.array(image, dtype=image.dtype.newbyteorder("="))


def _fraction(value: float, name: str) -> Fraction:
    """Returns a number of any type as a fraction. Raises ValueError if it is not finite."""
    if isinstance(value, Rational):
        return Fraction(value)
    if isinstance(value, str) or not isfinite(value):
        raise ValueError(f"{name} = {value!r}, expected a finite number")
    return Fraction(float(value))
