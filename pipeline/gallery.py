"""Puts annotated frames of finished runs on one page.

    python -m pipeline.gallery runs/a:120 runs/b:45 --output page.png

Frames are numbered from 0, as in the source of the run, and read from annotated.mp4.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.runner.run_json import read_record
from pipeline.sinks.file_names import JSONL, VIDEO
from pipeline.sinks.jsonl_codec import read_records, scan
from pipeline.sinks.rotating import find_rotated_files
from pipeline.system import cli
from pipeline.system.errors import OutputError, SourceError, UsageError
from pipeline.system.files import output_error

GAP = 6
"""Pixels between images."""


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(
        prog="python -m pipeline.gallery",
        description="Puts annotated frames of finished runs on one page.",
        epilog="exit codes: 0 done; 2 no run, or no such frame; 3 no readable video; 5 output not writable",
    )
    parser.add_argument("frames", nargs="+", metavar="RUN_DIR:FRAME", help="frame of a run, from 0")
    parser.add_argument("--output", type=Path, required=True, help="image to write (png or jpg)")
    parser.add_argument("--columns", type=cli.int_at_least(1), default=3, help="images in a row (default: 3)")
    return parser


def parse_frame(text: str) -> tuple[Path, int]:
    """Parses 'RUN_DIR:FRAME'. Raises UsageError if it has another form."""
    folder, _, frame = text.rpartition(":")
    if not folder or not frame.isdecimal():
        raise UsageError(f"'{text}' is not RUN_DIR:FRAME, with a frame number from 0")
    return Path(folder), int(frame)


def find_frame(folder: Path, frame: int) -> tuple[Path, int]:
    """Returns the annotated video that shows a frame of a run, and the position of the frame in it.

    Raises UsageError if the folder holds no run, or the run no such frame.
    """
    read_record(folder)
    places: list[Callable[[str], Path]] = [files.path for files in find_rotated_files(folder)]
    for place in places or [folder.joinpath]:
        records = read_records(place(JSONL), scan(place(JSONL)).line_count)
        for position, record in enumerate(records):
            if record["frame"] == frame:
                return place(VIDEO), position
    raise UsageError(f"{folder} has no frame {frame} in {JSONL}")


def read_frame(video: Path, position: int) -> np.ndarray:
    """Decodes the frame at a position of a video; returns (H, W, 3) uint8 R, G, B. Raises SourceError."""
    try:
        with av.open(f"file:{video}") as container:
            for frame in islice(container.decode(container.streams.video[0]), position, None):
                return frame.to_ndarray(format="rgb24")
        reason = f"it has no more than {position} frames"
    except (av.error.FFmpegError, IndexError) as error:  # IndexError: truncated before the video stream
        reason = getattr(error, "strerror", None) or "it is truncated"
    raise SourceError(f"cannot read {video}: {reason}")


def page(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Arranges images, (H, W, 3) uint8, in reading order on white; cells have the size of the largest one."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def work(options: argparse.Namespace) -> None:
    """Reads the frames and writes the page. Raises MoteError."""
    wanted = [parse_frame(text) for text in options.frames]
    canvas = page([read_frame(*find_frame(folder, frame)) for folder, frame in wanted], options.columns)
    try:
        encoded = cv2.imencode(options.output.suffix or ".png", canvas[..., ::-1])[1]
        options.output.write_bytes(encoded.tobytes())
    except cv2.error as error:
        raise OutputError(f"cannot write {options.output}: give a name that ends in .png or .jpg") from error
    except OSError as error:
        raise output_error(options.output, error) from error
    print(f"{len(wanted)} frames in {options.output}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
