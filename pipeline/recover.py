"""Put the outputs of a killed run in order: `python -m pipeline.recover runs/NAME`.

All that was done is in results.jsonl, but for a last line that was not finished. From it detections.json,
tracks.txt and the account in run.json are made anew; the annotated video becomes an ordinary mp4. Doing it
again changes nothing. A run over a file can be gone on with instead: run_pipeline.py --resume.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path

import numpy as np

from pipeline import command
from pipeline.config import RunConfig
from pipeline.errors import OutputError, UsageError
from pipeline.frame import Frame, Result, SourceInfo
from pipeline.ground_truth import GroundTruth
from pipeline.lines import Written, detections_of, read, survey, tracks_of
from pipeline.report import COCO, JSONL, MOT, VIDEO, Killed, Outcome, read_record
from pipeline.settings import build
from pipeline.sinks import CocoSink, MotSink, Sinks, claimed, output_error
from pipeline.video_sink import as_ordinary


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
    with claimed(folder / JSONL):
        written = survey(folder / JSONL)
        if _is_settled(record, written):
            return f"{folder}: nothing to recover, the run is {record['state']}"
        truth = _truth(record, config, annotations)
        outcome = Outcome(folder, _Source(_info(record)), config, record["detector"], record["segmenters"])
        outcome.facts = {key: value for key, value in record.items() if key != "state"}
        outcome.decoded = written.count
        outcome.failure = Killed(f"the process ended without closing its files; rebuilt from {JSONL}")
        _cut(folder / JSONL, written)
        _rebuild(outcome, written, truth)
        shown = as_ordinary(folder / VIDEO) if (folder / VIDEO).exists() else None
        outcome.finish(truth)
    if faults := getattr(outcome.failure, "__notes__", None):
        raise OutputError("; ".join(faults))
    parts = [f"{outcome.written} frames, {outcome.detections} detections, {outcome.tracks} tracks"]
    parts += [f"{written.torn} bytes of a torn line were cut off"] * bool(written.torn)
    parts += [f"the video shows {shown} frames"] * (shown is not None)
    return f"{folder}: recovered {'; '.join(parts)}"


def _is_settled(record: dict, written: Written) -> bool:
    """Whether the account of a run fits its lines."""
    counted = record.get("frames", {}).get("written")
    return record["state"] != "running" and counted == written.count and not written.torn


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


def _cut(path: Path, written: Written) -> None:
    if not written.torn:
        return
    try:
        os.truncate(path, written.end)
    except OSError as error:
        raise output_error(path, error) from error


def _rebuild(outcome: Outcome, written: Written, truth: GroundTruth | None) -> None:
    """Make the files anew that hold no more than the lines do; each replaces the old one as a whole."""
    folder, wanted, sinks = outcome.folder, outcome.config.output, []
    tracks = folder / f"{MOT}.part"
    if wanted.coco:
        classes = len(outcome.detector["classes"])
        names = {"image_id": truth.image_id, "category_id": truth.category_ids(classes)} if truth else {}
        sinks.append(CocoSink(folder / COCO, **names))
    if wanted.mot:
        sinks.append(MotSink(tracks))
    with Sinks(sinks) as both:
        for result in _results(folder / JSONL, written, outcome.source.info):
            both.write(result)
            outcome.add(result)
            if truth:
                truth.add(result)
    if wanted.mot:
        try:
            tracks.replace(folder / MOT)
        except OSError as error:
            raise output_error(folder / MOT, error) from error


def _results(path: Path, written: Written, info: SourceInfo) -> Iterator[Result]:
    """What the lines tell of each frame, but for its picture and what segmenters marked."""
    picture = np.broadcast_to(np.uint8(0), (info.height, info.width))
    for line in read(path, written.count):
        frame = Frame(picture, line["frame"], Fraction(line["pts"] or 0), info.name)
        spent = {stage: (value or 0) / 1e3 for stage, value in line["timings_ms"].items()}
        yield Result(frame, detections_of(line), tracks_of(line), line["warmup"], spent)


def parser() -> command.Parser:
    """The command line."""
    parser = command.Parser(
        prog="python -m pipeline.recover",
        description="Put the outputs of killed runs in order: everything is rebuilt from results.jsonl.",
        epilog="exit codes: 0 done, or nothing to do; 2 no run, one that is still going, or damaged lines; "
        "5 output not writable",
    )
    parser.add_argument("folders", metavar="RUN_DIR", nargs="+", type=Path, help="output folder of a run")
    help_text = "ground truth of the source (default: the file that the run was given)"
    parser.add_argument("--annotations", metavar="JSON", type=Path, help=help_text)
    return parser


def work(options: argparse.Namespace) -> None:
    """What the options ask for. Raises MoteError."""
    for folder in options.folders:
        print(recover(folder, annotations=options.annotations))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
