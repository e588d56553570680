"""Compares Mote with a YOLO of ultralytics and its ByteTrack, on the same clips after equal training.

    python -m venv ENV && ENV/bin/pip install ultralytics lap
    python -m tests.benchmarks.against_yolo --peer ENV/bin/python --root DATA --folder runs/against_yolo

Both networks start from random weights and train on `drone-ir` for the same processor time, of one core
each. Each side uses its own recipe, its own tracker, and the thresholds that come with it. Prints a Markdown
table of validation: AP with centres within 5 pixels, AP50, tracks, frames per second of the whole job, and
megabytes to install. Steps whose results are in the folder are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.layouts.registry import Dataset, load_dataset
from pipeline.evaluation.detection.evaluator import Evaluator
from pipeline.evaluation.detection.matching import CENTRE_5
from pipeline.evaluation.tracking.scoring import OVERALL, score_videos
from pipeline.evaluation.tracking.track_rows import read_tracks
from pipeline.sources.opening import open_source
from pipeline.system import cli
from pipeline.system.errors import MoteError
from tests.benchmarks.options import benchmark_parser, run_benchmark

PROJECT_ROOT = Path(__file__).resolve().parents[2]
PEER = Path(__file__).with_name("yolo_peer.py")
RECIPE = PROJECT_ROOT / "configs/plain_drone_ir.toml"
PROBE = (20, 50)
"""Steps of two short trainings; the difference of their processor times is that of the steps between."""
REPEATS = 3
TORCH = ("torch", "torchvision", "triton", "nvidia-", "cuda-")
"""Beginnings of the names of packages that are torch, which both need."""


def parser() -> cli.Parser:
    """Builds the command line."""
    parser = benchmark_parser("tests.benchmarks.against_yolo", __doc__)
    add = parser.add_argument
    add("--peer", required=True, help="Python of an environment with ultralytics")
    add("--root", type=Path, required=True, help="folder of drone-ir")
    add("--folder", type=Path, required=True, help="folder for data, weights and results")
    add("--model", default="yolo26n", help="network of ultralytics (default: yolo26n)")
    add("--size", type=cli.int_at_least(32), default=320, help="its input size in pixels (default: 320)")
    add("--minutes", type=cli.int_at_least(1), default=20, help="minutes of a core for each (default: 20)")
    add(
        "--steps",
        type=cli.int_at_least(1),
        help="training steps of the plain network (default: by two short trainings, as the minutes allow)",
    )
    add(
        "--every",
        type=cli.int_at_least(1),
        default=15,
        help="training frames of YOLO: every n-th (default: 15)",
    )
    add("--stride", type=cli.int_at_least(1), default=5, help="frames for AP: every n-th (default: 5)")
    return parser


def run_command(command: list[object], log: Path, *, threads: int = 2) -> tuple[str, float]:
    """Runs a command; returns its output and its processor minutes. Raises MoteError if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    timed = ["/usr/bin/env", "bash", "-c", 'TIMEFORMAT="%U %S"; time "$@"', "timed", *map(str, command)]
    done = subprocess.run(timed, cwd=PROJECT_ROOT, capture_output=True, text=True, env=environment)
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        raise MoteError(f"{command[1]} failed, see {log}")
    user, system = done.stderr.strip().splitlines()[-1].split()
    return done.stdout, (float(user) + float(system)) / 60


