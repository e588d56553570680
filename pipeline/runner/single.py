"""A run over one source."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.config.schema import RunConfig
from pipeline.events.evidence.folder import remove_unfinished
from pipeline.events.opening import check_events
from pipeline.runner.parts import Networks, Parts, load_networks
from pipeline.runner.resume import ResumeState, find_resumable
from pipeline.runner.run_json import write_end, write_start
from pipeline.runner.run_record import RunRecord
from pipeline.runner.setup import (
    Stream,
    load_annotations,
    make_stream,
    run_name,
    without_batching,
)
from pipeline.runner.steps import (
    RESULTS_AHEAD,
    alarms_delivered,
    closing_results,
    count_frames,
    detect,
    health_server,
    select_and_fuse,
)
from pipeline.runner.summary import Summary
from pipeline.sinks.base import Sink
from pipeline.sinks.folders import prepare_folders
from pipeline.sources.pending import PendingSource
from pipeline.sources.source import FrameSource
from pipeline.stages.batching import batches, split_at_gaps
from pipeline.stages.segmentation import segment
from pipeline.stages.tracking import track
from pipeline.structures.events import Event
from pipeline.structures.frame import Frame
from pipeline.structures.results import FrameDetections, Result
from pipeline.system.errors import MoteError
from pipeline.system.prefetch import prefetch
from pipeline.system.progress import Mode, Progress
from pipeline.system.signals import StopRequest, stop_on_signals


def run(
    location: str,
    config: RunConfig,
    parts: Parts,
    *,
    annotations: str | None = None,
    progress: Mode = "auto",
    sinks: Sequence[Sink] = (),
    on_result: Callable[[Result], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> RunRecord:
    """Processes one source and writes its outputs, then to `sinks`.

    Then it calls `on_event` with each message about an event, and `on_result` with each result.

    Whatever ends the run, each file is valid and run.json says how far it came. Raises MoteError for what is
    wrong before the first frame; a later error is the `failure` of the record that is returned.
    """
    summary, tell = Summary(), on_event or _ignore
    with (
        stop_on_signals(at_once=True) as stop,
        health_server(summary, config.service),
        PendingSource(location, config, stop) as pending,
        ExitStack() as locks,
    ):
        summary.pending[run_name(location)] = pending
        source = pending.wait()
        stream, networks, resume = _set_up(location, source, config, parts, annotations, locks, stop)
        stream.sinks.add(sinks)
        record = stream.record
        locks.enter_context(alarms_delivered(config, record.folder, summary))
        stream.tell(summary.alarms)
        write_start(record)
        summary.records[stream.name] = record
        note = stream.truth.live if stream.truth else record.progress_note
        bar = Progress(source.info.frame_count, mode=progress, note=note)
        try:
            with stream.sinks, closing_results(process(stream, networks, resume, stop)) as results, bar:
                for result in results:
                    written = stream.write(result)
                    for event in written.events:
                        tell(event)
                    if on_result:
                        on_result(written)
                    bar.advance()
                stop.check()
                resume.require_complete(record.written)
            for event in stream.events.ends if stream.events else ():
                tell(event)
        except BaseException as error:
            record.failure = error
            if not isinstance(error, MoteError):  # a bug: the files are kept, and the error is raised
                raise
        finally:
            write_end(record, stream.truth)
        return record


def watch(
    location: str, config: RunConfig, parts: Parts, *, on_event: Callable[[Event], None] | None = None
) -> Generator[Result]:
    """Yields the result of each frame of one source; writes nothing.

    Calls `on_event` with each message about an event, before its result, and at the end of the source.
    Raises MoteError for what is wrong before the first frame, SourceLost if the source ends early.
    """
    nothing = replace(
        config.output, video=False, coco=False, mot=False, jsonl=False, zarr=False, sinks=(), resume=False
    )
    events, stop = replace(config.events, evidence=False), StopRequest()
    config = replace(config, output=nothing, events=events)
    with PendingSource(location, config, stop) as pending:
        source, name = pending.wait(), run_name(location)
        check_events(config.events, {name: source.info}, names=[name])
        networks = load_networks(config, parts, [source.info])
        if source.info.live:
            config = without_batching(config)
        stream = make_stream(name, Path(), source, config, networks, parts, None)
        with closing(process(stream, networks, ResumeState(), stop)) as results:
            yield from _with_events(results, stream, on_event or _ignore)


def _ignore(event: Event) -> None:
    """Does nothing with a message that nobody wants."""


def _with_events(
    results: Iterable[Result], stream: Stream, tell: Callable[[Event], None]
) -> Iterator[Result]:
    """Yields results with their events, each of which is passed to `tell` before."""
    for result in results:
        completed = stream.events.complete(result) if stream.events else result
        for event in completed.events:
            tell(event)
        yield completed
    for event in stream.events.engine.finish() if stream.events else ():
        tell(event)


def process(stream: Stream, networks: Networks, resume: ResumeState, stop: StopRequest) -> Generator[Result]:
    """Yields the result of each frame: decode, count, mark gaps, detect or replay, track."""
    config = stream.record.config
    replay = partial(
        resume.replay,
        batch=config.detector.batch,
        window=networks.detector.window,
        mask_names=networks.mask_names,
    )

    def find(frames: Iterable[Frame]) -> Generator[FrameDetections]:
        groups = split_at_gaps(batches(frames, config.detector.batch))
        with closing(detect(networks.detector, groups)) as detected:
            found: Iterable[FrameDetections] = detected
            for segmenter in networks.segmenters:
                found = segment(found, segmenter, batch=config.detector.batch)
            yield from select_and_fuse(found, config, networks)

    def results() -> Iterator[Result]:
        # closed here and not by the garbage collector: an error that is raised keeps the generators alive
        with ExitStack() as stack:  # closed in reverse: the detector may have a thread that takes frames
            decoded = count_frames(stream.source, stream.record, stop)
            frames = stack.enter_context(closing(prefetch(decoded, **stream.queue._asdict(), name="decode")))
            marked = map(stream.mark, frames)
            found = stack.enter_context(closing(replay(marked, find)))
            for result in resume.verify_tracks(track(found, stream.tracker)):
                yield result
                if stop.signal is not None:  # frames decoded ahead are left; computed results are written
                    return

    # No limit to the wait for this worker: it ends on its own, and must end before the interpreter does.
    ahead = RESULTS_AHEAD if stream.queue.on_full == "wait" else 1
    with closing(prefetch(results(), size=ahead, name="detect", join_timeout=None)) as computed:
        yield from computed


def _set_up(
    location: str,
    source: FrameSource,
    config: RunConfig,
    parts: Parts,
    annotations: str | None,
    locks: ExitStack,
    stop: StopRequest,
) -> tuple[Stream, Networks, ResumeState]:
    """Loads all that the run needs and prepares its folder, or finds the run that is to be resumed there.

    The folder is locked until `locks` is closed.
    """
    (known,) = load_annotations(annotations, [source], config)
    name = run_name(location)
    check_events(config.events, {name: source.info}, names=[name])
    stop.begin()
    networks = load_networks(config, parts, [source.info])
    if source.info.live:
        config = without_batching(config)
    folder = Path(config.output.folder or Path("runs", name))
    resume = find_resumable(folder, config.output, locks)
    stream = make_stream(name, folder, source, config, networks, parts, known, resume=resume)
    if resume.begun:
        resume.discard_scores()
        remove_unfinished(folder)
    else:
        prepare_folders([folder], locks, overwrite=config.output.overwrite, sources=[location])
    return stream, networks, resume
