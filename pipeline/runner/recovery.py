"""pipeline.runner.recovery."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.runner.ground_truth import GroundTruth
from pipeline.runner.run_record import RecoveredRun, RunRecord, read_record
from pipeline.sinks.base import Sinks
from pipeline.sinks.coco import CocoSink
from pipeline.sinks.file_names import COCO, JSONL, MOT, VIDEO
from pipeline.sinks.jsonl_codec import ValidPrefix, detections_of, read, scan, tracks_of
from pipeline.sinks.mot import MotSink
from pipeline.sinks.rotating import merge_detections, pieces_in
from pipeline.sinks.video import as_ordinary
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.system.errors import OutputError, UsageError
from pipeline.system.files import output_error, require_idle


@dataclass(frozen=True)
class _Source:
    """What is known of a source that is not opened."""

    info: SourceInfo
    corrupt: int | None = None
    derived_times: int | None = None


def recover(folder: Path, *, annotations: Path | None = None) -> str:
    """Put the outputs in a folder in order; returns in one line what was done.

    `annotations` are the ground truth of the source; None for the file that the run was given, if any.

    Raises:
        UsageError: the folder holds no run, one that goes on still, or lines that are damaged.
        OutputError: a file cannot be written.
    """
    record = read_record(folder)
    config = build(RunConfig, record["config"])
    if not config.output.jsonl:
        raise UsageError(f"{folder} cannot be recovered: its run was told not to write {JSONL}")
    parted = config.output.rotation is not None
    with require_idle(folder if parted else folder / JSONL):
        pieces = [piece for piece in pieces_in(folder) if parted and piece.path(JSONL).exists()]
        places = [piece.path for piece in pieces] if parted else [folder.joinpath]
        lines = [scan(place(JSONL)) for place in places]
        if _is_settled(record, lines):
            return f"{folder}: nothing to recover, the run is {record['state']}"
        truth = _truth(record, config, annotations)
        outcome = RunRecord(folder, _Source(_info(record)), config, record["detector"], record["segmenters"])
        outcome.facts = {key: value for key, value in record.items() if key != "state"}
        outcome.decoded = sum(written.count for written in lines)
        outcome.failure = RecoveredRun(f"the process ended without closing its files; rebuilt from {JSONL}")
        if pieces:
            outcome.pieces = {"kept": len(pieces), "deleted": pieces[0].number - 1, "deleted_frames": None}
        for place, written in zip(places, lines, strict=True):
            _cut(place(JSONL), written)
            _rebuild(outcome, place, written, truth)
        if pieces:
            merge_detections(folder)
        videos = [path for place in places[-1:] if (path := place(VIDEO)).exists()]  # others were closed
        shown = as_ordinary(videos[0]) if videos else None
        outcome.finish(truth)
    if faults := getattr(outcome.failure, "__notes__", None):
        raise OutputError("; ".join(faults))
    return f"{folder}: recovered {'; '.join(_account(outcome, lines, shown))}"


def _account(outcome: RunRecord, lines: Sequence[ValidPrefix], shown: int | None) -> Iterator[str]:
    """What was done, in words."""
    yield f"{outcome.written} frames, {outcome.detections} detections, {outcome.tracks} tracks"
    if outcome.pieces:
        yield f"in {outcome.pieces['kept']} pieces"
    if torn := sum(written.torn for written in lines):
        yield f"{torn} bytes of a torn line were cut off"
    if shown is not None:
        yield f"the {'last ' * bool(outcome.pieces)}video shows {shown} frames"


def _is_settled(record: dict, lines: Sequence[ValidPrefix]) -> bool:
    """Whether the account of a run fits its lines."""
    counted = record.get("frames", {}).get("written", 0)
    deleted = record.get("pieces", {}).get("deleted_frames") or 0
    whole = counted - deleted == sum(written.count for written in lines)
    return record["state"] != "running" and whole and not any(written.torn for written in lines)


def _info(record: dict) -> SourceInfo:
    known = {field.name: record["source"].get(field.name) for field in fields(SourceInfo)}
    return SourceInfo(**{**known, "rate": Fraction(known["rate"])})


def _truth(record: dict, config: RunConfig, annotations: Path | None) -> GroundTruth | None:
    path = annotations or record.get("annotations")
    if not path:
        return None
    truth = GroundTruth(Path(path), _info(record), start=config.source.start)
    truth.begin(len(record["detector"]["classes"]))
    return truth


def _cut(path: Path, written: ValidPrefix) -> None:
    if not written.torn:
        return
    try:
        os.truncate(path, written.end)
    except OSError as error:
        raise output_error(path, error) from error


def _rebuild(
    outcome: RunRecord, place: Callable[[str], Path], written: ValidPrefix, truth: GroundTruth | None
) -> None:
    """Make the files anew that hold no more than the lines do; each replaces the old one as a whole."""
    wanted, sinks = outcome.config.output, []
    tracks = place(MOT).with_name(f"{place(MOT).name}.part")
    if wanted.coco:
        classes = len(outcome.detector["classes"])
        names = {"image_id": truth.image_id, "category_id": truth.category_ids(classes)} if truth else {}
        sinks.append(CocoSink(place(COCO), **names))
    if wanted.mot:
        sinks.append(MotSink(tracks))
    with Sinks(sinks) as both:
        for result in _results(place(JSONL), written, outcome.source.info):
            both.write(result)
            outcome.add(result)
            if truth:
                truth.add(result)
    if wanted.mot:
        try:
            tracks.replace(place(MOT))
        except OSError as error:
            raise output_error(place(MOT), error) from error


def _results(path: Path, written: ValidPrefix, info: SourceInfo) -> Iterator[Result]:
    """What the lines tell of each frame, but for its picture and what segmenters marked."""
    picture = np.broadcast_to(np.uint8(0), (info.height, info.width))
    for line in read(path, written.count):
        frame = Frame(picture, line["frame"], Fraction(line["pts"] or 0), info.name)
        spent = {stage: (value or 0) / 1e3 for stage, value in line["timings_ms"].items()}
        yield Result(frame, detections_of(line), tracks_of(line), line["warmup"], spent)
