"""The trainer: one training run in one folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from datasets.sequences.clips import Clip
from detectors.networks import registry
from detectors.networks.segmenters.base import Segmenter
from detectors.networks.tridos.swin import use_chunked_attention
from detectors.training import checkpoint
from detectors.training.data import Validation, batch_clips, training_clips
from detectors.training.distributed import (
    ProcessGroup,
    convert_sync_batchnorm,
    require_clip_per_process,
    require_same_step,
)
from detectors.training.logs.console import Console
from detectors.training.logs.run_log import RunLog, open_run_log
from detectors.training.optimisation import (
    ExponentialMovingAverage,
    build_optimiser,
    initialise_normal,
    learning_rate_schedule,
)
from detectors.training.recipe import Recipe
from detectors.training.tasks import Batch, task_for
from detectors.weights import fine_tuning, state_dict, zoo
from pipeline.config.parsing import dump_toml
from pipeline.system.errors import Interrupted, MoteError, UsageError, WeightsError
from pipeline.system.prefetch import prefetch
from pipeline.system.signals import StopRequest

if TYPE_CHECKING:
    from detectors.networks.registry import Network


logger = logging.getLogger(__name__)


class Trainer:
    """Trains a network by a recipe in one folder; resumes if the folder holds a checkpoint.

    Raises UsageError if the recipe does not fit the data or the checkpoint, WeightsError if the checkpoint
    is damaged, OutputError if the folder cannot be written, Interrupted after a signal.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        *,
        group: ProcessGroup | None = None,
        stop: StopRequest | None = None,
    ):
        self.recipe, self.device = recipe, device
        self.group, self.stop = group or ProcessGroup(), stop or StopRequest()
        self.folder = Path(recipe.record.output)
        require_clip_per_process(recipe.schedule.batch, self.group)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise checkpoint.write_error(self.folder, error) from error
        fresh = not (self.checkpoint.exists() or self.previous.exists())
        network = initial_network(recipe, load_init=fresh, notify=self._print)
        self.model = network.to(device)
        if recipe.schedule.chunked_attention:
            use_chunked_attention(self.model)
        convert_sync_batchnorm(self.model, self.group)
        self.task = task_for(self.model, recipe)
        self.average = ExponentialMovingAverage(
            self.model, decay=recipe.schedule.ema, ramp=recipe.schedule.ema_ramp
        )
        self.optimiser = build_optimiser(self.model, recipe.optimiser, rate=recipe.schedule.rate)
        self.steps_done, self.best, self.best_step = 0, 0.0, 0
        self._saved_step: int | None = None  # that of last.pt; None if there is none, or it is damaged
        self._resume()
        recipe = self.recipe  # resuming may have set its scaling
        require_same_step(self.steps_done, self.group, device)
        self.sampler = training_clips(
            recipe,
            self.stop,
            frames=self.model.frames,
            num_classes=self.model.num_classes,
            progress="auto" if self.group.is_main else "off",
        )
        self.learning_rate = learning_rate_schedule(recipe, frames=self.sampler.key_frames)
        if self.group.is_main:
            self.validation = Validation(recipe, self.stop)

    def _print(self, text: str) -> None:
        if self.group.is_main:
            print(text, flush=True)

    @property
    def checkpoint(self) -> Path:
        """The file that holds the state of the run."""
        return self.folder / "last.pt"

    @property
    def previous(self) -> Path:
        """The file that holds the state at an earlier step than the latest one."""
        return self.folder / "previous.pt"

    def _resume(self) -> None:
        """Loads the state of the run, or the one before it if that is damaged or missing."""
        if not self.previous.exists():
            if self.checkpoint.exists():
                self._load(self.checkpoint)
            return
        try:
            if not self.checkpoint.exists():
                raise checkpoint.missing(self.checkpoint, self.previous)
            self._load(self.checkpoint)
        except WeightsError as error:
            try:
                self._load(self.previous)
            except MoteError:
                raise error from None
            self._saved_step = None
            if self.group.is_main:
                reason = str(error).partition(";")[0]
                logger.warning("%s; the run goes on from %s, the one before it", reason, self.previous.name)

    def _load(self, path: Path) -> None:
        """Takes over the state in a checkpoint. Raises WeightsError if it is damaged."""
        state = checkpoint.load(path, asdict(self.recipe), device=self.device)
        scaling = checkpoint.with_defaults(state["recipe"])["data"]["scaling"]
        self.recipe = replace(self.recipe, data=replace(self.recipe.data, scaling=scaling))
        try:
            self.model.load_state_dict(state["model"])
            self.average.state, self.average.updates = state["average"], state["updates"]
            self.optimiser.load_state_dict(state["optimiser"])
            self.steps_done, self.best, self.best_step = state["step"], state["best"], state["best_step"]
        except Exception as error:  # the recipe is the same, but the contents do not fit the network
            raise checkpoint.not_a_checkpoint(path) from error
        self._saved_step = self.steps_done
        self._print(f"resuming from step {self.steps_done} of {path}")

    def _save(self) -> None:
        if not self.group.is_main:
            return
        state = {
            "recipe": asdict(self.recipe),
            "model": self.model.state_dict(),
            "average": self.average.state,
            "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(),
            "step": self.steps_done,
            "best": self.best,
            "best_step": self.best_step,
        }
        # one of the same step lacks what was found since, and a damaged one must not replace a valid one
        is_earlier = self._saved_step is not None and self._saved_step < self.steps_done
        checkpoint.save(state, self.checkpoint, previous=self.previous if is_earlier else None)
        self._saved_step = self.steps_done

    def run(self) -> None:
        """Trains to the last step; writes the checkpoints, best.safetensors, config.toml and the logs."""
        is_main, schedule = self.group.is_main, self.recipe.schedule
        names = {"terms": self.task.terms, "scores": self.task.scores}
        log = open_run_log(self.folder, step=self.steps_done, **names) if is_main else nullcontext()
        every = self.recipe.record.log_every
        console = Console(schedule.steps, done=self.steps_done, every=every, shown=is_main)
        try:
            with log as rows, console:
                if rows:
                    (self.folder / "config.toml").write_text(dump_toml(asdict(self.recipe)), encoding="utf-8")
                self._train(rows, console)
        except BrokenPipeError:  # of standard output: not an error of the folder
            raise
        except OSError as error:
            raise checkpoint.write_error(self.folder, error) from error

    def _train(self, log: RunLog | None, console: Console) -> None:
        """Takes the remaining steps; only the main process has a log."""
        steps, first_step = self.recipe.schedule.steps, self.steps_done
        self.model.train()
        self._validate_if_due(log, console)  # the validation of this step may have been interrupted
        self._stop_if_requested(log)
        with closing(prefetch(self._remaining_clips(), size=2, name="clips")) as clips:
            while self.steps_done < steps:
                terms = self.step(clips)
                if log:
                    log.write({"step": self.steps_done, "time": round(time.time(), 2), **terms})
                console.step(self.steps_done, {name: terms[name] for name in self.task.terms})
                self._validate_if_due(log, console)
                self._stop_if_requested(log)
                if self.steps_done % self.recipe.record.save_every == 0 or self.steps_done == steps:
                    self._save()
        best = f"{self.task.headline[1]} {self.best:.4f} at step {self.best_step}"
        path = self.folder / "best.safetensors"
        console.print(
            f"{self.steps_done - first_step} steps in {console.elapsed}; best weights: {best}, {path}"
        )

    def _remaining_clips(self) -> Iterator[list[Clip]]:
        """Yields this process's clips of each remaining batch."""
        indices = self.group.shard(self.recipe.schedule.batch)
        batches_per_step = self.recipe.optimiser.accumulate
        first, end = self.steps_done * batches_per_step, self.recipe.schedule.steps * batches_per_step
        for number in range(first, end):
            yield batch_clips(self.sampler, self.recipe, number, indices)

    def step(self, clips: Iterator[list[Clip]]) -> dict[str, float]:
        """Takes one step of the optimiser on the next batches of `clips`, one or more by `accumulate`.

        Returns the terms of the loss over all processes, the norm of the gradient, and the learning rate.
        Raises MoteError if the loss or the gradient is not finite. The hook for subclasses that do more
        before or after a step.
        """
        recipe = self.recipe.optimiser
        rate = self.learning_rate(self.steps_done)
        seed_step(self.recipe.schedule.seed, self.steps_done, self.group.rank)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        batches = [self.task.collate(next(clips), self.device) for _ in range(recipe.accumulate)]
        parts = [self._backward(batch) for batch in batches]
        own_terms = torch.tensor(parts).mean(dim=0).tolist()
        terms = self.group.all_gather(own_terms, self.device).sum(dim=0).tolist()
        self.group.all_reduce_gradients(self.model)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm).item()
        if not (math.isfinite(terms[0]) and math.isfinite(norm)):
            raise self._not_finite(batches)
        self.optimiser.step()
        self.average.update(self.model)
        self.steps_done += 1
        return {**dict(zip(self.task.terms, terms, strict=True)), "norm": norm, "rate": rate}

    def _backward(self, batch: Batch) -> list[float]:
        """Adds a batch's gradients to those of the step; returns this process's part of the terms."""
        half = self.recipe.schedule.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            outputs = self.model(*batch.inputs)
        loss, terms = self.task.loss(outputs, batch, self.group)
        (loss / self.recipe.optimiser.accumulate).backward()
        return terms

    def _not_finite(self, batches: list[Batch]) -> MoteError:
        """Saves the batches of the step and the weights before it; returns the error that names the file."""
        name = f"bad_batch_{self.group.rank}.pt" if self.group.rank else "bad_batch.pt"
        state = {
            "step": self.steps_done,
            "batches": [b._asdict() for b in batches],
            "model": self.model.state_dict(),
        }
        checkpoint.save(state, self.folder / name)
        return MoteError(
            f"loss or gradient not finite at step {self.steps_done}; "
            f"batch and weights are saved in {self.folder / name}"
        )

    def _stop_if_requested(self, log: RunLog | None) -> None:
        """Saves the state and raises Interrupted if any of the processes has received a signal."""
        signal = int(self.group.all_gather([self.stop.signal or 0], self.device).max())
        if signal:
            self._save()
            if log:
                log.plot()
            raise Interrupted(signal, f"step {self.steps_done} is saved; run the same command to resume")

    def _validate_if_due(self, log: RunLog | None, console: Console) -> None:
        """Validates the averaged weights and saves them if they are the best; a signal cuts it short."""
        record, last = self.recipe.record, self.steps_done == self.recipe.schedule.steps
        due = self.steps_done and (last or self.steps_done % record.measure_every == 0)
        if not due or log is None or log.has_validation(self.steps_done):
            return
        self._save()  # an error in the validation must not lose the steps before it
        model = registry.build(self.recipe.model.name, **self.recipe.model.options).to(self.device)
        model.load_state_dict(self.average.state)
        try:
            scores = self.task.measure(model, self.validation, stride=record.measure_stride)
        except Interrupted:  # raised again by `_stop_if_requested` in all processes; validated after resuming
            return
        headline = scores[self.task.headline[0]]
        if headline >= self.best:
            self.best, self.best_step = headline, self.steps_done
            metadata = {"recipe": asdict(self.recipe), "step": self.steps_done, "val": scores}
            state_dict.save(self.average.state, self.folder / "best.safetensors", metadata=metadata)
            self._save()  # before the log says that this step is validated
        log.write({"step": self.steps_done, "time": round(time.time(), 2), "val": scores})
        log.plot()
        console.print(f"step {self.steps_done}: validation {self.task.describe(scores)}")


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seeds torch for one training step of one process.

    The random numbers that the network draws, for example in dropout, then depend on nothing else: a resumed
    run draws the same ones, whatever was validated in between.
    """
    source = np.random.SeedSequence([seed, step, rank])
    torch.manual_seed(int(source.generate_state(1, np.uint64)[0]))


def initial_network(
    recipe: Recipe, *, load_init: bool = True, notify: Callable[[str], None] = lambda _: None
) -> Network:
    """Builds the network as it is before the first step, the same in all processes.

    With `load_init` false the weights of `model.init` are not read. `notify` is called with a line of text if
    only part of them fits the network. Raises UsageError if the recipe asks for published initial weights
    and the network has none, WeightsError if `model.init` cannot be read or does not fit.
    """
    torch.manual_seed(recipe.schedule.seed)
    model = registry.build(recipe.model.name, **recipe.model.options)
    if recipe.model.initialisation == "normal":
        initialise_normal(model)
    elif recipe.model.initialisation == "published":
        initialise = getattr(model, "initialise", None)
        if initialise is None:  # only two of the segmenters have one
            raise UsageError(
                f"'{recipe.model.name}' has no published initialisation; leave model.initialisation out"
            )
        initialise()
    if recipe.model.prior and isinstance(model, Segmenter):
        model.set_prior(recipe.model.prior)
    if load_init and recipe.model.init:
        remark = fine_tuning.initialise_from(model, zoo.locate_weights(recipe.model.init)[0])
        if remark:
            notify(remark)
    return model
