"""DRTENet has the state dict of the published network and gives its outputs, losses and gradients."""

from __future__ import annotations

import ast
import functools

import cv2
import numpy as np
import pytest
import torch

from detectors.networks.segmenters import drtenet
from detectors.networks.segmenters.drtenet import DRTENet, edge_pyramid
from detectors.networks.segmenters.madnet import learning_rate

SHRINK = 0.65  # of all weights in the fixtures, which would saturate every gate otherwise


def filled(network, parity):
    """The network with the weights of the fixtures, in evaluation mode."""
    state = parity.fill_state_dict(network.state_dict())
    network.load_state_dict({name: v * SHRINK if v.ndim >= 2 else v for name, v in state.items()})
    return network.eval()


def fixture_file(shared_root, kind):
    with np.load(shared_root / "parity" / f"drtenet.{kind}") as arrays:
        return dict(arrays)


@functools.cache
def meta(**options) -> DRTENet:
    """A network without memory for its parameters."""
    with torch.device("meta"):
        return DRTENet(**options)


@pytest.fixture(scope="module")
def model(parity):
    return filled(DRTENet(ori_h=96), parity)


@pytest.fixture(scope="module")
def inputs(parity):
    return [parity.make_input(name, (1, 3, 96, 96)) for name in ("drtenet-96", "drtenet-96-edge")]


@pytest.fixture(scope="module")
def stages(model, inputs):
    """Array name of drtenet.npz → value computed by the network, not yet sliced."""
    seen, fused = {}, []
    names = [
        *("Conv1", "Convtans2.attention.att", "Convtans2.attention", "Convtans2", "Convtans3", "Convtans4"),
        *("Conv5", "DFOM1.Dcn_sum.conv_offset_mask", "DFOM1.Dcn_sum", "DFOM1", "Up_conv5", "DFOM2"),
        *("Up_conv4", "DFOM3", "Up_conv3", "Up_conv2"),
    ]

    def keep(name):
        return lambda module, arguments, output: seen.__setitem__(name, output.clone())

    def keep_input(name):
        return lambda module, arguments: seen.__setitem__(name, arguments[0])

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    hooks += [
        model.get_submodule(f"tc{level + 1}_b").register_forward_pre_hook(keep_input(f"pyramid{level}"))
        for level in (1, 2)
    ]
    with pytest.MonkeyPatch.context() as patch:
        plain = drtenet.fuse
        patch.setattr(drtenet, "fuse", lambda *given: fused.append(plain(*given)) or fused[-1])
        with torch.inference_mode():
            maps = model(*inputs)
    for hook in hooks:
        hook.remove()
    seen.update(zip(("e2_fused", "e3_fused", "e4_fused"), fused, strict=True))
    return seen | dict(zip(("ds1", "ds2", "ds3", "ds4", "ds5", "out"), maps, strict=True))


# The state dict


@pytest.mark.real_data
@pytest.mark.parametrize(("side", "variant"), [(256, ""), (96, "ori96."), (512, "ori512.")], ids=str)
def test_names_shapes_and_dtypes_are_those_of_the_published_network(side, variant, shared_root):
    lines = (shared_root / "parity" / f"drtenet.{variant}keys.tsv").read_text().splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    published = {name: (ast.literal_eval(shape), dtype) for name, shape, dtype in rows}
    state = meta(ori_h=side).state_dict()
    found = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()}
    assert found == published


@pytest.mark.parametrize("side", [96, 256, 512])
def test_the_size_is_read_from_a_state_dict(side):
    assert DRTENet.infer_options(meta(ori_h=side).state_dict()) == {"ori_h": side}


def test_no_options_are_inferred_from_another_state_dict():
    assert DRTENet.infer_options({"weight": torch.zeros(3)}) == {}


def test_the_parameters_are_as_many_as_published():
    assert sum(p.numel() for p in meta(ori_h=256).parameters()) == 63_633_293


# Evaluation


