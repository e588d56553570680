"""Runs from Python: `watch` yields results, `run` writes the outputs of the command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import run_pipeline
from pipeline.config.other_programs import OTHER_NAMES
from pipeline.config.plugins import require_part
from pipeline.config.schema import RunConfig
from pipeline.runner import single
from pipeline.runner.parts import Parts, as_configured
from pipeline.runner.run_record import RunRecord
from pipeline.sinks.base import Sink
from pipeline.structures.detector_info import DetectorInfo
from pipeline.structures.events import Event
from pipeline.structures.protocols import Detector, Tracker
from pipeline.structures.results import Result
from pipeline.system.errors import UsageError, unknown_name
from pipeline.system.progress import MODES, Mode

OTHER_SETTINGS = ("config", "set", "segmenter", "segmenter_weights")
"""Settings that are no single key of the configuration."""


def watch(
    source: str | Path | int,
    *,
    detector: str | Detector | None = None,
    tracker: str | Tracker | None = None,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Generator[Result]:
    """Yields the result of each frame of a source; no file is written.

    Frames are decoded and computed ahead in other threads. Close the generator, or let it end, to close the
    source.

    Args:
        source: what the command takes: a video, a folder or pattern of images, an address, a camera number.
        detector: name of a network, or an object as `pipeline.structures.protocols.Detector` describes it.
        tracker: name of a tracker, or an object as `pipeline.structures.protocols.Tracker` describes it.
        on_event: called with each message about an event that starts, goes on or has ended, if the settings
            have rules of events or `events=True`. `Result.events` holds them, too, except for the ends of
            events that go on when the source ends.
        settings: options of `mote run` with underscores, such as `conf=0.2`, `max_frames=100`,
            `segmenter=["rdian"]`, `config="run.toml"` and `set=["source.rate=25"]`; those of outputs are
            refused.

    Raises UsageError for settings at once; with the first result, MoteError for weights and sources as the
    command does; and SourceLost after the last good frame if the source ends early.
    """
    require_effect(settings, ("output", "service"), (), "mote.watch writes no files and serves no port")
    config, parts = prepare(detector, tracker, settings)
    return single.watch(_location(source), config, parts, on_event=on_event)


def run(
    source: str | Path | int,
    *,
    detector: str | Detector | None = None,
    tracker: str | Tracker | None = None,
    sinks: Sequence[Sink] = (),
    on_result: Callable[[Result], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    annotations: str | Path | None = None,
    progress: Mode = "off",
    **settings: Any,
) -> RunRecord:
    """Processes a source and writes the outputs of `mote run`; returns the account of the run.

    Args:
        source: as for `watch`.
        detector: as for `watch`.
        tracker: as for `watch`.
        settings: as for `watch`; outputs are settings, too, such as `output="results"`, `overwrite=True`,
            `save_video=False`.
        sinks: further outputs, which get each result after the files.
        on_result: called with each result after all outputs have it.
        on_event: as for `watch`, after all outputs have the message.
        annotations: COCO-video ground truth of the source.
        progress: display of the progress: auto, bar, plain or off.

    Raises MoteError for what is wrong before the first frame. A later error is `failure` of the record, and
    what was written until then is kept.
    """
    if progress not in MODES:
        raise unknown_name("progress", str(progress), MODES)
    if on_result is not None and not callable(on_result):
        raise UsageError(f"on_result is of type {type(on_result).__name__}, expected a function")
    config, parts = prepare(detector, tracker, settings)
    for sink in sinks:
        require_part(sink, "sink")
    truth = None if annotations is None else str(annotations)
    place = _location(source)
    return single.run(
        place,
        config,
        parts,
        annotations=truth,
        progress=progress,
        sinks=sinks,
        on_result=on_result,
        on_event=on_event,
    )


def prepare(
    detector: str | Detector | None, tracker: str | Tracker | None, settings: dict[str, Any]
) -> tuple[RunConfig, Parts]:
    """Returns the configuration of these settings, and what makes its parts. Raises UsageError."""
    parts, given = run_pipeline.parts(), dict(settings)
    if given.pop("half", False):
        given["precision"] = "half"
    for name in given:
        if name not in (*run_pipeline.FLAGS, *OTHER_SETTINGS):
            ours = OTHER_NAMES.get("--" + name.replace("_", "-"))
            if ours:
                raise UsageError(f"unknown setting '{name}'; the command has {ours} for it")
            raise unknown_name("setting", name, (*run_pipeline.FLAGS, *OTHER_SETTINGS, "half"))
    if isinstance(detector, str):
        given["detector"] = detector
    elif detector is not None:
        require_part(detector, "detector")
        parts = replace(parts, load_detector=_giving(detector), fit=as_configured)
    if isinstance(tracker, str):
        given["tracker"] = tracker
    elif tracker is not None:
        require_part(tracker, "tracker")
        parts = replace(parts, build_tracker=_giving_tracker(tracker))
    given = {key: _as_typed(value) for key, value in given.items()}
    return run_pipeline.configuration(argparse.Namespace(**given)), parts


def require_effect(
    settings: Mapping[str, Any], sections: Sequence[str], kept: Sequence[str], why: str
) -> None:
    """Raises UsageError for a setting of these sections of the configuration that is no `kept` key."""
    for name in settings:
        key = run_pipeline.FLAGS.get(name, "")
        if key.partition(".")[0] in sections and key not in kept:
            raise UsageError(f"setting '{name}' has no effect here: {why}; leave it out")


def _location(source: str | Path | int) -> str:
    """Returns a source as the command line would give it. Raises TypeError for what names no source."""
    if isinstance(source, bool) or not isinstance(source, (str, PathLike, int)):
        raise TypeError(
            f"the source is of type {type(source).__name__}, expected a text, a path or the number of a "
            "camera; mote.Finder takes images one by one"
        )
    return str(source)


def _as_typed(value: Any) -> Any:
    """Returns a setting as the command line would give it: paths as text, tuples as lists."""
    if isinstance(value, Path):
        return str(value)
    return [_as_typed(item) for item in value] if isinstance(value, (list, tuple)) else value


def _giving_tracker(tracker: Tracker) -> Callable[[str, Mapping[str, Any]], Tracker]:
    """Returns a function that takes the place of `trackers.build` and returns this tracker."""
    return lambda name, options: tracker


def _giving(detector: Detector) -> Callable[..., tuple[Detector, DetectorInfo]]:
    """Returns a function that takes the place of `detectors.load_detector` and returns this detector."""
    from detectors.loading import describe_plugin, with_views

    def load(config: Any, *, maps: bool = False) -> tuple[Detector, DetectorInfo]:
        return with_views(detector, describe_plugin(detector), config)

    return load
