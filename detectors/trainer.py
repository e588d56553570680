"""How a detector learns: the schedule, the averaged weights, and one training run in one folder."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

import detectors
from datasets.clips import Clip, ClipSampler, Sequence, read_sequence, synthetic_sequences
from datasets.records import load_coco, video_records
from detectors import weights
from detectors.losses import detection_loss
from detectors.measure import measure
from detectors.recipe import EDGE, Recipe, Schedule
from pipeline.boxes import to_centres
from pipeline.errors import MoteError, OutputError, UsageError, WeightsError
from pipeline.evaluate import Scores
from pipeline.normalise import to_network_input

SYNTHETIC_SEED = 1_000_003  # synthetic scenes must not share seeds with those of tests and demo


def learning_rate(step: int, schedule: Schedule) -> float:
    """Linear rise over `warmup` steps, then half a cosine down to `final_rate` at the last step."""
    if step < schedule.warmup:
        return schedule.rate * (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - 1 - schedule.warmup)
    return schedule.final_rate + (schedule.rate - schedule.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(model: nn.Module, decay: float) -> list[dict]:
    """Weight decay on kernels and matrices only; parameters that are frozen do not take part."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


class Average:
    """Exponential moving average of a model's floating-point state, slow to start with few updates."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Take in the model's present weights."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / 200))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value.detach(), 1 - decay)


def collate(clips: list[Clip], device: torch.device) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Clips of one size → (B, 3, T, H, W) network input, boxes as centre x, y, width, height, and labels."""
    frames = to_network_input([f for clip in clips for f in clip.frames], device=device)
    frames = frames.unflatten(0, (len(clips), -1)).transpose(1, 2)
    boxes = [torch.from_numpy(to_centres(c.boxes).astype(np.float32)).to(device) for c in clips]
    return frames, boxes, [torch.from_numpy(c.labels).to(device) for c in clips]


