"""Detection and tracking of frames that come one by one, from any camera's own loop."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from fractions import Fraction
from typing import Any

import numpy as np

from mote.runs import prepare
from pipeline.config.schema import RunConfig
from pipeline.runner.parts import Networks, load_networks
from pipeline.runner.steps import fuse_if_configured
from pipeline.sources.preparation import SensorPreprocessing
from pipeline.stages.gaps import GapMarker
from pipeline.stages.segmentation import segment
from pipeline.stages.tracking import track
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.protocols import Detector, Tracker
from pipeline.structures.results import FrameDetections, Result

NAME = "frames"
"""Name of the source in results."""


class Finder:
    """Finds and follows targets in frames that are passed one by one.

        finder = Finder(rate=25)
        result = finder(image)

    The networks are loaded with the first frame, whose size, depth and channels hold for the sequence. Not
    thread-safe; each sequence needs a `Finder` of its own.

    Args:
        rate: frames per second of the sequence.
        bits: significant bits per sample; None for all of the dtype, 8 or 16.
        detector: as for `mote.watch`.
        tracker: as for `mote.watch`.
        settings: as for `mote.watch`.

    Raises UsageError for unknown settings, and other MoteErrors with the first frame.
    """

    def __init__(
        self,
        *,
        rate: float = 30.0,
        bits: int | None = None,
        detector: str | Detector | None = None,
        tracker: str | Tracker | None = None,
        **settings: Any,
    ):
        if not rate > 0:
            raise ValueError(f"{rate = }, expected more than 0")
        self._rate, self._bits = Fraction(rate).limit_denominator(1_000_000), bits
        self._config, self._parts = prepare(detector, tracker, settings)
        self._networks: Networks | None = None
        self._stages: _Stages | None = None
        self._count = 0

    def __call__(self, image: np.ndarray, *, time: float | None = None) -> Result:
        """Returns the detections of the next frame and the tracks alive in it.

        Args:
            image: (H, W) grey or (H, W, 3) in R, G, B order; uint8 or uint16.
            time: seconds since any fixed moment; None for the previous time plus one frame interval. Missing
                frames are recognised by it.

        Raises ValueError for images of another shape, dtype or number of channels.
        """
        depth = self._bits or 8 * image.dtype.itemsize
        pts = self._count / self._rate if time is None else Fraction(time)
        frame = Frame(image, self._count, pts, NAME, bit_depth=depth)
        if self._stages is None:
            channels = 1 if image.ndim == 2 else 3
            info = SourceInfo(NAME, frame.width, frame.height, self._rate, None, depth, channels)
            if self._networks is None:
                self._networks = load_networks(self._config, self._parts)
            config = self._config.tracker
            tracker = self._parts.build_tracker(config.name, config.options)
            self._stages = _Stages(info, self._config, self._networks, tracker)
        result = self._stages(frame)
        self._count += 1
        return result

    def reset(self) -> None:
        """Starts a new sequence: windows are empty, all tracks end, and ids count from 1 again.

        The next frame may have another size, depth and number of channels. The networks stay loaded.
        """
        self._count, self._stages = 0, None
        reset = getattr(self._networks and self._networks.detector, "reset", None)
        if reset is None:  # a detector that cannot be reset is loaded again
            self._networks = None
        else:
            reset()


class _Stages:
    """The stages of one sequence, from a frame to its result."""

    def __init__(self, info: SourceInfo, config: RunConfig, networks: Networks, tracker: Tracker):
        self._info, self._config, self._networks, self._tracker = info, config, networks, tracker
        tracker.reset()
        self._prepare = SensorPreprocessing(config.source, info)
        live = config.live
        self._mark_gaps = GapMarker(
            info, window=networks.detector.window, policy=live.on_gap, cuts=live.scene_cuts
        )

    def __call__(self, frame: Frame) -> Result:
        """Returns the result of the next frame. Raises ValueError if its form is not that of the first."""
        channels = 1 if frame.image.ndim == 2 else 3
        if (frame.bit_depth, channels) != (self._info.bit_depth, self._info.channels):
            form = f"{self._info.channels} channels of {self._info.bit_depth} bits"
            raise ValueError(
                f"a frame of {channels} channels of {frame.bit_depth} bits in a sequence of {form}"
            )
        marked = self._mark_gaps(self._prepare(frame))
        with closing(self._networks.detector.detect([(marked,)])) as detected:
            found: Iterable[FrameDetections] = detected
            for segmenter in self._networks.segmenters:
                found = segment(found, segmenter, batch=1)
            found = fuse_if_configured(found, self._config, self._networks.segmenter_names)
            (result,) = track(found, self._tracker)
        return result
