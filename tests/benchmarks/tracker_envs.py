"""Runs trackers of other packages, which live in an environment of their own, over scenes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.evaluation.tracking.track_rows import TrackRows
from pipeline.system.errors import UsageError
from tests.support.track_scenarios import TrackScene

SCRIPT = Path(__file__).with_name("tracker_peers.py")


def peer_names(python: Path) -> list[str]:
    """Returns the names of the peers that are installed. Raises UsageError if there are none."""
    found = [name for name in _run(python).splitlines() if name]
    if not found:
        raise UsageError(f"{python} has none of the packages trackers, boxmot and norfair")
    return found


def peer_tracks(
    python: Path, names: Sequence[str], scenes: Sequence[TrackScene]
) -> dict[str, list[TrackRows]]:
    """Returns the tracks of each scene by the name of the peer. Raises UsageError if one fails.

    All run in one process, since importing the packages takes longest.
    """
    with TemporaryDirectory() as folder:
        source = Path(folder, "scenes.npz")
        np.savez(source, **_arrays(scenes))
        _run(python, str(source), folder, *names)
        return {name: _split(Path(folder, f"{i}.npz"), scenes) for i, name in enumerate(names)}


def _split(path: Path, scenes: Sequence[TrackScene]) -> list[TrackRows]:
    """Reads the tracks of all scenes and returns those of each."""
    with np.load(path) as file:
        found = dict(file)
    ends = np.cumsum([len(scene.record) for scene in scenes])
    rows = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        here = (found["frames"] >= start) & (found["frames"] < end)
        rows.append(TrackRows(found["frames"][here] - start, found["ids"][here], found["boxes"][here]))
    return rows


def _arrays(scenes: Sequence[TrackScene]) -> dict[str, np.ndarray]:
    """Returns detections and sizes as the script reads them."""
    frames = [found for scene in scenes for found in scene.detections]
    return {
        "boxes": np.concatenate([found.boxes for found in frames]),
        "scores": np.concatenate([found.scores for found in frames]),
        "frames": np.repeat(np.arange(len(frames)), [len(found) for found in frames]),
        "lengths": np.array([len(scene.record) for scene in scenes]),
        "widths": np.array([scene.record.width for scene in scenes]),
        "heights": np.array([scene.record.height for scene in scenes]),
        "rates": np.array([scene.record.fps for scene in scenes]),
    }


def _run(python: Path, *arguments: str) -> str:
    try:
        done = subprocess.run([str(python), "-P", str(SCRIPT), *arguments], capture_output=True, text=True)
    except OSError as error:
        raise UsageError(f"cannot run {python}: {error.strerror}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UsageError(f"trackers failed in {python}: {last}")
    return done.stdout
