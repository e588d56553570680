"""Tridos has the state dict of the published network and gives its outputs, by module and as a whole."""

from __future__ import annotations

import json
import zlib
from itertools import pairwise

import numpy as np
import pytest
import torch

import detectors
from detectors.networks.tridos.frequency import FrequencyBlock
from detectors.networks.tridos.swin import relative_position_index
from detectors.weights import state_dict

pytestmark = pytest.mark.real_data

STAGES = [
    *("backbone", "agpf", "cr_mix", "nonlocal", "memory", "tdem"),
    *("st", "conv_fre", "rcu1", "conv_t", "rcu0", "fused"),
]
SIDE = 16  # cells along each side of the map in tridos.npz


@pytest.fixture(scope="module")
def model(parity):
    network = detectors.build("tridos")
    network.load_state_dict(parity.fill_state_dict(network.state_dict()))
    return network.eval()


@pytest.fixture(scope="module")
def clip(parity):
    return parity.make_input("tridos-128", (1, 3, 5, 128, 128))


@pytest.fixture(scope="module")
def stages(model, clip):
    """Array name of tridos.npz → value computed by the network, not yet sliced."""
    neck, seen = model.neck, {}
    modules = {
        "cr_mix": neck.conv_cr_mix,
        "nonlocal": neck.nolocal,
        "memory": neck.memory,
        "tdem": neck.tdms,
        "st": neck.conv_fin_mix,
        "conv_fre": neck.conv_fre,
        "rcu1": neck.resblock1,
        "swin0": neck.swin.tr[0],
        "swin": neck.swin,
        "conv_t": neck.conv_t,
        "rcu0": neck.resblock0,
        "fused": neck.resblock2,
    }

    def keep(name):
        return lambda module, arguments, output: seen.__setitem__(name, output)

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    with torch.inference_mode():
        features = model.frame_features(clip[0].transpose(0, 1))
        seen.update(backbone=features.spatial, agpf=features.frequency, out=model(clip))
    for hook in hooks:
        hook.remove()
    seen["swin0"] = seen["swin0"].permute(0, 1, 4, 2, 3)  # (1, 5, C, row, column)
    return {name: value.reshape(-1, value.shape[-3], SIDE, SIDE) for name, value in seen.items()}


