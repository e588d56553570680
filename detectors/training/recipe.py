"""The keys of a training configuration, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.augmentation.options import AugmentationOptions
from pipeline.config.ranges import require_range
from pipeline.config.schema import MAX_SCALE, MIN_SCALE
from pipeline.imaging.intensity_scaling import parse_scaling


def _require_network_size(name: str, sides: tuple[int, ...]) -> None:
    """Raises ValueError unless both sides suit the networks."""
    from pipeline.imaging.geometry import SIZE_MULTIPLE  # loads OpenCV, which --help does not need

    if any(side < SIZE_MULTIPLE or side % SIZE_MULTIPLE for side in sides):
        raise ValueError(f"{name} = {list(sides)}, expected two multiples of {SIZE_MULTIPLE}")


@dataclass(frozen=True)
class ModelRecipe:
    """The network."""

    name: str = "tridos-nano"
    """Name of the detector, as in `run_pipeline.py --list`."""
    options: dict = field(default_factory=dict)
    """Options of its constructor, for example num_classes or width."""
    init: str = ""
    """Weights to start from, a name of `--list` or a file; empty to train from scratch."""
    initialisation: Literal["default", "normal", "published"] = "default"
    """Initial weights: default: as the network is built; normal: kernels from N(0, 0.02²) and batch norm
    scales from N(1, 0.02²); published: as in the authors' training, for segmenters that have one."""
    prior: float = 0.0
    """Probability, below 1, that an untrained segmenter assigns to every pixel; 0 to leave it as
    initialised."""

    def __post_init__(self):
        require_range(self, "prior", low=0, below=1)


@dataclass(frozen=True)
class DataRecipe:
    """The training and validation data."""

    layout: str = "drone-ir"
    """Layout of the dataset on disk, a key of `datasets.layouts.registry.LAYOUTS`."""
    root: str = "../shared/data/drone-ir"
    """Folder of the dataset."""
    train: str = "train"
    """Training split; for layouts without named splits its path below the root."""
    val: str = "val"
    """Validation split, named in the same way."""
    store: str = "runs/frames"
    """Cache folder for decoded frames, shared by all runs; empty to hold the frames in memory."""
    class_agnostic: bool = True
    """Treat all categories as one class, 'target'. If false and the network has several classes, synthetic
    targets have none: they contribute to the box and objectness terms of the loss only."""
    balance: bool = False
    """Draw clips of all classes equally often, instead of all frames equally often."""
    letterbox: tuple[int, int] | None = None
    """Width and height that frames are letterboxed to, on grey; omit it to keep their size."""
    enlarge: float = 1.0
    """Factor by which frames are enlarged, in training and wherever the weights are used; for tiny
    targets."""
    scaling: str = "auto"
    """Intensity scaling of the network input; a run with the weights needs the same `source.scaling`."""
    videos: int = 0
    """Number of sequences of each split to use; 0 for all. For quick trials."""
    synthetic_videos: int = 60
    """Number of random synthetic sequences rendered at the start."""
    synthetic_frames: int = 48
    """Frames of each synthetic sequence."""
    synthetic_share: float = 0.2
    """Share of training clips drawn from synthetic sequences, 0 to 1."""
    kinds: dict = field(default_factory=dict)
    """Further datasets, each a table with the keys of `datasets.augmentation.kinds.DataKind`; `train` has the
    share of clips that neither they nor synthetic sequences have. `sized` and `margin` need `kinds`."""
    sized: float = 0.0
    """Share of clips that are resized so that a target has a size drawn from `sizes`, 0 to 1."""
    sizes: tuple[float, float] = (4.0, 32.0)
    """Minimum and maximum size, the square root of a target's area in pixels, drawn log-uniformly."""
    margin: float = 0.0
    """Pixels between a target and its box on each side, which stay when clips are resized."""

    def __post_init__(self):
        require_range(self, "videos", "synthetic_videos", low=0)
        require_range(self, "synthetic_frames", low=1)
        require_range(self, "synthetic_share", "sized", low=0, high=1)
        require_range(self, "margin", low=0, high=32)
        if not 1 <= self.sizes[0] <= self.sizes[1] <= 1000:
            raise ValueError(f"sizes = {list(self.sizes)}, expected two from 1 to 1000, the smaller first")
        if self.kinds and (self.balance or not self.class_agnostic):
            raise ValueError("kinds have one class; set class_agnostic = true, balance = false")
        if self.kinds and (self.letterbox or self.enlarge != 1):
            raise ValueError("kinds are read at their own size; leave out letterbox and enlarge")
        if self.letterbox:
            _require_network_size("letterbox", self.letterbox)
        require_range(self, "enlarge", low=MIN_SCALE, high=MAX_SCALE)
        parse_scaling(self.scaling)
        if self.letterbox and self.enlarge != 1:
            raise ValueError("letterbox and enlarge are both given, expected one of the two")
        if self.balance and self.class_agnostic:
            raise ValueError("balance needs classes; set class_agnostic = false")


