"""What a training run is made of: every key of a training configuration, with its default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from datasets.augmentation.options import Augment
from pipeline.config.schema import MAX_SCALE, MIN_SCALE
from pipeline.imaging.intensity_scaling import parse_scaling

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
    initialisation: Literal["default", "normal", "published"] = "default"
    """Fresh weights: as the network is built; kernels from N(0, 0.02) and batch norm scales from N(1, 0.02);
    or those of the authors' training, for segmenters that have such."""
    prior: float = 0.0
    """Probability that a fresh segmenter gives every pixel, below 1; 0 to leave it as initialised."""

    def __post_init__(self):
        if not 0 <= self.prior < 1:
            raise ValueError(f"prior = {self.prior}, expected 0 to less than 1")


@dataclass(frozen=True)
class DataRecipe:
    """What it learns from."""

    layout: str = "drone-ir"
    """How the dataset lies on disk, a key of `datasets.layouts.registry.LAYOUTS`."""
    root: str = "../shared/data/drone-ir"
    """Folder of the dataset."""
    train: str = "train"
    """Split to learn from; for layouts without named splits its path below the root."""
    val: str = "val"
    """Split to measure on."""
    store: str = "runs/frames"
    """Folder that decoded frames are kept in, for this run and later ones; empty to hold them in memory."""
    class_agnostic: bool = True
    """Treat all categories as one class, 'target'. Else synthetic targets, where the network has several
    classes, are of none: they count for boxes and objectness alone."""
    balance: bool = False
    """Draw clips of all classes alike often, not all frames."""
    letterbox: tuple[int, int] | None = None
    """Width and height that frames are fitted into, on grey; left out, they keep their size."""
    enlarge: float = 1.0
    """Frames are enlarged by this factor first, here and wherever the weights are used; for tiny targets."""
    scaling: str = "full-range"
    """Which grey levels the network takes for 0 and 1; `source.scaling` of a run has to say the same."""
    videos: int = 0
    """Use only this many sequences of each split; 0 for all. For trying things out."""
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
        if self.letterbox and any(side < EDGE or side % EDGE for side in self.letterbox):
            raise ValueError(f"letterbox = {list(self.letterbox)}, expected two multiples of {EDGE}")
        require(self, MIN_SCALE, MAX_SCALE, "enlarge")
        parse_scaling(self.scaling)
        if self.letterbox and self.enlarge != 1:
            raise ValueError("letterbox and enlarge are both given, expected one of them")
        if self.balance and self.class_agnostic:
            raise ValueError("balance needs classes; set class_agnostic = false")


@dataclass(frozen=True)
class ObjectiveRecipe:
    """What is to become small."""

    kind: Literal["own", "soft-iou-focal"] = "own"
    """The network's own loss, as published; or for segmenters, on each map that the network supervises, soft
    IoU of each picture plus focal loss, and the mean over the maps."""
    focal: float = 1.0
    """Weight of the focal loss, which is a sum over the pixels of a picture for each pixel of its targets."""

    def __post_init__(self):
        require(self, 0, math.inf, "focal")


@dataclass(frozen=True)
class Optimiser:
    """How a gradient becomes a step."""

    name: Literal["adamw", "adam", "adagrad"] = "adamw"
    """adamw takes weight decay off the weights, the others add it to the gradient."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the averages of gradient and squared gradient; adagrad has none."""
    eps: float = 1e-8
    """Keeps the division by the root of the second average, for adagrad the second sum, finite."""
    weight_decay: float = 0.01
    """On weights of two or more dimensions."""
    decay_all: bool = False
    """Weight decay on all that learns: also on biases and the scales of normalisations."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this norm; inf for never."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one step; each has its own batch norm statistics."""

    def __post_init__(self):
        require(self, 0, math.inf, "eps", "weight_decay")
        require(self, 1, math.inf, "accumulate")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {list(self.betas)}, expected two from 0 to less than 1")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm = {self.clip_norm}, expected more than 0")


@dataclass(frozen=True)
class Schedule:
    """How long it learns, and how fast."""

    steps: int = 3000
    """Optimiser steps."""
    batch: int = 8
    """Clips per batch, over all processes."""
    crop: tuple[int, int] = (256, 192)
    """Width and height of the opening that clips are cut to, multiples of 32."""
    whole_share: float = 0.3
    """The last share of the steps sees whole frames instead of crops, 0 to 1."""
    rule: Literal["cosine", "yolox", "network"] = "cosine"
    """Linear warm-up from nothing, then cosine; yolox: quadratic warm-up, cosine, and a level end; network:
    that of the segmenter's authors, where an epoch has as many clips as the split has frames."""
    rate: float = 1e-3
    """Peak learning rate."""
    final_rate: float = 1e-5
    """Learning rate at the last step; not of network."""
    warmup: int = 150
    """Steps of rise to the peak; not of network."""
    warmup_rate: float = 0.0
    """Learning rate at the first step; yolox alone."""
    level: int = 0
    """Steps at the end that stay at `final_rate`; yolox alone."""
    rate_every: int = 1
    """Steps between two changes of the learning rate; yolox alone."""
    ema: float = 0.998
    """Decay of the averaged weights, which are what is measured and kept."""
    ema_ramp: float = 200.0
    """Updates after which that decay is 1 - 1/e of its final value: few updates are forgotten sooner."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """fp32, or bf16 for automatic mixed precision."""
    seed: int = 0
    """Of initialisation and clip sampling."""

    def __post_init__(self):
        require(self, 1, math.inf, "steps", "batch", "rate_every")
        require(self, 0, math.inf, "rate", "final_rate", "warmup", "warmup_rate", "level", "ema_ramp", "seed")
        require(self, 0, 1, "whole_share", "ema")
        if any(side < EDGE or side % EDGE for side in self.crop):
            raise ValueError(f"crop = {list(self.crop)}, expected two multiples of {EDGE}")
        for name, idle in (("warmup_rate", 0), ("level", 0), ("rate_every", 1)):
            if self.rule != "yolox" and getattr(self, name) != idle:
                raise ValueError(f"{name} = {getattr(self, name)} has no meaning for rule '{self.rule}'")
        if self.warmup + self.level > self.steps and self.rule == "yolox":
            raise ValueError(
                f"warmup + level = {self.warmup + self.level}, expected at most {self.steps} steps"
            )


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
    """Each n-th frame of every validation sequence is measured during training."""

    def __post_init__(self):
        require(self, 1, math.inf, "log_every", "save_every", "measure_every", "measure_stride")
        if not self.output:
            raise ValueError("output is empty, expected a folder")


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: Augment = field(default_factory=Augment)
    objective: ObjectiveRecipe = field(default_factory=ObjectiveRecipe)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    record: Record = field(default_factory=Record)

    def __post_init__(self):
        if self.augment.transpose and self.schedule.whole_share > 0:
            raise ValueError("augment.transpose is for crops alone; set schedule.whole_share = 0")
