"""One run: the chain of stages from a source to the sinks, and the order in which all of it ends."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path

import trackers
from pipeline.addresses import stream_name
from pipeline.annotate import Annotator, AnnotatorOptions
from pipeline.config import DetectorConfig, RunConfig, ServiceConfig
from pipeline.errors import MoteError, OutputError
from pipeline.frame import Frame, Result, SourceInfo
from pipeline.fusion import fuse
from pipeline.gaps import Timeline, split_at_gaps
from pipeline.ground_truth import GroundTruth
from pipeline.interrupt import Stop, stop_on_signals
from pipeline.live import open_watched, queueing
from pipeline.loading import load_detector, load_segmenters
from pipeline.pieces import Measured, Pieces, delete, pieces_in
from pipeline.prefetch import prefetch
from pipeline.progress import Mode, Progress
from pipeline.record_file import output_error
from pipeline.report import COCO, JSONL, MOT, OUTPUTS, UNFINISHED, VIDEO, ZARR, Outcome
from pipeline.resume import Past, find
from pipeline.segmenting import FrameSegmenter, segment
from pipeline.settings import build
from pipeline.sinks import CocoSink, JsonlSink, MotSink, Sink, Sinks
from pipeline.sources import FrameSource
from pipeline.stages import Detector, Found, batches, track
from pipeline.summary import Summary
from pipeline.video_sink import VideoSink
from pipeline.zarr_sink import ZarrSink, is_store
from trackers import Tracker

RESULTS_AHEAD = 8
"""Bound of the queue before the sinks: enough to even out, little to hold."""


def run(
    location: str, config: RunConfig, *, annotations: str | None = None, progress: Mode = "auto"
) -> Outcome:
    """Process one source and write its outputs.

    Whatever ends the run, each file is valid and `run.json` tells how far it came. Raises MoteError for what
    is wrong before the first frame; what goes wrong after it is in the outcome.
    """
    summary = Summary()
    with (
        stop_on_signals() as stop,
        watched(summary, config.service),
        open_watched(location, config, stop) as source,
    ):
        start = config.source.start
        truth = GroundTruth(Path(annotations), source.info, start=start) if annotations else None
        detector, facts = load_detector(config.detector, maps=config.output.zarr)
        segmenters, more = load_segmenters(config.segmentation, config.detector, maps=config.output.zarr)
        if truth:
            truth.begin(len(facts["classes"]))
        config = prompt(config) if source.info.live else config
        tracker = trackers.build(config.tracker.name, **config.tracker.options)
        annotator = make_annotator(config, facts["classes"])
        folder = Path(config.output.folder or Path("runs", run_name(location)))
        past = find(folder, config.output)
        if not past.begun:
            prepare_folders([folder], overwrite=config.output.overwrite, sources=[location])
        config = resolved(config, tracker, annotator, facts, more)
        outcome = Outcome(folder, source, config, facts, more)
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
    outcome: Outcome,
    stop: Stop,
    past: Past,
) -> Generator[Result]:
    """The whole way of a frame from the source to the result that the sinks receive."""
    batch, names = config.detector.batch, [segmenter.name for segmenter in segmenters]
    waiting = queueing(source.info, config.live, outcome.dropped)
    outcome.timeline = timeline = make_timeline(source.info, detector.window, config, outcome)

    def computed(frames: Iterable[Frame]) -> Generator[Found]:
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


def write(result: Result, sinks: Sinks, outcome: Outcome, truth: GroundTruth | None) -> None:
    """Hand a result to the sinks, and then to the accounts of the run."""
    with outcome.timed("write"):
        sinks.write(result)
    outcome.add(result)
    if truth:
        truth.add(result)


def watched(summary: Summary, config: ServiceConfig) -> AbstractContextManager[None]:
    """A block in which others may ask how the streams of `summary` are, if that is wanted."""
    if not config.health_port:
        return nullcontext()
    from pipeline.service import served

    return served(summary, config)


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


def make_timeline(info: SourceInfo, window: int, config: RunConfig, outcome: Outcome) -> Timeline:
    """What marks the gaps between the frames of a source that reach the detector."""
    live = config.live
    return Timeline(info, window=window, policy=live.on_gap, dropped=outcome.dropped, cuts=live.scene_cuts)


def counted(source: FrameSource, outcome: Outcome, stop: Stop) -> Iterator[Frame]:
    """The frames, each counted and its decoding timed, until a signal asks to stop."""
    while stop.signal is None:
        with outcome.timed("decode"):
            frame = next(source, None)
        if frame is None:
            return
        outcome.decoded += 1
        yield frame


def resolved(
    config: RunConfig, tracker: Tracker, annotator: Annotator, facts: dict, segmenters: Sequence[dict]
) -> RunConfig:
    """The configuration with every default and every automatic choice replaced by what it came to."""
    batch = batch_size(config.detector, facts["device"])
    chosen = {"name": facts["name"], "weights": facts["weights"], "device": facts["device"], "batch": batch}
    chosen |= {"threads": facts["threads"], "enlarge": facts["enlarge"]}
    chosen |= {"backend": facts.get("backend", "torch")}
    rows = [
        replace(row, **{key: known[key] for key in ("name", "weights", "enlarge")})
        for row, known in zip(config.segmentation.segmenters, segmenters, strict=True)
    ]
    options = getattr(tracker, "options", None)
    options = asdict(options) if is_dataclass(options) else config.tracker.options
    return replace(
        config,
        detector=replace(config.detector, **chosen),
        segmentation=replace(config.segmentation, segmenters=tuple(rows)),
        tracker=replace(config.tracker, options=options),
        annotate=asdict(annotator.options),
    )


def batch_size(config: DetectorConfig, device: str) -> int:
    """Frames computed together, where the configuration leaves it open: latency first on a CPU."""
    return config.batch or (8 if device.startswith("cuda") else 1)


def prompt(config: RunConfig) -> RunConfig:
    """Of a live source, a batch that is left open is one frame: it would have to wait for others."""
    return replace(config, detector=replace(config.detector, batch=config.detector.batch or 1))


def run_name(location: str) -> str:
    """What the outputs of a source are named after: its file or folder, or that of a pattern of images."""
    if not os.path.exists(location) and (name := stream_name(location)):
        return name
    place = Path(os.path.abspath(location))
    if glob.has_magic(place.name):
        place = place.parent
    return place.stem or "run"


def prepare_folders(folders: Sequence[Path], *, overwrite: bool, sources: Sequence[str]) -> None:
    """Make the output folders, free of earlier runs' files; OutputError where one cannot be.

    None of the `sources`, which are to be read, is removed, and nothing before all folders are found good.
    """
    for folder in folders:
        _require_free(folder, overwrite, sources)
    for folder in folders:
        for path in [folder / output for output in (*OUTPUTS, *UNFINISHED)]:
            delete(path)
        for piece in pieces_in(folder):
            piece.delete()


def _require_free(folder: Path, overwrite: bool, sources: Sequence[str]) -> None:
    """Make the folder; OutputError where it holds what must not be removed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = [folder / output for output in OUTPUTS if (folder / output).exists()]
        present += [path for piece in pieces_in(folder) for path in piece.files()]
        if present and not overwrite:
            found = f"{folder} holds an earlier run ({present[0].name})"
            raise OutputError(f"{found}; use --overwrite or another --output")
        strange = next((path for path in present if path.is_dir() and not is_store(path)), None)
        if strange:
            raise OutputError(f"{strange} is a folder where a file is to be written; use another --output")
        for location in filter(os.path.exists, sources):
            if any(path.samefile(location) for path in present):
                raise OutputError(f"{location} is to be read and would be overwritten; use another --output")
    except OSError as error:
        raise output_error(folder, error) from error


