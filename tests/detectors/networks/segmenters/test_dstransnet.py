"""DSTransNet has the state dict of the published network and gives its outputs, losses and gradients."""

from __future__ import annotations

import ast
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detectors.networks.segmenters.dstransnet import DSTransNet, learning_rate
from detectors.networks.segmenters.dstransnet.encoder import CentralDifference
from detectors.networks.segmenters.dstransnet.selection import Reconstruction
from detectors.networks.segmenters.dstransnet.wavelet import WaveletConv

MAPS = ("p5", "p4", "p3", "p2", "pfuse", "out")


@pytest.fixture(scope="module")
def model(parity):
    network = DSTransNet()
    network.load_state_dict(parity.fill_state_dict(network.state_dict()))
    return network.eval()


@pytest.fixture(scope="module")
def frames(parity):
    return parity.make_input("dstransnet-96", (1, 3, 96, 96))


@pytest.fixture(scope="module")
def expected(shared_root):
    with np.load(shared_root / "parity" / "dstransnet.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def stages(model, frames):
    """Array name of dstransnet.npz → value computed by the network, not yet sliced."""
    seen = {}
    layer = model.mtc.encoder.layer[0]
    single = {
        "wt1": model.Conv1.dconv_layer[0].depth_wise_wavelet_conv1,
        "enc1_dcn": model.Conv1.conv_layer,
        "enc1_cdc": model.Conv1.cdc_layer,
        "enc1_wt": model.Conv1.dconv_layer,
        "enc3_dcn": model.Conv3.conv_layer,
        "csca4": model.up_decoder4.coatt,
        "logit": model.output_head,
        **{f"enc{i}": model.get_submodule(f"Conv{i}") for i in range(1, 6)},
        **{f"emb{i}": model.get_submodule(f"mtc.embeddings_{i}") for i in range(1, 5)},
        **{f"encoded{i}": model.get_submodule(f"mtc.encoder.encoder_norm{i}") for i in range(1, 5)},
        **{f"dec{i}": model.get_submodule(f"up_decoder{i}") for i in range(1, 5)},
        **{f"head{i}": model.get_submodule(f"gt_conv{i}") for i in range(5)},
    }
    several = {"layer0_attn": layer.channel_attn, "layer0_": layer, "skip": model.mtc}

    def keep(name):
        return lambda module, arguments, output: seen.__setitem__(name, output.clone())

    def keep_all(name):
        def hook(module, arguments, output):
            seen.update({f"{name}{i}": part.clone() for i, part in enumerate(output, start=1)})

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in single.items()]
    hooks += [module.register_forward_hook(keep_all(name)) for name, module in several.items()]
    with torch.inference_mode():
        seen.update(zip(MAPS, model(frames), strict=True))
    for hook in hooks:
        hook.remove()
    return seen


# The state dict


@pytest.mark.real_data
def test_names_shapes_and_dtypes_are_those_of_the_published_network(model, shared_root):
    lines = (shared_root / "parity" / "dstransnet.keys.tsv").read_text().splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    published = {name: (ast.literal_eval(shape), dtype) for name, shape, dtype in rows}
    state = model.state_dict()
    found = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()}
    assert found == published


@pytest.mark.parametrize("deepsuper", [True, False])
def test_side_heads_are_read_from_a_state_dict(deepsuper):
    with torch.device("meta"):
        state = DSTransNet(deepsuper=deepsuper).state_dict()
    assert DSTransNet.infer_options(state) == {"deepsuper": deepsuper}


