"""Puts annotated frames of finished runs on one page, or one after another in an animation.

    python -m pipeline.gallery runs/a:120 runs/b:45 --output page.png
    python -m pipeline.gallery runs/a:90-240 --every 3 --output moving.webp

Frames are numbered from 0, as in the source of the run, and read from annotated.mp4.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from pipeline.runner.run_json import read_record
from pipeline.sinks.file_names import JSONL, VIDEO
from pipeline.sinks.jsonl_codec import read_records, scan
from pipeline.sinks.rotating import find_rotated_files
from pipeline.system import cli
from pipeline.system.errors import OutputError, SourceError, UsageError
from pipeline.system.files import output_error

GAP = 6
"""Pixels between images."""
ANIMATED = (".webp", ".gif")
"""Endings of the names of animations."""
QUALITY = 60
"""Quality of the images of an animated WebP file, 0 to 100."""


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(
        prog="python -m pipeline.gallery",
        description="Puts annotated frames of finished runs on one page, or in an animation.",
        epilog="exit codes: 0 done; 2 no run, or no such frame; 3 no readable video; 5 output not writable",
    )
    which = "frame of a run, from 0; FIRST-LAST for several"
    parser.add_argument("frames", nargs="+", metavar="RUN_DIR:FRAME", help=which)
    parser.add_argument(
        "--output", type=Path, required=True, help="image to write (png, jpg), or animation (webp, gif)"
    )
    parser.add_argument("--columns", type=cli.int_at_least(1), default=3, help="images in a row (default: 3)")
    parser.add_argument(
        "--every", type=cli.int_at_least(1), default=1, help="of FIRST-LAST, every n-th frame (default: 1)"
    )
    parser.add_argument(
        "--rate", type=cli.int_at_least(1), default=10, help="images per second of an animation (default: 10)"
    )
    return parser


def parse_frames(text: str, every: int = 1) -> tuple[Path, range]:
    """Parses 'RUN_DIR:FRAME' or 'RUN_DIR:FIRST-LAST'. Raises UsageError if it has another form."""
    match = re.fullmatch(r"(.+):(\d+)(?:-(\d+))?", text)
    if match is None or int(match[3] or match[2]) < int(match[2]):
        raise UsageError(f"'{text}' is not RUN_DIR:FRAME or RUN_DIR:FIRST-LAST, with frame numbers from 0")
    return Path(match[1]), range(int(match[2]), int(match[3] or match[2]) + 1, every)


def find_frames(folder: Path, frames: range) -> list[tuple[Path, int]]:
    """Returns, for each frame of a run, the annotated video that shows it and its position in that video.

    Raises UsageError if the folder holds no run, or the run lacks one of the frames.
    """
    read_record(folder)
    places: list[Callable[[str], Path]] = [files.path for files in find_rotated_files(folder)]
    found: dict[int, tuple[Path, int]] = {}
    for place in places or [folder.joinpath]:
        records = read_records(place(JSONL), scan(place(JSONL)).line_count)
        for position, record in enumerate(records):
            if record["frame"] in frames:
                found[record["frame"]] = place(VIDEO), position
            if len(found) == len(frames):
                return [found[frame] for frame in frames]
    missing = next(frame for frame in frames if frame not in found)
    raise UsageError(f"{folder} has no frame {missing} in {JSONL}")


def read_frames(places: Sequence[tuple[Path, int]]) -> list[np.ndarray]:
    """Decodes frames at positions of videos; each is (H, W, 3) uint8 R, G, B. Raises SourceError."""
    images = {}
    for video in dict.fromkeys(video for video, _ in places):
        positions = {position for path, position in places if path == video}
        last = -1
        try:
            with av.open(f"file:{video}") as container:
                for last, frame in enumerate(container.decode(container.streams.video[0])):
                    if last in positions:
                        images[video, last] = frame.to_ndarray(format="rgb24")
                    if last == max(positions):
                        break
            reason = f"it has no more than {last + 1} frames"
        except (av.error.FFmpegError, IndexError) as error:  # IndexError: truncated before the video stream
            reason = getattr(error, "strerror", None) or "it is truncated"
        if last < max(positions):
            raise SourceError(f"cannot read {video}: {reason}")
    return [images[place] for place in places]


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


def animation(images: Sequence[np.ndarray], ending: str, rate: int) -> bytes:
    """Encodes images, (H, W, 3) uint8, as a file that shows `rate` of them per second, again and again."""
    first, *others = [Image.fromarray(image) for image in images]
    encoded = io.BytesIO()
    settings = {"duration": round(1000 / rate), "loop": 0, "quality": QUALITY, "method": 6}
    first.save(encoded, ending.lstrip("."), save_all=True, append_images=others, **settings)
    return encoded.getvalue()


def work(options: argparse.Namespace) -> None:
    """Reads the frames and writes the page. Raises MoteError."""
    wanted = [parse_frames(text, options.every) for text in options.frames]
    images = [image for folder, frames in wanted for image in read_frames(find_frames(folder, frames))]
    ending = options.output.suffix.lower()
    try:
        if ending in ANIMATED:
            encoded = animation(images, ending, options.rate)
        else:
            canvas = page(images, options.columns)
            encoded = cv2.imencode(ending or ".png", canvas[..., ::-1])[1].tobytes()
        options.output.write_bytes(encoded)
    except cv2.error as error:
        endings = f".png, .jpg, {' or '.join(ANIMATED)}"
        raise OutputError(f"cannot write {options.output}: give a name that ends in {endings}") from error
    except OSError as error:
        raise output_error(options.output, error) from error
    print(f"{len(images)} frames in {options.output}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
