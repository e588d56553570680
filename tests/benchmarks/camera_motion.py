"""Measures the estimate of the motion of the camera: errors, standing cameras, time.

    python -m tests.benchmarks.camera_motion [--root DATA]

Synthetic clips with known motion come first: the mean error over the frame of the motion from one frame to
the next, in pixels, as median and 95th percentile, and how many frames have no motion. The time is that of
the thread; beside it stands that of the scene-cut detector on the same frames, as a measure of the machine.
With DATA, the folder of drone-ir, anti-uav and daub-excerpts, the clips whose cameras move are named, and on
daub-excerpts both this estimate and phase correlation (`detectors.networks.plain.alignment`) are compared
with the best correlation of all shifts of the smoothed frames.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from datasets.layouts import registry
from pipeline.imaging.affine import IDENTITY, apply
from pipeline.sources.opening import open_source
from pipeline.stages.camera_motion import CameraMotion
from pipeline.stages.scene_cuts import SceneCutDetector
from pipeline.structures.frame import Frame
from pipeline.system import cli
from tests.benchmarks.options import benchmark_parser
from tests.support.moving_camera import Look, hand_held, motions, pictures, shaking, similarity

LENGTH = 60
"""Frames of a synthetic clip."""
REACH = 20
"""Maximum shift along each axis that the reference looks for, in pixels."""
LOOKS = {
    "ground": Look(),
    "clouds": Look(slope=2.2, contrast=12),
    "ground, text, targets, pattern": Look(text=True, targets=5, pattern=1.5),
    "smooth sky under a pattern": Look(slope=2.5, contrast=6, pattern=1.5, noise=1.2),
    "640x512, text, targets, pattern": Look(width=640, height=512, text=True, targets=5, pattern=1.5),
}
MOVES = {
    "stands": [similarity()] * LENGTH,
    "pan 3 px": [similarity(3 * t) for t in range(LENGTH)],
    "vibration 2 px": shaking(np.random.default_rng(1), LENGTH, sigma=2),
    "hand-held 8 px": hand_held(LENGTH),
    "zoom 1 %": [similarity(zoom=1.01**t) for t in range(LENGTH)],
    "rotation 0.5°": [similarity(degrees=0.5 * t) for t in range(LENGTH)],
}


def parser() -> cli.Parser:
    """Returns the parser of the command."""
    parser = benchmark_parser("tests.benchmarks.camera_motion", __doc__)
    parser.add_argument("--root", type=Path, help="folder of drone-ir, anti-uav and daub-excerpts")
    return parser


def followed(images: Iterable[np.ndarray]) -> tuple[list[np.ndarray | None], list[float]]:
    """Returns the motion of each image (H, W) uint8, and the seconds that it took."""
    follow, found, seconds = CameraMotion(), [], []
    for index, image in enumerate(images):
        frame = Frame(image, index, Fraction(index, 30), "benchmark")
        started = time.thread_time()
        found.append(follow(frame).motion)
        seconds.append(time.thread_time() - started)
    return found, seconds


def errors(found: Sequence[np.ndarray | None], truth: Sequence[np.ndarray], look: Look) -> np.ndarray:
    """Returns the mean distance over the frame between each motion found and the true one, in pixels."""
    grid = np.array([(x, y) for x in np.linspace(0, look.width, 9) for y in np.linspace(0, look.height, 7)])
    pairs = zip(found, truth, strict=True)
    places = [(apply(IDENTITY if one is None else one, grid), apply(true, grid)) for one, true in pairs]
    return np.array([np.linalg.norm(one - true, axis=1).mean() for one, true in places])


def synthetic() -> Iterator[str]:
    """Yields the lines about the synthetic clips."""
    yield f"{'scene':<34}{'camera':<18}{'error':>8}{'p95':>8}{'none':>10}{'ms':>8}{'cuts ms':>9}"
    for scene, look in LOOKS.items():
        for move, poses in MOVES.items():
            images = list(pictures(poses, look))
            found, seconds = followed(images)
            middle, high = np.percentile(errors(found[1:], motions(poses, look), look), (50, 95))
            none = sum(motion is None for motion in found[1:])
            spent = 1e3 * np.median(seconds), 1e3 * cut_seconds(images)
            row = f"{middle:8.2f}{high:8.2f}{none:>5} of {LENGTH - 1}{spent[0]:8.2f}{spent[1]:9.2f}"
            yield f"{scene:<34}{move:<18}{row}"


def cut_seconds(images: Sequence[np.ndarray]) -> float:
    """Returns the median seconds of the scene-cut detector on an image."""
    is_cut, seconds = SceneCutDetector(), []
    for image in images:
        started = time.thread_time()
        is_cut(image)
        seconds.append(time.thread_time() - started)
    return float(np.median(seconds))


def clips(root: Path, name: str) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields name and images of each validation clip of a data set."""
    layout, split = ("drone-ir", "val") if name == "drone-ir" else ("coco-video", "annotations/val.json")
    dataset = registry.load_dataset(layout, root / name, split)
    for record in dataset.records:
        with open_source(dataset.root / record.file_name) as source:
            yield record.name, [frame.image for frame in source]


