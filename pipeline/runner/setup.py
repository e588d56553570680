"""What precedes the main loop: names, sinks, resolved configuration."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.parsing import build
from pipeline.config.plugins import build_plugin, require_part
from pipeline.config.schema import DetectorConfig, RunConfig, SourceConfig, TrackerConfig
from pipeline.drawing.annotator import Annotator, AnnotatorOptions
from pipeline.events.engine import EventEngine
from pipeline.events.evidence.keeper import EvidenceKeeper
from pipeline.events.opening import outlines_of
from pipeline.events.rules import require_classes, rules_of
from pipeline.events.sink import EventSink
from pipeline.imaging.intensity_scaling import resolve_scaling
from pipeline.runner.ground_truth import (
    GroundTruth,
    SourceAnnotations,
    annotated_source,
    read_annotations,
)
from pipeline.runner.parts import Networks, Parts
from pipeline.runner.resume import ResumeState
from pipeline.runner.run_json import make_header
from pipeline.runner.run_record import RunRecord
from pipeline.runner.summary import Summary
from pipeline.sinks.base import Sink, Sinks
from pipeline.sinks.coco import CocoSink
from pipeline.sinks.file_names import COCO, EVENTS, JSONL, MOT, VIDEO, ZARR
from pipeline.sinks.folders import prepare_folders, require_free
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.mot import mot_sink
from pipeline.sinks.rotating import RotatingSink, SizedSink
from pipeline.sinks.video import VideoSink
from pipeline.sinks.zarr_store import ZarrSink
from pipeline.sources.live import queue_policy
from pipeline.sources.source import FrameSource
from pipeline.stages.camera_motion import marking
from pipeline.stages.gaps import DropCounter, GapMarker, RateLimit
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.protocols import Tracker
from pipeline.structures.results import Result
from pipeline.system.errors import UsageError
from pipeline.system.prefetch import QueuePolicy
from pipeline.system.redaction import stream_name
from pipeline.system.terminal import CONTROL

if TYPE_CHECKING:
    from pipeline.alarms.delivery import Deliveries

_ZARR_SUFFIX = Path(ZARR).suffix
RUNS = "runs"
"""Parent of the output folders, if the configuration names none."""


@dataclass(frozen=True)
class Stream:
    """One source and all that belongs to it alone, ready to run."""

    name: str
    source: FrameSource
    record: RunRecord
    queue: QueuePolicy
    """Queue between decoder and detector."""
    mark: Callable[[Frame], Frame]
    """Sets the gap before the next frame, its time and the motion of the camera."""
    tracker: Tracker
    sinks: Sinks
    """Not yet entered: no file is open."""
    truth: GroundTruth | None
    events: EventSink | None
    """One of the sinks; None without rules of events."""

    def tell(self, alarms: Deliveries | None) -> None:
        """Has the events of the source delivered by `alarms`; to be called before the first frame."""
        if alarms and self.events:
            alarms.announce(self.name, self.record.folder, self.events.rules)
            self.events.add([alarms])

    def write(self, result: Result) -> Result:
        """Writes a result to the sinks, counts it, and scores it if there is ground truth.

        Returns the result with its events.
        """
        with self.record.timed("write"):
            if self.events:
                result = self.events.complete(result)
            self.sinks.write(result)
        self.record.add(result)
        if self.truth:
            self.truth.add(result)
        return result


def make_stream(
    name: str,
    folder: Path,
    source: FrameSource,
    config: RunConfig,
    networks: Networks,
    parts: Parts,
    annotations: SourceAnnotations | None,
    *,
    resume: ResumeState | None = None,
) -> Stream:
    """Builds everything that a source needs; nothing is written yet.

    Raises UsageError for options of tracker or annotator, or if `resume` is the state of another run.
    """
    resume = resume or ResumeState()
    info, classes = networks.info, networks.info.classes
    tracker = parts.build_tracker(config.tracker.name, config.tracker.options)
    annotator = make_annotator(config, classes)
    requested = requested_times(config.source)
    config = resolve(config, tracker, annotator, networks, source)
    truth = GroundTruth(annotations, len(classes), labels=networks.kept_labels) if annotations else None
    path = annotations.path if annotations else None
    rows, run_id = networks.segmenter_infos, resume.run_id
    header = make_header(source.info, config, info, rows, path, requested, stream=name, run_id=run_id)
    resume.require_same(header)
    events = make_events(name, folder, source, config, classes, header["id"], resume)
    if events:
        annotator.places = outlines_of(events.engine.places)
    sinks = open_sinks(folder, config, source.info, annotator, truth, resume, events)
    dropped, live = DropCounter(), config.live
    limit = RateLimit(live.max_rate if source.info.live else 0)
    gaps = GapMarker(
        source.info,
        window=networks.detector.window,
        policy=live.on_gap,
        dropped=dropped,
        skipped=limit.skipped,
        stride=source.selection.stride,
        cuts=live.scene_cuts,
    )
    rotated = next((sink.counts for sink in sinks if isinstance(sink, RotatingSink)), None)
    record = RunRecord(
        folder,
        source,
        config,
        header,
        dropped=dropped,
        limit=limit,
        gaps=gaps,
        rotated=rotated,
        resumed_after=resume.written.line_count,
        rules=events.rules if events else (),
    )
    queue = queue_policy(source.info, live, dropped)
    mark = marking(gaps, config.tracker.camera_motion)
    return Stream(name, source, record, queue, mark, tracker, Sinks(sinks), truth, events)


class StreamMaker:
    """Makes the streams of open sources: of several at the start of a run, or of one that comes later."""

    def __init__(
        self,
        config: RunConfig,
        networks: Networks,
        parts: Parts,
        summary: Summary,
        locations: Sequence[str],
        locks: ExitStack,
    ):
        """The folders of the streams are locked until `locks` is closed; the summary gets the records."""
        self._config, self._networks, self._parts = config, networks, parts
        self._summary, self._locations, self._locks = summary, locations, locks

    def require_free(self, names: Iterable[str]) -> None:
        """Raises OutputError if a folder of these sources holds an earlier run that may not be replaced."""
        folders = [self._folder(name) for name in names]
        require_free(folders, overwrite=self._config.output.overwrite, sources=self._locations)

    def make(
        self, sources: Mapping[str, FrameSource], known: Mapping[str, SourceAnnotations | None]
    ) -> dict[str, Stream]:
        """Returns the streams of the sources with their ground truth, and prepares their folders.

        Raises MoteError, before any folder is changed, if one of them cannot be made.
        """
        streams, config = {}, self._config
        for name, source in sources.items():
            folder = self._folder(name)
            placed = replace(config, output=replace(config.output, folder=str(folder)))
            arguments = source, placed, self._networks, self._parts, known[name]
            streams[name] = make_stream(name, folder, *arguments)
        folders = [stream.record.folder for stream in streams.values()]
        prepare_folders(folders, self._locks, overwrite=config.output.overwrite, sources=self._locations)
        for stream in streams.values():
            stream.tell(self._summary.alarms)
        records = {name: stream.record for name, stream in streams.items()}
        # replaced and not changed, because the health server reads it in another thread
        self._summary.records = {**self._summary.records, **records}
        return streams

    def _folder(self, name: str) -> Path:
        return Path(self._config.output.folder or RUNS, name)


def load_annotations(
    path: str | None, sources: Sequence[FrameSource], config: RunConfig, *, among: int = 1
) -> list[SourceAnnotations | None]:
    """Reads the ground truth of each source, None for one that has none. Raises UsageError.

    `path` is the file of all sources, None if there is none. `among` is the number of sources of the run.
    """
    named = config.source.annotated_as
    if path is None:
        if named:
            raise UsageError(f"--annotated-as '{named}' names a video of --annotations, which are not given")
        return [None] * len(sources)
    rows = [
        annotated_source(
            source.info,
            start=source.selection.start,
            stride=source.selection.stride,
            pictures=source.pictures,
        )
        for source in sources
    ]
    return read_annotations(Path(path), rows, among=among, named=named)


def resolve(
    config: RunConfig, tracker: Tracker, annotator: Annotator, networks: Networks, source: FrameSource
) -> RunConfig:
    """Returns the configuration with all defaults and automatic choices replaced by their values.

    Times of the source become indices of its frames, and numbers of classes their names.
    """
    info = networks.info
    detector = replace(
        config.detector,
        name=info.name,
        weights=info.weights,
        device=info.device,
        batch=batch_size(config.detector, info.device),
        threads=info.threads,
        classes=tuple(info.classes[label] for label in networks.kept_labels or ()),
        enlarge=info.enlarge,
        backend=info.backend or "torch",
        tile=info.tile,
    )
    segmenters = tuple(
        replace(row, name=known.name, weights=known.weights, enlarge=known.enlarge)
        for row, known in zip(config.segmentation.segmenters, networks.segmenter_infos, strict=True)
    )
    scaling = resolve_scaling(config.source.scaling, source.info.bit_depth)
    start, end = source.selection.start, source.selection.end or 0
    return replace(
        config,
        source=replace(config.source, scaling=scaling, start=start, end=end),
        detector=detector,
        segmentation=replace(config.segmentation, segmenters=segmenters),
        tracker=resolve_tracker(config.tracker, tracker),
        annotate=asdict(annotator.options),
    )


def requested_times(config: SourceConfig) -> dict[str, str]:
    """Returns the keys of the source whose values are times, not indices of frames, with these values."""
    given = {"start": config.start, "end": config.end}
    return {key: value for key, value in given.items() if isinstance(value, str) and not value.isdecimal()}


def resolve_tracker(config: TrackerConfig, tracker: Tracker) -> TrackerConfig:
    """Returns the configuration with every option of a tracker that has a dataclass of options."""
    options = getattr(tracker, "options", None)
    if is_dataclass(options) and not isinstance(options, type):
        return replace(config, options=asdict(options))
    return config


def batch_size(config: DetectorConfig, device: str) -> int:
    """Returns the number of frames computed together: as configured, else 8 on a GPU and 1 on a CPU."""
    return config.batch or (8 if device.startswith("cuda") else 1)


def without_batching(config: RunConfig) -> RunConfig:
    """Returns the configuration for a live source: a batch that is left open is one frame."""
    return replace(config, detector=replace(config.detector, batch=config.detector.batch or 1))


def run_name(location: str) -> str:
    """Returns a folder name for the outputs of a source.

    It is the name of the file without its suffix, of the folder, or of the folder above the first wildcard of
    a pattern, with "_" for control characters.
    """
    if not os.path.exists(location) and (name := stream_name(location)):
        return name
    path = place = Path(os.path.abspath(location))
    while glob.has_magic(str(place)) and not place.exists():  # brackets may also be part of a name
        place = place.parent
    is_folder = place != path or place.is_dir()
    name = place.stem if place.suffix == _ZARR_SUFFIX or not is_folder else place.name
    name = CONTROL.sub("_", name)
    return name if name.strip(".") else "run"  # "." and ".." would be other folders


def distinct_names(locations: Sequence[str]) -> list[str]:
    """Returns a folder name for each source: its run name, with _2, _3, … if it is taken (in any case)."""
    names: list[str] = []
    taken: set[str] = set()
    wanted = [run_name(location) for location in locations]
    for name in wanted:
        distinct, number = name, 1
        while distinct.casefold() in taken or (number > 1 and distinct in wanted):
            number += 1
            distinct = f"{name}_{number}"
        names.append(distinct)
        taken.add(distinct.casefold())
    return names


def make_annotator(config: RunConfig, classes: Sequence[str]) -> Annotator:
    """Builds the annotator of a configuration; it names classes if there are several. Raises UsageError."""
    options = dict(config.annotate)
    if not options.get("class_names") and len(classes) > 1:
        options["class_names"] = list(classes)
    return Annotator(build(AnnotatorOptions, options, "annotate."))


def open_sinks(
    folder: Path,
    config: RunConfig,
    info: SourceInfo,
    annotator: Annotator,
    truth: GroundTruth | None,
    resume: ResumeState,
    events: EventSink | None,
) -> list[Sink]:
    """Builds the sinks of a configuration; each opens its file when it is entered.

    `resume` says how much of the files is kept if a run is resumed. `events` is one of the sinks.
    """
    wanted = config.output

    def files(place: Callable[[str], Path]) -> list[SizedSink]:
        sinks: list[SizedSink] = []
        if wanted.jsonl:
            sinks.append(JsonlSink(place(JSONL), kept=resume.written))
        # after the lines from which a killed run makes them again, before a frame is drawn and encoded
        if events:
            sinks.append(events.open_file(place(EVENTS)))
        if wanted.coco:
            sinks.append(coco_sink(place(COCO), truth))
        if wanted.mot:
            sinks.append(mot_sink(place(MOT), wanted, live=info.live))
        if wanted.video:
            endless = info.live and not wanted.rotation
            sinks.append(VideoSink(place(VIDEO), info, annotator, quality=wanted.quality, endless=endless))
        if wanted.zarr:
            sinks.append(ZarrSink(place(ZARR), info, kept=resume.stored))
        return sinks

    own: list[Sink] = [build_plugin(name, folder, info) for name in wanted.sinks]
    for name, sink in zip(wanted.sinks, own, strict=True):
        require_part(sink, "sink", name)
    own = [*([events] if events else []), *own]
    if wanted.rotation:
        shared = events.evidence.finished if events and events.evidence else None
        return [RotatingSink(folder, files, wanted.rotation, shared=shared), *own]
    return [*files(folder.joinpath), *own]


def make_events(
    name: str,
    folder: Path,
    source: FrameSource,
    config: RunConfig,
    classes: Sequence[str],
    run_id: str,
    resume: ResumeState,
) -> EventSink | None:
    """Builds the sink of the events of a source; None if no rule is for it. Raises UsageError."""
    if not rules_of(config.events, name):
        return None
    require_classes(config.events, [str(one) for one in config.detector.classes] or classes)
    section, evidence = config.events, None
    if section.evidence:
        evidence = EvidenceKeeper(folder, section, source, classes, quality=config.output.quality)
    engine = EventEngine(section, source.info, name, classes, run=run_id, evidence=evidence is not None)
    return EventSink(engine, live=source.info.live, evidence=evidence, kept=resume.events)


def coco_sink(path: Path, truth: GroundTruth | None) -> CocoSink:
    """Builds the sink of detections.json, with the ids of the ground truth if there is one."""
    if truth is None:
        return CocoSink(path)
    return CocoSink(path, image_id=truth.image_id, category_id=truth.category_ids)
