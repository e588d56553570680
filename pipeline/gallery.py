"""One page of annotated frames.

    python -m pipeline.gallery a.mp4:120 b.mp4:45 --output page.png

Each video is run from a little before the frame that is asked for, so that tracks have had time to form.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.system import cli
from pipeline.system.errors import OutputError, UsageError

BEFORE = 60
"""Frames that are run before the one that is shown."""
GAP = 6
"""Pixels between pictures."""


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(prog="python -m pipeline.gallery", description=__doc__.splitlines()[0])
    parser.add_argument("frames", nargs="+", metavar="VIDEO:FRAME", help="what to show, frames from 0")
    parser.add_argument("--output", type=Path, required=True, help="picture to write (png or jpg)")
    parser.add_argument("--columns", type=cli.whole(1), default=3, help="pictures in a row (default: 3)")
    parser.add_argument("--detector", default="tridos-nano")
    parser.add_argument("--weights", default="", help="a name or a file (default: the detector's own)")
    parser.add_argument("--tracker", default="centre")
    parser.add_argument("--device", default="auto")
    return parser


def split(text: str) -> tuple[str, int]:
    """'VIDEO:FRAME' → the two. Raises UsageError for what is not of that form."""
    video, _, frame = text.rpartition(":")
    if not video or not frame.isdecimal():
        raise UsageError(f"'{text}' is not VIDEO:FRAME, with a frame number from 0")
    return video, int(frame)


def annotated(video: str, frame: int, detector, tracker):
    """The picture of one frame as the annotated video would show it, (H, W, 3) uint8 R, G, B.

    Raises UsageError where the video has no such frame, SourceError where it cannot be read.
    """
    from detectors.inference.streaming import extract, suppress
    from pipeline.config.schema import DetectorConfig
    from pipeline.drawing.annotator import Annotator
    from pipeline.sources.opening import open_source
    from pipeline.stages.batching import batches
    from pipeline.stages.tracking import track

    settings, annotator = DetectorConfig(), Annotator()
    start = max(0, frame - BEFORE)
    detector.reset()
    tracker.reset()
    picture, last = None, None
    with open_source(video, start=start, max_frames=frame - start + 1) as source:
        found = suppress(extract(batches(source, 1), detector), conf=settings.conf, iou=settings.iou)
        for result in track(found, tracker):
            picture, last = annotator(result), result.frame.index
    if last != frame:
        raise UsageError(f"{video} has no frame {frame}, the last is {last}")
    return picture


def page(pictures: list, columns: int):
    """Pictures (H, W, 3), in reading order on white; each place is as large as the largest picture."""
    import numpy as np

    high, wide = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * (high + GAP) - GAP, columns * (wide + GAP) - GAP, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * (high + GAP), number % columns * (wide + GAP)
        canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return canvas


def work(options: argparse.Namespace) -> None:
    """Run, draw and write. Raises MoteError."""
    wanted = [split(text) for text in options.frames]
    # torch takes seconds to load: not for --help and not for a mistake
    import cv2

    from detectors.loading import load_detector
    from pipeline.config.schema import DetectorConfig
    from trackers import registry

    config = DetectorConfig(name=options.detector, weights=options.weights, device=options.device)
    detector, _ = load_detector(config)
    tracker = registry.build(options.tracker)
    canvas = page([annotated(video, frame, detector, tracker) for video, frame in wanted], options.columns)
    try:
        coded = cv2.imencode(options.output.suffix or ".png", canvas[..., ::-1])[1]
        options.output.write_bytes(coded.tobytes())
    except cv2.error as error:
        raise OutputError(f"cannot write {options.output}: give a name that ends in .png or .jpg") from error
    except OSError as error:
        raise OutputError(f"cannot write {options.output}: {error.strerror}") from error
    print(f"{len(wanted)} frames in {options.output}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
