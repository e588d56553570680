"""A sky station: what crossed the sky from dusk to dawn, as one stacked picture and a picture of each track.

    python -m examples.sky_station night.mp4 morning/
    python -m examples.sky_station rtsp://camera/stream morning/ --frames 900000

The stack holds the brightest value that each pixel had, with the paths of the tracks drawn over it. The
picture of a track shows its best frame.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

import mote

MINIMUM_FRAMES = 15
"""Shorter tracks get no picture."""
SIDE, ENLARGED = 48, 8
"""Pixels around a target, and factor by which they are enlarged."""


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Returns (H, W) uint8 of an image of any depth: its own range becomes black to white."""
    grey = image if image.ndim == 2 else image.mean(axis=2)
    low, high = np.percentile(grey, (0.1, 99.9))
    return np.clip((grey - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)


def picture_of(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the enlarged surroundings of a box."""
    x, y = ((box[:2] + box[2:]) / 2).astype(int)
    padded = np.pad(as_bytes(image), SIDE // 2, mode="edge")
    return cv2.resize(padded[y : y + SIDE, x : x + SIDE], None, fx=ENLARGED, fy=ENLARGED)


def parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", help="video, folder of images, or address of a camera")
    parser.add_argument("morning", type=Path, help="folder of the pictures")
    parser.add_argument("--frames", type=int, default=0, help="number of frames (default: all)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Watches the source and writes the pictures."""
    options = parser().parse_args(arguments)

    stack: np.ndarray | None = None
    paths: dict[int, list[tuple[float, float]]] = {}
    best: dict[int, tuple[float, np.ndarray]] = {}
    for result in mote.watch(options.source, max_frames=options.frames):
        image = result.frame.image
        stack = image.copy() if stack is None else np.maximum(stack, image)
        tracks = result.tracks[result.tracks.state == mote.TrackState.CONFIRMED]
        for number, score, box in zip(tracks.ids, tracks.scores, tracks.boxes, strict=True):
            paths.setdefault(number, []).append(tuple((box[:2] + box[2:]) / 2))
            if score > best.get(number, (0,))[0]:
                best[number] = score, picture_of(image, box)

    options.morning.mkdir(parents=True, exist_ok=True)
    if stack is None:
        raise SystemExit("the source has no frames")
    page = cv2.cvtColor(as_bytes(stack), cv2.COLOR_GRAY2BGR)
    long = {number: path for number, path in paths.items() if len(path) >= MINIMUM_FRAMES}
    for number, path in long.items():
        cv2.polylines(page, [np.round(path).astype(np.int32)], isClosed=False, color=(0, 200, 255))
        cv2.imwrite(str(options.morning / f"track-{number:03d}.png"), best[number][1])
    cv2.imwrite(str(options.morning / "stack.png"), page)
    print(f"{len(long)} tracks of {MINIMUM_FRAMES} frames or more in {options.morning}")


if __name__ == "__main__":
    main()
