"""A run over several sources that share the networks.

Three kinds of threads: one for each source decodes (`pipeline.system.multiplexer`); this one runs the
networks on the frames that are there; one for each source tracks, draws and writes. A source that is slow,
lost, or whose outputs cannot be written does not delay the others.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from pipeline.config.schema import RunConfig
from pipeline.runner.parts import MultiStreamDetector, Networks, Parts, load_networks
from pipeline.runner.run_json import write_end, write_start
from pipeline.runner.setup import (
    Stream,
    batch_size,
    distinct_names,
    load_annotations,
    make_stream,
    prepare_folders,
)
from pipeline.runner.steps import RESULTS_AHEAD, count_frames, fuse_if_configured, health_server
from pipeline.runner.summary import Summary
from pipeline.sources.live import open_with_reconnect
from pipeline.sources.source import FrameSource
from pipeline.stages.segmentation import segment
from pipeline.stages.tracking import track
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import SegmentStage
from pipeline.structures.results import FrameDetections
from pipeline.system.errors import MoteError, SourceError, UsageError
from pipeline.system.multiplexer import StreamMultiplexer
from pipeline.system.progress import Mode, Progress
from pipeline.system.signals import StopRequest, stop_on_signals

RUNS = "runs"
"""Parent of the output folders, if the configuration names none."""

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

    A source that cannot be opened, is lost, or whose outputs cannot be written ends alone: the summary holds
    its error. An error in the networks ends all. Raises MoteError for anything else that is wrong before the
    first frame.
    """
    if config.output.resume:
        raise UsageError("one run is resumed at a time: give --resume one source, and its own folder")
    summary = Summary()
    with stop_on_signals(at_once=True) as stop, health_server(summary, config.service), ExitStack() as stack:
        sources = _open(locations, config, summary, stop, stack)
        if not sources:
            return summary
        known = [load_annotations(annotations, source, config) for source in sources.values()]
        stop.begin()
        networks = load_networks(config, parts)
        config = _with_batch(config, networks.info.device, len(sources))
        streams = []
        for (name, source), own in zip(sources.items(), known, strict=True):
            folder = Path(config.output.folder or RUNS, name)
            placed = replace(config, output=replace(config.output, folder=str(folder)))
            streams.append(make_stream(name, folder, source, placed, networks, parts, own))
        summary.records = {stream.name: stream.record for stream in streams}
        folders = [stream.record.folder for stream in streams]
        prepare_folders(folders, stack, overwrite=config.output.overwrite, sources=locations)
        detector = parts.share(networks.detector, len(streams))
        bar = Progress(summary.announced, mode=progress, note=summary.progress_note)
        with summary.timed(), bar:
            batch = config.detector.batch
            process(streams, detector, networks, batch=batch, stop=stop, advance=bar.advance)
    return summary


class _End(NamedTuple):
    """Follows the last frame of a source in the queue of its writer."""

    failure: BaseException | None


class StreamWriter:
    """Thread that takes the detections of one stream to its outputs: fuse, track, write.

    Args:
        stream: the stream; its outputs are opened and closed by the thread.
        segmenters: names of the segmenters beside the detector.
        stop: the request to stop, checked at the end.
        written: called after each frame that is written.
        ended: called when no more frames are wanted.
    """

    def __init__(
        self,
        stream: Stream,
        segmenters: list[str],
        stop: StopRequest,
        *,
        written: Callable[[], None],
        ended: Callable[[], None],
    ):
        self._stream, self._segmenters, self._stop = stream, segmenters, stop
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
                found = fuse_if_configured(self._found(), record.config, self._segmenters)
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


def process(
    streams: Sequence[Stream],
    detector: MultiStreamDetector,
    networks: Networks,
    *,
    batch: int,
    stop: StopRequest,
    advance: Callable[[], None],
) -> None:
    """Takes the frames of all streams through the networks, up to `batch` at once, to their writers.

    Returns when all files are closed. `advance` is called, from any thread, for each frame that is written.
    Raises errors that are no MoteError, and only these.
    """
    frames = [count_frames(stream.source, stream.record, stop) for stream in streams]
    names = [f"decode {stream.name}" for stream in streams]
    queues = [stream.queue for stream in streams]
    failure: BaseException | None = None
    with StreamMultiplexer(
        frames, names=names, queues=queues, in_flight=RESULTS_AHEAD + batch
    ) as multiplexer:
        writers = [
            _writer(stream, networks, stop, multiplexer, number, advance)
            for number, stream in enumerate(streams)
        ]
        for writer in writers:
            writer.start()
        try:
            rounds = _rounds(multiplexer, streams, batch=batch, stop=stop)
            with closing(detector.detect(rounds)) as results:
                for found, ended in results:
                    for number, item in _segmented(found, networks.segmenters, batch=batch):
                        writers[number].put(item)
                    for number, lost in ended:
                        detector.end(number)
                        writers[number].end(lost)
                    if stop.signal is not None:  # rounds computed ahead are left; what was queued is written
                        break
        except BaseException as error:
            failure = error
        for writer in writers:
            writer.end(failure)
        for writer in writers:
            writer.join()
    for fault in (failure, *(stream.record.failure for stream in streams)):
        if fault is not None and not isinstance(fault, MoteError):
            raise fault


def _writer(
    stream: Stream,
    networks: Networks,
    stop: StopRequest,
    multiplexer: StreamMultiplexer[Frame],
    number: int,
    advance: Callable[[], None],
) -> StreamWriter:
    """Builds the writer of a stream, which reports its progress to the multiplexer."""

    def written() -> None:
        multiplexer.done(number)
        advance()

    return StreamWriter(
        stream, networks.segmenter_names, stop, written=written, ended=lambda: multiplexer.drop(number)
    )


def _rounds(
    multiplexer: StreamMultiplexer[Frame], streams: Sequence[Stream], *, batch: int, stop: StopRequest
) -> Iterator[tuple[list[tuple[int, Frame]], list[tuple[int, BaseException | None]]]]:
    """Yields frames to compute together and the streams that end after them, until a signal asks to stop.

    A round comes at least every `POLL_SECONDS`, even if it is empty, so that delayed results are passed on.
    """
    for turn in multiplexer.rounds(batch):
        *groups, last = _split_at_gaps(turn.items, streams) if turn.items else [[]]
        yield from ((group, []) for group in groups)
        yield last, turn.ended
        if stop.signal is not None:
            return


def _split_at_gaps(
    items: Sequence[tuple[int, Frame]], streams: Sequence[Stream]
) -> Iterator[list[tuple[int, Frame]]]:
    """Marks the gaps of a round of frames; splits it before a gap that follows other frames of its stream."""
    group: list[tuple[int, Frame]] = []
    for number, item in items:
        frame = streams[number].mark_gaps(item)
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


def _open(
    locations: Sequence[str], config: RunConfig, summary: Summary, stop: StopRequest, stack: ExitStack
) -> dict[str, FrameSource]:
    """Opens the sources by their names; the summary gets the errors of those that cannot be opened."""
    sources = {}
    for name, location in zip(distinct_names(locations), locations, strict=True):
        try:
            sources[name] = stack.enter_context(open_with_reconnect(location, config, stop))
        except SourceError as error:
            summary.unopened[name] = error
    return sources


def _with_batch(config: RunConfig, device: str, count: int) -> RunConfig:
    """Sets a batch that is left open: one frame of each source on a GPU, one frame on a CPU."""
    size = batch_size(config.detector, device)
    if not config.detector.batch and device.startswith("cuda"):
        size = max(size, count)
    return replace(config, detector=replace(config.detector, batch=size))
