"""How a detector learns: one training run in one folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from datasets.sequences.clips import Clip
from detectors.networks import registry
from detectors.networks.segmenters.base import Segmenter
from detectors.training import checkpoint
from detectors.training.data import Validation, batch_clips, training_clips
from detectors.training.detection_task import Batch
from detectors.training.distributed import ProcessGroup, join_batch_norms, require_parts, require_same_step
from detectors.training.logs.console import Console
from detectors.training.logs.run_log import RunLog, run_log
from detectors.training.optimisation import (
    ExponentialMovingAverage,
    initialise_normally,
    make_optimiser,
    rate_rule,
)
from detectors.training.recipe import Recipe
from detectors.training.segmentation_task import MaskBatch
from detectors.training.tasks import objective_for
from detectors.weights import fine_tuning, state_dict, zoo
from pipeline.config.parsing import dump_toml
from pipeline.system.errors import Interrupted, MoteError, UsageError
from pipeline.system.prefetch import prefetch
from pipeline.system.signals import StopRequest


class Trainer:
    """One training run in one folder, gone on with where the folder holds a checkpoint.

    Raises UsageError for a recipe that does not fit the data or the checkpoint, WeightsError for a checkpoint
    that is none, OutputError where the folder cannot be written, Interrupted after a signal.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        *,
        world: ProcessGroup | None = None,
        stop: StopRequest | None = None,
    ):
        self.recipe, self.device = recipe, device
        self.world, self.stop = world or ProcessGroup(), stop or StopRequest()
        self.folder = Path(recipe.record.output)
        require_parts(recipe.schedule.batch, self.world)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise checkpoint.cannot_write(self.folder, error) from error
        fresh = fresh_network(recipe, init=not self.checkpoint.exists(), say=self._say)
        self.model = fresh.to(device)
        join_batch_norms(self.model, self.world)
        self.objective = objective_for(self.model, recipe)
        self.average = ExponentialMovingAverage(
            self.model, decay=recipe.schedule.ema, ramp=recipe.schedule.ema_ramp
        )
        self.optimiser = make_optimiser(self.model, recipe.optimiser, rate=recipe.schedule.rate)
        self.step, self.best, self.best_step = 0, 0.0, 0
        self._resume()
        require_same_step(self.step, self.world, device)
        self.sampler = training_clips(
            recipe,
            self.stop,
            frames=self.model.frames,
            num_classes=self.model.num_classes,
            progress="auto" if self.world.first else "off",
        )
        self.rate = rate_rule(recipe, frames=self.sampler.key_frames)
        if self.world.first:
            self.validation = Validation(recipe, self.stop)

    def _say(self, text: str) -> None:
        if self.world.first:
            print(text, flush=True)

    @property
    def checkpoint(self) -> Path:
        """Where the state of the run is kept."""
        return self.folder / "last.pt"

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = checkpoint.load(self.checkpoint, asdict(self.recipe), device=self.device)
        try:
            self.model.load_state_dict(state["model"])
            self.average.state, self.average.updates = state["average"], state["updates"]
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        except Exception as error:  # the same recipe, but other contents
            raise checkpoint.no_checkpoint(self.checkpoint) from error
        self._say(f"going on from step {self.step} of {self.checkpoint}")

    def _save(self) -> None:
        if not self.world.first:
            return
        state = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "average": self.average.state,
            "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
        }
        checkpoint.save(state, self.checkpoint)

    def run(self) -> None:
        """Train to the last step, writing last.pt, best.safetensors and the logs."""
        first, record = self.world.first, self.recipe.record
        names = {"terms": self.objective.terms, "scores": self.objective.scores}
        log = run_log(self.folder, step=self.step, **names) if first else nullcontext()
        console = Console(
            self.recipe.schedule.steps, done=self.step, every=record.log_every, shown=self.world.first
        )
        try:
            with log as rows, console:
                if rows:
                    (self.folder / "config.toml").write_text(dump_toml(asdict(self.recipe)), encoding="utf-8")
                self._train(rows, console)
        except BrokenPipeError:  # of standard output
            raise
        except OSError as error:
            raise checkpoint.cannot_write(self.folder, error) from error

    def _train(self, log: RunLog | None, console: Console) -> None:
        """All steps that are left; only the first process has a log."""
        steps, started = self.recipe.schedule.steps, self.step
        self.model.train()
        self._measure_if_due(log, console)  # what an interruption may have kept from being measured
        self._end_if_asked(log)
        with closing(prefetch(self._coming_clips(), size=2, name="clips")) as coming:
            while self.step < steps:
                terms = self._train_step(coming)
                if log:
                    log.write({"step": self.step, "time": round(time.time(), 2), **terms})
                console.step(self.step, {name: terms[name] for name in self.objective.terms})
                self._measure_if_due(log, console)
                self._end_if_asked(log)
                if self.step % self.recipe.record.save_every == 0 or self.step == steps:
                    self._save()
        best = f"{self.objective.headline[1]} {self.best:.4f} at step {self.best_step}"
        place = self.folder / "best.safetensors"
        console.say(f"{self.step - started} steps in {console.elapsed}; best weights: {best}, {place}")

    def _coming_clips(self) -> Iterator[list[Clip]]:
        """This process's clips of all batches to come."""
        places = self.world.share(self.recipe.schedule.batch)
        parts = self.recipe.optimiser.accumulate
        for number in range(self.step * parts, self.recipe.schedule.steps * parts):
            yield batch_clips(self.sampler, self.recipe, number, places)

    def _train_step(self, coming: Iterator[list[Clip]]) -> dict[str, float]:
        """One step of the optimiser; returns the terms of the loss, the gradient's norm, and the rate."""
        recipe = self.recipe.optimiser
        rate = self.rate(self.step)
        self._seed_the_step()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        batches = [self.objective.collate(next(coming), self.device) for _ in range(recipe.accumulate)]
        parts = [self._backward(batch) for batch in batches]
        terms = self.world.gather(torch.tensor(parts).mean(dim=0).tolist(), self.device).sum(dim=0).tolist()
        self.world.sum_gradients(self.model)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm).item()
        if not (math.isfinite(terms[0]) and math.isfinite(norm)):
            raise self._not_finite(batches)
        self.optimiser.step()
        self.average.update(self.model)
        self.step += 1
        return {**dict(zip(self.objective.terms, terms, strict=True)), "norm": norm, "rate": rate}

    def _seed_the_step(self) -> None:
        """Let what the network draws, as dropout does, depend on seed, step and process alone.

        So a run that goes on draws what it would have drawn, whatever was measured in between.
        """
        source = np.random.SeedSequence([self.recipe.schedule.seed, self.step, self.world.rank])
        torch.manual_seed(int(source.generate_state(1, np.uint64)[0]))

    def _backward(self, batch: Batch | MaskBatch) -> list[float]:
        """Add a batch's gradients to those of the step; returns this process's part of the terms."""
        half = self.recipe.schedule.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            outputs = self.model(*batch.inputs)
        loss, terms = self.objective.loss(outputs, batch, self.world)
        (loss / self.recipe.optimiser.accumulate).backward()
        return terms

    def _not_finite(self, batches: list[Batch] | list[MaskBatch]) -> MoteError:
        """Keep what led to numbers that are none: the batches of the step, and the weights before it."""
        name = f"bad_batch_{self.world.rank}.pt" if self.world.rank else "bad_batch.pt"
        state = {
            "step": self.step,
            "batches": [b._asdict() for b in batches],
            "model": self.model.state_dict(),
        }
        checkpoint.save(state, self.folder / name)
        return MoteError(
            f"loss or gradient not finite at step {self.step}; batch and weights kept in {self.folder / name}"
        )

    def _end_if_asked(self, log: RunLog | None) -> None:
        """Keep everything and raise Interrupted once any of the processes has received a signal."""
        signal = int(self.world.gather([self.stop.signal or 0], self.device).max())
        if signal:
            self._save()
            if log:
                log.draw()
            raise Interrupted(signal, f"step {self.step} is kept, and the same command goes on from there")

    def _measure_if_due(self, log: RunLog | None, console: Console) -> None:
        """Measure the averaged weights, and keep them if they are the best so far, unless a signal comes."""
        record, last = self.recipe.record, self.step == self.recipe.schedule.steps
        due = self.step and (last or self.step % record.measure_every == 0)
        if not (due and log) or log.measured(self.step):
            return
        self._save()  # a measurement that fails must not cost the steps before it
        model = registry.build(self.recipe.model.name, **self.recipe.model.options).to(self.device)
        model.load_state_dict(self.average.state)
        try:
            scores = self.objective.measure(model, self.validation, stride=record.measure_stride)
        except Interrupted:  # all processes end together, and this one measures when it goes on
            return
        headline = scores[self.objective.headline[0]]
        if headline >= self.best:
            self.best, self.best_step = headline, self.step
            facts = {"recipe": asdict(self.recipe), "step": self.step, "val": scores}
            state_dict.save(self.average.state, self.folder / "best.safetensors", metadata=facts)
        log.write({"step": self.step, "time": round(time.time(), 2), "val": scores})
        log.draw()
        console.say(f"step {self.step}: validation {self.objective.told(scores)}")


def fresh_network(
    recipe: Recipe, *, init: bool = True, say: Callable[[str], None] = lambda _: None
) -> nn.Module:
    """The network as it is before the first step, alike in all processes; without `init` no file is read.

    `say` takes what a user should know of the weights that were read.
    """
    torch.manual_seed(recipe.schedule.seed)
    model = registry.build(recipe.model.name, **recipe.model.options)
    if recipe.model.initialisation == "normal":
        initialise_normally(model)
    elif recipe.model.initialisation == "published":
        if not hasattr(model, "initialise"):  # of the segmenters two have such
            raise UsageError(
                f"'{recipe.model.name}' has no published start values; leave model.initialisation"
            )
        model.initialise()
    if recipe.model.prior and isinstance(model, Segmenter):
        model.set_prior(recipe.model.prior)
    if init and recipe.model.init:
        remark = fine_tuning.start_from(model, zoo.locate(recipe.model.init)[0])
        if remark:
            say(remark)
    return model
