"""Several sources at once through one network, each with its own state, tracker, outputs and account.

Three kinds of threads: one for each source, which decodes (`gather`); this one, which runs the networks on
whatever frames are there; one for each source, which tracks, draws and writes. A source that is slow, lost or
whose outputs cannot be written does not hold up the others.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from detectors.inference.multi_stream import MultiStreamDetector
from detectors.inference.segmentation import FrameSegmenter
from detectors.loading import load_detector, load_segmenters
from pipeline.config.schema import RunConfig
from pipeline.runner.ground_truth import GroundTruth
from pipeline.runner.health import watched
from pipeline.runner.resume import ResumeState
from pipeline.runner.run_record import RunRecord
from pipeline.runner.setup import (
    _with_batch,
    account_of,
    distinct_names,
    make_annotator,
    open_sinks,
    prepare_folders,
    resolved,
)
from pipeline.runner.steps import RESULTS_AHEAD, counted, make_timeline, write
from pipeline.runner.summary import Summary
from pipeline.sinks.base import Sinks
from pipeline.sources.live import open_with_reconnect, queue_policy
from pipeline.sources.source import FrameSource
from pipeline.stages.fusion import fuse
from pipeline.stages.segmentation import segment
from pipeline.stages.tracking import track
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Tracker
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import MoteError, SourceError, UsageError
from pipeline.system.multiplexer import StreamMultiplexer
from pipeline.system.progress import Mode, Progress
from pipeline.system.signals import StopRequest, stop_on_signals
from trackers import registry

RUNS = "runs"
"""Where the folders of the sources go, unless the configuration names another place."""
_scoring = threading.Lock()
"""Scoring silences pycocotools by redirecting the standard output of the whole process."""


def run_many(
    locations: Sequence[str], config: RunConfig, *, annotations: str | None = None, progress: Mode = "auto"
) -> Summary:
    """Process the sources together; the outputs of each lie in a folder of its name in `output.folder`.

    A source that cannot be opened, or is lost, ends alone, and so does one whose outputs cannot be written:
    the summary tells of it. What goes wrong in the networks ends all. Raises MoteError for what else is wrong
    before the first frame.
    """
    if config.output.resume:
        raise UsageError("one run is resumed at a time: give --resume one source, and its own folder")
    summary = Summary()
    with stop_on_signals() as stop, watched(summary, config.service), ExitStack() as closing:
        sources = _open(locations, config, summary, stop, closing)
        if not sources:
            return summary
        truths = [_truth(annotations, source, config) for source in sources.values()]
        detector, facts = load_detector(config.detector, maps=config.output.zarr)
        segmenters, more = load_segmenters(config.segmentation, config.detector, maps=config.output.zarr)
        config = _with_batch(config, facts["device"], len(sources))
        streams = [
            make_stream(name, source, config, truth, facts, more, stop)
            for (name, source), truth in zip(sources.items(), truths, strict=True)
        ]
        summary.outcomes = {stream.name: stream.outcome for stream in streams}
        folders = [stream.outcome.folder for stream in streams]
        prepare_folders(folders, overwrite=config.output.overwrite, sources=locations)
        shared = MultiStreamDetector(detector, len(streams))
        bar = Progress(summary.announced, mode=progress, remark=summary.remark)
        with summary.timed(), bar:
            process(streams, shared, segmenters, batch=config.detector.batch, stop=stop, advance=bar.advance)
    return summary


class _End(NamedTuple):
    """Follows the last frame of a source."""

    failure: BaseException | None


class Stream:
    """One source from what the networks found to its files, in a thread of its own."""

    def __init__(
        self,
        name: str,
        outcome: RunRecord,
        tracker: Tracker,
        sinks: Sinks,
        truth: GroundTruth | None,
        stop: StopRequest,
    ):
        self.name, self.outcome = name, outcome
        self._tracker, self._sinks, self._truth, self._stop = tracker, sinks, truth, stop
        # without a bound of its own: what is in hand of each feed is bounded where it is handed out
        self._waiting: queue.SimpleQueue[FrameDetections | _End] = queue.SimpleQueue()
        self._failure: BaseException | None = None

    def start(self, *, written: Callable[[], None], ended: Callable[[], None]) -> None:
        """Begin to take frames; `written` is called after each, and `ended` when no more are wanted."""
        self._written, self._ended = written, ended
        self._thread = threading.Thread(target=self._work, name=f"write {self.name}")
        self._thread.start()

    def give(self, found: FrameDetections) -> None:
        """The next frame."""
        self._waiting.put(found)

    def end(self, failure: BaseException | None = None) -> None:
        """No more frames come, and what broke them off; of several calls the first one counts."""
        self._waiting.put(_End(failure))

    def join(self) -> None:
        """Wait until all that was given is written and the files are closed."""
        self._thread.join()

    def _work(self) -> None:
        outcome = self.outcome
        try:
            outcome.begin(self._truth)
            with self._sinks:
                for result in track(self._fused(), self._tracker):
                    write(result, self._sinks, outcome, self._truth)
                    self._written()
                if self._failure:
                    raise self._failure
                self._stop.check()
        except BaseException as error:  # told by the summary; faults of ours are raised when all have ended
            outcome.failure = error
        finally:
            self._ended()
            with _scoring, suppress(Exception):  # what fails in there is in the outcome
                outcome.finish(self._truth)

    def _fused(self) -> Iterator[FrameDetections]:
        config, found = self.outcome.config, self._found()
        if config.segmentation.fuse == "none":
            return found
        names = [row.name for row in config.segmentation.segmenters]
        return fuse(found, config.segmentation, names=names, conf=config.detector.conf)

    def _found(self) -> Iterator[FrameDetections]:
        while not isinstance(item := self._waiting.get(), _End):
            yield item
        self._failure = item.failure


def make_stream(
    name: str,
    source: FrameSource,
    config: RunConfig,
    truth: GroundTruth | None,
    facts: dict,
    segmenters: Sequence[dict],
    stop: StopRequest,
) -> Stream:
    """One source with all that is its own; nothing is written yet.

    `facts` and those of the `segmenters` say what is known of the networks.
    """
    classes, folder = facts["classes"], Path(config.output.folder or RUNS, name)
    config = replace(config, output=replace(config.output, folder=str(folder)))
    tracker = registry.build(config.tracker.name, **config.tracker.options)
    annotator = make_annotator(config, classes)
    config = resolved(config, tracker, annotator, facts, segmenters)
    if truth:
        truth.begin(len(classes))
    files = open_sinks(folder, config, source.info, annotator, truth, len(classes), past=ResumeState())
    outcome = RunRecord(folder, source, config, facts, segmenters)
    outcome.pieces = account_of(files)
    return Stream(name, outcome, tracker, Sinks(files), truth, stop)


def process(
    streams: Sequence[Stream],
    detector: MultiStreamDetector,
    segmenters: Sequence[FrameSegmenter],
    *,
    batch: int,
    stop: StopRequest,
    advance: Callable[[], None],
) -> None:
    """Take the frames of all sources through the networks, up to `batch` at once, to where they are written.

    Returns when all files are closed. `advance` is called, from any thread, for each frame that is written.
    Raises what is no MoteError, and only then.
    """
    frames = [counted(stream.outcome.source, stream.outcome, stop) for stream in streams]
    names = [f"decode {stream.name}" for stream in streams]
    failure: BaseException | None = None
    queues = []
    for outcome in (stream.outcome for stream in streams):
        info, config = outcome.source.info, outcome.config
        queues.append(queue_policy(info, config.live, outcome.dropped))
        outcome.timeline = make_timeline(info, detector.window, config, outcome)
    with StreamMultiplexer(frames, names=names, queues=queues, in_hand=RESULTS_AHEAD + batch) as gather:
        for number, stream in enumerate(streams):
            written = partial(_written, gather, number, advance)
            stream.start(written=written, ended=partial(gather.drop, number))
        try:
            turns = turns_of(gather, streams, batch=batch, stop=stop)
            with closing(detector.detect(turns)) as results:
                for found, ended in results:
                    for number, item in marked(found, segmenters, batch=batch):
                        streams[number].give(item)
                    for number, lost in ended:
                        detector.end(number)
                        streams[number].end(lost)
                    if stop.signal is not None:  # what was computed ahead is left; what was given is written
                        break
        except BaseException as error:
            failure = error
        for stream in streams:
            stream.end(failure)
        for stream in streams:
            stream.join()
    failures = [failure, *(stream.outcome.failure for stream in streams)]
    for fault in failures:
        if fault is not None and not isinstance(fault, MoteError):
            raise fault


def turns_of(
    gather: StreamMultiplexer[Frame], streams: Sequence[Stream], *, batch: int, stop: StopRequest
) -> Iterator[tuple[list[tuple[int, Frame]], list[tuple[int, BaseException | None]]]]:
    """Frames to compute together, and the streams that end after them, until a signal asks to stop.

    Something comes at least every `POLL_SECONDS`, be it empty: what waits for the next turn is given then.
    """
    for turn in gather.turns(batch):
        *groups, last = whole_groups(turn.items, streams) if turn.items else [[]]
        yield from ((group, []) for group in groups)
        yield last, turn.ended
        if stop.signal is not None:
            return


def whole_groups(
    items: Sequence[tuple[int, Frame]], streams: Sequence[Stream]
) -> Iterator[list[tuple[int, Frame]]]:
    """The frames of a turn, marked with their gaps, parted where one follows a gap and others before it."""
    group: list[tuple[int, Frame]] = []
    for number, item in items:
        frame = streams[number].outcome.timeline(item)
        if frame.gap and any(number == other for other, _ in group):
            yield group
            group = []
        group.append((number, frame))
    if group:
        yield group


def marked(
    found: Iterable[tuple[int, FrameDetections]], segmenters: Sequence[FrameSegmenter], *, batch: int
) -> Iterator[tuple[int, FrameDetections]]:
    """Add what segmenters mark in each frame; frames of one source, which come together, are one batch."""
    for number, rows in groupby(found, key=itemgetter(0)):
        items: Iterable[FrameDetections] = map(itemgetter(1), rows)
        for segmenter in segmenters:
            items = segment(items, segmenter, batch=batch)
        yield from ((number, item) for item in items)


def _open(
    locations: Sequence[str], config: RunConfig, summary: Summary, stop: StopRequest, closing: ExitStack
) -> dict[str, FrameSource]:
    """The sources that can be opened, by their names; of the others the summary knows why."""
    sources = {}
    for name, location in zip(distinct_names(locations), locations, strict=True):
        try:
            sources[name] = closing.enter_context(open_with_reconnect(location, config, stop))
        except SourceError as error:
            summary.unopened[name] = error
    return sources


def _truth(annotations: str | None, source: FrameSource, config: RunConfig) -> GroundTruth | None:
    if annotations is None:
        return None
    return GroundTruth(Path(annotations), source.info, start=config.source.start)


def _written(gather: StreamMultiplexer, number: int, advance: Callable[[], None]) -> None:
    gather.done(number)
    advance()
