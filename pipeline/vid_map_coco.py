"""COCO-style video mAP of finished results.

    python -m pipeline.vid_map_coco --annotations gt.json --detections runs/in/detections.json

Every annotated frame counts, those without targets and those without detections too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from datasets.records import load_coco, load_json
from pipeline import command
from pipeline.errors import OutputError, UsageError, unknown_name
from pipeline.evaluate import evaluate


def load_results(path: Path) -> list[dict]:
    """A COCO results file. Raises UsageError when it is not one."""
    results = load_json(path, kind="detections")
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        raise UsageError(f"detections {path} are not a list of COCO results")
    return results


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


def parser() -> command.Parser:
    """The command line."""
    parser = command.Parser(prog="python -m pipeline.vid_map_coco", description=__doc__.splitlines()[0])
    parser.add_argument("--annotations", type=Path, required=True, help="COCO ground truth")
    parser.add_argument("--detections", type=Path, required=True, help="COCO results")
    parser.add_argument("--videos", nargs="+", default=[], metavar="NAME", help="score only these videos")
    parser.add_argument("--class-agnostic", action="store_true", help="count all categories as one")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON, too")
    return parser


def work(options: argparse.Namespace) -> None:
    """Score, write and print. Raises MoteError."""
    table = load_coco(options.annotations)
    images = images_of_videos(table, options.videos)
    results = load_results(options.detections)
    scores = evaluate(table, results, image_ids=images, classes=not options.class_agnostic)
    if options.output:
        try:
            options.output.write_text(json.dumps(scores.as_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {options.output}: {error.strerror}") from error
    print(scores.table())


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
