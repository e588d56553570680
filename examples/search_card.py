"""A card of a search drone: single thermal pictures → the pictures with something on them, best first.

    python -m examples.search_card DCIM/ finds/

The camera moves between the pictures, so each is looked at alone, by a network that marks pixels in single
frames. finds.csv lists every mark; finds.png shows the best ones, enlarged, for a person to look through. The
network learned from targets in the sky and at sea: on the ground it marks warm stones, too.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np

import mote

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
SHOWN, COLUMNS = 24, 6
SIDE, ENLARGED = 40, 4


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Returns (H, W) uint8 of an image of any depth: its own range becomes black to white."""
    grey = image if image.ndim == 2 else image.mean(axis=2)
    low, high = np.percentile(grey, (0.1, 99.9))
    return np.clip((grey - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)


def parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("card", type=Path, help="folder of pictures; folders in it are searched, too")
    parser.add_argument("finds", type=Path, help="folder of the outputs")
    parser.add_argument("--conf", type=float, default=0.5, help="lowest score of a mark (default: 0.5)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Looks through the pictures and writes list and page."""
    options = parser().parse_args(arguments)

    look = mote.Finder(detector="datransnet", tracker="none", conf=options.conf)
    found = []
    for path in sorted(path for path in options.card.rglob("*") if path.suffix.lower() in PICTURES):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None:
            print(f"{path} cannot be read")
            continue
        if image.ndim == 3:
            image = cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)
        look.reset()  # the next picture may have another size
        detections = look(image).detections
        padded = np.pad(as_bytes(image), SIDE // 2, mode="edge")
        for score, box in zip(detections.scores, detections.boxes, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            part = cv2.resize(padded[y : y + SIDE, x : x + SIDE], None, fx=ENLARGED, fy=ENLARGED)
            found.append((float(score), path.relative_to(options.card), box, part))
    found.sort(key=lambda find: -find[0])

    options.finds.mkdir(parents=True, exist_ok=True)
    with (options.finds / "finds.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("picture", "score", "x1", "y1", "x2", "y2"))
        for score, name, box, _ in found:
            rows.writerow((name.as_posix(), f"{score:.3f}", *np.round(box, 1).tolist()))
    parts = [part for *_, part in found[:SHOWN]]
    if parts:
        parts += [np.zeros_like(parts[0])] * (-len(parts) % COLUMNS)
        page = np.vstack([np.hstack(parts[row : row + COLUMNS]) for row in range(0, len(parts), COLUMNS)])
        cv2.imwrite(str(options.finds / "finds.png"), page)
    pictures = len({name for _, name, _, _ in found})
    print(f"{len(found)} marks on {pictures} pictures in {options.finds}")


if __name__ == "__main__":
    main()
