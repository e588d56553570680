"""One run: the chain of stages from a source to the sinks, and the order in which all of it ends."""

from __future__ import annotations

import glob
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path

import trackers
from pipeline.annotate import Annotator, AnnotatorOptions
from pipeline.config import DetectorConfig, RunConfig
from pipeline.errors import MoteError, OutputError
from pipeline.frame import Frame, Result, SourceInfo
from pipeline.fusion import fuse
from pipeline.ground_truth import GroundTruth
from pipeline.interrupt import Stop, stop_on_signals
from pipeline.loading import load_detector, load_segmenters
from pipeline.prefetch import prefetch
from pipeline.progress import Mode, Progress
from pipeline.report import COCO, JSONL, MOT, OUTPUTS, UNFINISHED, VIDEO, Outcome
from pipeline.segmenting import FrameSegmenter, segment
from pipeline.settings import build
from pipeline.sinks import CocoSink, JsonlSink, MotSink, Sink, Sinks, output_error
from pipeline.sources import Source, open_source
from pipeline.stages import Detector, batches, track
from pipeline.video_sink import VideoSink
from trackers import Tracker

FRAMES_AHEAD, RESULTS_AHEAD = 8, 8
"""Bounds of the queues before the network and before the sinks: enough to even out, little to hold."""


def run(
    location: str, config: RunConfig, *, annotations: str | None = None, progress: Mode = "auto"
) -> Outcome:
    """Process one source and write its outputs.

    Whatever ends the run, each file is valid and `run.json` tells how far it came. Raises MoteError for what
    is wrong before the first frame; what goes wrong after it is in the outcome.
    """
    limits = config.source
    with (
        stop_on_signals() as stop,
        open_source(
            location, start=limits.start, max_frames=limits.max_frames or None, rate=limits.rate
        ) as source,
    ):
        truth = GroundTruth(Path(annotations), source.info, start=limits.start) if annotations else None
        detector, facts = load_detector(config.detector)
        segmenters, more = load_segmenters(config.segmentation, config.detector)
        if truth:
            truth.begin(len(facts["classes"]))
        tracker = trackers.build(config.tracker.name, **config.tracker.options)
        annotator = make_annotator(config, facts["classes"])
        folder = prepare_folder(config, location)
        config = resolved(config, tracker, annotator, facts, more)
        sinks = Sinks(open_sinks(folder, config, source.info, annotator, truth, len(facts["classes"])))
        outcome = Outcome(folder, source, config, facts, more)
        outcome.begin()
        try:
            results = stages(source, detector, segmenters, tracker, config, outcome, stop)
            bar = Progress(source.info.frame_count, mode=progress, remark=truth.live if truth else str)
            with sinks, ended(results), bar:
                for result in results:
                    with outcome.timed("write"):
                        sinks.write(result)
                    outcome.add(result)
                    if truth:
                        truth.add(result)
                    bar.advance()
                stop.check()
        except BaseException as error:
            outcome.failure = error
            if not isinstance(error, MoteError):  # a fault of ours: the files are kept, and it is not hidden
                raise
        finally:
            outcome.finish(truth)
        return outcome


def stages(
    source: Source,
    detector: Detector,
    segmenters: Sequence[FrameSegmenter],
    tracker: Tracker,
    config: RunConfig,
    outcome: Outcome,
    stop: Stop,
) -> Generator[Result]:
    """The whole way of a frame from the source to the result that the sinks receive."""
    batch, names = config.detector.batch, [segmenter.name for segmenter in segmenters]

    def detected() -> Iterator[Result]:
        # closed here and not by the garbage collector: an error on its way keeps the generators alive
        with closing(prefetch(counted(source, outcome, stop), size=FRAMES_AHEAD, name="decode")) as frames:
            found = detector.detect(batches(frames, batch))
            for segmenter in segmenters:
                found = segment(found, segmenter, batch=batch)
            if config.segmentation.fuse != "none":
                found = fuse(found, config.segmentation, names=names, conf=config.detector.conf)
            for result in track(found, tracker):
                yield result
                if stop.signal is not None:  # what was decoded ahead is left; what was computed is written
                    return

    # No limit to the wait for this worker: it ends by itself, and the interpreter must not go before it.
    with closing(prefetch(detected(), size=RESULTS_AHEAD, name="detect", patience=None)) as results:
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


def counted(source: Source, outcome: Outcome, stop: Stop) -> Iterator[Frame]:
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


def prepare_folder(config: RunConfig, location: str) -> Path:
    """The output folder, there and free of an earlier run's files; OutputError where it cannot be."""
    place = Path(os.path.abspath(location))
    if glob.has_magic(place.name):  # a pattern of images is named by its folder
        place = place.parent
    folder = Path(config.output.folder or Path("runs", place.stem or "run"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = [folder / output for output in OUTPUTS if (folder / output).exists()]
        if present and not config.output.overwrite:
            found = f"{folder} holds an earlier run ({present[0].name})"
            raise OutputError(f"{found}; use --overwrite or another --output")
        strange = next((path for path in present if path.is_dir()), None)
        if strange:
            raise OutputError(f"{strange} is a folder where a file is to be written; use another --output")
        if any(path.samefile(location) for path in present if Path(location).exists()):
            raise OutputError(f"{location} is to be read and would be overwritten; use another --output")
        for output in (*OUTPUTS, *UNFINISHED):
            (folder / output).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


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
) -> list[Sink]:
    """The sinks that the configuration asks for; each file opens when they are entered."""
    wanted, sinks = config.output, []
    if wanted.jsonl:
        sinks.append(JsonlSink(folder / JSONL))
    if wanted.coco:
        names = {"image_id": truth.image_id, "category_id": truth.category_ids(classes)} if truth else {}
        sinks.append(CocoSink(folder / COCO, **names))
    if wanted.mot:
        sinks.append(MotSink(folder / MOT))
    if wanted.video:
        sinks.append(VideoSink(folder / VIDEO, info, annotator, quality=wanted.quality))
    return sinks