def test_wavelet_filters_are_part_of_the_state_but_do_not_learn():
    network = WaveletConv(3, 2)
    assert not network.wt_filter.requires_grad
    assert not network.iwt_filter.requires_grad
    assert {"wt_filter", "iwt_filter"} < set(network.state_dict())
    first = network.wt_filter[:4, 0] * 2
    assert first.tolist() == [[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]


# Evaluation


@pytest.mark.real_data
def test_every_stage_gives_what_the_published_network_gives(stages, frames, expected):
    arrays = {name: array for name, array in expected.items() if not name.startswith(("input", "rect"))}
    assert float(frames.double().sum()) == pytest.approx(float(expected["input_sum"]))
    assert frames[0, 0, :4, :4].numpy() == pytest.approx(expected["input_corner"])
    errors = {}
    for name, array in arrays.items():
        steps = [-(-full // kept) for full, kept in zip(stages[name].shape, array.shape, strict=True)]
        found = stages[name][tuple(slice(None, None, step) for step in steps)].numpy()
        errors[name] = np.abs(found - array).max()
    assert len(errors) == 43
    limits = {name: 1e-4 if name in MAPS else 5e-4 for name in errors}
    assert {name: error for name, error in errors.items() if not error <= limits[name]} == {}


@pytest.mark.real_data
def test_frames_need_not_be_square(model, parity, expected):
    frames = parity.make_input("dstransnet-rect-64x96", (2, 3, 64, 96))
    with torch.inference_mode():
        found = model.activation(frames).numpy()
    assert found == pytest.approx(expected["rect_out"], abs=1e-4)


@pytest.mark.real_data
@pytest.mark.parametrize("options", [{"mode": "test"}, {"deepsuper": False}], ids=str)
def test_in_test_mode_or_without_deep_supervision_only_the_prediction_is_given(
    options, model, frames, stages
):
    with torch.device("meta"):
        network = DSTransNet(**options).eval()
    wanted, state = set(network.state_dict()), model.state_dict()
    network.load_state_dict({name: state[name] for name in wanted}, assign=True)
    with torch.inference_mode():
        torch.testing.assert_close(network(frames), stages["out"], rtol=0, atol=0)


@pytest.mark.real_data
def test_the_probability_is_the_last_of_the_maps(model, frames, stages):
    with torch.inference_mode():
        torch.testing.assert_close(model.activation(frames), stages["out"], rtol=0, atol=0)


@pytest.mark.real_data
def test_under_autocast_it_stays_close(model, frames, stages):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = model.prediction(frames).float()
    assert (half - stages["logit"]).abs().mean() < 0.1 * stages["logit"].std()


# Faster forms of the definitions


def test_the_central_difference_is_one_convolution_minus_its_summed_taps():
    layer, x = CentralDifference(3, 4), torch.randn(2, 3, 6, 7)
    weight, bias = layer.conv.weight, layer.conv.bias
    direct = layer.conv(x) - 0.7 * F.conv2d(x, weight.sum((2, 3), keepdim=True), bias)
    assert torch.allclose(layer(x), direct, rtol=0, atol=1e-5)


def wavelet_by_definition(layer: WaveletConv, x, level=0):
    """Returns the contribution of a level and all coarser ones, without the convolution of the map itself."""
    if level == len(layer.wavelet_convs):
        return torch.zeros_like(x)
    channels, (height, width) = x.shape[1], x.shape[-2:]
    even = F.pad(x, (0, width % 2, 0, height % 2))
    parts = F.conv2d(even, layer.wt_filter, stride=2, groups=channels)
    detail = layer.wavelet_scale[level].weight * layer.wavelet_convs[level](parts)
    coarser = wavelet_by_definition(layer, parts[:, ::4], level + 1)
    nothing = torch.zeros_like(coarser)
    detail = detail + torch.stack([coarser, nothing, nothing, nothing], dim=2).flatten(1, 2)
    return F.conv_transpose2d(detail, layer.iwt_filter, stride=2, groups=channels)[..., :height, :width]


@pytest.mark.parametrize("size", [(16, 16), (7, 10), (5, 1)], ids=str)
def test_the_wavelet_convolution_follows_its_definition_at_any_size(size):
    layer, x = WaveletConv(2, 4).double(), torch.randn(2, 2, *size, dtype=torch.float64)
    with torch.no_grad():
        for parameter in layer.parameters():  # filters that are no inverse of each other, scales that differ
            parameter.normal_()
        whole = layer.base_scale.weight * layer.base_conv(x) + wavelet_by_definition(layer, x)
        assert torch.allclose(layer(x), whole, rtol=1e-9, atol=1e-9)


def test_reconstruction_may_convolve_before_it_enlarges():
    layer, tokens = Reconstruction(4).eval(), torch.randn(1, 4, 3, 5)
    wide = F.interpolate(tokens, (24, 40), mode="bilinear", align_corners=False)
    direct = torch.relu(layer.norm(layer.conv(wide)))
    assert torch.allclose(layer(tokens, (24, 40)), direct, rtol=0, atol=1e-6)


# Training


@pytest.fixture(scope="module")
def losses(shared_root):
    with np.load(shared_root / "parity" / "dstransnet.loss.npz") as arrays:
        return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def bare():
    with torch.device("meta"):
        return DSTransNet()


@pytest.mark.real_data
def test_the_loss_is_the_sum_of_cross_entropies(losses, bare):
    logits = losses["logits"].clone().requires_grad_()
    outputs = tuple(torch.sigmoid(one) for one in logits)
    loss = bare.loss(outputs, losses["target"])
    loss.backward()
    assert loss.item() == pytest.approx(float(losses["loss_fp64"]), rel=1e-6)
    each = [bare.loss(one, losses["target"]).item() for one in outputs]
    assert each == pytest.approx(losses["terms"].tolist(), rel=1e-5)
    assert each[-1] == pytest.approx(float(losses["single"]), rel=1e-5)
    assert torch.allclose(logits.grad[..., ::2, ::2], losses["grad_logits"], rtol=1e-4, atol=1e-8)


@pytest.mark.real_data
def test_a_saturated_wrong_pixel_costs_a_hundred(losses, bare):
    found = bare.loss(torch.sigmoid(losses["sat_logits"]), losses["sat_target"])
    assert float(found) == pytest.approx(float(losses["sat_loss"]), rel=1e-5)


def test_a_training_step_reaches_all_parameters_but_those_without_effect():
    network = DSTransNet()
    network.loss(network(torch.randn(2, 3, 32, 32)), torch.zeros(2, 1, 32, 32)).backward()
    learning = [p for p in network.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learning) == 21_839_524
    assert sum(p.numel() for p in learning if p.grad is None) == 3_013_600
    assert all(p.grad.isfinite().all() for p in learning if p.grad is not None)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    assert [learning_rate(epoch) for epoch in (0, 1, 5, 10, 11)] == pytest.approx([0, 1e-4, 5e-4, 1e-3, 1e-3])
    for epochs in (500, 1000):
        late = [
            1e-5 + 9.9e-4 * (1 + math.cos(math.pi * (e - 11) / (epochs - 10))) / 2 for e in (60, epochs - 1)
        ]
        assert [learning_rate(e, epochs=epochs) for e in (60, epochs - 1)] == pytest.approx(late, rel=1e-6)
    assert learning_rate(37.9) == learning_rate(37)


def test_start_values_are_those_of_the_authors_training():
    network = DSTransNet()
    branch = network.Conv5.conv_layer[0]
    untouched = branch.weight.clone()
    network.initialise()
    offsets = branch.conv_offset_mask
    assert offsets.weight.std().item() == pytest.approx((2 / (256 * 25)) ** 0.5, rel=0.02)
    assert not offsets.bias.any()
    torch.testing.assert_close(branch.weight, untouched, rtol=0, atol=0)
    assert network.Conv5.final_layer[1].weight.std().item() == pytest.approx(0.02, rel=0.3)


# Input


@pytest.mark.parametrize(
    ("dataset", "mean", "std"), [("NUAA-SIRST", 0.442, 0.111), ("IRSTD-1K", 0.343, 0.157)]
)
def test_frames_are_normalised_with_the_statistics_of_the_data_set(dataset, mean, std):
    with torch.device("meta"):
        network = DSTransNet(dataset=dataset)
    found = network.normalise(torch.full((2, 1, 4, 6), 0.5))
    assert found.shape == (2, 3, 4, 6)
    assert found.unique().tolist() == pytest.approx([(0.5 - mean) / std])


@pytest.mark.parametrize("size", [(97, 96), (96, 100), (104, 96)], ids=str)
def test_sides_that_do_not_divide_by_16_are_refused(size, bare):
    with pytest.raises(ValueError, match=f"{size[1]}x{size[0]}, expected multiples of 16"):
        bare(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "eval"}, "'eval', expected 'train' or 'test'"),
        ({"dataset": "COCO"}, "expected one of NUAA-SIRST"),
    ],
    ids=["mode", "data set"],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DSTransNet(**options)