def moving(root: Path) -> Iterator[str]:
    """Yields a line for each clip whose camera moves, and one for each data set."""
    for name in ("drone-ir", "anti-uav", "daub-excerpts"):
        total = still = 0
        for clip, images in clips(root, name):
            found = [motion for motion in followed(images)[0] if motion is not None]
            total, still = total + 1, still + (not found)
            if found:
                middle = np.array(images[0].shape[1::-1]) / 2
                steps = [float(np.linalg.norm(apply(motion, middle) - middle)) for motion in found]
                step = f"median step {np.median(steps):.2f} px, largest {max(steps):.1f}"
                yield f"{clip:<28}{len(found):>4} of {len(images)} frames moved, {step}"
        yield f"{name}: no motion in any frame of {still} of {total} clips"


def compared(root: Path) -> Iterator[str]:
    """Yields the comparison with phase correlation on daub-excerpts."""
    for clip, images in clips(root, "daub-excerpts"):
        middle = np.array(images[0].shape[1::-1]) / 2
        found = followed(images)[0][1:]
        ours = np.array([(0, 0) if one is None else apply(one, middle) - middle for one in found])
        truth = np.array([best_shift(*pair) for pair in pairwise(map(without_wide, images))])
        phase = np.array([phase_shift(*pair) for pair in pairwise(images)])
        near = np.abs(truth).max(axis=1) < REACH - 1  # farther ones are beyond the reference
        rows = [np.linalg.norm(one - truth, axis=1)[near] for one in (ours, phase, np.zeros_like(truth))]
        texts = [f"{np.median(row):.2f} {row.mean():.2f} {np.percentile(row, 95):.2f}" for row in rows]
        labels = zip(("this", "phase correlation", "none"), texts, strict=True)
        listed = ", ".join(f"{label} {text}" for label, text in labels)
        yield f"{clip}: error (median, mean, p95) {listed}"


def without_wide(image: np.ndarray) -> np.ndarray:
    """Returns an image (H, W) without noise and wide structures, float32."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
    return smooth - cv2.GaussianBlur(smooth, (0, 0), 12)


def best_shift(before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Returns the shift x y up to `REACH` that correlates two images best, to a fraction of a pixel."""
    inner = before[REACH:-REACH, REACH:-REACH]
    score = np.pad(cv2.matchTemplate(now, inner, cv2.TM_CCOEFF_NORMED), 1, mode="edge")
    row, column = np.unravel_index(score[1:-1, 1:-1].argmax(), (2 * REACH + 1, 2 * REACH + 1))
    across, down = score[row + 1, column : column + 3], score[row : row + 3, column + 1]
    return column - REACH + peak(across), row - REACH + peak(down)


def peak(scores: np.ndarray) -> float:
    """Returns where the parabola through three scores has its peak, -0.5 to 0.5 from the middle one."""
    bend = 2 * scores[1] - scores[0] - scores[2]
    return float(0.5 * (scores[2] - scores[0]) / bend) if bend > 0 else 0.0


def phase_shift(before: np.ndarray, now: np.ndarray) -> list[int]:
    """Returns the shift x y of the phase correlation of two images (H, W)."""
    import torch

    from detectors.networks.plain.alignment import camera_shifts

    pair = torch.from_numpy(np.stack([before, now])[None].astype(np.float32) / 255)
    return [int(n) for n in camera_shifts(pair)[0, 0]]


def work(options: argparse.Namespace) -> None:
    """Prints all tables."""
    cv2.setNumThreads(1)
    for line in synthetic():
        print(line, flush=True)
    if options.root:
        for line in (*moving(options.root), *compared(options.root)):
            print(line, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
