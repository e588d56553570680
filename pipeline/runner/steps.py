"""pipeline.runner.steps."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.schema import RunConfig
from pipeline.runner.ground_truth import GroundTruth
from pipeline.runner.run_record import RunRecord
from pipeline.sinks.base import Sinks
from pipeline.sources.source import FrameSource
from pipeline.stages.gaps import GapMarker
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.system.signals import StopRequest

RESULTS_AHEAD = 8
"""Bound of the queue before the sinks: enough to even out, little to hold."""


def write(result: Result, sinks: Sinks, outcome: RunRecord, truth: GroundTruth | None) -> None:
    """Hand a result to the sinks, and then to the accounts of the run."""
    with outcome.timed("write"):
        sinks.write(result)
    outcome.add(result)
    if truth:
        truth.add(result)


def make_timeline(info: SourceInfo, window: int, config: RunConfig, outcome: RunRecord) -> GapMarker:
    """What marks the gaps between the frames of a source that reach the detector."""
    live = config.live
    return GapMarker(info, window=window, policy=live.on_gap, dropped=outcome.dropped, cuts=live.scene_cuts)


def counted(source: FrameSource, outcome: RunRecord, stop: StopRequest) -> Iterator[Frame]:
    """The frames, each counted and its decoding timed, until a signal asks to stop."""
    while stop.signal is None:
        with outcome.timed("decode"):
            frame = next(source, None)
        if frame is None:
            return
        outcome.decoded += 1
        yield frame
