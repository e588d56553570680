"""DCONet has the state dict, outputs, training behaviour, loss and schedule of the published network."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch

from detectors.networks.segmenters.dconet import DCONet, GatedUnit, learning_rate
from detectors.networks.segmenters.dconet_background import DilatedMixture
from tests.detectors.networks.segmenters.reference_arrays import (
    arrays_of,
    filled,
    keys_of,
    largest_error,
    published_keys,
    record,
)

GAIN = 0.62  # with 1 the reference weights overflow
UNET = "decos.0.lowrank.unet"
MODULES = {
    "stage0.unet.conv_in": (f"{UNET}.conv_in", (2, 6, 5)),
    "stage0.unet.e1.skip": (f"{UNET}.e1.bn", (2, 6, 5)),
    "stage0.unet.e1": (f"{UNET}.e1", (4, 3, 3)),
    "stage0.unet.e5.skip": (f"{UNET}.e5.bn", (32, 1, 1)),
    "stage0.unet.e5": (f"{UNET}.e5", (64, 1, 1)),
    "stage0.unet.b5.mdcr": (f"{UNET}.b5.mdcr", (64, 1, 1)),
    "stage0.unet.b5.att": (f"{UNET}.b5.att", (64, 1, 1)),
    "stage0.unet.d5": (f"{UNET}.d5", (32, 1, 1)),
    "stage0.unet.d1": (f"{UNET}.d1", (2, 6, 5)),
    **{f"stage{k}.B": (f"decos.{k}.lowrank.unet", (1, 2, 2)) for k in range(5)},
    **{f"stage{k}.D": (f"decos.{k}.merge.mapping", (1, 2, 2)) for k in range(5)},
    **{f"stage{k}.h": (f"decos.{k}.sparse.conv_out", (1, 2, 2)) for k in range(5)},
    **{f"stage{k}.c": (f"decos.{k}.sparse", (4, 6, 5)) for k in range(5)},
}
"""Name in dconet.npz → submodule, strides of channels, rows and columns."""
PICK = {"stage0.unet.e1": 0, **{f"stage{k}.c": 1 for k in range(5)}, "stage0.unet.e5": 0}
"""Of modules with several outputs the one that is stored."""


@pytest.fixture(scope="module")
def model(parity):
    return filled(DCONet(), parity, gain=GAIN)


@pytest.fixture(scope="module")
def frames(parity):
    return parity.make_input("dconet-96", (1, 1, 96, 96))


@pytest.fixture(scope="module")
def whole(shared_root):
    return arrays_of(shared_root, "dconet")


@pytest.fixture(scope="module")
def seen(model, frames):
    found = record(model, {name: path for name, (path, _) in MODULES.items()}, frames)
    return {name: x[PICK[name]] if name in PICK else x for name, x in found.items()}


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    return largest_error(found, expected) / float(np.abs(expected).max())


# The published network


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("stages", "table"), [(5, "dconet"), (6, "dconet.stage6"), (7, "dconet.stage7")], ids=["5", "6", "7"]
)
def test_names_shapes_and_dtypes_are_those_of_the_published_network(stages, table, shared_root):
    model = DCONet(stage_num=stages)
    assert keys_of(model) == published_keys(shared_root, table)
    assert DCONet.infer_options(model.state_dict()) == {"stage_num": stages}


@pytest.mark.real_data
@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_what_the_published_one_gives(name, seen, whole):
    channels, rows, columns = MODULES[name][1]
    found = seen[name]
    assert relative_error(found[:, ::channels, ::rows, ::columns], whole[name]) < 5e-5


@pytest.mark.real_data
def test_image_and_target_are_the_published_ones(seen, frames, whole):
    assert float(frames.double().sum()) == pytest.approx(float(whole["input_sums"][0]))
    image, target = seen["result"]
    assert relative_error(image, whole["D"]) < 5e-5
    assert relative_error(target, whole["T"]) < 5e-5


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "path"), [("unit.mdcr", "mdcr"), ("unit.att", "att")])
def test_the_bottleneck_gives_what_the_published_one_gives_on_a_larger_map(name, path, model, parity, whole):
    x = parity.make_input("dconet-mdcr", (1, 512, 24, 22))
    with torch.inference_mode():
        found = model.get_submodule(f"{UNET}.b5.{path}")(x)
    assert relative_error(found[:, ::64, ::2], whole[name]) < 5e-5


@pytest.mark.real_data
def test_the_probability_is_that_of_the_target(model, frames, seen):
    with torch.inference_mode():
        torch.testing.assert_close(model.activation(frames), torch.sigmoid(seen["result"][1]), rtol=0, atol=0)


# One step of training


@pytest.fixture(scope="module")
def step(parity):
    """Network, outputs, target and loss after one backward pass in float64."""
    model = filled(DCONet(), parity, gain=GAIN).double().train()
    x = parity.make_input("dconet-train", (2, 1, 64, 64)).double()
    target = (parity.make_input("dconet-train-target", (2, 1, 64, 64)) > 0.85).double()
    outputs = model(x)
    loss = model.loss(outputs, target, x)
    loss.backward()
    return model, outputs, target, loss


@pytest.fixture(scope="module")
def trained(shared_root):
    return arrays_of(shared_root, "dconet.train")


@pytest.mark.real_data
def test_training_outputs_and_losses_are_the_published_ones(step, trained):
    model, (image, logits), target, loss = step
    assert float(target.sum()) == trained["target_sum"]
    assert relative_error(image.detach(), trained["D"]) < 1e-5
    assert relative_error(logits.detach(), trained["T"]) < 1e-5
    np.testing.assert_allclose(model.loss(logits, target).item(), trained["soft_iou"], rtol=1e-5)
    np.testing.assert_allclose(loss.item(), trained["loss"], rtol=1e-5)


@pytest.mark.real_data
def test_gradients_are_the_published_ones(step, trained):
    parameters = dict(step[0].named_parameters())
    names = [name.removeprefix("gradnorm:") for name in trained if name.startswith("gradnorm:")]
    assert len(names) == 7
    found = [float(parameters[name].grad.norm()) for name in names]
    np.testing.assert_allclose(found, [trained[f"gradnorm:{name}"] for name in names], rtol=1e-5)


@pytest.mark.real_data
def test_batch_statistics_are_the_published_ones(step, trained):
    state = step[0].state_dict()
    names = [name for name in trained if ".running_" in name or name.endswith("num_batches_tracked")]
    assert len(names) == 15
    for name in names:
        size = max(float(np.abs(trained[name]).max()), 1.0)
        assert largest_error(state[name], trained[name]) < 1e-5 * size, name


@pytest.mark.real_data
def test_only_parts_without_effect_get_no_gradient(step):
    idle = {re.sub(r"^decos\.(\d)", "", n) for n, p in step[0].named_parameters() if p.grad is None}
    dead = r"\.lowrank\.convs\.|\.sparse\.conv_(x2|h2|h|c2|c)\."
    assert all(re.match(dead, name) for name in idle)
    assert step[0].decos[0].sparse.conv_c2.weight.grad is None
    assert step[0].decos[1].sparse.conv_c2.weight.grad is not None


# All groups at once


def one_group_after_another(mixture: DilatedMixture, groups: torch.Tensor) -> torch.Tensor:
    """Definition: the block is called on every group (B, 4, h, w) in order."""
    return torch.stack([mixture.out_s(group) for group in groups.unbind(1)], dim=1)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_all_groups_at_once_equal_one_after_another(training):
    torch.manual_seed(0)
    fast = DilatedMixture(64).double()
    with torch.no_grad():
        for p in (fast.out_s.norm.weight, fast.out_s.norm.bias, fast.out_s.norm.running_mean):
            p.normal_()
    slow = copy.deepcopy(fast)
    fast.train(training), slow.train(training)
    groups = torch.randn(3, 16, 4, 5, 6, dtype=torch.float64) * torch.rand(16, 4, 1, 1) + torch.rand(
        16, 1, 1, 1
    )
    probe = torch.randn(groups.shape, dtype=torch.float64)
    found, expected = fast.mix(groups), one_group_after_another(slow, groups)
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    for name, value in slow.out_s.state_dict().items():
        assert torch.allclose(fast.out_s.state_dict()[name], value, rtol=1e-10, atol=1e-12), name
    for one, other in zip(fast.out_s.parameters(), slow.out_s.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(32, 64), (7, 5), (3, 3)], ids=lambda side: f"{side}")
def test_gates_by_one_convolution_equal_gates_by_two(rows, columns):
    torch.manual_seed(0)
    unit = GatedUnit().double()
    x = torch.randn(2, 1, rows, columns, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(unit.gates(x), unit.gates_in_two_steps(x), rtol=1e-10, atol=1e-12)


# Interface


def test_test_mode_gives_the_target_alone():
    torch.manual_seed(0)
    model = DCONet(stage_num=1).eval()
    short = DCONet(stage_num=1, mode="test").eval()
    short.load_state_dict(model.state_dict())
    frames = torch.rand(2, 1, 32, 64)
    with torch.inference_mode():
        torch.testing.assert_close(short(frames), model(frames)[1], rtol=0, atol=0)
        assert model(frames)[0].shape == (2, 1, 32, 64)


@pytest.mark.parametrize("options", [{"stage_num": 0}, {"mode": "both"}], ids=["no stages", "unknown mode"])
def test_impossible_options_are_refused_by_name(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DCONet(**options)


def test_sides_that_do_not_fit_are_refused_by_name():
    with pytest.raises(ValueError, match="64x48, expected multiples of 32"):
        DCONet(stage_num=1)(torch.zeros(1, 1, 48, 64))


def test_fresh_weights_are_those_of_the_published_code():
    torch.manual_seed(0)
    model = DCONet(stage_num=1)
    stage = model.decos[0]
    torch.testing.assert_close(stage.sparse.epsilon_per_channel, torch.full((32,), 0.01), rtol=0, atol=0)
    assert not any(module.bias.any() for module in stage.sparse.children())
    xavier = (2 / (9 * 64)) ** 0.5
    assert stage.sparse.conv_f.weight.std().item() == pytest.approx(xavier, rel=0.05)
    assert stage.merge.mapping[0].bias.any()


# Loss and schedule


@pytest.mark.real_data
def test_the_loss_is_the_published_one(model, shared_root):
    stored = arrays_of(shared_root, "dconet.loss")
    rebuilt, logits, target, image = (torch.from_numpy(stored[key]) for key in ("D", "T", "target", "image"))
    assert model.loss(logits, target).item() == pytest.approx(float(stored["soft_iou"]), abs=1e-6)
    each = [model.loss(one[None], y[None]).item() for one, y in zip(logits, target, strict=True)]
    assert each == pytest.approx(stored["soft_iou_per_sample"].tolist(), abs=1e-6)
    total = model.loss((rebuilt, logits), target, image).item()
    assert total == pytest.approx(float(stored["total"]), abs=1e-6)
    silent = model.loss(logits, torch.zeros_like(target)).item()
    assert silent == pytest.approx(float(stored["soft_iou_empty_target"]), abs=1e-6)


def test_the_loss_of_a_rebuilt_image_asks_for_the_frames():
    maps = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="give frames"):
        DCONet(stage_num=1).loss((maps, maps), maps)


@pytest.mark.real_data
def test_the_rate_of_every_iteration_is_the_published_one(shared_root):
    rows = arrays_of(shared_root, "dconet.lr")["epoch_iter_lr"]
    found = [learning_rate(epoch + iteration / 83) for epoch, iteration, _ in rows]
    np.testing.assert_allclose(found, rows[:, 2], rtol=1e-9)
