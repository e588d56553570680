"""RDIAN has the state dict, outputs, loss and schedule of the published network, and reads its weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from detectors.networks.segmenters.rdian import NEIGHBOURS, RDIAN, learning_rate
from detectors.networks.segmenters.soft_iou import soft_iou_loss
from detectors.weights import state_dict
from tests.detectors.networks.segmenters.reference_arrays import (
    arrays_of,
    filled,
    keys_of,
    largest_error,
    published_keys,
    record,
    strides,
)

MODULES = {
    "d11": ("d11", 1, 2),
    "d15": ("d15", 1, 2),
    "conv1": ("conv1", 4, 3),
    "conv2": ("conv2", 8, 2),
    "block0": ("residual_block0", 8, 2),
    "block1": ("residual_block1", 8, 2),
    "block2": ("residual_block2", 8, 2),
    "block3": ("residual_block3", 8, 2),
    "conv_cat": ("conv_cat", 8, 2),
    "channel_gate": ("cbam.ChannelGate", 8, 2),
    "cbam": ("cbam", 8, 2),
    "conv_res": ("conv_res", 8, 3),
    "logit": ("head", 1, 1),
}
"""Name in rdian.npz → submodule, channel and cell strides."""


@pytest.fixture(scope="module")
def model(parity):
    return filled(RDIAN(), parity)


@pytest.fixture(scope="module")
def whole(shared_root):
    return arrays_of(shared_root, "rdian")


@pytest.fixture(scope="module")
def seen(model, parity):
    frames = parity.make_input("rdian-96", (1, 1, 96, 96))
    found = record(model, {name: path for name, (path, _, _) in MODULES.items() if path[0] != "d"}, frames)
    with torch.inference_mode():
        found.update(d11=model.d11(frames), d15=model.d15(frames), md=model.direction_map(frames))
    return found


# The published network


@pytest.mark.real_data
def test_names_shapes_and_dtypes_are_those_of_the_published_network(shared_root):
    assert keys_of(RDIAN()) == published_keys(shared_root, "rdian")


@pytest.mark.real_data
@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_what_the_published_one_gives(name, seen, whole):
    _, channels, side = MODULES[name]
    error = largest_error(strides(seen[name], whole[name], channels, side), whole[name])
    assert error < 3e-5  # 1e-5 on processors with AVX-512


@pytest.mark.real_data
def test_the_direction_map_is_the_published_one(seen, whole):
    assert largest_error(seen["md"], whole["md"]) < 1e-5


@pytest.mark.real_data
def test_the_probability_is_the_published_one(model, parity, whole):
    frames = parity.make_input("rdian-96", (1, 1, 96, 96))
    assert float(frames.double().sum()) == pytest.approx(float(whole["input_sum"]))
    with torch.inference_mode():
        assert largest_error(model.activation(frames), whole["out"]) < 1e-5


@pytest.mark.real_data
def test_a_batch_that_is_not_square_gives_the_published_probability(model, parity, whole):
    frames = parity.make_input("rdian-rect-64x96", (2, 1, 64, 96))
    with torch.inference_mode():
        assert largest_error(model.activation(frames), whole["rect_out"]) < 1e-5


@pytest.mark.real_data
def test_the_faster_layout_of_the_prediction_changes_nothing_but_rounding(model, parity):
    frames = parity.make_input("rdian-rect-64x96", (2, 1, 64, 96))
    with torch.inference_mode():
        plain, fast = model(frames), model.prediction(frames)
    assert plain.std() > 0.1
    assert torch.allclose(fast, plain, rtol=0, atol=1e-5)


# Any size, fixed direction kernels


@pytest.mark.parametrize(("rows", "columns"), [(33, 47), (16, 16), (97, 40)], ids=lambda side: f"{side}")
def test_any_size_gives_a_map_of_the_same_size(rows, columns):
    with torch.inference_mode():
        assert RDIAN().eval().activation(torch.rand(2, 1, rows, columns)).shape == (2, 1, rows, columns)


def test_fresh_direction_kernels_are_centre_minus_neighbour_and_do_not_learn():
    model = RDIAN()
    for number, cell in enumerate(NEIGHBOURS, start=11):
        kernel = model.get_submodule(f"d{number}").weight
        assert not kernel.requires_grad
        assert {(i, j): v for i, j, v in nonzero(kernel[0, 0])} == {(2, 2): 1.0, cell: -1.0}
    assert sum(p.numel() for p in model.parameters()) == 216_758
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 216_558


def nonzero(kernel):
    return [(int(i), int(j), float(kernel[i, j])) for i, j in kernel.nonzero()]


def test_stored_direction_kernels_are_used_as_they_are():
    model, frames = RDIAN().eval(), torch.rand(1, 1, 24, 24)
    with torch.inference_mode():
        before = model.direction_map(frames)
        model.d13.weight.zero_()
        assert (model.direction_map(frames) - before).abs().max() > 1e-3


def test_training_gives_one_map_and_a_gradient_for_everything_that_learns():
    model, frames = RDIAN(), torch.rand(2, 1, 32, 32)
    outputs = model(frames)
    model.loss(outputs, (frames > 0.9).float(), frames).backward()
    assert outputs.shape == (2, 1, 32, 32)
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_the_authors_start_values_leave_the_direction_kernels_alone():
    torch.manual_seed(0)
    model = RDIAN()
    before = model.d11.weight.clone()
    model.initialise()
    torch.testing.assert_close(model.d11.weight, before, rtol=0, atol=0)
    assert model.conv_cat[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.conv_cat[1].bias.std().item() == pytest.approx(1, rel=0.5)


def test_normalising_uses_the_published_constants():
    images = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert RDIAN().normalise(images).flatten().tolist() == pytest.approx([0.1246 / 1.0923, 1.1246 / 1.0923])


# Loss and schedule


@pytest.mark.real_data
@pytest.mark.parametrize("form", ["rdian", "basicirstd"])
def test_loss_and_gradient_are_the_published_ones(form, shared_root):
    stored = arrays_of(shared_root, "rdian.loss")
    logits = torch.from_numpy(stored["logits"]).requires_grad_()
    target = torch.from_numpy(stored["target"])
    if form == "rdian":
        loss = RDIAN().loss(logits, target)
    else:
        loss = soft_iou_loss(torch.sigmoid(logits), target, per_image=False)
    loss.backward()
    assert loss.item() == pytest.approx(float(stored[f"loss_{form}"]), abs=1e-6)
    assert largest_error(logits.grad, stored[f"grad_{form}"]) < 1e-8


def test_the_rate_decays_after_each_epoch_to_almost_the_floor():
    rates = [learning_rate(epoch) for epoch in range(300)]
    assert rates[0] == 0.005
    assert rates[1] == pytest.approx((0.005 - 1e-6) * (300 / 301) ** 0.9 + 1e-6)
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(7.9) == rates[7]


# The authors' trained file


@pytest.fixture(scope="module")
def trained(shared_root):
    model = RDIAN()
    state_dict.load_weights(model, shared_root / "parity" / "original" / "rdian.best.pth")
    return model.eval()


def original(shared_root, name: str, *, side: int | None, mode: Image.Resampling) -> torch.Tensor:
    """Returns an image of the authors as grey (1, 1, H, W) in [0, 1], square if `side` is given."""
    image = Image.open(shared_root / "parity" / "original" / name).convert("L")
    if side is not None:
        image = image.resize((side, side), mode)
    return torch.from_numpy(np.array(image, dtype=np.float32) / 255)[None, None]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("side", "marked", "iou"), [(None, 7, 6 / 7), (512, 6, 1.0)], ids=["native size", "resized as upstream"]
)
def test_the_authors_weights_segment_their_target(side, marked, iou, trained, shared_root):
    image = original(shared_root, "rdian-image-1.png", side=side, mode=Image.Resampling.BILINEAR)
    mask = original(shared_root, "rdian-mask-1.png", side=side, mode=Image.Resampling.NEAREST) > 0.5
    with torch.inference_mode():
        found = trained.activation(trained.normalise(image)) > 0.5
    assert int(mask.sum()) == 6
    assert int(found.sum()) == marked
    assert int((found & mask).sum()) == 6
    assert int((found & mask).sum()) / int((found | mask).sum()) == pytest.approx(iou)
