"""Convert a dataset: MOT folders, COCO-video and mask folders into each other.

    python -m datasets.convert mot DATA --split train --to coco-video --output train.json

Conventions of pixels and frames, each kept by what reads and writes it:

- COCO-video: `bbox` is left, top, width, height in pixels from 0; `frame_id` counts from 0.
- MOT: left and top count from 1, width and height are the same; frames count from 1.
- masks: a pixel covers [x, x + 1); the box of a target ends after its last pixel, at maximum + 1. A box is
  drawn by filling the pixels that it touches.
- in memory: x1 y1 x2 y2 from 0, right and bottom exclusive; frames from 0.

So the box of the single pixel at the top left is `[0, 0, 1, 1]` in COCO, `1,1,1,1` in MOT, one pixel of a
mask, and 0 0 1 1 in memory. Decimals are kept, to a millionth of a pixel, by all but masks.

Frames are not copied: MOT and masks hold relative links to pictures and videos. COCO-video names files below
its own folder; to those elsewhere it has links, in a folder NAME_files beside it. What cannot be carried is
told on standard error.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import command
from pipeline.errors import OutputError

if TYPE_CHECKING:
    from datasets.layouts import Dataset

FORMATS = ("coco-video", "mot", "masks")
TABLE = "table.json"  # until it gets its name


def convert(dataset: Dataset, to: str, output: Path) -> list[str]:
    """Write `dataset` as one of FORMATS: a JSON file, or a folder of MOT sequences or of masks.

    The output appears when it is complete. Returns what could not be carried, one line each. Raises
    OutputError for an `output` that exists or cannot be written, UsageError for what the format cannot hold,
    SourceError for masks that cannot be read.
    """
    links = output.with_name(f"{output.stem}_files")
    for place in (output, *([links] if to == "coco-video" else [])):
        if place.exists():
            raise OutputError(f"{place} exists; choose another place, or remove it")
    writers: dict[str, Callable[[Dataset, Path, Path], list[str]]]
    writers = {"coco-video": _write_coco, "mot": _write_mot, "masks": _write_masks}
    # Beside the output, since relative paths must hold in both places.
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a conversion that was killed
        unfinished.mkdir(parents=True)
        remarks = writers[to](dataset, unfinished, output)
        if to == "coco-video":
            (unfinished / TABLE).rename(output)
            if any(unfinished.iterdir()):
                unfinished.rename(links)
        else:
            unfinished.rename(output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}; choose another place") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [*dataset.remarks, *remarks]


def _write_coco(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    from datasets.coco_table import moved
    from datasets.frame_files import link, listed_path

    def move(path: str) -> str:
        place = listed_path((dataset.root / path).absolute(), output.parent.absolute())
        if not place.startswith("../"):
            return place
        if not (folder / path).is_symlink():  # several sequences may be in one video
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            link(dataset.root / path, folder / path)
        return f"{output.stem}_files/{path}"

    text = json.dumps(moved(dataset.coco(), move), separators=(",", ":"))
    (folder / TABLE).write_text(text + "\n", encoding="utf-8")
    unknown = 0 if any(record.instances for record in dataset.records) else _box_count(dataset)
    return [
        *_shapes(dataset),
        *([f"{unknown} boxes have no identity: they are written without instance_id"] if unknown else []),
    ]


def _write_mot(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    from datasets.mot import write_sequences

    return [*_shapes(dataset), *write_sequences(dataset.records, dataset.classes, dataset.root, folder)]


def _write_masks(dataset: Dataset, folder: Path, output: Path) -> list[str]:
    from datasets.masks import write_folder

    lost = write_folder(dataset.records, dataset.root, folder, split=_split_name(dataset))
    boxes = _box_count(dataset)
    if any(record.instances for record in dataset.records):
        lost.append(f"masks have no identities: those of {boxes} boxes are left out")
    if len(dataset.classes) > 1:
        lost.append(f"masks have no classes: {', '.join(dataset.classes)} all become targets")
    skipped = sum(len(record) - len(record.image_ids) for record in dataset.records)
    if skipped:
        lost.append(f"{skipped} frames without annotation are left out")
    return lost


def _split_name(dataset: Dataset) -> str:
    """What the split is called in the output: `val` for `annotations/val.json`."""
    return Path(dataset.split).stem or "all"


def _shapes(dataset: Dataset) -> list[str]:
    masked = sum(1 for record in dataset.records if record.masks)
    return [f"the shapes in {masked} masks become boxes"] if masked else []


def _box_count(dataset: Dataset) -> int:
    return sum(len(boxes) for record in dataset.records for boxes in record.boxes)


def parser() -> command.Parser:
    """The command line."""
    from datasets.layouts import LAYOUTS

    parser = command.Parser(prog="python -m datasets.convert", description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="SOURCE", help=f"layout of the dataset: {', '.join(LAYOUTS)}")
    parser.add_argument("root", metavar="ROOT", type=Path, help="its folder")
    parser.add_argument("--split", required=True, metavar="S", help="a name, or a path below the root")
    parser.add_argument("--to", required=True, choices=FORMATS, help="what to write")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="PATH", help="a JSON file, or a folder; must not exist"
    )
    return parser


def work(options: argparse.Namespace) -> None:
    """Convert and tell. Raises MoteError."""
    from datasets import layouts

    dataset = layouts.load(options.source, options.root, options.split)
    for remark in convert(dataset, options.to, options.output):
        print(f"note: {remark}", file=sys.stderr)
    for kind, where in dataset.faults:
        print(f"note: {kind}: {where}", file=sys.stderr)
    output = options.output
    frames = sum(map(len, dataset.records))
    print(f"{output}: {len(dataset.records)} sequences, {frames} frames, {_box_count(dataset)} boxes")
    again = {
        "coco-video": f"coco-video {output.parent} --split {output.name}",
        "mot": f"mot {output} --split .",
        "masks": f"masks {output} --split splits/{_split_name(dataset)}.txt",
    }
    print(f"verify it: python -m datasets.check {again[options.to]}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return command.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
