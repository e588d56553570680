"""COCO-style video mAP of finished results, and everything else that detections can be measured by.

    python -m pipeline.vid_map_coco --annotations gt.json --detections runs/in/detections.json

Every annotated frame counts, those without targets and those without detections too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.predictions import load_results
from pipeline.evaluation.detection.tables import tables
from pipeline.evaluation.tracking import track_table
from pipeline.structures.annotations import VideoRecord, load_coco, video_records
from pipeline.system import cli
from pipeline.system.cli import SCORE
from pipeline.system.errors import UsageError, unknown_name


def images_of_videos(table: dict, names: list[str]) -> list[int] | None:
    """Image ids of the named videos; None for all. Raises UsageError for a name that is not annotated."""
    if not names:
        return None
    ids = {video["name"]: video["id"] for video in table.get("videos", [])}
    unknown = sorted(set(names) - set(ids))
    if unknown:
        raise unknown_name("video", unknown[0], ids)
    wanted = {ids[name] for name in names}
    return [image["id"] for image in table["images"] if image.get("video_id") in wanted]


def record_of_tracks(table: dict, names: list[str]) -> VideoRecord:
    """The one video that tracks belong to. Raises UsageError where it is not clear which."""
    records = [record for record in video_records(table) if not names or record.name in names]
    if len(records) != 1:
        known = ", ".join(record.name for record in records[:3])
        which = f"{len(records)} videos are scored ({known}, …)" if records else "no video is annotated"
        raise UsageError(f"--tracks are those of one video, but {which}; name it with --videos")
    return records[0]


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(prog="python -m pipeline.vid_map_coco", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--annotations", type=Path, required=True, metavar="JSON", help="COCO ground truth")
    add("--detections", type=Path, required=True, metavar="JSON", help="COCO results")
    add("--videos", nargs="+", default=[], metavar="NAME", help="score only these videos")
    add("--class-agnostic", action="store_true", help="count all categories as one")
    add(
        "--conf",
        type=SCORE,
        default=0.4,
        metavar="SCORE",
        help="threshold for precision, recall, F1 and false alarms (default: 0.4)",
    )
    add("--output", type=Path, metavar="JSON", help="write all numbers as JSON, too")
    add("--plots", type=Path, metavar="DIR", help="draw precision-recall and FROC curves (PNG)")
    add("--tracks", type=Path, metavar="TXT", help="score these tracks (MOT), too; of a single video")
    return parser


def work(options: argparse.Namespace) -> None:
    """Score, write and print. Raises MoteError."""
    cli.require_writable(options.output, folder=options.plots)
    table = load_coco(options.annotations)
    images = images_of_videos(table, options.videos)
    evaluator = Evaluator(table, image_ids=images, classes=not options.class_agnostic)
    evaluator.add_results(load_results(options.detections))
    tracks = {}
    if options.tracks:
        from pipeline.evaluation.tracking import GATES, track_scores

        record = record_of_tracks(table, options.videos)
        tracks = {gate: track_scores(record, options.tracks, gate=gate) for gate in GATES}
    report = evaluator.report(options.conf)
    print(tables(report))
    if tracks:
        print(f"\n{track_table(tracks)}")
    if options.output:
        numbers = {gate: scores.as_dict() for gate, scores in tracks.items()}
        cli.write_json(options.output, {**report.as_dict(), "tracks": numbers or None})
    if options.plots:
        from pipeline.evaluation.detection.plots import plot

        print("\nplots: " + ", ".join(map(str, plot(report, options.plots))))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
