"""What turns gradients into better weights: start values, optimiser, learning rate, averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from detectors.networks import registry
from detectors.training.recipe import Optimiser, Recipe, Schedule
from pipeline.system.errors import UsageError

SPREAD = 0.02
"""Standard deviation of the normal initialisation."""


def rate_rule(recipe: Recipe, *, frames: int) -> Callable[[int], float]:
    """Step, counted from 0, → learning rate, where `frames` of the training split make an epoch.

    Raises UsageError where the network has no rule and is to have one.
    """
    schedule = recipe.schedule
    if schedule.rule != "network":
        return lambda step: learning_rate(step, schedule)
    published = registry.published_rate(recipe.model.name)
    if published is None:
        raise UsageError(
            f"'{recipe.model.name}' has no learning rate of its own; set schedule.rule = 'cosine'"
        )
    share = schedule.batch * recipe.optimiser.accumulate / frames  # of an epoch, in one step
    epochs = schedule.steps * share
    return lambda step: published(step * share, epochs=epochs, base=schedule.rate)


def learning_rate(step: int, schedule: Schedule) -> float:
    """The rate of a step, counted from 0, by the schedule's rule, which is not the network's."""
    return (_yolox if schedule.rule == "yolox" else _cosine)(step, schedule)


def _cosine(step: int, schedule: Schedule) -> float:
    """Linear rise over `warmup` steps, then half a cosine down to `final_rate` at the last step."""
    if step < schedule.warmup:
        return schedule.rate * (step + 1) / schedule.warmup
    return _half_cosine((step - schedule.warmup) / max(1, schedule.steps - 1 - schedule.warmup), schedule)


def _yolox(step: int, schedule: Schedule) -> float:
    """Quadratic rise from `warmup_rate`, half a cosine, `level` steps at the end; in stairs."""
    step -= step % schedule.rate_every
    if step >= schedule.steps - schedule.level:
        return schedule.final_rate
    if step <= schedule.warmup:
        risen = (step / schedule.warmup) ** 2 if schedule.warmup else 1.0
        return schedule.warmup_rate + (schedule.rate - schedule.warmup_rate) * risen
    return _half_cosine(
        (step - schedule.warmup) / (schedule.steps - schedule.level - schedule.warmup), schedule
    )


def _half_cosine(done: float, schedule: Schedule) -> float:
    return schedule.final_rate + (schedule.rate - schedule.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def make_optimiser(model: nn.Module, recipe: Optimiser, *, rate: float) -> torch.optim.Optimizer:
    """The optimiser of all parameters that learn; weight decay is where the recipe says."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    others = recipe.weight_decay if recipe.decay_all else 0.0
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": others},
    ]
    if recipe.name == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate, eps=recipe.eps)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[recipe.name]
    return kind(groups, lr=rate, betas=recipe.betas, eps=recipe.eps)


@torch.no_grad()
def initialise_normally(model: nn.Module) -> None:
    """Kernels of 2D convolutions from N(0, 0.02), batch norm scales from N(1, 0.02), its shifts 0."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.normal_(0, SPREAD)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(1, SPREAD)
            module.bias.zero_()


class ExponentialMovingAverage:
    """Exponential moving average of a model's floating-point state, slow to start with few updates.

    After `u` updates the decay is decay · (1 − exp(−u / ramp)); entries that count stay as they were.
    """

    def __init__(self, model: nn.Module, *, decay: float, ramp: float):
        self.decay, self.ramp, self.updates = decay, ramp, 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Take in the model's present weights."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / self.ramp)) if self.ramp else self.decay
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value.detach(), 1 - decay)
