"""Initialisation, optimiser, learning rate schedule and averaged weights of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from detectors.networks import registry
from detectors.training.recipe import Optimiser, Recipe, Schedule
from pipeline.system.errors import UsageError

INIT_STD = 0.02
"""Standard deviation of the normal initialisation."""


def learning_rate_schedule(recipe: Recipe, *, frames: int) -> Callable[[int], float]:
    """Returns the function from step, counted from 0, to learning rate; an epoch has `frames` clips.

    Raises UsageError if the recipe asks for the network's published rule and there is none.
    """
    schedule = recipe.schedule
    if schedule.rule != "network":
        return lambda step: learning_rate(step, schedule)
    published = registry.published_rate(recipe.model.name)
    if published is None:
        raise UsageError(
            f"'{recipe.model.name}' has no published learning rate; set schedule.rule = 'cosine'"
        )
    epochs_per_step = schedule.batch * recipe.optimiser.accumulate / frames
    epochs = schedule.steps * epochs_per_step
    return lambda step: published(step * epochs_per_step, epochs=epochs, base=schedule.rate)


def learning_rate(step: int, schedule: Schedule) -> float:
    """Returns the rate of a step, counted from 0, by the rule `yolox` or `cosine` of the schedule."""
    return (_yolox if schedule.rule == "yolox" else _cosine)(step, schedule)


def _cosine(step: int, schedule: Schedule) -> float:
    """Linear warm-up over `warmup` steps, then half a cosine down to `final_rate` at the last step."""
    if step < schedule.warmup:
        return schedule.rate * (step + 1) / schedule.warmup
    return _half_cosine((step - schedule.warmup) / max(1, schedule.steps - 1 - schedule.warmup), schedule)


def _yolox(step: int, schedule: Schedule) -> float:
    """Quadratic warm-up from `warmup_rate`, half a cosine, then `level` steps at `final_rate`.

    The rate changes at every `rate_every`-th step (YOLOX, arXiv 2107.08430).
    """
    step -= step % schedule.rate_every
    if step >= schedule.steps - schedule.level:
        return schedule.final_rate
    if step <= schedule.warmup:
        progress = (step / schedule.warmup) ** 2 if schedule.warmup else 1.0
        return schedule.warmup_rate + (schedule.rate - schedule.warmup_rate) * progress
    return _half_cosine(
        (step - schedule.warmup) / (schedule.steps - schedule.level - schedule.warmup), schedule
    )


def _half_cosine(progress: float, schedule: Schedule) -> float:
    """Returns the rate at `progress` (0 to 1) of the decay from `rate` to `final_rate`."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.final_rate + (schedule.rate - schedule.final_rate) * cosine


def build_optimiser(model: nn.Module, recipe: Optimiser, *, rate: float) -> torch.optim.Optimizer:
    """Builds the optimiser of all parameters that require gradients.

    Weight decay applies to parameters of two or more dimensions, with `decay_all` to all.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    others = recipe.weight_decay if recipe.decay_all else 0.0
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": others},
    ]
    if recipe.name == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate, eps=recipe.eps)
    optimiser = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.name]
    return optimiser(groups, lr=rate, betas=recipe.betas, eps=recipe.eps)


@torch.no_grad()
def initialise_normal(model: nn.Module) -> None:
    """Draws kernels of 2D convolutions from N(0, 0.02²), batch norm scales from N(1, 0.02²); shifts are 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(0, INIT_STD)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(1, INIT_STD)
            module.bias.zero_()


class ExponentialMovingAverage:
    """Exponential moving average of a model's floating-point state, with a decay that ramps up.

    After `u` updates the decay is decay · (1 − exp(−u / ramp)). Integer entries keep their first value.
    """

    def __init__(self, model: nn.Module, *, decay: float, ramp: float):
        self.decay, self.ramp, self.updates = decay, ramp, 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Updates the average by the current weights of the model."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp)) if self.ramp else self.decay
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value.detach(), 1 - decay)