@dataclass(frozen=True)
class ObjectiveRecipe:
    """The loss."""

    kind: Literal["own", "soft-iou-focal"] = "own"
    """own: the network's published loss; soft-iou-focal, for segmenters: soft IoU per image plus focal loss,
    averaged over all supervised maps."""
    focal: float = 1.0
    """Weight of the focal loss, which is summed over the pixels of an image and divided by the number of
    target pixels."""
    quality: Literal["iou", "wasserstein"] = "iou"
    """Target of the class score of a box, for Tridos: its IoU, as published, or the Wasserstein similarity,
    which depends less on the size of the target."""

    def __post_init__(self):
        require_range(self, "focal", low=0)


@dataclass(frozen=True)
class Optimiser:
    """The optimiser."""

    name: Literal["adamw", "adam", "adagrad"] = "adamw"
    """adamw decouples weight decay from the gradient, the others add it to the gradient."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the averages of gradient and squared gradient; unused by adagrad."""
    eps: float = 1e-8
    """Added to the denominator of an update for numerical stability."""
    weight_decay: float = 0.01
    """Weight decay of parameters of two or more dimensions."""
    decay_all: bool = False
    """Apply weight decay to all parameters, including biases and the scales of normalisation layers."""
    clip_norm: float = 10.0
    """Maximum norm of the gradient, to which larger ones are scaled down; inf for no limit."""
    accumulate: int = 1
    """Number of batches whose gradients are averaged for one step; each has its own batch norm statistics."""

    def __post_init__(self):
        require_range(self, "eps", "weight_decay", low=0)
        require_range(self, "accumulate", low=1)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {list(self.betas)}, expected two from 0 to less than 1")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm = {self.clip_norm}, expected more than 0")


@dataclass(frozen=True)
class Schedule:
    """Number of steps, batches and learning rate."""

    steps: int = 3000
    """Optimiser steps."""
    batch: int = 8
    """Clips per batch, over all processes."""
    crop: tuple[int, int] = (256, 192)
    """Width and height of training crops, multiples of 32."""
    whole_share: float = 0.3
    """Share of the steps, at the end, that train on whole frames instead of crops, 0 to 1."""
    rule: Literal["cosine", "yolox", "network"] = "cosine"
    """cosine: linear warm-up from 0, then cosine decay; yolox: quadratic warm-up, cosine decay, constant end;
    network: as published with the segmenter, for epochs of as many clips as the split has frames."""
    rate: float = 1e-3
    """Peak learning rate."""
    final_rate: float = 1e-5
    """Learning rate at the last step; unused by network."""
    warmup: int = 150
    """Warm-up steps; unused by network."""
    warmup_rate: float = 0.0
    """Learning rate at the first step; yolox only."""
    level: int = 0
    """Number of last steps with the constant rate `final_rate`; yolox only."""
    rate_every: int = 1
    """Steps between two changes of the learning rate; yolox only."""
    ema: float = 0.998
    """Decay of the exponential moving average of the weights, which is validated and saved as best."""
    ema_ramp: float = 200.0
    """Number of updates after which that decay has reached 1 - 1/e of its value."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """fp32, or bf16 for automatic mixed precision."""
    chunked_attention: bool = False
    """Compute the window attention of Tridos in chunks, in float32: faster on a CPU, equal up to rounding."""
    seed: int = 0
    """Seed of initialisation and clip sampling."""

    def __post_init__(self):
        require_range(self, "steps", "batch", "rate_every", low=1)
        require_range(self, "rate", "final_rate", "warmup", "warmup_rate", "level", "ema_ramp", "seed", low=0)
        require_range(self, "whole_share", "ema", low=0, high=1)
        _require_network_size("crop", self.crop)
        for name, unused in (("warmup_rate", 0), ("level", 0), ("rate_every", 1)):
            if self.rule != "yolox" and getattr(self, name) != unused:
                raise ValueError(f"{name} = {getattr(self, name)} has no effect with rule '{self.rule}'")
        if self.warmup + self.level > self.steps and self.rule == "yolox":
            raise ValueError(
                f"warmup + level = {self.warmup + self.level}, expected at most {self.steps} steps"
            )


@dataclass(frozen=True)
class Record:
    """Outputs of a run."""

    output: str = "runs/train"
    """Folder for checkpoints, logs and weights."""
    log_every: int = 20
    """Steps between two lines of progress on standard output."""
    save_every: int = 100
    """Steps between two checkpoints; a stopped run resumes from the last one."""
    measure_every: int = 1000
    """Steps between two validations."""
    measure_stride: int = 25
    """Validate on every n-th annotated frame of each sequence."""

    def __post_init__(self):
        require_range(self, "log_every", "save_every", "measure_every", "measure_stride", low=1)
        if not self.output:
            raise ValueError("output is empty, expected a folder")


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: AugmentationOptions = field(default_factory=AugmentationOptions)
    objective: ObjectiveRecipe = field(default_factory=ObjectiveRecipe)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    record: Record = field(default_factory=Record)

    def __post_init__(self):
        if self.augment.transpose and self.schedule.whole_share > 0:
            raise ValueError("augment.transpose is for crops only; set schedule.whole_share = 0")
        if self.data.kinds and self.schedule.whole_share > 0:
            raise ValueError("data.kinds are for crops only; set schedule.whole_share = 0")
