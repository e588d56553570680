"""One run: the chain of stages from a source to the sinks, and the order in which all of it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch

import detectors
import trackers
from detectors import weights
from pipeline.annotate import Annotator, AnnotatorOptions
from pipeline.config import DetectorConfig, RunConfig
from pipeline.errors import Interrupted, MoteError, OutputError, UsageError, WeightsError
from pipeline.frame import Frame, Result, SourceInfo
from pipeline.ground_truth import GroundTruth
from pipeline.prefetch import prefetch
from pipeline.progress import Mode, Progress
from pipeline.report import COCO, JSONL, MOT, OUTPUTS, UNFINISHED, VIDEO, Outcome
from pipeline.settings import build
from pipeline.sinks import CocoSink, JsonlSink, MotSink, Sink, Sinks, output_error
from pipeline.sources import Source, open_source
from pipeline.stages import StreamingDetector, batches, extract, suppress, track
from pipeline.video_sink import VideoSink

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
        truth = GroundTruth(Path(annotations), source.info) if annotations else None
        detector, facts = load_detector(config.detector)
        tracker = trackers.build(config.tracker.name, **config.tracker.options)
        annotator = make_annotator(config, facts["classes"])
        folder = prepare_folder(config, location)
        sinks = Sinks(open_sinks(folder, config, source.info, annotator, truth, len(facts["classes"])))
        outcome = Outcome(folder, source, config, facts)
        outcome.begin()
        try:
            with sinks, Progress(source.info.frame_count, mode=progress) as bar:
                for result in stages(source, detector, tracker, config.detector, outcome, stop):
                    with outcome.timed("write"):
                        sinks.write(result)
                    outcome.add(result)
                    bar.advance()
                    stop.check()
                stop.check()  # the signal may have come before the first frame
        except BaseException as error:
            outcome.failure = error
            if not isinstance(error, MoteError):  # a fault of ours: the files are kept, and it is not hidden
                raise
        finally:
            outcome.finish(truth)
        return outcome


def stages(
    source: Source,
    detector: StreamingDetector,
    tracker: trackers.Tracker,
    config: DetectorConfig,
    outcome: Outcome,
    stop: Stop,
) -> Iterator[Result]:
    """The whole way of a frame from the source to the result that the sinks receive."""

    def detected() -> Iterator[Result]:
        # closed here and not by the garbage collector: an error on its way keeps the generators alive
        with closing(prefetch(counted(source, outcome, stop), size=FRAMES_AHEAD, name="decode")) as frames:
            features = extract(batches(frames, batch_size(config, detector)), detector)
            yield from track(suppress(features, conf=config.conf, iou=config.iou), tracker)

    with closing(prefetch(detected(), size=RESULTS_AHEAD, name="detect")) as results:
        yield from results


class Stop:
    """Whether a signal has asked the run to end."""

    def __init__(self):
        self.signal: int | None = None

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.signal is not None:
            raise Interrupted(self.signal)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn the first SIGINT or SIGTERM into a request; a second one ends the program at once."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield stop
        return

    def request(number: int, _frame: object) -> None:
        stop.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def counted(source: Source, outcome: Outcome, stop: Stop) -> Iterator[Frame]:
    """The frames, each counted and its decoding timed, until a signal asks to stop."""
    while stop.signal is None:
        with outcome.timed("decode"):
            frame = next(source, None)
        if frame is None:
            return
        outcome.decoded += 1
        yield frame


def batch_size(config: DetectorConfig, detector: StreamingDetector) -> int:
    """Frames computed together."""
    on_gpu = next(detector.model.parameters()).is_cuda
    return config.batch or (8 if on_gpu else 1)


def load_detector(config: DetectorConfig) -> tuple[StreamingDetector, dict]:
    """The network with its weights, and what run.json says of it."""
    name = config.name
    if name not in detectors.DETECTORS:
        detectors.build(name)  # raises, naming the close match
    chosen = config.weights or weights.default_weights(name)
    if chosen is None:
        raise WeightsError(f"no weights ship for detector '{name}'; give a file with --weights")
    path, entry = weights.locate(chosen)
    options = dict(entry.options) if entry else weights.options_of(path)
    model = detectors.build(name, **options)
    weights.load(model, path)
    device = pick_device(config.device)
    if config.precision == "fp16" and device.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; on a CPU use fp32 or bf16")
    classes = list(entry.classes) if entry else [f"class {n}" for n in range(model.num_classes)]
    facts = {
        "name": name,
        "weights": chosen,
        "sha256": weights.sha256(path),
        "classes": classes,
        "device": str(device),
        "precision": config.precision,
    }
    return StreamingDetector(model, config, device), facts


def pick_device(name: str) -> torch.device:
    """'auto' takes a GPU where there is one. Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}', expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device '{name}', expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device '{name}' is not there: {torch.cuda.device_count()} GPUs found; use cpu")
    return device


def prepare_folder(config: RunConfig, location: str) -> Path:
    """The output folder, there and free of an earlier run's files; OutputError where it cannot be."""
    name = Path(os.path.abspath(location)).stem or "run"
    folder = Path(config.output.folder or Path("runs", name.replace("*", "_").replace("?", "_")))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = [folder / output for output in OUTPUTS if (folder / output).exists()]
        if present and not config.output.overwrite:
            found = f"{folder} holds an earlier run ({present[0].name})"
            raise OutputError(f"{found}; use --overwrite or another --output")
        if any(path.samefile(location) for path in present if Path(location).exists()):
            raise OutputError(f"{location} is to be read and would be overwritten; use another --output")
        for output in (*OUTPUTS, *UNFINISHED):
            (folder / output).unlink(missing_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def make_annotator(config: RunConfig, classes: list[str]) -> Annotator:
    """The annotator that the configuration asks for; classes are named where there are several."""
    names = classes if len(classes) > 1 else []
    return Annotator(build(AnnotatorOptions, {"class_names": names, **config.annotate}, "annotate."))


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
    if wanted.coco or truth:
        names = {"image_id": truth.image_id, "category_id": truth.category_ids(classes)} if truth else {}
        sinks.append(CocoSink(folder / COCO, **names))
    if wanted.mot:
        sinks.append(MotSink(folder / MOT))
    if wanted.video:
        sinks.append(VideoSink(folder / VIDEO, info, annotator, quality=wanted.quality))
    return sinks