@pytest.fixture(scope="module")
def whole(shared_root):
    with np.load(shared_root / "parity" / "tridos.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def parts(shared_root):
    with np.load(shared_root / "parity" / "tridos.modules.npz") as arrays:
        return dict(arrays)


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest expected magnitude."""
    assert tuple(found.shape) == expected.shape
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


def module_input(name: str, *shape: int, scale: float = 1.0) -> torch.Tensor:
    stream = np.random.RandomState(zlib.crc32(f"input:tridos-mod-{name}".encode()))
    return torch.from_numpy((stream.standard_normal(shape) * scale).astype(np.float32))


def published_keys(shared_root) -> dict[str, tuple[list[int], str]]:
    lines = (shared_root / "parity" / "tridos.keys.tsv").read_text().splitlines()
    rows = (line.split("\t") for line in lines)
    return {name: (json.loads(shape), dtype) for name, shape, dtype in rows}


def keys_of(network) -> dict[str, tuple[list[int], str]]:
    state = network.state_dict()
    return {name: (list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()}


# The state dict


def test_names_shapes_and_dtypes_are_those_of_the_published_network(model, shared_root):
    assert keys_of(model) == published_keys(shared_root)


def test_more_classes_change_the_class_head_alone(shared_root):
    with torch.device("meta"):
        found = keys_of(detectors.build("tridos", num_classes=4))
    published = published_keys(shared_root)
    assert set(found) == set(published)
    assert {name: found[name][0] for name in found if found[name] != published[name]} == {
        "head.cls_preds.0.weight": [4, 256, 1, 1],
        "head.cls_preds.0.bias": [4],
    }


def test_the_table_of_relative_positions_is_the_published_one(parts):
    np.testing.assert_array_equal(relative_position_index(5).numpy(), parts["relative_position_index"])


# The whole network on one clip


def test_the_output_is_the_published_one(stages, whole):
    """Within 2e-4: float32 implementations differ by 3e-5, most single mistakes by 2e-3 or more."""
    assert np.abs(stages["out"].numpy() - whole["out"]).max() < 2e-4


@pytest.mark.parametrize("name", STAGES)
def test_every_fourth_channel_of_a_stage_is_the_published_one(name, stages, whole):
    assert relative_error(stages[name][:, ::4], whole[name]) < 1e-5


@pytest.mark.parametrize("name", ["swin0", "swin"])
def test_every_eighth_channel_of_an_attention_layer_is_the_published_one(name, stages, whole):
    assert relative_error(stages[name][:, ::8], whole[name]) < 1e-5


# The modules on their own


def run_backbone(model):
    return model.backbone(module_input("backbone", 1, 3, 64, 96))


def run_darknet(level):
    return lambda model: model.backbone.backbone(module_input("backbone", 1, 3, 64, 96))[level]


def run_nonlocal(model):
    return model.neck.nolocal(module_input("nonlocal", 1, 128, 8, 12, scale=0.7))


def run_memory(model):
    key, mixed = module_input("memory-q", 1, 128, 8, 12), module_input("memory-m", 1, 128, 8, 12)
    return model.neck.memory(model.neck.keyvalue_M(mixed), model.neck.keyvalue_Q(key))


def run_frequency_features(model):
    return model.neck.agpf(module_input("agpf", 1, 128, 16, 32))[:, ::2]


def run_frequency_block(model):
    return model.neck.agpf.body[0](module_input("agpf", 1, 128, 16, 32))[:, ::2]


def run_difference(model):
    frames = [module_input(f"tdem-{i}", 1, 128, 8, 16) for i in range(5)]
    pairs = [model.pair_features(*pair) for pair in pairwise(frames)]
    return model.neck.tdms(torch.stack(pairs, dim=1), frames[-1])


def run_swin(model):
    frames = module_input("swin", 1, 640, 8, 12).unflatten(1, (5, 128))
    return model.neck.swin(frames).flatten(1, 2)[:, ::4]


def run_first_swin_layer(model):
    frames = module_input("swin", 1, 640, 8, 12).unflatten(1, (5, 128))
    return model.neck.swin.tr[0](frames.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3)[:, :, ::4]


def run_swin_of_one_window(model):
    return model.neck.swin(module_input("swin-4x4", 1, 640, 4, 4).unflatten(1, (5, 128))).flatten(1, 2)


def run_compensation(model):
    return model.neck.resblock0(*module_input("rcu", 1, 256, 8, 12).chunk(2, dim=1))


def run_head(model):
    return model.head(module_input("head", 1, 128, 8, 12))


MODULES = {
    "backbone": run_backbone,
    "backbone.dark3": run_darknet(0),
    "backbone.dark4": run_darknet(1),
    "backbone.dark5": run_darknet(2),
    "nonlocal": run_nonlocal,
    "memory": run_memory,
    "agpf": run_frequency_features,
    "agpf.freq_block": run_frequency_block,
    "tdem": run_difference,
    "swin": run_swin,
    "swin.layer0": run_first_swin_layer,
    "swin_4x4": run_swin_of_one_window,
    "rcu": run_compensation,
    "head": run_head,
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_on_its_own_is_the_published_one(name, model, parts):
    """Channels ::2 of agpf, ::4 of the attention layers, all of the others."""
    with torch.inference_mode():
        assert relative_error(MODULES[name](model), parts[name]) < 1e-5


def test_attention_reads_the_position_table_from_the_checkpoint(parity):
    network = detectors.build("tridos", width=0.25).eval()
    state = parity.fill_state_dict(network.state_dict())
    network.load_state_dict(state)
    frames = module_input("swin", 1, 160, 8, 12).unflatten(1, (5, 32))
    with torch.inference_mode():
        before = network.neck.swin(frames)
        name = "neck.swin.tr.0.attn.relative_position_index"
        network.load_state_dict({**state, name: torch.zeros_like(state[name])})
        assert (network.neck.swin(frames) - before).abs().max() > 1e-2


# Checkpoints of the field


def with_prefix(state):
    return {f"module.{name}": value for name, value in state.items()}


CHECKPOINTS = {
    "bare": dict,
    "wrapped": lambda state: {"epoch": 7, "state_dict": state},
    "data-parallel": with_prefix,
    "wrapped and data-parallel": lambda state: {"model": with_prefix(state)},
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_published_checkpoint_loads_and_gives_the_same_output(kind, model, clip, stages, tmp_path):
    path = tmp_path / "published.pth"
    torch.save(CHECKPOINTS[kind](model.state_dict()), path)
    fresh = detectors.build("tridos").eval()
    state_dict.load_weights(fresh, path)
    found, expected = fresh.state_dict(), model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    with torch.inference_mode():
        assert torch.allclose(fresh(clip), stages["out"], rtol=0, atol=1e-5)


# The frequency block


@pytest.fixture(scope="module")
def block(parity):
    made = FrequencyBlock(32)
    made.load_state_dict(parity.fill_state_dict(made.state_dict()))
    return made.eval()


@pytest.mark.parametrize(
    ("rows", "columns"), [(12, 20), (24, 40), (32, 40), (16, 16)], ids=lambda side: f"{side}"
)
def test_the_frequency_block_does_not_depend_on_rounding_at_any_size(rows, columns, block):
    """Float32 equals float64 to 1e-5 relative: phases of real bins must not flip with rounding errors."""
    x = module_input(f"frequency-{rows}", 2, 32, rows, columns)
    with torch.inference_mode():
        single = block(x)
        double = block.double()(x.double())
        block.float()
    assert relative_error(single, double.numpy()) < 1e-5


def test_the_frequency_block_stays_in_float32_under_autocast(block):
    """Rounding its input to bfloat16 is all that may differ."""
    x = module_input("frequency-half", 1, 32, 16, 16).bfloat16()
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            half = block(x)
        full = block(x.float())
    torch.testing.assert_close(half, full.bfloat16(), rtol=0, atol=0)


def test_the_whole_network_under_autocast_is_close_to_float32(model, clip, stages):
    """It moves by 1.1 % of the standard deviation of the output on average, by 6.5 % at most."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = model(clip).float()
    difference = (half - stages["out"]).abs()
    assert half.isfinite().all()
    assert difference.mean() < 0.02 * stages["out"].std()
    assert difference.max() < 0.15 * stages["out"].std()
