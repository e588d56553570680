"""Rebuilding the outputs of a killed run from its results.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.events.engine import EventEngine
from pipeline.events.event_file import scan_events
from pipeline.events.evidence.completion import complete_evidence
from pipeline.events.recovery import complete_events, recorded_engine
from pipeline.imaging.image_files import IMAGE_SUFFIXES
from pipeline.runner.ground_truth import GroundTruth, annotated_source, read_annotations
from pipeline.runner.run_json import read_record, write_end
from pipeline.runner.run_record import RecoveredRun, RunRecord
from pipeline.runner.setup import coco_sink
from pipeline.sinks.base import Sink, Sinks
from pipeline.sinks.file_names import COCO, EVENTS, JSONL, MOT, VIDEO, ZARR
from pipeline.sinks.jsonl_codec import (
    ValidPrefix,
    detections_of,
    motion_of,
    read_records,
    scan,
    tracks_of,
)
from pipeline.sinks.mot import mot_sink
from pipeline.sinks.rotating import find_rotated_files, merge_detections
from pipeline.sinks.video import defragment, write_empty
from pipeline.sources.opening import open_source
from pipeline.sources.packets.coded import CodedFile
from pipeline.stages.classes import class_labels
from pipeline.structures.frame import Frame, Gap, SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import MoteError, OutputError, SourceError, UsageError
from pipeline.system.files import atomic_write, fingerprint, open_kept, output_error, require_idle
from pipeline.system.redaction import stream_name


@dataclass(frozen=True)
class RecordedSource:
    """What run.json says of a source that is not opened."""

    info: SourceInfo
    corrupt: int | None = None
    derived_times: int | None = None
    reconnects: int = 0
    outage: str | None = None


def recover(folder: Path, *, annotations: Path | None = None) -> str:
    """Rebuilds the outputs in the folder of a killed run; returns one line that says what was done.

    `annotations` is the ground truth of the source; None for the file that the run was given, if any.

    Raises:
        UsageError: the folder holds no run, a run that is still going, or damaged lines.
        OutputError: a file cannot be written.
    """
    with require_idle(folder):
        old = read_record(folder)
        config = build(RunConfig, old["config"])
        if not config.output.jsonl:
            raise UsageError(f"{folder} cannot be recovered: its run did not write {JSONL}")
        rotated = config.output.rotation is not None
        sets = [files for files in find_rotated_files(folder) if rotated and files.path(JSONL).exists()]
        places: list[Callable[[str], Path]] = [files.path for files in sets] if rotated else [folder.joinpath]
        lines = [scan(place(JSONL)) for place in places]
        if _is_settled(old, lines) and not any(_is_unfinished(place, config) for place in places):
            return f"{folder}: nothing to recover, the run is {old['state']}"
        truth = recorded_truth(old, config, annotations)
        header = {key: value for key, value in old.items() if key != "state"}
        counts = {"kept": len(sets), "deleted": sets[0].number - 1, "deleted_frames": None} if sets else None
        source = RecordedSource(recorded_info(old))
        whole = not sets or sets[0].number == 1  # else the engine would not know what was before
        paths = [place(EVENTS) for place in places]
        engine = recorded_engine(old, config.events, source.info, paths) if whole else None
        rules = [rule.name for rule in engine.rules] if engine else []
        record = RunRecord(folder, source, config, header, rotated=counts, rules=rules)
        record.decoded = sum(valid.line_count for valid in lines)
        record.fail(RecoveredRun(f"the process ended without closing its files; rebuilt from {JSONL}"))
        for place, valid in zip(places, lines, strict=True):
            _truncate(place(JSONL), valid)
            _truncate(place(EVENTS), scan_events(place(EVENTS)))
            _rebuild(record, place, valid, truth, engine, is_last=place is places[-1])
        completed = 0
        if config.events.keeps_evidence:
            source_file = partial(_coded_file, old, config)
            completed = complete_evidence(folder, paths, config.events, source_file, deletes=bool(sets))
        if sets:
            merge_detections(folder)
        videos = [path for place in places[-1:] if (path := place(VIDEO)).exists()]  # others were closed
        frames_shown = defragment(videos[0]) if videos else None
        if frames_shown == 0:  # killed before the first fragment: nothing in it can be decoded
            write_empty(videos[0], record.source.info)
        write_end(record, truth)
    if faults := getattr(record.failure, "__notes__", None):
        raise OutputError("; ".join(faults))
    return f"{folder}: recovered {'; '.join(_report(record, lines, frames_shown, completed))}"


def _report(
    record: RunRecord, lines: Sequence[ValidPrefix], frames_shown: int | None, completed: int
) -> Iterator[str]:
    """Yields the parts of the line that says what was done."""
    yield f"{record.written} frames, {record.detections} detections, {record.tracks} tracks"
    if record.rotated:
        yield f"in {record.rotated['kept']} rotated sets of files"
    if truncated := sum(valid.truncated for valid in lines):
        yield f"{truncated} bytes of a truncated line were removed"
    if frames_shown is not None:
        yield f"the {'last ' * bool(record.rotated)}video shows {frames_shown} frames"
    if completed:
        yield f"the evidence of {completed} event{'s' * (completed > 1)} was closed"


def _is_settled(old: dict[str, Any], lines: Sequence[ValidPrefix]) -> bool:
    """Returns whether the counts of run.json agree with the lines."""
    counted = old.get("frames", {}).get("written", 0)
    deleted = old.get("pieces", {}).get("deleted_frames") or 0
    whole = counted - deleted == sum(valid.line_count for valid in lines)
    return old["state"] != "running" and whole and not any(valid.truncated for valid in lines)


def _is_unfinished(place: Callable[[str], Path], config: RunConfig) -> bool:
    """Returns whether detections.json was not given its name, since the run could not close it."""
    path = place(COCO)
    return config.output.coco and path.with_name(f"{path.name}.part").exists()


def recorded_info(old: dict[str, Any]) -> SourceInfo:
    """Returns what run.json says of the source."""
    known = {field.name: old["source"].get(field.name) for field in fields(SourceInfo)}
    return SourceInfo(**{**known, "rate": Fraction(known["rate"])})


def recorded_truth(old: dict[str, Any], config: RunConfig, annotations: Path | None) -> GroundTruth | None:
    """Reads ground truth for a recorded run: `annotations`, else the file that the run was given, if any.

    Raises UsageError if it does not fit.
    """
    path = annotations or old.get("annotations")
    if not path:
        return None
    info = recorded_info(old)
    start, stride = _first_frame(config), config.source.stride
    pictures = _recorded_pictures(old, config)
    row = annotated_source(info, start=start, stride=stride, pictures=pictures)
    (known,) = read_annotations(Path(path), [row], named=config.source.annotated_as)
    assert known is not None
    classes, kept = old["detector"]["classes"], config.detector.classes
    return GroundTruth(known, len(classes), labels=class_labels(kept, classes) if kept else None)


def _first_frame(config: RunConfig) -> int:
    """Returns the index of the first frame of a recorded run. Raises UsageError if it is none."""
    start = config.source.start
    if not isinstance(start, int):
        raise UsageError(f"the record of the run has source.start = '{start}', expected a frame number")
    return start


def _recorded_pictures(old: dict[str, Any], config: RunConfig) -> Sequence[str]:
    """Returns the image files of a recorded run, listed again; empty if its source was no image files.

    Raises UsageError if they are gone, since their names say which frames are annotated.
    """
    name = recorded_info(old).name
    path = Path(name)
    is_picture = path.suffix.lower() in IMAGE_SUFFIXES
    is_other = old["source"].get("fingerprint") or (path.exists() and not path.is_dir())
    if (is_other and not is_picture) or stream_name(name) or path.suffix == Path(ZARR).suffix:
        return ()
    try:
        with open_source(name, config.source) as source:
            return source.pictures
    except SourceError as error:
        raise UsageError(f"the source must be there, to tell which frames are annotated: {error}") from error


def _coded_file(old: dict[str, Any], config: RunConfig) -> CodedFile | None:
    """Returns the source of a recorded run if it is the same file and its packets can be copied."""
    name, known = old["source"]["name"], old["source"].get("fingerprint")
    if not known or fingerprint(name) != known:
        return None
    try:
        with open_source(name, config.source) as source:
            return source.coded if isinstance(source.coded, CodedFile) else None
    except MoteError:
        return None


def _truncate(path: Path, valid: ValidPrefix) -> None:
    if not valid.truncated:
        return
    try:
        with open_kept(path) as file:
            file.truncate(valid.end)
    except OSError as error:
        raise output_error(path, error) from error


def _rebuild(
    record: RunRecord,
    place: Callable[[str], Path],
    valid: ValidPrefix,
    truth: GroundTruth | None,
    engine: EventEngine | None,
    *,
    is_last: bool,
) -> None:
    """Writes detections.json and tracks.txt again from the lines; each replaces the old file as a whole.

    Messages of `engine` that events.jsonl lacks are appended; its last file gets the ends of open events if
    the source was live, because a run over a recording may be resumed.
    """
    wanted = record.config.output
    sinks: list[Sink] = []
    with ExitStack() as replaced:
        if wanted.coco:
            sinks.append(coco_sink(place(COCO), truth))
        if wanted.mot:
            sinks.append(mot_sink(replaced.enter_context(atomic_write(place(MOT))), wanted))
        results = recorded_results(place(JSONL), valid, record.source.info)
        if engine:
            path, finish = place(EVENTS), is_last and record.source.info.live
            results = complete_events(engine, path, scan_events(path), results, finish=finish)
        with Sinks(sinks) as both:
            for result in results:
                both.write(result)
                record.add(result)
                if truth:
                    truth.add(result)


def recorded_gap(record: Mapping[str, Any]) -> Gap | None:
    """Returns the gap before the frame of a record."""
    if "gap" not in record:
        return None
    gap = record["gap"]
    missing, repeated = gap["missing"], gap["window"] == "repeated"
    return Gap(gap["event"], missing or 0, repeat_previous=repeated, elapsed_known=missing is not None)


def recorded_results(path: Path, valid: ValidPrefix, info: SourceInfo) -> Iterator[Result]:
    """Yields what the lines say of each frame; images and masks are not recorded."""
    blank = np.broadcast_to(np.uint8(0), (info.height, info.width))
    for line in read_records(path, valid.line_count):
        frame = Frame(blank, line["frame"], Fraction(line["pts"] or 0), info.name)
        frame = replace(frame, gap=recorded_gap(line), motion=motion_of(line))
        spent = {stage: (value or 0) / 1e3 for stage, value in line["timings_ms"].items()}
        yield Result(frame, detections_of(line), line["warmup"], spent, tracks=tracks_of(line))
