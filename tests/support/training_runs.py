"""Short training runs on one small clip or a few small pictures, and readers of their outputs."""

from __future__ import annotations

import json

import cv2
import numpy as np

from datasets.synthesis import rendering
from datasets.synthesis.scene import Scene
from detectors import train
from detectors.training.trainer import Trainer
from tests.datasets.layouts import dataset_trees

SMALL = {
    "model.name": "tridos-nano",
    "data.layout": "coco-video",
    "data.store": "",
    "data.train": "clip.json",
    "data.val": "clip.json",
    "data.synthetic_videos": 1,
    "data.synthetic_frames": 6,
    "schedule.batch": 2,
    "schedule.crop": [64, 64],
    "schedule.whole_share": 0.5,
    "schedule.warmup": 2,
    "schedule.precision": "fp32",
    "record.save_every": 2,
    "record.measure_every": 100,
    "record.measure_stride": 6,
}


def write_clip(folder, *, width=96, height=64, frames=12):
    """Writes a data set of one synthetic clip; returns its folder."""
    rendering.write_scene(Scene.random(3, width=width, height=height, frames=frames), folder / "clip.mp4")
    return folder


def run(root, output, steps, *, options=(), config=None, **more):
    """Trains with the small recipe, and what the file `config` adds to it; returns the exit code."""
    if config is None:
        config = root / "recipe.toml"
        config.write_text("")
    places = {"data.root": str(root), "record.output": str(output)}
    settings = {**SMALL, **places, "schedule.steps": steps, **more}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return train.main([str(config), "--device", "cpu", *arguments, *options])


def before_each_step(monkeypatch, action):
    """Makes trainers call `action(trainer)` before each step."""
    step = Trainer.step

    def hooked(self, clips):
        action(self)
        return step(self, clips)

    monkeypatch.setattr(Trainer, "step", hooked)


def kill_at(number, monkeypatch):
    """Interrupts trainings after `number` steps, as if killed."""

    def killed(trainer):
        if trainer.steps_done == number:
            raise KeyboardInterrupt

    before_each_step(monkeypatch, killed)


def rows(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def steps(output):
    """Returns the rows of training steps, without those of evaluations."""
    return [row for row in rows(output) if "loss" in row]


def losses(output):
    return [row["loss"] for row in steps(output)]


def complaint(capsys):
    """Returns the last line on standard error without "error: "."""
    *_, line = capsys.readouterr().err.splitlines()  # after the progress of reading
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


# Segmenters

SMALL_MASKS = {
    "data.layout": "masks",
    "data.train": "all.txt",
    "data.val": "all.txt",
    "data.synthetic_share": 0.0,
    "schedule.crop": [32, 32],
    "schedule.whole_share": 0.0,
}


def write_masks(folder, *, count=4, size=(40, 36)):
    """Writes pictures of noise with one bright target of 4x3 pixels each; returns the folder."""
    chance = np.random.default_rng(7)
    for number in range(count):
        left, top = (int(chance.integers(2, side - 8)) for side in size)
        pixels = chance.integers(20, 60, size[::-1], np.uint8)
        pixels[top : top + 3, left : left + 4] = 220
        dataset_trees.write_mask(
            folder / "masks" / f"p{number}.png", (left, top, left + 4, top + 3), size=size
        )
        (folder / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "images" / f"p{number}.png"), pixels)
    dataset_trees.write_text(folder / "all.txt", *(f"p{number}" for number in range(count)))
    return folder


def run_segmenter(name, root, output, steps, *, options=(), **more):
    """Trains a segmenter with the small recipe; returns the exit code."""
    return run(root, output, steps, options=options, **{"model.name": name, **SMALL_MASKS, **more})
