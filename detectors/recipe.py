"""What a training run is made of: every key of a training configuration, with its default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

EDGE = 32
"""Networks take pictures whose sides are multiples of this."""


def require(section: Any, least: float, most: float, *names: str) -> None:
    """Raise ValueError for the first of the named values that is not from `least` to `most`."""
    for name in names:
        value = getattr(section, name)
        if not (least <= value <= most and math.isfinite(value)):
            allowed = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
            raise ValueError(f"{name} = {value}, expected {allowed}")


@dataclass(frozen=True)
class ModelRecipe:
    """The network."""

    name: str = "tridos-nano"
    """Name of the detector, as in `run_pipeline.py --list`."""
    options: dict = field(default_factory=dict)
    """Options of its builder, for example num_classes or width."""
    init: str = ""
    """Weights to start from; empty for a fresh network."""


@dataclass(frozen=True)
class DataRecipe:
    """What it learns from."""

    root: str = "../shared/data/drone-ir"
    """Folder that the annotations' file names are relative to."""
    train: str = "annotations/train.json"
    """COCO-video ground truth to learn from, relative to the root."""
    val: str = "annotations/val.json"
    """COCO-video ground truth to measure on, relative to the root."""
    class_agnostic: bool = True
    """Treat all categories as one class, 'target'."""
    videos: int = 0
    """Use only this many training videos; 0 for all. For trying things out."""
    synthetic_videos: int = 60
    """Random synthetic sequences rendered at the start."""
    synthetic_frames: int = 48
    """Frames of each."""
    synthetic_share: float = 0.2
    """Share of training clips that come from them, 0 to 1."""

    def __post_init__(self):
        require(self, 0, math.inf, "videos", "synthetic_videos")
        require(self, 1, math.inf, "synthetic_frames")
        require(self, 0, 1, "synthetic_share")


@dataclass(frozen=True)
class Schedule:
    """How it learns."""

    steps: int = 3000
    """Optimiser steps."""
    batch: int = 8
    """Clips per step."""
    crop: tuple[int, int] = (256, 192)
    """Width and height of the opening that clips are cut to, multiples of 32."""
    whole_share: float = 0.3
    """The last share of the steps sees whole frames instead of crops, 0 to 1."""
    rate: float = 1e-3
    """Peak learning rate of AdamW."""
    final_rate: float = 1e-5
    """Learning rate at the last step; cosine between."""
    warmup: int = 150
    """Steps of linear rise to the peak."""
    weight_decay: float = 0.01
    """On weights of two or more dimensions."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this norm."""
    ema: float = 0.998
    """Decay of the averaged weights, which are what is measured and kept."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """fp32, or bf16 for automatic mixed precision."""
    seed: int = 0
    """Of initialisation and clip sampling."""

    def __post_init__(self):
        require(self, 1, math.inf, "steps", "batch")
        require(self, 0, math.inf, "rate", "final_rate", "warmup", "weight_decay", "seed")
        require(self, 0, 1, "whole_share", "ema")
        if not 0 < self.clip_norm < math.inf:
            raise ValueError(f"clip_norm = {self.clip_norm}, expected more than 0")
        if any(side < EDGE or side % EDGE for side in self.crop):
            raise ValueError(f"crop = {list(self.crop)}, expected two multiples of {EDGE}")


@dataclass(frozen=True)
class Record:
    """What it leaves behind."""

    output: str = "runs/train"
    """Folder for checkpoints, log and weights."""
    log_every: int = 20
    """Steps between two lines of the log."""
    save_every: int = 100
    """Steps between two checkpoints; a stopped run goes on from the last."""
    measure_every: int = 1000
    """Steps between two measurements on the validation set."""
    measure_stride: int = 25
    """Each n-th validation frame is measured during training."""

    def __post_init__(self):
        require(self, 1, math.inf, "log_every", "save_every", "measure_every", "measure_stride")
        if not self.output:
            raise ValueError("output is empty, expected a folder")


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    schedule: Schedule = field(default_factory=Schedule)
    record: Record = field(default_factory=Record)