def make_annotator(config: RunConfig, classes: list[str]) -> Annotator:
    """The annotator that the configuration asks for; classes are named where there are several."""
    options = dict(config.annotate)
    if not options.get("class_names") and len(classes) > 1:
        options["class_names"] = classes
    return Annotator(build(AnnotatorOptions, options, "annotate."))


def open_sinks(
    folder: Path,
    config: RunConfig,
    info: SourceInfo,
    annotator: Annotator,
    truth: GroundTruth | None,
    classes: int,
    *,
    past: Past,
) -> list[Sink]:
    """The sinks that the configuration asks for; each file opens when they are entered.

    `past` says what stays of the files where a run is resumed.
    """
    wanted = config.output

    def files(place: Callable[[str], Path]) -> list[Measured]:
        sinks: list[Measured] = []
        if wanted.jsonl:
            sinks.append(JsonlSink(place(JSONL), kept=past.written))
        if wanted.coco:
            names = {"image_id": truth.image_id, "category_id": truth.category_ids(classes)} if truth else {}
            sinks.append(CocoSink(place(COCO), **names))
        if wanted.mot:
            sinks.append(MotSink(place(MOT)))
        if wanted.video:
            endless = info.live and not wanted.rotation
            sinks.append(VideoSink(place(VIDEO), info, annotator, quality=wanted.quality, endless=endless))
        if wanted.zarr:
            sinks.append(ZarrSink(place(ZARR), info, kept=past.stored))
        return sinks

    return [Pieces(folder, files, wanted.rotation)] if wanted.rotation else files(folder.joinpath)


def account_of(sinks: Sequence[Sink]) -> dict[str, int] | None:
    """What is counted of the pieces, if the files are in pieces."""
    return next((sink.account for sink in sinks if isinstance(sink, Pieces)), None)
