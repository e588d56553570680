"""Outputs of streams equal those of whole clips, and the features of each frame are computed once."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

import detectors
from detectors.inference.normalisation import DEVIATION, MEAN, to_network_input
from detectors.networks.tridos import Tridos
from detectors.weights import state_dict, zoo
from detectors.weights.zoo import ZOO_TABLE
from pipeline.sources.opening import open_source
from pipeline.stages.ring_buffer import window_indices
from tests.support.nano import enliven

FRAMES = 40
TOLERANCE = 1e-4
"""Absolute, for outputs with a standard deviation of 5; larger batches round in another order."""
MEANS, DEVIATIONS = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
NANO_TOLERANCE = 2e-3
"""Absolute, for the small network, whose outputs have a standard deviation of 37 and reach 100."""


@pytest.fixture(scope="module")
def images(drone_ir):
    """The first frames of a real clip, (40, 256, 320) uint8."""
    with open_source(drone_ir / "videos" / "IR_DRONE_001.mp4", max_frames=FRAMES) as source:
        return np.stack([frame.image for frame in source])


@pytest.fixture(scope="module")
def unit(images):
    """Images in [0, 1], (40, 3, 256, 320), the range that the filled weights are made for.

    With normalised images, the filled attention amplifies rounding: float32 differs from float64 by 0.1.
    """
    return to_network_input(images) * DEVIATIONS + MEANS


@pytest.fixture(scope="module")
def full_model(parity):
    return filled(detectors.build("tridos"), parity)


@pytest.fixture(scope="module")
def nano_model(parity):
    return filled(detectors.build("tridos-nano"), parity)


@pytest.fixture(scope="module")
def small_unit(unit):
    """A crop whose feature map of 12×16 is not a power of two, so that phases are sensitive to rounding."""
    return unit[:, :, 80:176, 96:224].contiguous()


@pytest.fixture
def nano():
    """A small network with random weights and statistics; gamma is 0, as in published checkpoints."""
    network = detectors.build("tridos-nano")
    enliven(network, seed=0)
    return network.eval()


@pytest.fixture(scope="module")
def noise():
    return torch.rand(12, 3, 32, 64, generator=torch.Generator().manual_seed(1))


def filled(network, parity):
    network.load_state_dict(parity.fill_state_dict(network.state_dict()))
    return network.eval()


def by_clips(model, frames):
    """Returns the output for each frame from its whole clip, with the first frame repeated at the start."""
    with torch.inference_mode():
        clips = (frames[window_indices(t, model.frames)].transpose(0, 1)[None] for t in range(len(frames)))
        return torch.cat([model(clip) for clip in clips])


def by_stream(model, frames, batch=1, stream=None):
    stream = stream or model.stream()
    return torch.cat([stream.push(part) for part in frames.split(batch)])


@contextmanager
def images_through(module):
    """Yields a list of the batch sizes that a module is called with."""
    sizes = []
    hook = module.register_forward_hook(lambda _, arguments, __: sizes.append(len(arguments[0])))
    yield sizes
    hook.remove()


# Equivalence of streams and clips


@pytest.mark.real_data
def test_streams_of_the_published_network_equal_clips(full_model, small_unit):
    clips = by_clips(full_model, small_unit)
    one_by_one = by_stream(full_model, small_unit)
    by_sevens = by_stream(full_model, small_unit, batch=7)
    assert (one_by_one - clips).abs().max() < TOLERANCE
    assert (by_sevens - clips).abs().max() < TOLERANCE


@pytest.mark.real_data
def test_streams_of_the_published_network_equal_clips_at_full_size(full_model, unit):
    frames = unit[:3]
    assert (by_stream(full_model, frames) - by_clips(full_model, frames)).abs().max() < TOLERANCE


@pytest.mark.real_data
def test_streams_of_the_small_network_equal_clips_at_full_size(nano_model, unit):
    clips = by_clips(nano_model, unit)
    assert (by_stream(nano_model, unit) - clips).abs().max() < NANO_TOLERANCE
    assert (by_stream(nano_model, unit, batch=7) - clips).abs().max() < NANO_TOLERANCE


@pytest.mark.real_data
@pytest.mark.parametrize("name", [n for n, entry in ZOO_TABLE.items() if "tridos" in entry.detector])
def test_streams_of_supplied_weights_equal_clips(name, images):
    path, entry = zoo.locate_weights(name)
    model = detectors.build(entry.detector, **entry.options)
    state_dict.load_weights(model.eval(), path)
    frames = to_network_input(images[:12])
    clips = by_clips(model, frames)
    assert (by_stream(model, frames) - clips).abs().max() < TOLERANCE
    assert (by_stream(model, frames, batch=7) - clips).abs().max() < TOLERANCE


@pytest.mark.real_data
def test_consecutive_frames_differ_by_more_than_the_tolerance(nano_model, unit):
    outputs = by_stream(nano_model, unit[:6])
    assert (outputs[1:] - outputs[:-1]).abs().amax(dim=(1, 2, 3)).min() > 10 * NANO_TOLERANCE


def test_outputs_of_a_batch_of_clips_equal_those_of_single_clips(nano, noise):
    clips = torch.stack([noise[window_indices(t, 5)].transpose(0, 1) for t in (4, 7, 11)])
    with torch.inference_mode():
        each = torch.cat([nano(clip[None]) for clip in clips])
        assert (nano(clips) - each).abs().max() < 1e-5 * each.abs().max()


# Sequences


def test_reset_starts_a_new_sequence(nano, noise):
    stream = nano.stream()
    by_stream(nano, noise[:6], stream=stream)
    stream.reset()
    assert stream.warmup
    torch.testing.assert_close(
        by_stream(nano, noise[6:], stream=stream), by_stream(nano, noise[6:]), rtol=0, atol=0
    )


def test_without_reset_the_past_is_remembered(nano, noise):
    stream = nano.stream()
    by_stream(nano, noise[:6], stream=stream)
    again = by_stream(nano, noise[6:7], stream=stream)
    assert (again - by_stream(nano, noise[6:7])).abs().max() > 0.1


def test_two_streams_of_one_model_do_not_mix(nano, noise):
    first, second = nano.stream(), nano.stream()
    forward, backward = noise, noise.flip(0)
    pushed = [(first.push(a[None]), second.push(b[None])) for a, b in zip(forward, backward, strict=True)]
    outputs_first, outputs_second = map(torch.cat, zip(*pushed, strict=True))
    torch.testing.assert_close(outputs_first, by_stream(nano, forward), rtol=0, atol=0)
    torch.testing.assert_close(outputs_second, by_stream(nano, backward), rtol=0, atol=0)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_warmup_lasts_for_five_real_frames(batch, nano, noise):
    stream = nano.stream()
    assert stream.warmup
    for part in noise[:10].split(batch):
        stream.push(part)
        assert stream.warmup == (stream.frames_seen < 5)
    assert stream.frames_seen == 10


def test_a_model_in_training_mode_refuses_to_stream(nano, noise):
    stream = nano.train().stream()
    with pytest.raises(RuntimeError, match=r"model\.eval\(\)"):
        stream.push(noise[:1])


# Cost


@pytest.mark.parametrize(("gamma", "calls"), [(0.0, 0), (0.5, 3)], ids=["gamma 0", "gamma 0.5"])
def test_the_non_local_block_is_computed_only_if_gamma_is_not_zero(gamma, calls, nano, noise):
    with torch.no_grad():
        nano.neck.nolocal.gamma.fill_(gamma)
    with images_through(nano.neck.nolocal) as sizes:
        by_stream(nano, noise[:3])
    assert len(sizes) == calls


def test_skipping_the_non_local_block_changes_nothing(nano, noise, monkeypatch):
    skipped = by_stream(nano, noise[:3])
    monkeypatch.setattr(nano.neck.nolocal, "is_identity", lambda: False)
    torch.testing.assert_close(by_stream(nano, noise[:3]), skipped, rtol=0, atol=0)


def test_the_non_local_block_is_not_skipped_if_gamma_is_trained(nano, noise):
    nano.neck.nolocal.requires_grad_(True)
    with images_through(nano.neck.nolocal) as sizes:
        nano.train()(torch.stack([noise[:5].transpose(0, 1)] * 2))
    assert sizes == [2]


@pytest.mark.parametrize("batch", [1, 7])
def test_each_frame_passes_the_backbone_once(batch, nano, noise):
    with images_through(nano.backbone) as backbone, images_through(nano.neck.agpf) as frequency:
        by_stream(nano, noise, batch=batch)
    assert sum(backbone) == sum(frequency) == len(noise)


def test_each_pair_of_frames_is_computed_once(nano, noise):
    with images_through(nano.neck.tdms.feat_diff) as pairs:
        by_stream(nano, noise)
    assert sum(pairs) == len(noise)


def held_bytes(stream) -> int:
    """Returns the bytes of all storages that the tensors of a stream keep alive."""
    rings = [*stream._features, stream._pairs]
    storages = {ring._past.untyped_storage().data_ptr(): ring._past.untyped_storage() for ring in rings}
    return sum(storage.nbytes() for storage in storages.values())


def test_memory_of_a_stream_is_constant(nano):
    stream, frame = nano.stream(), torch.randn(1, 3, 32, 32)
    for _ in range(5):
        stream.push(frame)
    before = held_bytes(stream)
    for _ in range(200):
        stream.push(frame)
    cells = 4 * 4
    expected = 4 * cells * (4 * 32 + 4 * 32 + 4 * 96) + 3 * 4 * (cells // 4) * 16  # four frames, three pairs
    assert held_bytes(stream) == before == expected


def test_a_large_batch_does_not_stay_in_memory(nano, noise):
    single, batched = nano.stream(), nano.stream()
    by_stream(nano, noise, stream=single)
    by_stream(nano, noise, batch=len(noise), stream=batched)
    assert held_bytes(batched) == held_bytes(single)


# Wrong input


@pytest.mark.parametrize(
    ("shape", "named"),
    [((1, 3, 48, 64), "64x48"), ((2, 3, 64, 100), "100x64"), ((1, 3, 240, 320), "320x240")],
    ids=["height", "width", "common camera"],
)
def test_sizes_that_are_not_multiples_of_32_are_refused(shape, named, nano):
    stream = nano.stream()
    with pytest.raises(ValueError, match=f"{named}.*multiples of 32"):
        stream.push(torch.zeros(shape))
    assert stream.frames_seen == 0


@pytest.mark.parametrize(
    "shape",
    [(1, 3, 4, 64, 64), (1, 1, 5, 64, 64), (3, 5, 64, 64), (1, 5, 3, 64, 64)],
    ids=["four frames", "one channel", "no batch", "frames before channels"],
)
def test_a_clip_of_another_shape_is_refused_by_name(shape, nano):
    with pytest.raises(ValueError, match=r"expected \(B, 3, 5, H, W\)") as error:
        nano(torch.zeros(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize("width", [0.1, 0.3, 0.0], ids=str)
def test_a_width_that_gives_odd_channels_is_refused(width):
    with pytest.raises(ValueError, match="multiple of 32"):
        Tridos(width=width)
