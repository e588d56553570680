"""A run over several sources that share the networks.

Four kinds of threads: one for each source decodes; one for each source marks gaps and the motion of the
camera (`pipeline.stages.multiplexer`); this one runs the networks on the frames that are there; one for each
source tracks, draws and writes. A source that is slow, lost, not yet there, or whose outputs cannot be
written does not delay the others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from pipeline.config.schema import RunConfig
from pipeline.events.opening import check_events
from pipeline.runner.parts import MultiStreamDetector, Networks, Parts, load_networks
from pipeline.runner.run_json import write_end, write_start
from pipeline.runner.setup import (
    RUNS,
    Stream,
    StreamMaker,
    batch_size,
    distinct_names,
    load_annotations,
)
from pipeline.runner.steps import (
    RESULTS_AHEAD,
    alarms_delivered,
    count_frames,
    health_server,
    memory_shortage_told,
    select_and_fuse,
)
from pipeline.runner.summary import Summary
from pipeline.sources.opening import waits_for_peer
from pipeline.sources.pending import PendingSource
from pipeline.sources.source import FrameSource
from pipeline.stages.multiplexer import StreamMultiplexer
from pipeline.stages.segmentation import segment
from pipeline.stages.tracking import track
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import SegmentStage
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import MoteError, SourceError, UsageError
from pipeline.system.prefetch import POLL_SECONDS, prefetch
from pipeline.system.progress import Mode, Progress
from pipeline.system.signals import StopRequest, stop_on_signals

_scoring = threading.Lock()
"""Held while a stream is scored: scoring redirects the standard output of the whole process."""


def run_many(
    locations: Sequence[str],
    config: RunConfig,
    parts: Parts,
    *,
    annotations: str | None = None,
    progress: Mode = "auto",
) -> Summary:
    """Processes several sources together; each writes to a folder of its name in `output.folder`.

    The run starts with the files and with the first address or camera that answers; others join when they
    answer, and are tried again as a lost one is. A source that cannot be opened, is lost, or whose outputs
    cannot be written ends alone: the summary holds its error. An error in the networks ends all. Raises
    MoteError for anything else that is wrong before the first frame.
    """
    if config.output.resume:
        raise UsageError("one run is resumed at a time: give --resume one source, and its own folder")
    summary, by_name = Summary(), dict(zip(distinct_names(locations), locations, strict=True))
    with stop_on_signals(at_once=True) as stop, health_server(summary, config.service), ExitStack() as stack:
        summary.pending = {
            name: stack.enter_context(PendingSource(location, config, stop, retry=True))
            for name, location in by_name.items()
        }
        opened = _wait_for_sources(by_name, summary, stop)
        if not opened:
            return summary
        truths = load_annotations(annotations, list(opened.values()), config, among=len(locations))
        known = dict(zip(opened, truths, strict=True))
        infos = {name: source.info for name, source in opened.items()}
        check_events(config.events, infos, names=list(by_name))
        stop.begin()
        networks = load_networks(config, parts, list(infos.values()))
        count = len(locations) - len(summary.unopened)
        config = _with_batch(config, networks.info.device, count)
        maker = StreamMaker(config, networks, parts, summary, locations, stack)
        maker.require_free(summary.starting)
        stack.enter_context(alarms_delivered(config, Path(config.output.folder or RUNS), summary))
        streams = maker.make(opened, known)

        def join(name: str, source: FrameSource) -> Stream:
            (truth,) = load_annotations(annotations, [source], config, among=len(locations))
            parts.fit(config.detector, [source.info])  # refuses frames that the detector cannot compute
            return maker.make({name: source}, {name: truth})[name]

        bar = Progress(summary.announced, mode=progress, note=summary.progress_note)
        lanes = Lanes(summary, join, networks, batch=config.detector.batch, stop=stop, advance=bar.advance)
        lanes.begin(streams)
        with summary.timed(), bar:
            process(lanes, parts.share(networks.detector, count), networks, config.detector.batch, stop)
    return summary


def _wait_for_sources(
    locations: Mapping[str, str], summary: Summary, stop: StopRequest
) -> dict[str, FrameSource]:
    """Returns the sources that are open once all files and folders are, and any source.

    The summary gets the errors of those that cannot be opened. Addresses and cameras may still be tried.
    """
    opened, left = {}, dict(summary.pending)
    while True:
        for name in [name for name in left if left[name].decided or not waits_for_peer(locations[name])]:
            try:
                opened[name] = left.pop(name).wait()
            except SourceError as error:
                summary.unopened[name] = error
        if opened or not left:
            return {name: opened[name] for name in locations if name in opened}
        stop.check()
        time.sleep(POLL_SECONDS)


class _End(NamedTuple):
    """Follows the last frame of a source in the queue of its writer."""

    failure: BaseException | None


class StreamWriter:
    """Thread that takes the detections of one stream to its outputs: fuse, track, write.

    Args:
        stream: the stream; its outputs are opened and closed by the thread.
        networks: the networks of the run.
        stop: the request to stop, checked at the end.
        written: called after each frame that is written.
        ended: called when no more frames are wanted.
    """

    def __init__(
        self,
        stream: Stream,
        networks: Networks,
        stop: StopRequest,
        *,
        written: Callable[[], None],
        ended: Callable[[], None],
    ):
        self._stream, self._networks, self._stop = stream, networks, stop
        self._written, self._ended = written, ended
        # not bounded here: the multiplexer bounds the number of frames in flight of each stream
        self._waiting: queue.SimpleQueue[FrameDetections | _End] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"write {stream.name}")

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def put(self, found: FrameDetections) -> None:
        """Queues the detections of the next frame."""
        self._waiting.put(found)

    def end(self, failure: BaseException | None = None) -> None:
        """Queues the end of the stream and its cause; only the first call counts."""
        self._waiting.put(_End(failure))

    def join(self) -> None:
        """Waits until everything queued is written and the files are closed."""
        self._thread.join()

    def _work(self) -> None:
        stream, record = self._stream, self._stream.record
        try:
            write_start(record)
            with stream.sinks:
                found = select_and_fuse(self._found(), record.config, self._networks)
                for result in track(found, stream.tracker):
                    stream.write(result)
                    self._written()
                if self._failure:
                    raise self._failure
                self._stop.check()
        except BaseException as error:  # in the summary; what is no MoteError is raised when all have ended
            record.failure = error
        finally:
            self._ended()
            with _scoring, suppress(Exception):  # an error in there becomes the failure of the record
                write_end(record, stream.truth)

    def _found(self) -> Iterator[FrameDetections]:
        while not isinstance(item := self._waiting.get(), _End):
            yield item
        self._failure = item.failure


class Lanes:
    """The sources of a run, numbered from 0, and what each has once it is open: a stream and its writer.

    Args:
        summary: has the sources; those that it names as not opened are left out. It gets the errors of those
            that are never opened.
        join: makes the stream of a source that is opened later, from its name and the source.
        networks: the networks of the run.
        batch: maximum number of frames that are computed together.
        stop: the request to stop.
        advance: called, from any thread, for each frame that is written.
    """

    def __init__(
        self,
        summary: Summary,
        join: Callable[[str, FrameSource], Stream],
        networks: Networks,
        *,
        batch: int,
        stop: StopRequest,
        advance: Callable[[], None],
    ):
        self._summary, self._join, self._stop, self._advance = summary, join, stop, advance
        self._networks = networks
        self._names = [name for name in summary.pending if name not in summary.unopened]
        self._streams: dict[int, Stream] = {}
        self._writers: dict[int, StreamWriter] = {}
        self._ended: set[int] = set()
        self._lock = threading.Lock()  # while a source begins or ends
        self._faults: list[BaseException] = []  # that are no MoteError and kept a source from joining
        self.multiplexer = StreamMultiplexer(
            [self._frames(number) for number in range(len(self._names))],
            names=[f"prepare {name}" for name in self._names],
            in_flight=RESULTS_AHEAD + batch,
        )

    def begin(self, streams: Mapping[str, Stream]) -> None:
        """Starts the writers of streams; to be called for those of open sources before the multiplexer."""
        for name, stream in streams.items():
            self._begin(self._names.index(name), stream)

    def put(self, number: int, found: FrameDetections) -> None:
        """Passes the detections of the next frame of a source to its writer."""
        self._writers[number].put(found)

    def end(self, number: int, failure: BaseException | None = None) -> None:
        """Ends a source after the frames that were put; only the first call counts."""
        with self._lock:
            if number in self._ended:
                return
            self._ended.add(number)
        if number in self._writers:
            return self._writers[number].end(failure)
        name = self._names[number]
        self._summary.pending[name].close()
        try:
            self._stop.check()
            if failure is not None:
                raise failure
        except MoteError as error:
            self._summary.unopened = {**self._summary.unopened, name: error}
        except BaseException as error:
            self._faults.append(error)

    def end_all(self, failure: BaseException | None) -> None:
        """Ends the sources that have not ended, and waits until all files are closed."""
        for number in range(len(self._names)):
            self.end(number, failure)
        for writer in self._writers.values():
            writer.join()

    @property
    def failures(self) -> list[BaseException | None]:
        """What ended each source early; None if nothing did."""
        return [*self._faults, *(stream.record.failure for stream in self._streams.values())]

    def _begin(self, number: int, stream: Stream) -> None:
        def written() -> None:
            self.multiplexer.done(number)
            self._advance()

        self._streams[number] = stream
        self._writers[number] = StreamWriter(
            stream, self._networks, self._stop, written=written, ended=lambda: self.multiplexer.drop(number)
        )
        self._writers[number].start()

    def _frames(self, number: int) -> Iterator[Frame]:
        """Yields the marked frames of a source, which joins the run first; runs in the thread of its feed."""
        name = self._names[number]
        if number not in self._streams:
            source = self._summary.pending[name].wait()
            with self._lock:
                if number in self._ended:
                    return
                self._begin(number, self._join(name, source))
        stream = self._streams[number]
        decoded = count_frames(stream.source, stream.record, self._stop)
        # frames are dropped here, before they are marked; one that is marked waits beside this queue
        queued = stream.queue._replace(size=max(stream.queue.size - 1, 1))
        with closing(prefetch(decoded, **queued._asdict(), name=f"decode {name}")) as frames:
            yield from map(stream.mark, frames)


def process(
    lanes: Lanes, detector: MultiStreamDetector, networks: Networks, batch: int, stop: StopRequest
) -> None:
    """Takes the frames of all sources through the networks, up to `batch` at once, to their writers.

    Returns when all files are closed. Raises errors that are no MoteError, and only these.
    """
    failure: BaseException | None = None
    with lanes.multiplexer:
        try:
            rounds = _rounds(lanes, batch=batch, stop=stop)
            with memory_shortage_told(), closing(detector.detect(rounds)) as results:
                for found, ended in results:
                    for number, item in _segmented(found, networks.segmenters, batch=batch):
                        lanes.put(number, item)
                    for number, lost in ended:
                        detector.end(number)
                        lanes.end(number, lost)
                    if stop.signal is not None:  # rounds computed ahead are left; what was queued is written
                        break
        except BaseException as error:
            failure = error
        lanes.end_all(failure)
    for fault in (failure, *lanes.failures):
        if fault is not None and not isinstance(fault, MoteError):
            raise fault


def _rounds(
    lanes: Lanes, *, batch: int, stop: StopRequest
) -> Iterator[tuple[list[tuple[int, Frame]], list[tuple[int, BaseException | None]]]]:
    """Yields frames to compute together and the sources that end after them, until a signal asks to stop.

    A round comes at least every `POLL_SECONDS`, even if it is empty, so that delayed results are passed on.
    """
    for turn in lanes.multiplexer.rounds(batch):
        *groups, last = _split_at_gaps(turn.items) if turn.items else [[]]
        yield from ((group, []) for group in groups)
        yield last, turn.ended
        if stop.signal is not None:
            return


def _split_at_gaps(items: Sequence[tuple[int, Frame]]) -> Iterator[list[tuple[int, Frame]]]:
    """Splits a round of frames before each gap that follows other frames of its source."""
    group: list[tuple[int, Frame]] = []
    for number, frame in items:
        if frame.gap and any(number == other for other, _ in group):
            yield group
            group = []
        group.append((number, frame))
    if group:
        yield group


def _segmented(
    found: Iterable[tuple[int, FrameDetections]], segmenters: Sequence[SegmentStage], *, batch: int
) -> Iterator[tuple[int, FrameDetections]]:
    """Adds the masks of segmenters; successive frames of one stream are one batch."""
    for number, rows in groupby(found, key=itemgetter(0)):
        items: Iterable[FrameDetections] = map(itemgetter(1), rows)
        for segmenter in segmenters:
            items = segment(items, segmenter, batch=batch)
        yield from ((number, item) for item in items)


def _with_batch(config: RunConfig, device: str, count: int) -> RunConfig:
    """Sets a batch that is left open: one frame of each source on a GPU, one frame on a CPU."""
    size = batch_size(config.detector, device)
    if not config.detector.batch and device.startswith("cuda"):
        size = max(size, count)
    return replace(config, detector=replace(config.detector, batch=size))
