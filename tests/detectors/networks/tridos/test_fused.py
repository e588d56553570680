"""The optimised network equals the plain one up to rounding and does not change it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import detectors
from detectors.inference import postprocess
from detectors.inference.normalisation import to_network_input
from detectors.networks.tridos.optimised import convolutions, fused, window_attention
from detectors.networks.tridos.optimised.convolutions import Convolution, WinogradConv
from detectors.networks.tridos.optimised.fused import FusedTridos
from detectors.weights import restore
from pipeline.sources.opening import open_source

EXACT, HALF = 1e-3, 0.1
"""Maximum difference to the plain outputs relative to their largest value."""


@pytest.fixture(scope="module")
def trained():
    """The embedded weights: those of an untrained network give hundreds of boxes with nearly equal scores."""
    return restore.restore_network("tridos-nano", "tridos-nano-drone-ir")[0].eval()


@pytest.fixture
def lively():
    """A network with random weights and statistics, so that every norm, gate and bias has an effect."""
    network, chance = detectors.build("tridos-nano"), torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            spread = (2 / value[0].numel()) ** 0.5 if value.ndim >= 2 else 0.2
            value.normal_(0.0, spread, generator=chance)
            if name.endswith(("running_var", "bn.weight")):
                value.abs_().add_(0.5)
    return network.eval()


def noise(count, height, width):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def streamed(model, frames, batch=1):
    stream = model.stream()
    return torch.cat([stream.push(part) for part in frames.split(batch)])


def difference(outputs, plain):
    return ((outputs - plain).abs().max() / plain.abs().max()).item()


# Exactness


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 64), (160, 32)], ids=str)
@pytest.mark.parametrize("gamma", [0.0, 0.5], ids=["gamma 0", "gamma 0.5"])
def test_every_part_gives_what_the_plain_one_gives(size, gamma, lively):
    lively.neck.nolocal.gamma.data.fill_(gamma)
    frames = noise(6, *size)
    plain = streamed(lively, frames)
    assert plain.std() > 0.1
    assert difference(streamed(FusedTridos(lively), frames), plain) < EXACT


def test_batches_of_clips_give_what_the_plain_network_gives(lively):
    clips = noise(10, 64, 64).unflatten(0, (2, 5)).transpose(1, 2)
    with torch.inference_mode():
        assert difference(FusedTridos(lively)(clips), lively(clips)) < EXACT


def test_a_batch_gives_what_its_frames_give_one_by_one(lively):
    network, frames = FusedTridos(lively), noise(9, 64, 64)
    torch.testing.assert_close(streamed(network, frames, batch=4), streamed(network, frames), rtol=0, atol=0)


@pytest.mark.real_data
def test_what_is_found_in_real_frames_is_the_same(trained, drone_ir):
    with open_source(drone_ir / "videos" / "IR_DRONE_001.mp4", max_frames=40) as source:
        frames = to_network_input([frame.image for frame in source])
    plain, fast = (streamed(model, frames) for model in (trained, FusedTridos(trained)))
    assert difference(fast, plain) < EXACT
    found = 0
    for expected, given in zip(
        *(postprocess.decode(x, conf=0.05, iou=0.5) for x in (plain, fast)), strict=True
    ):
        found += len(expected[0])
        assert len(given[0]) == len(expected[0])
        torch.testing.assert_close(given[0], expected[0], rtol=0, atol=0.01)  # pixels
        torch.testing.assert_close(given[1], expected[1], rtol=0, atol=1e-3)
    assert found >= 20


# Each part


def conv_of(cin, cout, kernel, *, groups=1, stride=1):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups)
    norm = torch.nn.BatchNorm2d(cout).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return conv, norm


def maps(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("act", "function"),
    [
        ("none", lambda x: x),
        ("relu", torch.relu),
        ("swish", F.silu),
        ("sigmoid", torch.sigmoid),
        ("gelu", F.gelu),
        ("leaky_relu", lambda x: F.leaky_relu(x, 0.3)),
    ],
)
@pytest.mark.parametrize("uses_onednn", [True, False], ids=["oneDNN", "torch"])
@pytest.mark.parametrize("form", [{}, {"groups": 8}, {"stride": 2}, {"kernel": 1}], ids=str)
def test_a_convolution_gives_what_its_norm_and_activation_after_it_give(
    form, uses_onednn, act, function, monkeypatch
):
    if not uses_onednn:
        monkeypatch.setattr(convolutions, "uses_onednn", lambda x: False)
    conv, norm = conv_of(8, 16, **{"kernel": 3, **form})
    x = maps(2, 8, 12, 20)
    with torch.inference_mode():
        expected, found = function(norm(conv(x))), Convolution(conv, norm, act, slope=0.3)(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("uses_onednn", [True, False], ids=["oneDNN", "torch"])
@pytest.mark.parametrize("act", ["none", "relu"])
def test_a_convolution_is_added_in_place(uses_onednn, act, monkeypatch):
    if not uses_onednn:
        monkeypatch.setattr(convolutions, "uses_onednn", lambda x: False)
    conv, norm = conv_of(8, 16, 1)
    x, y = maps(1, 8, 6, 10), convolutions.channels_last(maps(1, 16, 6, 10))
    with torch.inference_mode():
        expected = y + norm(conv(x))
        found = Convolution(conv, norm, act).add_to(y, x)
    assert found.data_ptr() == y.data_ptr()
    torch.testing.assert_close(found, expected.relu() if act == "relu" else expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (4, 10), (1, 3)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "share"), [(torch.float32, 2e-5), (torch.bfloat16, 1.5e-2)], ids=["float32", "bfloat16"]
)
def test_fewer_products_give_what_a_plain_convolution_gives(size, dtype, share):
    conv, _ = conv_of(64, 48, 3)
    x = maps(2, 64, *size)
    if not convolutions.uses_onednn(x.to(dtype)):
        pytest.skip(f"oneDNN does not compute in {dtype} on this processor")
    with torch.inference_mode():
        expected = conv(x)
        found = WinogradConv(conv.weight.to(dtype), conv.bias.to(dtype))(x.to(dtype)).float()
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert difference(found, expected) < share


@pytest.mark.parametrize(
    ("winograd", "side", "channels", "fewer"),
    [(True, 32, 128, 1), (False, 32, 128, 0), (True, 16, 128, 0), (True, 32, 64, 0)],
    ids=["large", "exact", "small map", "few channels"],
)
def test_large_convolutions_use_winograd_if_allowed(winograd, side, channels, fewer, monkeypatch):
    made = []
    monkeypatch.setattr(
        convolutions, "WinogradConv", lambda *given: made.append(given) or WinogradConv(*given)
    )
    conv, _ = conv_of(channels, channels, 3)
    layer, x = Convolution(conv, winograd=winograd), maps(1, channels, side, side)
    with torch.inference_mode():
        for _ in range(2):
            assert difference(layer(x), conv(x)) < 2e-5
    assert len(made) == fewer


@pytest.mark.parametrize("stored", [True, False], ids=["stored scores", "fused kernel"])
@pytest.mark.parametrize("size", [(4, 4), (4, 12), (8, 8), (24, 8)], ids=str)
def test_windows_give_what_the_window_layers_give(size, stored, lively, monkeypatch):
    monkeypatch.setattr(window_attention, "_scores_are_faster", lambda *_: stored)
    monkeypatch.setattr(window_attention, "TOKENS", 640)  # several parts
    monkeypatch.setattr(window_attention, "SCORES", 60_000)  # and two windows of each at once
    swin = lively.neck.swin
    frames = maps(1, 5, 32, *size)
    kept = frames.clone()
    with torch.inference_mode():
        expected = swin(frames).flatten(1, 2)
        side_by_side = convolutions.channels_last(frames.flatten(1, 2))
        found = window_attention.WindowLayers(swin, frames=5)(side_by_side)
    assert difference(found, expected) < 1e-5
    torch.testing.assert_close(
        side_by_side, kept.flatten(1, 2), rtol=0, atol=0
    )  # what the ring holds stays as it is
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_memory_is_read_in_parts_as_it_is_at_once(lively, monkeypatch):
    monkeypatch.setattr(fused, "QUERIES", 7)
    reader = lively.neck.memory
    memory, query = ((maps(2, 16, 4, 5), maps(2, 32, 4, 5) + n) for n in range(2))
    with torch.inference_mode():
        assert difference(fused.Reader(reader)(memory, query), reader(memory, query)) < 1e-5


# Half precision


def test_spectra_and_outputs_are_float32_in_half_precision(lively):
    network = FusedTridos(lively, dtype=torch.bfloat16)
    assert network.neck.agpf.body[0].dw_amp_conv[0].weight.dtype == torch.float32
    assert network.neck.conv_cur.weight.dtype == torch.bfloat16
    amplitudes = "neck.agpf.body.0.dw_amp_conv.0.weight"  # not rounded on the way
    torch.testing.assert_close(
        network.state_dict()[amplitudes], lively.state_dict()[amplitudes], rtol=0, atol=0
    )
    assert streamed(network, noise(1, 32, 32)).dtype == torch.float32


def test_in_half_precision_the_output_is_close(trained):
    frames = noise(5, 64, 64)
    exact, half = (streamed(FusedTridos(trained, dtype=d), frames) for d in (torch.float32, torch.bfloat16))
    assert 0 < difference(half, exact) < HALF


# The two phases


def test_frames_may_be_extracted_before_earlier_ones_are_joined(lively):
    network, frames = FusedTridos(lively), noise(6, 64, 64)
    stream = network.stream()
    begun = [stream.extract(frame[None]) for frame in frames]
    torch.testing.assert_close(
        torch.cat([stream.join(parts) for parts in begun]), streamed(network, frames), rtol=0, atol=0
    )


def test_a_part_that_is_compiled_gives_the_same(lively):
    """Backend eager: inductor would take minutes."""
    network, twin = FusedTridos(lively), FusedTridos(lively)
    twin.compile_parts(backend="eager")
    with torch.inference_mode():
        features = network.frame_features(noise(6, 32, 32))
        pairs = [f.pair_features(features.spatial[:-1], features.spatial[1:]) for f in (network, twin)]
        window = type(features)(*(x[None, 1:] for x in features))
        begun = network.start_join(window, pairs[0][None, 1:])
        joined = [f.finish_join(*begun) for f in (network, twin)]
    assert twin._finish_join is not network._finish_join
    assert difference(pairs[1], pairs[0]) < 1e-5
    assert difference(joined[1], joined[0]) < 1e-5


# The original network


def test_the_original_network_does_not_change(lively):
    before = {name: value.clone() for name, value in lively.state_dict().items()}
    plain = streamed(lively, noise(2, 32, 32))
    network = FusedTridos(lively, dtype=torch.bfloat16)
    streamed(network, noise(2, 32, 32))
    assert list(before) == list(lively.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in lively.state_dict().items())
    torch.testing.assert_close(streamed(lively, noise(2, 32, 32)), plain, rtol=0, atol=0)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


IN_A_THREAD = """
import threading
from pathlib import Path
import torch
from detectors.networks.tridos.optimised.fused import QUERIES, _read

torch.set_num_threads(1)
queries, keys, values = torch.rand(40 * QUERIES, 16), torch.rand(32640, 16), torch.rand(32640, 32)
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

def read():
    with torch.inference_mode():
        _read(queries, keys, values)

before = peak()
thread = threading.Thread(target=read)
thread.start()
thread.join()
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_scores_of_the_memory_reader_do_not_stay_in_memory_in_a_thread():
    """All scores together have 1.3 GB; those of one chunk have 33 MB, and their softmax as many."""
    done = subprocess.run([sys.executable, "-c", IN_A_THREAD], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 400


@pytest.mark.parametrize("scores", [1, 16 * 300, 48 * 300])
def test_the_memory_reader_reads_the_same_in_chunks_of_any_size(monkeypatch, scores):
    queries, keys, values = torch.randn(200, 16), torch.randn(300, 16), torch.randn(300, 32)
    whole = (queries @ keys.T).softmax(dim=-1) @ values
    monkeypatch.setattr(fused, "SCORES", scores)
    torch.testing.assert_close(fused._read(queries, keys, values), whole, rtol=1e-4, atol=1e-5)
