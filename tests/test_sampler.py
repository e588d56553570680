"""Training draws its clips reproducibly and varies them as asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datasets.augment import Augment
from datasets.clips import Clip
from datasets.sampler import ClipSampler
from pipeline.errors import UsageError
from tests.sequences import HEIGHT, LENGTH, WIDTH, sequence_of

# Training batches


PLAIN = Augment(
    flip=False,
    scale=(1, 1),
    gain=1,
    offset=0,
    drop_share=0,
    pan_share=0,
    noise_share=0,
    blur_share=0,
    paste_share=0,
)
"""Clips as they are."""


def sampler(seed: int = 3, share: float = 0.5, augment: Augment | None = None) -> ClipSampler:
    real = [sequence_of([[(4, 5, 8, 9)]] * n, seed=n, name=f"real {n}") for n in (6, 9)]
    made = [sequence_of([[(20, 21, 23, 24)]] * 7, seed=50)]
    return ClipSampler(real, made, length=LENGTH, synthetic_share=share, seed=seed, augment=augment)


def same(first: list[Clip], second: list[Clip]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(np.array_equal(a.frames, b.frames) and np.array_equal(a.boxes, b.boxes) for a, b in pairs)


def test_a_batch_depends_on_seed_and_number_alone():
    continued, resumed = sampler(), sampler()
    batches = [continued.batch(n, size=3, crop_size=(32, 24)) for n in range(6)]
    assert same(resumed.batch(5, size=3, crop_size=(32, 24)), batches[5])
    assert same(continued.batch(2, size=3, crop_size=(32, 24)), batches[2])


@pytest.mark.parametrize(("seed", "number"), [(3, 1), (4, 0)], ids=["other number", "other seed"])
def test_other_numbers_and_seeds_give_other_batches(seed, number):
    first = sampler(3).batch(0, size=4, crop_size=(32, 24))
    assert not same(sampler(seed).batch(number, size=4, crop_size=(32, 24)), first)


def test_a_clip_can_be_drawn_without_the_others_of_its_batch():
    batch = sampler().batch(4, size=3, crop_size=(32, 24))
    assert same([sampler().clip(4, 2, crop_size=(32, 24))], batch[2:])


@pytest.mark.parametrize(("crop_size", "shape"), [((32, 24), (24, 32)), (None, (HEIGHT, WIDTH))], ids=str)
def test_clips_of_a_batch_have_one_size(crop_size, shape):
    batch = sampler().batch(0, size=30, crop_size=crop_size)
    assert {clip.frames.shape for clip in batch} == {(LENGTH, *shape)}


@pytest.mark.parametrize("crop_size", [(32, 24), None], ids=str)
def test_boxes_hold_what_is_bright_whatever_was_done_to_the_clip(crop_size):
    """With all changes that keep a target sharp, each in half of the clips; one pixel for resampling."""
    augment = Augment(
        blur_share=0, noise_share=0, drop_share=0.5, pan_share=0.5, pan=2, shift=3, paste_share=0
    )
    for clip in sampler(augment=augment).batch(0, size=60, crop_size=crop_size):
        low, high = int(clip.frames[-1].min()), int(clip.frames[-1].max())
        for left, top, right, bottom in clip.boxes:
            rows = slice(max(0, round(top) - 1), round(bottom) + 1)
            inside = clip.frames[-1, rows, max(0, round(left) - 1) : round(right) + 1]
            assert inside.max() > (low + high) / 2


def test_without_changes_clips_are_windows_of_the_sequences():
    for clip in sampler(share=0, augment=PLAIN).batch(0, size=20, crop_size=None):
        assert clip.boxes.tolist() == [[4, 5, 8, 9]]
        assert (clip.frames[:, 5:9, 4:8] == 255).all()


@pytest.mark.parametrize(
    "change",
    [
        {"flip": True},
        {"scale": (0.7, 0.9)},
        {"gain": 1.4},
        {"offset": 0.1},
        {"strides": (2,)},
        {"drop_share": 1.0},
        {"shift": 9},
        {"pan_share": 1.0},
        {"noise_share": 1.0},
        {"blur_share": 1.0},
        {"paste_share": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_setting_changes_some_clips(change):
    plain = sampler(augment=PLAIN).batch(0, size=12, crop_size=None)
    changed = sampler(augment=replace(PLAIN, **change)).batch(0, size=12, crop_size=None)
    assert not same(plain, changed)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_synthetic_clips_is_the_one_asked_for(share):
    """Within 0.1 of the share, of 300 clips; the synthetic target has nine pixels, the real one sixteen."""
    batch = sampler(share=share, augment=PLAIN).batch(0, size=300, crop_size=None)
    areas = [float(np.prod(clip.boxes[0, 2:] - clip.boxes[0, :2])) for clip in batch]
    assert np.mean([area == 9 for area in areas]) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_share": 1.5}, "noise_share = 1.5, expected 0 to 1"),
        ({"scale": (1.2, 0.8)}, "the smaller first"),
        ({"gain": 0.5}, "gain = 0.5, expected 1 to 10"),
        ({"strides": ()}, "one or more numbers"),
        ({"strides": (0,)}, "one or more numbers"),
        ({"blur": 0}, "blur = 0"),
        ({"offset": float("nan")}, "offset = nan"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Augment(**change)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UsageError, match="empty"):
        ClipSampler([sequence_of([[]])], [], length=LENGTH, synthetic_share=0.5, seed=0)


def test_clips_end_at_frames_whose_targets_are_known():
    sequence = replace(sequence_of([[(4, 5, 8, 9)], []] * 6), annotated=(0, 2, 8))
    source = ClipSampler([sequence], [], length=LENGTH, synthetic_share=0, seed=0, augment=PLAIN)
    assert all(len(clip.boxes) for clip in source.batch(0, size=40, crop_size=None))