class Comparison:
    """The steps of the comparison, whose results are kept in a folder."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.folder = options, options.folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dataset = load_dataset("drone-ir", options.root, "val")

    def peer(self, command: str, *arguments: object) -> dict[str, Any]:
        """Runs a command of `yolo_peer.py`, once; returns its result."""
        return self._once(
            f"yolo-{command}",
            lambda: json.loads(
                run_command(
                    [self.options.peer, PEER, command, "--size", self.options.size, *arguments],
                    self.folder / f"yolo-{command}.log",
                )[0].splitlines()[-1]
            ),
        )

    def _once(self, name: str, compute: Any) -> dict[str, Any]:
        """Returns the kept result of a step, or computes and keeps it."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(compute(), indent=1))
        return json.loads(path.read_text())

    def train_yolo(self) -> dict[str, Any]:
        """Trains the network of ultralytics."""
        data = self.folder / "data"
        if not (data / "data.yaml").exists():
            write_yolo_data(load_dataset("drone-ir", self.options.root, "train"), data, self.options.every)
        arguments = ("--data", data, "--output", self.folder, "--model", self.options.model)
        return self.peer("train", *arguments, "--minutes", self.options.minutes)

    def train_mote(self) -> dict[str, Any]:
        """Trains the plain network by its recipe, with as many steps as the time allows."""

        def train() -> dict[str, Any]:
            steps = self.options.steps
            if steps is None:
                short, long = (self._train(f"probe-{steps}", steps) for steps in PROBE)
                per_step = (long - short) / (PROBE[1] - PROBE[0])
                steps = round(self.options.minutes / per_step)
            return {"steps": steps, "cpu_minutes": self._train("plain", steps)}

        return self._once("plain-train", train)

    def _train(self, name: str, steps: int) -> float:
        """Trains for some steps in a folder; returns the processor minutes."""
        settings = {
            "schedule.steps": steps,
            "schedule.warmup": min(60, steps // 2),
            "record.output": self.folder / name,
            "record.measure_every": steps,
            "record.measure_stride": 400,
            "data.root": self.options.root.resolve(),
        }
        values = [f"{key}={value}" for key, value in settings.items()]
        flags = [word for value in values for word in ("--set", value)]
        command = [sys.executable, "-m", "detectors.train", RECIPE, *flags]
        return run_command(command, self.folder / f"{name}.log", threads=1)[1]

    def detections(self) -> dict[str, Path]:
        """Returns the COCO results of the three detectors on validation frames."""
        frames, place = self.folder / "frames.json", self.folder
        table = [
            {
                "name": record.name,
                "path": str(self.options.root.resolve() / record.file_name),
                "frames": {
                    index: record.image_ids[index] for index in positions(record, self.options.stride)
                },
            }
            for record in self.dataset.records
        ]
        frames.write_text(json.dumps(table))
        found = {"yolo": place / "yolo-detections.json", "plain": place / "plain-detections.json"}
        found["default"] = place / "default-detections.json"
        weights = self.train_yolo()["weights"]
        self.peer("detect", "--weights", weights, "--frames", frames, "--results", found["yolo"])
        for name, trained in (("plain", self.folder / "plain/best.safetensors"), ("default", None)):
            if not found[name].exists():
                network = [trained, "--detector", "plain"] if trained else ["tridos-nano-drone-ir"]
                command = [sys.executable, "-m", "detectors.evaluate", *network, "--root", self.options.root]
                command += ["--stride", self.options.stride, "--detections", found[name]]
                run_command(command, self.folder / f"{name}-detect.log")
        return found

    def tracks(self) -> dict[str, Path]:
        """Returns folders with a MOT file for each validation clip."""
        weights = self.train_yolo()["weights"]
        places = {name: self.folder / f"{name}-tracks" for name in ("yolo", "plain", "default")}
        frames = ("--frames", self.folder / "frames.json")
        self.peer("track", "--weights", weights, *frames, "--results", places["yolo"])
        for name in ("plain", "default"):
            self._once(f"{name}-tracks", lambda name=name: self._track(name, places[name]))
        return places

    def _track(self, name: str, place: Path) -> dict[str, Any]:
        place.mkdir(exist_ok=True)
        for record in self.dataset.records:
            run = self.folder / "run"
            self._run(name, self.options.root / record.file_name, run)
            (place / f"{record.name}.txt").write_bytes((run / "tracks.txt").read_bytes())
        return {"clips": len(self.dataset.records)}

    def _run(self, name: str, video: Path, output: Path, *flags: str) -> dict[str, Any]:
        """Runs the pipeline over a video; returns its run.json."""
        command: list[object] = [sys.executable, "run_pipeline.py", "--video", video, "--output", output]
        command += ["--overwrite", "--progress", "off", *flags]
        if name == "plain":
            command += ["--detector", "plain", "--weights", self.folder / "plain/best.safetensors"]
        run_command(command, self.folder / f"{name}-run.log")
        return json.loads((output / "run.json").read_text())

    def speeds(self) -> dict[str, float]:
        """Returns frames per second of whole jobs, in turn: the median of several."""

        def measure() -> dict[str, float]:
            video = self.options.root.resolve() / self.dataset.records[0].file_name
            rates: dict[str, list[float]] = {"yolo": [], "plain": [], "default": []}
            weights = self.train_yolo()["weights"]
            for _ in range(REPEATS):
                command = [self.options.peer, PEER, "time", "--size", self.options.size, "--threads", 2]
                command += ["--weights", weights, "--video", video, "--output", self.folder]
                text, _ = run_command(command, self.folder / "yolo-time.log")
                timed = json.loads(text.splitlines()[-1])
                rates["yolo"].append(timed["frames"] / timed["seconds"])
                for name in ("plain", "default"):
                    record = self._run(name, video, self.folder / "run")
                    rates[name].append(record["frames"]["written"] / record["seconds"])
            return {name: statistics.median(values) for name, values in rates.items()}

        return self._once("speeds", measure)


def positions(record: Any, stride: int) -> list[int]:
    """Returns every `stride`-th annotated frame, as `detectors.evaluate` takes them."""
    return sorted(record.image_ids)[::stride]


def write_yolo_data(dataset: Dataset, folder: Path, every: int) -> None:
    """Writes every n-th frame of a dataset as a picture with boxes of one class, as ultralytics reads it."""
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True, exist_ok=True)
    for record in dataset.records:
        size = np.array([record.width, record.height] * 2)
        with open_source(str(dataset.root / record.file_name)) as source:
            for frame in source:
                if frame.index % every or frame.index >= len(record):
                    continue
                name = f"{record.name}-{frame.index:06d}"
                boxes = record.boxes[frame.index]
                rows = np.concatenate(
                    [(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1
                )
                lines = ["0 " + " ".join(f"{value:.6f}" for value in row) + "\n" for row in rows / size]
                (folder / "labels/train" / f"{name}.txt").write_text("".join(lines))
                cv2.imwrite(str(folder / "images/train" / f"{name}.png"), frame.image)
    data = f"path: {folder}\ntrain: images/train\nval: images/train\nnames:\n  0: target\n"
    (folder / "data.yaml").write_text(data)


def detection_scores(dataset: Dataset, path: Path, stride: int) -> tuple[float, float]:
    """Returns AP with centres within 5 pixels and AP50 of COCO results, all categories as one."""
    wanted = {record.image_ids[index] for record in dataset.records for index in positions(record, stride)}
    coco = dataset.to_coco()
    kept = {
        **coco,
        "images": [image for image in coco["images"] if image["id"] in wanted],
        "annotations": [row for row in coco["annotations"] if row["image_id"] in wanted],
    }
    evaluator = Evaluator(kept, classes=False)
    evaluator.add_results(json.loads(path.read_text()))
    report = evaluator.report(0.4)
    return report.criteria[CENTRE_5.name].ap or 0.0, report.scores.ap50


def track_scores(dataset: Dataset, folder: Path) -> tuple[float, float, int]:
    """Returns MOTA, IDF1 and the number of switches, centres within 5 pixels."""
    videos = [(record, read_tracks(folder / f"{record.name}.txt")) for record in dataset.records]
    scores = score_videos(videos, gate="centre")[OVERALL]
    return scores.mota, scores.idf1, scores.switches


def installed_megabytes(names: set[str], folder: str | None = None) -> float:
    """Returns the size of packages and of all that they require, without torch, where they are installed."""
    found = metadata.distributions(path=[folder]) if folder else metadata.distributions()
    known = {normalised(item.metadata["Name"]): item for item in found}
    left, seen, size = {normalised(name) for name in names}, set(), 0
    while left:
        name = left.pop()
        if name in seen or name not in known or name.startswith(TORCH):
            continue
        seen.add(name)
        item = known[name]
        size += sum(file.size or 0 for file in item.files or ())
        rows = [row for row in item.requires or () if "extra ==" not in row]
        left |= {normalised(requirement_name(row)) for row in rows}
    return size / 1e6


def normalised(name: str) -> str:
    """Returns a name of a package in lower case with hyphens."""
    return name.lower().replace("_", "-").replace(".", "-")


def requirement_name(row: str) -> str:
    """Returns the name of the package in a requirement."""
    for end in "[(<>=!~; ":
        row = row.split(end)[0]
    return row.strip()


def own_requirements() -> set[str]:
    """Returns the names of the packages that a run needs: those of requirements-run.txt."""
    lines = (PROJECT_ROOT / "requirements-run.txt").read_text().splitlines()
    return {requirement_name(line) for line in lines if line and not line.startswith(("#", "-"))}


def measure(options: argparse.Namespace) -> str:
    """Runs all steps; returns the table."""
    comparison = Comparison(options)
    with ThreadPoolExecutor(2) as pool:  # at the same time, so that other load affects both
        yolo, mote = (
            job.result() for job in [pool.submit(comparison.train_yolo), pool.submit(comparison.train_mote)]
        )
    found, followed, speeds = comparison.detections(), comparison.tracks(), comparison.speeds()
    site = str(next((Path(options.peer).parents[1] / "lib").glob("python*/site-packages")))
    sizes = {"yolo": installed_megabytes({"ultralytics"}, site)}
    sizes["plain"] = sizes["default"] = installed_megabytes(own_requirements())
    title = {
        "yolo": f"{options.model} at {options.size}, ByteTrack (ultralytics {yolo['ultralytics']}), "
        f"{yolo['steps']} steps in {yolo['cpu_minutes']:.0f} min",
        "plain": f"Mote, `plain`, {mote['steps']} steps in {mote['cpu_minutes']:.0f} min",
        "default": "Mote, `tridos-nano-drone-ir` as shipped",
    }
    lines = [
        "| | centre AP | AP50 | MOTA | IDF1 | switches | frames/s | MB without torch |",
        "|---|" + "---|" * 7,
    ]
    for name, text in title.items():
        centre, ap50 = detection_scores(comparison.dataset, found[name], options.stride)
        mota, idf1, switches = track_scores(comparison.dataset, followed[name])
        lines.append(
            f"| {text} | {centre:.3f} | {ap50:.3f} | {mota:.3f} | {idf1:.3f} | {switches} "
            f"| {speeds[name]:.1f} | {sizes[name]:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return run_benchmark(parser(), measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
