"""One run: the chain of stages from a source to the sinks, and the order in which all of it ends."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from detectors.inference.segmentation import FrameSegmenter
from detectors.loading import load_detector, load_segmenters
from pipeline.config.schema import RunConfig
from pipeline.runner.ground_truth import GroundTruth
from pipeline.runner.health import watched
from pipeline.runner.resume import ResumeState, find_resumable
from pipeline.runner.run_record import RunRecord
from pipeline.runner.setup import (
    account_of,
    make_annotator,
    open_sinks,
    prepare_folders,
    prompt,
    resolved,
    run_name,
)
from pipeline.runner.steps import RESULTS_AHEAD, counted, make_timeline, write
from pipeline.runner.summary import Summary
from pipeline.sinks.base import Sinks
from pipeline.sources.live import open_with_reconnect, queue_policy
from pipeline.sources.source import FrameSource
from pipeline.stages.batching import batches, split_at_gaps
from pipeline.stages.fusion import fuse
from pipeline.stages.segmentation import segment
from pipeline.stages.tracking import track
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Detector, Tracker
from pipeline.structures.results import FrameDetections, Result
from pipeline.system.errors import MoteError
from pipeline.system.prefetch import prefetch
from pipeline.system.progress import Mode, Progress
from pipeline.system.signals import StopRequest, stop_on_signals
from trackers import registry


def run(
    location: str, config: RunConfig, *, annotations: str | None = None, progress: Mode = "auto"
) -> RunRecord:
    """Process one source and write its outputs.

    Whatever ends the run, each file is valid and `run.json` tells how far it came. Raises MoteError for what
    is wrong before the first frame; what goes wrong after it is in the outcome.
    """
    summary = Summary()
    with (
        stop_on_signals() as stop,
        watched(summary, config.service),
        open_with_reconnect(location, config, stop) as source,
    ):
        start = config.source.start
        truth = GroundTruth(Path(annotations), source.info, start=start) if annotations else None
        detector, facts = load_detector(config.detector, maps=config.output.zarr)
        segmenters, more = load_segmenters(config.segmentation, config.detector, maps=config.output.zarr)
        if truth:
            truth.begin(len(facts["classes"]))
        config = prompt(config) if source.info.live else config
        tracker = registry.build(config.tracker.name, **config.tracker.options)
        annotator = make_annotator(config, facts["classes"])
        folder = Path(config.output.folder or Path("runs", run_name(location)))
        past = find_resumable(folder, config.output)
        if not past.begun:
            prepare_folders([folder], overwrite=config.output.overwrite, sources=[location])
        config = resolved(config, tracker, annotator, facts, more)
        outcome = RunRecord(folder, source, config, facts, more)
        past.require_same(outcome.described())
        outcome.resumed_after, classes = past.written.count, len(facts["classes"])
        files = open_sinks(folder, config, source.info, annotator, truth, classes, past=past)
        sinks, outcome.pieces = Sinks(files), account_of(files)
        outcome.begin(truth)
        summary.outcomes[run_name(location)] = outcome
        try:
            results = stages(source, detector, segmenters, tracker, config, outcome, stop, past)
            remark = truth.live if truth else outcome.remark
            bar = Progress(source.info.frame_count, mode=progress, remark=remark)
            with sinks, ended(results), bar:
                for result in results:
                    write(result, sinks, outcome, truth)
                    bar.advance()
                stop.check()
                past.require_all(outcome.written)
        except BaseException as error:
            outcome.failure = error
            if not isinstance(error, MoteError):  # a fault of ours: the files are kept, and it is not hidden
                raise
        finally:
            outcome.finish(truth)
        return outcome


def stages(
    source: FrameSource,
    detector: Detector,
    segmenters: Sequence[FrameSegmenter],
    tracker: Tracker,
    config: RunConfig,
    outcome: RunRecord,
    stop: StopRequest,
    past: ResumeState,
) -> Generator[Result]:
    """The whole way of a frame from the source to the result that the sinks receive."""
    batch, names = config.detector.batch, [segmenter.name for segmenter in segmenters]
    waiting = queue_policy(source.info, config.live, outcome.dropped)
    outcome.timeline = timeline = make_timeline(source.info, detector.window, config, outcome)

    def computed(frames: Iterable[Frame]) -> Generator[FrameDetections]:
        with closing(detector.detect(split_at_gaps(batches(frames, batch)))) as found:
            for segmenter in segmenters:
                found = segment(found, segmenter, batch=batch)
            if config.segmentation.fuse != "none":
                found = fuse(found, config.segmentation, names=names, conf=config.detector.conf)
            yield from found

    def detected() -> Iterator[Result]:
        # closed here and not by the garbage collector: an error on its way keeps the generators alive
        with ExitStack() as ending:  # last in, first closed: the detector may have a thread that takes frames
            frames = prefetch(counted(source, outcome, stop), **waiting._asdict(), name="decode")
            ending.enter_context(closing(frames))
            found = past.then(computed, map(timeline, frames), config, window=detector.window)
            ending.enter_context(closing(found))
            for result in past.checked(track(found, tracker)):
                yield result
                if stop.signal is not None:  # what was decoded ahead is left; what was computed is written
                    return

    # No limit to the wait for this worker: it ends by itself, and the interpreter must not go before it.
    ahead = RESULTS_AHEAD if waiting.on_full == "wait" else 1
    with closing(prefetch(detected(), size=ahead, name="detect", patience=None)) as results:
        yield from results


@contextmanager
def ended(results: Generator[Result]) -> Iterator[None]:
    """Close the stages with the block; what they meet then does not hide an error that is on its way."""
    try:
        yield
    except BaseException as error:
        try:
            results.close()
        except Exception as later:
            error.add_note(f"then: {later}")
        raise
    results.close()
