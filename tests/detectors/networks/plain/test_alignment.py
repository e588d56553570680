"""Frames are aligned with the newest one where the motion of the camera can be measured, and only there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.inference.streaming import optimise_for_inference
from detectors.networks.plain import PlainNetwork
from detectors.networks.plain.alignment import align, camera_shifts
from detectors.weights import restore
from pipeline.stages.ring_buffer import window_indices
from tests.support import training_runs

SHIFTS = [[5, -3], [-12, 8], [1, 0], [0, -7]]
"""Motion (x, y) of the camera from each older frame to the newest."""


def scene(*shifts, size=(128, 96)):
    """(1, T, H, W) views of one smooth random scene, each displaced by a shift, the last by none."""
    rng = np.random.default_rng(2)
    ground = torch.from_numpy(rng.standard_normal((size[1] + 80, size[0] + 80)).astype(np.float32))
    ground = torch.nn.functional.avg_pool2d(ground[None], 3, 1, 1)[0]
    views = [ground[40 + y : 40 + y + size[1], 40 + x : 40 + x + size[0]] for x, y in (*shifts, (0, 0))]
    return torch.stack(views)[None]


def test_the_background_of_all_frames_comes_to_lie_on_that_of_the_newest():
    stack = scene(*SHIFTS)
    assert camera_shifts(stack)[0].tolist() == SHIFTS
    inner = align(stack)[0, :, 15:-15, 15:-15]
    assert (inner == inner[-1]).all()


def test_uncovered_pixels_repeat_the_edge():
    stack = scene([5, 0])
    moved = align(stack)[0, 0]
    assert torch.equal(moved[:, :5], stack[0, 0, :, :1].expand(-1, 5))


@pytest.mark.parametrize("shift", [[0, 0], [36, 0]], ids=["none", "more than a quarter of the frame"])
def test_frames_that_need_no_or_too_large_a_shift_stay(shift):
    stack = scene(shift, size=(96, 96)) if shift[0] else scene(shift)
    assert torch.equal(align(stack), stack)


def test_frames_of_different_scenes_and_flat_ones_stay():
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 5, 96, 128, generator=generator)
    assert torch.equal(align(noise), noise)
    flat = torch.full((1, 5, 64, 64), 0.3)
    assert torch.equal(align(flat), flat)


def test_samples_of_a_batch_are_aligned_each_by_its_own_shift():
    stacks = torch.cat([scene([4, 2]), scene([-6, 0]), scene([0, 0])])
    alone = torch.cat([align(stack) for stack in stacks.split(1)])
    assert torch.equal(align(stacks), alone)


@pytest.mark.parametrize("fused", [False, True])
def test_a_stream_of_an_aligned_network_gives_what_clips_give(fused):
    torch.manual_seed(0)
    model = PlainNetwork(widths=(8, 8, 8, 8), aligned=True).eval()
    if fused:
        model = optimise_for_inference(model, "fp32")
    frames = scene(*([3 * t, -t] for t in range(11)), size=(64, 64))[0][:, None].expand(-1, 3, -1, -1)
    with torch.no_grad():
        stream = model.stream()
        streamed = torch.cat([stream.push(frames[:5]), *(stream.push(f[None]) for f in frames[5:])])
        clips = torch.stack([frames[window_indices(t, 9)] for t in range(12)])
        whole = model(clips.transpose(1, 2))
    torch.testing.assert_close(streamed, whole, rtol=1e-4, atol=1e-4)


def test_alignment_is_an_option_of_a_training_and_comes_back_with_its_weights(tmp_path):
    training_runs.write_clip(tmp_path)
    options = {"model.name": "plain", "model.options.aligned": True, "model.options.widths": [8, 8, 8, 8]}
    options |= {"data.synthetic_share": 0.0, "schedule.whole_share": 0.0}
    assert training_runs.run(tmp_path, tmp_path / "run", 1, **options) == 0
    path = tmp_path / "run" / "best.safetensors"
    assert restore.restore_network("plain", str(path)).model.aligned
