"""Computes COCO-style video mAP and all other detection metrics of finished results.

    python -m pipeline.vid_map_coco --annotations gt.json --detections runs/in/detections.json

Every annotated frame counts, also those without targets and those without detections. For detections of a
part of the annotated frames, `--videos` and `--with-results` leave out the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.plots import plot_report
from pipeline.evaluation.detection.predictions import load_results
from pipeline.evaluation.detection.tables import report_tables
from pipeline.evaluation.tracking.gates import GATES
from pipeline.evaluation.tracking.scores import TrackScores
from pipeline.evaluation.tracking.scoring import score_tracks
from pipeline.evaluation.tracking.tables import gate_table
from pipeline.structures.annotations import VideoRecord, video_records
from pipeline.structures.coco_tables import load_coco
from pipeline.system import cli
from pipeline.system.cli import SCORE
from pipeline.system.errors import UsageError, unknown_name
from pipeline.system.packages import require_package


def image_ids_of_videos(coco: dict, names: list[str]) -> list[int] | None:
    """Returns the image ids of the named videos of a COCO-video dictionary; None without names, for all.

    Raises UsageError for a name that is not annotated.
    """
    if not names:
        return None
    videos = coco.get("videos", [])
    known = {video["name"] for video in videos}
    unknown = sorted(set(names) - known)
    if unknown:
        raise unknown_name("video", unknown[0], known)
    wanted = {video["id"] for video in videos if video["name"] in names}
    return [image["id"] for image in coco["images"] if image.get("video_id") in wanted]


def image_ids_with_results(coco: dict, image_ids: list[int] | None, results: list[dict]) -> list[int]:
    """Returns those of the image ids (None: all) that results are on. Raises UsageError if there are none."""
    found = {str(row.get("image_id")) for row in results}
    ids = [image["id"] for image in coco["images"]] if image_ids is None else image_ids
    kept = [image_id for image_id in ids if str(image_id) in found]
    if not kept:
        raise UsageError(
            f"none of the {len(ids)} frames has results, so --with-results leaves nothing to score"
        )
    return kept


def video_of_tracks(coco: dict, names: list[str]) -> VideoRecord:
    """Returns the video that tracks belong to: the only one named, or the only one annotated.

    Raises UsageError if there is not exactly one.
    """
    records = [record for record in video_records(coco) if not names or record.name in names]
    if len(records) != 1:
        known = ", ".join(record.name for record in records[:3])
        which = f"{len(records)} videos are scored ({known}, …)" if records else "no video is annotated"
        raise UsageError(f"--tracks are those of one video, but {which}; name it with --videos")
    return records[0]


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(prog="python -m pipeline.vid_map_coco", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--annotations", type=Path, required=True, metavar="JSON", help="COCO ground truth")
    add("--detections", type=Path, required=True, metavar="JSON", help="COCO results")
    add("--videos", nargs="+", default=[], metavar="NAME", help="score only these videos")
    add(
        "--with-results",
        action="store_true",
        help="score only frames that have results; one in which nothing was found counts as without",
    )
    add("--class-agnostic", action="store_true", help="treat all categories as one")
    add(
        "--conf",
        type=SCORE,
        default=0.4,
        metavar="SCORE",
        help="threshold for precision, recall, F1 and false alarms (default: 0.4)",
    )
    add("--output", type=Path, metavar="JSON", help="also write all numbers as JSON")
    add("--plots", type=Path, metavar="DIR", help="draw precision-recall and FROC curves (PNG)")
    add("--tracks", type=Path, metavar="TXT", help="also score these tracks (MOT) of a single video")
    return parser


def work(options: argparse.Namespace) -> None:
    """Computes, prints and writes the numbers. Raises MoteError."""
    cli.require_writable(options.output, folder=options.plots)
    if options.plots:
        require_package("matplotlib", "--plots")
    if options.tracks:
        require_package("motmetrics", "--tracks")
    coco = load_coco(options.annotations)
    results = load_results(options.detections)
    image_ids = image_ids_of_videos(coco, options.videos)
    if options.with_results:
        image_ids = image_ids_with_results(coco, image_ids, results)
    evaluator = Evaluator(coco, image_ids=image_ids, classes=not options.class_agnostic)
    evaluator.add_results(results)
    tracks: dict[str, TrackScores] = {}
    if options.tracks:
        record = video_of_tracks(coco, options.videos)
        scored = set(evaluator.image_ids())
        frames = [frame for frame, image_id in record.image_ids.items() if image_id in scored]
        tracks = {gate: score_tracks(record, options.tracks, gate=gate, frames=frames) for gate in GATES}
    report = evaluator.report(options.conf)
    notes = []
    if evaluator.without_results:
        count = f"{evaluator.without_results} of {evaluator.frames}"
        notes.append(
            f"frames without any result: {count}; they count as frames in which nothing was found, "
            "--with-results leaves them out"
        )
    print("\n\n".join([report_tables(report), *(f"note: {note}" for note in notes)]))
    if tracks:
        print(f"\n{gate_table(tracks)}")
    if options.output:
        numbers = {gate: scores.as_dict() for gate, scores in tracks.items()}
        table = {**report.as_dict(), "notes": [*report.notes, *notes], "tracks": numbers or None}
        cli.write_json(options.output, table)
    if options.plots:
        print("\nplots: " + ", ".join(map(str, plot_report(report, options.plots))))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