@pytest.mark.real_data
def test_every_stage_gives_what_the_published_network_gives(stages, inputs, shared_root):
    expected = fixture_file(shared_root, "npz")
    assert [float(x.double().sum()) for x in inputs] == pytest.approx(expected.pop("input_sums"))
    errors = {}
    for name, array in expected.items():
        steps = [-(-full // kept) for full, kept in zip(stages[name].shape, array.shape, strict=True)]
        found = stages[name][tuple(slice(None, None, step) for step in steps)].numpy()
        errors[name] = np.abs(found - array).max() / np.abs(array).max()
    assert len(errors) == 27
    assert {name: error for name, error in errors.items() if not error <= 5e-5} == {}


@pytest.mark.real_data
def test_the_prediction_is_the_last_map(model, inputs, stages):
    with torch.inference_mode():
        torch.testing.assert_close(model.activation(*inputs), torch.sigmoid(stages["out"]), rtol=0, atol=0)


@pytest.mark.real_data
def test_without_deep_supervision_only_the_prediction_is_given(model, inputs, stages):
    with torch.device("meta"):
        network = DRTENet(ori_h=96, deep_supervision=False)
    network.load_state_dict(model.state_dict(), assign=True)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(*inputs), stages["out"], rtol=0, atol=0)


@pytest.mark.real_data
def test_under_autocast_it_stays_close(model, inputs, stages):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = model.prediction(*inputs).float()
    assert (half - stages["out"]).abs().mean() < 0.1 * stages["out"].std()


# Training


@pytest.fixture(scope="module")
def step(parity):
    """A network after one forward and backward pass in training, in float64, and its outputs."""
    network = filled(DRTENet(ori_h=64), parity).double().train()
    names = ("drtenet-train", "drtenet-train-edge")
    frames, edges = (parity.make_input(name, (2, 3, 64, 64)).double() for name in names)
    target = (parity.make_input("drtenet-train-target", (2, 1, 64, 64)) > 0.85).double()
    outputs = network(frames, edges)
    loss = network.loss(outputs, target)
    loss.backward()
    return network, outputs, target, loss


@pytest.mark.real_data
def test_training_gives_the_published_losses_gradients_and_statistics(step, shared_root):
    network, outputs, target, loss = step
    expected = fixture_file(shared_root, "train.npz")
    found = {
        "loss": loss,
        "losses": torch.stack([network.loss(logits, target) for logits in outputs]),
        "target_sum": target.sum(),
        "out": outputs[-1],
        **network.state_dict(),
        **{f"gradnorm:{n}": p.grad.norm() for n, p in network.named_parameters() if p.grad is not None},
    }
    wrong = [
        name
        for name, array in expected.items()
        if not np.allclose(found[name].detach().numpy(), array, rtol=1e-5, atol=1e-7 * np.abs(array).max())
    ]
    assert wrong == []


@pytest.mark.real_data
def test_shared_gates_count_two_batches_a_step(step):
    network, *_ = step
    counters = network.state_dict()
    assert counters["DFOM1.bottomup.1.num_batches_tracked"] == 2
    assert counters["DFOM2.topdown.5.num_batches_tracked"] == 2
    assert counters["Conv1.conv.1.num_batches_tracked"] == 1


@pytest.mark.real_data
def test_parameters_without_effect_get_no_gradient(step):
    network, *_ = step
    assert sum(p.numel() for p in network.parameters() if p.grad is None) == 8_193_212


@pytest.mark.real_data
def test_the_loss_is_the_sum_of_soft_ious_over_the_batch(shared_root):
    expected = fixture_file(shared_root, "loss.npz")
    logits, target = (torch.from_numpy(expected[name]) for name in ("logits", "target"))
    network = meta(ori_h=16)
    assert float(network.loss(list(logits), target)) == pytest.approx(expected["soft_iou_sum"], rel=1e-6)
    each = [float(network.loss(one, target)) for one in logits]
    assert each == pytest.approx(expected["soft_iou_each"], rel=1e-6)
    empty = network.loss(logits[0], torch.zeros_like(target))
    assert float(empty) == pytest.approx(expected["soft_iou_empty_target"], rel=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "epochs", "base"),
    [("lr_nuaa", 1500, 3e-4), ("lr_nudt", 1500, 1e-4), ("lr_irstd1k_sirstaug", 500, 1e-4)],
)
def test_the_learning_rate_is_that_of_the_published_schedules(name, epochs, base, shared_root):
    found = [learning_rate(epoch, epochs=epochs, base=base) for epoch in range(epochs)]
    assert found == pytest.approx(fixture_file(shared_root, "lr.npz")[name], rel=1e-9)


# The edge pyramid


def test_the_pyramid_reduces_as_opencv_does():
    edges = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    half = [cv2.pyrDown(edge.permute(1, 2, 0).numpy()) for edge in edges]
    for level, images in zip(edge_pyramid(edges), (half, [cv2.pyrDown(p) for p in half]), strict=True):
        reduced = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        thinned = torch.nn.functional.interpolate(
            reduced, scale_factor=0.5, mode="bilinear", align_corners=True
        )
        assert torch.allclose(level, thinned, rtol=0, atol=1e-6)


# Errors


@pytest.mark.parametrize("side", [100, 104, 120, 8, 0, -16])
def test_a_side_that_does_not_divide_by_16_is_refused(side):
    with pytest.raises(ValueError, match=f"ori_h = {side}, expected a multiple of 16"):
        DRTENet(ori_h=side)


@pytest.mark.parametrize("dim", [16, 64])
def test_another_width_is_refused(dim):
    with pytest.raises(ValueError, match=f"dim = {dim}, expected 32: the edge branches"):
        DRTENet(dim=dim)


@pytest.mark.parametrize(
    ("frames", "edges", "wrong"),
    [((1, 3, 64, 64), (1, 3, 96, 96), "frames"), ((2, 3, 96, 96), (2, 1, 96, 96), "edges")],
    ids=["another size", "one edge channel"],
)
def test_inputs_of_another_shape_are_refused(frames, edges, wrong):
    network = meta(ori_h=96)
    with pytest.raises(ValueError, match=rf"{wrong} are .*, expected \(\d, 3, 96, 96\)"):
        network(torch.zeros(frames), torch.zeros(edges))


def test_frames_are_normalised_with_the_usual_statistics():
    found = meta(ori_h=96).normalise(torch.full((1, 1, 2, 2), 0.5))
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert found[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)