def first_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first key, dotted, in which two nested tables differ, with both values; None where they agree."""
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, dict) and isinstance(other, dict):
            if inner := first_difference(mine, other):
                return f"{key}.{inner[0]}", *inner[1:]
        elif mine != other:
            return key, mine, other
    return None


class Trainer:
    """One training run in one folder, gone on with where the folder holds a checkpoint.

    Raises UsageError for a recipe that does not fit the data or the checkpoint, WeightsError for a checkpoint
    that is none, OutputError where the folder cannot be written.
    """

    def __init__(self, recipe: Recipe, device: torch.device):
        self.recipe, self.device = recipe, device
        self.folder = Path(recipe.record.output)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritten(error) from error
        torch.manual_seed(recipe.schedule.seed)
        self.model = detectors.build(recipe.model.name, **recipe.model.options).to(device)
        if recipe.model.init:
            weights.load(self.model, weights.locate(recipe.model.init)[0])
        # Left out of training as in the published one: gamma stays 0, and the block costs nothing.
        self.model.neck.nolocal.requires_grad_(False)
        self.average = Average(self.model, recipe.schedule.ema)
        groups = parameter_groups(self.model, recipe.schedule.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.schedule.rate)
        self.step, self.best = 0, 0.0
        self._resume()
        self._read_data()

    def _read_data(self) -> None:
        data, root = self.recipe.data, Path(self.recipe.data.root)
        train = video_records(load_coco(root / data.train))
        train = train[: data.videos or None]
        self.val_truth = load_coco(root / data.val)
        self.val_records = video_records(self.val_truth)[: data.videos or None]
        print(f"reading {len(train)} training and {len(self.val_records)} validation videos", flush=True)
        read = [read_sequence(record, root) for record in train]
        self.val_sequences = [read_sequence(record, root) for record in self.val_records]
        if data.class_agnostic:
            read = [
                Sequence(s.name, s.frames, s.boxes, tuple(np.zeros_like(labels) for labels in s.labels))
                for s in read
            ]
        self._check_data(read)
        synthetic = synthetic_sequences(
            data.synthetic_videos,
            frames=data.synthetic_frames,
            seed=SYNTHETIC_SEED + self.recipe.schedule.seed,
            width=train[0].width,
            height=train[0].height,
        )
        self.sampler = ClipSampler(
            read,
            synthetic if data.synthetic_share > 0 else [],
            length=self.model.frames,
            synthetic_share=data.synthetic_share,
            seed=self.recipe.schedule.seed,
        )

    def _check_data(self, sequences: list[Sequence]) -> None:
        """Raise UsageError for labels or frames that the network cannot take."""
        classes = 1 + max(
            (int(labels.max()) for s in sequences for labels in s.labels if len(labels)), default=0
        )
        if classes > self.model.num_classes:
            raise UsageError(
                f"the annotations have {classes} classes, the network {self.model.num_classes}; "
                "set model.options.num_classes or data.class_agnostic"
            )
        sizes = sorted({s.frames.shape[:0:-1] for s in sequences})
        fits = len(sizes) == 1 and not any(side % EDGE for side in sizes[0])
        if self.recipe.schedule.whole_share > 0 and not fits:
            named = ", ".join(f"{width}x{height}" for width, height in sizes[:3])
            raise UsageError(
                f"whole frames need one size of multiples of {EDGE}, the videos are {named}; "
                "set schedule.whole_share=0 to train on crops alone"
            )

    @property
    def checkpoint(self) -> Path:
        """Where the state of the run is kept."""
        return self.folder / "last.pt"

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        try:
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            differing = first_difference(self._lasting(asdict(self.recipe)), self._lasting(state["recipe"]))
            if differing is None:
                self.model.load_state_dict(state["model"])
                self.average.state, self.average.updates = state["average"], state["updates"]
                self.optimiser.load_state_dict(state["optimiser"])
                self.step, self.best = state["step"], state["best"]
        except Exception as error:  # torch raises many kinds for bad bytes
            raise WeightsError(
                f"{self.checkpoint} is damaged or not a checkpoint of this trainer; "
                "delete it or choose another record.output"
            ) from error
        if differing:
            key, ours, theirs = differing
            raise UsageError(
                f"{self.checkpoint} was made with {key} = {theirs!r}, not {ours!r}; "
                "choose another record.output"
            )
        print(f"going on from step {self.step} of {self.checkpoint}", flush=True)

    @staticmethod
    def _lasting(recipe: dict[str, Any]) -> dict[str, Any]:
        """What must not change while a run is going on: all but what it leaves behind."""
        return {section: values for section, values in recipe.items() if section != "record"}

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "average": self.average.state,
            "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "best": self.best,
        }
        partial = self.checkpoint.with_suffix(".part")
        try:
            torch.save(state, partial)
            partial.replace(self.checkpoint)
        except (OSError, RuntimeError) as error:  # torch reports a full disk in an error of its own
            raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        return OutputError(f"cannot write {self.folder}: {reason}; choose another record.output")

    def _cut_log(self) -> None:
        """Take the steps since the checkpoint out of the log: they are lost and will be done again."""
        log = self.folder / "log.jsonl"
        if not log.exists():
            return
        # a step is one line, from the first on; the last one may have been cut off in its middle
        kept = log.read_bytes().splitlines(keepends=True)[: self.step]
        partial = log.with_suffix(".part")
        partial.write_bytes(b"".join(kept))
        partial.replace(log)

    def _train_step(self) -> dict[str, float]:
        schedule = self.recipe.schedule
        whole = self.step >= schedule.steps * (1 - schedule.whole_share)
        clips = self.sampler.batch(self.step, size=schedule.batch, crop_size=None if whole else schedule.crop)
        frames, boxes, labels = collate(clips, self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, schedule)
        half = schedule.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            raw = self.model(frames)
        loss = detection_loss(raw, boxes, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.schedule.clip_norm)
        if not (math.isfinite(loss.total.item()) and math.isfinite(norm.item())):
            torch.save({"frames": frames, "boxes": boxes, "labels": labels}, self.folder / "bad_batch.pt")
            raise MoteError(f"loss or gradient not finite at step {self.step}; batch kept in {self.folder}")
        self.optimiser.step()
        self.average.update(self.model)
        self.step += 1
        cells = max(loss.foreground, 1)
        return {
            "loss": loss.total.item(),
            "ciou": loss.ciou_sum.item() / cells,
            "objectness": loss.objectness_sum.item() / cells,
            "norm": norm.item(),
        }

    def _measure(self, stride: int) -> Scores:
        model = detectors.build(self.recipe.model.name, **self.recipe.model.options).to(self.device)
        model.load_state_dict(self.average.state)
        scores = measure(model, self.val_records, self.val_sequences, self.val_truth, stride=stride)
        if scores.ap50 >= self.best:
            self.best = scores.ap50
            facts = {"recipe": asdict(self.recipe), "step": self.step, "val": scores.as_dict()}
            weights.save(self.average.state, self.folder / "best.safetensors", metadata=facts)
        return scores

    def run(self) -> None:
        """Train to the last step, writing log.jsonl, last.pt and best.safetensors."""
        try:
            self._cut_log()
            with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                self._train(log)
        except BrokenPipeError:  # of standard output
            raise
        except OSError as error:
            raise self._unwritten(error) from error

    def _train(self, log: TextIO) -> None:
        record, steps = self.recipe.record, self.recipe.schedule.steps
        started, first = time.monotonic(), self.step
        self.model.train()
        while self.step < steps:
            row = {"step": self.step + 1, **self._train_step()}
            if self.step % record.measure_every == 0 or self.step == steps:
                row["val"] = self._measure(record.measure_stride).as_dict()
                print(f"step {self.step}: val {row['val']}", flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
            if self.step % record.log_every == 0:
                pace = (time.monotonic() - started) / (self.step - first)
                left = pace * (steps - self.step) / 60
                losses = ", ".join(f"{name} {row[name]:.3f}" for name in ("loss", "ciou", "objectness"))
                where = f"step {self.step}/{steps}"
                print(f"{where}: {losses}, {pace:.2f} s/step, {left:.0f} min left", flush=True)
            if self.step % record.save_every == 0 or self.step == steps:
                self._save()
