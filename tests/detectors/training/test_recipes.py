"""The supplied training configurations, and the schedules and optimisers they define."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace

import pytest
import torch

from datasets.layouts.registry import LAYOUTS
from detectors import DETECTORS, SEGMENTERS
from detectors.training.optimisation import (
    ExponentialMovingAverage,
    build_optimiser,
    initialise_normal,
    learning_rate,
    learning_rate_schedule,
)
from detectors.training.recipe import Optimiser, Recipe, Schedule
from pipeline.config.parsing import build, dump_toml, load_toml
from pipeline.system.errors import UsageError
from tests.conftest import PROJECT_ROOT

CONFIGS = PROJECT_ROOT / "configs"
TRAINING = sorted(path.name for path in CONFIGS.glob("*.toml") if path.name != "default.toml")


def recipe(name) -> Recipe:
    return build(Recipe, load_toml(CONFIGS / name))


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_configuration_is_valid_and_names_existing_networks_and_splits(name):
    found = recipe(name)
    assert found.model.name in DETECTORS
    assert {found.data.train, found.data.val} <= LAYOUTS[found.data.layout].splits.keys()


@pytest.mark.parametrize("name", TRAINING)
def test_a_written_recipe_is_read_back_unchanged(name, tmp_path):
    (tmp_path / "config.toml").write_text(dump_toml(asdict(recipe(name))))
    assert build(Recipe, load_toml(tmp_path / "config.toml")) == recipe(name)


# Learning rates


def test_the_rate_warms_up_then_decays_along_a_cosine():
    schedule = Schedule(steps=101, warmup=10, rate=1.0, final_rate=0.1)
    rates = [learning_rate(step, schedule) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert all(earlier >= later for earlier, later in itertools.pairwise(rates[10:]))


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (0, 6.25e-5),
        (1, 1.25e-4),  # 6.25e-5 + 5.625e-4 / 9
        (2, 3.125e-4),  # 6.25e-5 + 5.625e-4 · 4 / 9
        (3, 6.25e-4),
        (26, 5.3438616e-4),  # a quarter of the half cosine: 6.25e-6 + 3.09375e-4 · (1 + 0.70710678)
        (49, 3.15625e-4),  # half of it
        (72, 9.6863840e-5),  # 6.25e-6 + 3.09375e-4 · (1 − 0.70710678)
        (
            94,
            6.4303587e-6,
        ),  # the last one before the constant end: 6.25e-6 + 3.09375e-4 · (1 + cos(π · 91 / 92))
        (95, 6.25e-6),
        (99, 6.25e-6),
    ],
)
def test_the_paper_s_recipe_has_the_paper_s_learning_rates(epoch, rate):
    schedule = recipe("tridos_paper.toml").schedule
    first, last = 449 * epoch, 449 * epoch + 448
    assert learning_rate(first, schedule) == pytest.approx(rate, rel=1e-7)
    assert learning_rate(last, schedule) == learning_rate(first, schedule)
    assert last < schedule.steps


def test_without_warm_up_the_paper_s_rule_starts_at_the_peak_rate():
    schedule = Schedule(rule="yolox", steps=10, warmup=0, rate=1.0, final_rate=0.5)
    assert learning_rate(0, schedule) == 1.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"level": 3}, "level = 3 has no effect with rule 'cosine'"),
        ({"warmup_rate": 0.1}, "warmup_rate = 0.1 has no effect with rule 'cosine'"),
        ({"rate_every": 7}, "rate_every = 7 has no effect with rule 'cosine'"),
        (
            {"rule": "yolox", "steps": 99, "level": 40, "warmup": 60},
            "warmup + level = 100, expected at most 99",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_schedule_that_contradicts_itself_is_refused(values, said):
    with pytest.raises(UsageError, match=r"section 'schedule'") as error:
        build(Recipe, {"schedule": values})
    assert said in str(error.value)


# The rest of the paper's recipe


def test_the_paper_s_recipe_augments_no_clip():
    augment = recipe("tridos_paper.toml").augment
    assert not any(value for name, value in asdict(augment).items() if name.endswith("_share"))
    assert (augment.flip, augment.scale, augment.gain, augment.offset) == (False, (1, 1), 1, 0)
    assert (augment.strides, augment.shift) == ((1,), 0)


def test_the_paper_s_optimiser_is_adam_without_decay():
    found = build_optimiser(torch.nn.Linear(2, 2), recipe("tridos_paper.toml").optimiser, rate=0.5)
    assert type(found) is torch.optim.Adam
    assert [(g["lr"], g["betas"], g["weight_decay"]) for g in found.param_groups] == [
        (0.5, (0.937, 0.999), 0)
    ] * 2


def test_weight_decay_applies_to_trainable_matrices_only():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1).requires_grad_(False))
    found = build_optimiser(network, Optimiser(weight_decay=0.3), rate=0.1)
    assert type(found) is torch.optim.AdamW
    decays = [
        (group["weight_decay"], [list(p.shape) for p in group["params"]]) for group in found.param_groups
    ]
    assert decays == [(0.3, [[2, 3]]), (0.0, [[2]])]


def test_normal_initialisation_changes_kernels_and_batch_norms():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(50, 60, 3), torch.nn.BatchNorm2d(4000))
    initialise_normal(network)
    kernel, scale = network[0].weight, network[1].weight
    assert (kernel.mean().item(), kernel.std().item()) == pytest.approx((0, 0.02), abs=1e-3)
    assert (scale.mean().item(), scale.std().item()) == pytest.approx((1, 0.02), abs=2e-3)
    assert not network[1].bias.any()


def test_an_average_follows_the_weights_and_keeps_counters():
    model = torch.nn.BatchNorm1d(2)
    average = ExponentialMovingAverage(model, decay=0.5, ramp=200)
    model.weight.data.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    for _ in range(3000):
        average.update(model)
    assert average.state["weight"] == pytest.approx(torch.full((2,), 3.0))
    assert average.state["num_batches_tracked"] == 0


@pytest.mark.parametrize(("ramp", "kept"), [(2000.0, 0.9999 * 4.9987502e-4), (0.0, 0.9999)])
def test_the_first_update_of_an_average_has_the_decay_of_the_ramp(ramp, kept):
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = ExponentialMovingAverage(model, decay=0.9999, ramp=ramp)
    model.weight.data.fill_(0.0)
    average.update(model)
    assert average.state["weight"].item() == pytest.approx(kept, rel=1e-3)


# The recipes of the segmenters


@pytest.mark.parametrize("name", SEGMENTERS)
def test_each_segmenter_has_the_recipe_of_its_paper(name):
    found = recipe(f"sirst_{name}_paper.toml")
    assert (found.model.name, found.objective.kind, found.schedule.rule) == (name, "own", "network")
    assert (found.augment.scale, found.augment.paste_share, found.augment.noise_share) == ((1, 1), 0, 0)


@pytest.mark.parametrize(
    ("name", "epoch", "rate"),
    [
        ("rdian", 0, 0.005),
        ("rdian", 299, 1e-6 + 0.004999 * (2 / 301) ** 0.9),
        ("madnet", 0, 3e-4 / 5),
        ("madnet", 6, 3e-4 * (1 - 1 / 1500) ** 0.9),
        ("drtenet", 3, 3e-4 * 3 / 5),
        ("datransnet", 199, 5e-4),
        ("datransnet", 200, 5e-5),
        ("dconet", 100, 1e-4 * 0.75**0.9),
        ("dstransnet", 0, 0),
        ("dstransnet", 10, 1e-3),
    ],
)
def test_a_segmenter_s_rate_is_that_of_its_paper_at_the_epoch(name, epoch, rate):
    found = recipe(f"sirst_{name}_paper.toml")
    rule = learning_rate_schedule(found, frames=256)
    step = epoch * 256 // found.schedule.batch
    assert rule(step) == pytest.approx(rate, rel=1e-9)


def test_the_network_s_rule_counts_epochs_by_clips():
    found = recipe("sirst_dconet_paper.toml")
    half = replace(found, schedule=replace(found.schedule, steps=6400))
    assert learning_rate_schedule(half, frames=256)(3200) == pytest.approx(
        learning_rate_schedule(found, frames=256)(6400)
    )


def test_other_rules_do_not_depend_on_epochs():
    found = recipe("sirst_shared.toml")
    assert learning_rate_schedule(found, frames=1)(700) == learning_rate(700, found.schedule)


def test_rdian_s_optimiser_is_adagrad_with_decay_on_everything():
    found = build_optimiser(torch.nn.Linear(2, 2), recipe("sirst_rdian_paper.toml").optimiser, rate=0.005)
    assert type(found) is torch.optim.Adagrad
    assert [(g["lr"], g["weight_decay"], g["eps"]) for g in found.param_groups] == [(0.005, 1e-4, 1e-10)] * 2


def test_whole_frames_cannot_be_transposed():
    with pytest.raises(UsageError, match="transpose is for crops only"):
        build(Recipe, {"augment": {"transpose": True}})
