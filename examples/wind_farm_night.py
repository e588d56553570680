"""A night at a wind farm: thermal videos of a folder → one table of tracks, and counts per hour.

    python -m examples.wind_farm_night recordings/ night/

Runs over night on a CPU. A run that was interrupted goes on where it stopped when the same command is given
again; videos that are done are not computed twice. The table has one row for each track that lasted:

    video, track, hour, start_s, duration_s, frames, best_score, path_px
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np

import mote

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".ts")
MINIMUM_SECONDS = 0.5
"""Shorter tracks are mostly insects near the lens and noise."""


def process(video: Path, folder: Path) -> None:
    """Finds and follows targets in a video, unless that has been done."""
    record = folder / "run.json"
    if record.exists() and json.loads(record.read_text())["state"] == "complete":
        return
    ended = mote.run(video, output=folder, resume=True, progress="auto")
    if ended.failure:
        print(f"{video.name}: {ended.failure}; the table holds what came before")


def tracks_of(folder: Path) -> list[dict]:
    """Returns a row for each track of a finished run that lasted."""
    seen: dict[int, list[tuple[float, dict]]] = {}
    with (folder / "results.jsonl").open() as lines:
        for line in map(json.loads, lines):
            for track in line["tracks"]:
                if track["state"] == "confirmed":
                    seen.setdefault(track["id"], []).append((line["pts"], track))
    rows = []
    for number, found in seen.items():
        start, duration = found[0][0], found[-1][0] - found[0][0]
        if duration < MINIMUM_SECONDS:
            continue
        boxes = np.array([track["bbox"] for _, track in found])
        centres = boxes[:, :2] + boxes[:, 2:] / 2
        path = np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()
        rows.append(
            {
                "track": number,
                "hour": int(start // 3600),
                "start_s": round(start, 2),
                "duration_s": round(duration, 2),
                "frames": len(found),
                "best_score": round(max(track["score"] for _, track in found), 3),
                "path_px": round(float(path), 1),
            }
        )
    return rows


def parser() -> argparse.ArgumentParser:
    """Builds the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recordings", type=Path, help="folder of videos")
    parser.add_argument("night", type=Path, help="folder of the outputs")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Processes the folder and writes the table."""
    options = parser().parse_args(arguments)
    rows = []
    for video in sorted(path for path in options.recordings.iterdir() if path.suffix.lower() in VIDEOS):
        folder = options.night / video.stem
        process(video, folder)
        rows += [{"video": video.name, **row} for row in tracks_of(folder)]
    with (options.night / "tracks.csv").open("w", newline="") as file:
        names = ["video", "track", "hour", "start_s", "duration_s", "frames", "best_score", "path_px"]
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    for (video, hour), count in sorted(Counter((row["video"], row["hour"]) for row in rows).items()):
        print(f"{video}, hour {hour}: {count} tracks")
    print(f"{len(rows)} tracks in {options.night / 'tracks.csv'}")


if __name__ == "__main__":
    main()
