"""The side of `tests.benchmarks.against_yolo` that runs in the environment of ultralytics.

    ENV/bin/python tests/benchmarks/yolo_peer.py train|detect|track|time …

It imports nothing of this project, and nothing of this project imports it. Results are printed as one JSON
object on the last line.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import torch
import ultralytics
from ultralytics import YOLO

NAME = "yolo"
PROBE_STEPS = 20
"""Number of steps after which the length of the schedule is chosen; the first half is not measured."""
MIN_CONFIDENCE = 0.001


def cpu_seconds() -> float:
    """Returns the processor time of this process and of its children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


class Pace:
    """Callbacks that measure the processor time of training steps, and stop after `limit` of them."""

    def __init__(self, limit: int | None = None):
        self.times: list[float] = []
        self._limit = limit

    def step(self, trainer: Any) -> None:
        """Notes the end of a step; ends a probe by an exception that `train` catches."""
        self.times.append(cpu_seconds())
        if self._limit is not None and len(self.times) >= self._limit:
            raise StopIteration

    @property
    def per_step(self) -> float:
        """Mean processor seconds of the second half of the steps."""
        half = self.times[len(self.times) // 2 :]
        return (half[-1] - half[0]) / (len(half) - 1)


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Trains from random weights for a given processor time; returns what was done."""
    images = len(list((options.data / "images/train").iterdir()))
    settings: dict[str, Any] = {
        "data": str(options.data / "data.yaml"),
        "imgsz": options.size,
        "batch": options.batch,
        "device": "cpu",
        "workers": 0,
        "val": False,
        "plots": False,
        "single_cls": True,
        "pretrained": False,
        "exist_ok": True,
        "project": str(options.output),
        "verbose": False,
        "seed": 0,
        "warmup_epochs": 0.5,
        "close_mosaic": 1,
    }
    probe = Pace(PROBE_STEPS)
    model = YOLO(f"{options.model}.yaml")
    model.add_callback("on_train_batch_end", probe.step)
    with suppress(StopIteration):
        model.train(**settings, epochs=1, name="probe")
    steps = 60 * options.minutes / probe.per_step
    epochs = max(round(steps * options.batch / images), 1)
    pace, model = Pace(), YOLO(f"{options.model}.yaml")
    model.add_callback("on_train_batch_end", pace.step)
    started = cpu_seconds()
    model.train(**settings, epochs=epochs, name=NAME)
    return {
        "weights": str(options.output / NAME / "weights/last.pt"),
        "steps": len(pace.times),
        "epochs": epochs,
        "cpu_minutes": (cpu_seconds() - started) / 60,
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "ultralytics": ultralytics.__version__,
        "torch": torch.__version__,
    }


def detect(options: argparse.Namespace) -> dict[str, Any]:
    """Writes COCO results of chosen frames of videos: a table of path, frames and image ids is given."""
    model, rows = YOLO(options.weights), []
    for video in json.loads(options.frames.read_text()):
        wanted = {int(frame): image_id for frame, image_id in video["frames"].items()}
        capture = cv2.VideoCapture(video["path"])
        for index in range(max(wanted) + 1):
            found, picture = capture.read()
            if not found:
                break
            if index in wanted:
                (result,) = model.predict(
                    picture, imgsz=options.size, conf=MIN_CONFIDENCE, device="cpu", verbose=False
                )
                rows += coco_rows(result, wanted[index])
        capture.release()
    options.results.write_text(json.dumps(rows))
    return {"detections": len(rows)}


def coco_rows(result: Any, image_id: int) -> list[dict[str, Any]]:
    """Returns the detections of one picture as COCO results of category 1."""
    boxes, scores = result.boxes.xyxy.tolist(), result.boxes.conf.tolist()
    return [
        {"image_id": image_id, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), score in zip(boxes, scores, strict=True)
    ]


def track(options: argparse.Namespace) -> dict[str, Any]:
    """Writes one file of MOT rows for each video, by the ByteTrack of ultralytics as it comes."""
    options.results.mkdir(parents=True, exist_ok=True)
    for video in json.loads(options.frames.read_text()):
        model = YOLO(options.weights)  # a new one for each video: trackers are kept with the model
        lines = []
        results = model.track(
            video["path"],
            imgsz=options.size,
            tracker="bytetrack.yaml",
            stream=True,
            device="cpu",
            verbose=False,
        )
        for index, result in enumerate(results):
            if result.boxes.id is None:
                continue
            rows = zip(
                result.boxes.id.int().tolist(),
                result.boxes.xyxy.tolist(),
                result.boxes.conf.tolist(),
                strict=True,
            )
            lines += [
                f"{index + 1},{number},{x1 + 1:.4f},{y1 + 1:.4f},{x2 - x1:.4f},{y2 - y1:.4f},{score:.6f}"
                for number, (x1, y1, x2, y2), score in rows
            ]
        (options.results / f"{video['name']}.txt").write_text("".join(f"{line},-1,-1,-1\n" for line in lines))
    return {}


def measure_time(options: argparse.Namespace) -> dict[str, Any]:
    """Tracks a video and writes the annotated one; returns frames and seconds, without loading."""
    model = YOLO(options.weights)
    settings: dict[str, Any] = {"imgsz": options.size, "tracker": "bytetrack.yaml", "verbose": False}
    settings |= {"device": "cpu", "project": str(options.output), "name": "time", "exist_ok": True}
    for _ in model.track(options.video, stream=True, **settings):
        break  # loads the tracker and allocates
    model = YOLO(options.weights)
    started = time.perf_counter()
    frames = sum(1 for _ in model.track(options.video, stream=True, save=True, save_txt=True, **settings))
    return {"frames": frames, "seconds": time.perf_counter() - started}


COMMANDS = {"train": train, "detect": detect, "track": track, "time": measure_time}


def main() -> None:
    """Runs a command and prints its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--model", default="yolo26n")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights")
    parser.add_argument("--video")
    for name in ("data", "output", "frames", "results"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    print(json.dumps(COMMANDS[options.command](options)))


if __name__ == "__main__":
    main()
