"""The sampler draws clips reproducibly and augments them as configured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datasets.augmentation.options import AugmentationOptions
from datasets.augmentation.sampler import ClipSampler
from datasets.sequences.clips import Clip
from pipeline.system.errors import UsageError
from tests.support.sequences import HEIGHT, LENGTH, PLAIN, WIDTH, sequence_of

# Training batches


def sampler(seed: int = 3, share: float = 0.5, augment: AugmentationOptions | None = None) -> ClipSampler:
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
    """With all changes that keep a target sharp, each in half of the clips; resampling may cost one pixel."""
    augment = AugmentationOptions(
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
        {"aspect": 1.5},
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
    """Checked to 0.1 on 300 clips; the synthetic target has nine pixels, the real one sixteen."""
    batch = sampler(share=share, augment=PLAIN).batch(0, size=300, crop_size=None)
    areas = [float(np.prod(clip.boxes[0, 2:] - clip.boxes[0, :2])) for clip in batch]
    assert np.mean([area == 9 for area in areas]) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_share": 1.5}, "noise_share = 1.5, expected 0 to 1"),
        ({"scale": (1.2, 0.8)}, "the smaller first"),
        ({"aspect": 0.5}, "aspect = 0.5, expected 1 to 10"),
        ({"aspect": 1.2, "scale": (1, 1), "stretch": True}, "aspect goes with scale"),
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
        AugmentationOptions(**change)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UsageError, match="empty"):
        ClipSampler([sequence_of([[]])], [], length=LENGTH, synthetic_share=0.5, seed=0)


def test_sequences_are_drawn_by_the_frames_that_clips_may_end_at():
    """Six key frames of sixty, and all six of another sequence: each gives about half of 300 clips."""
    long = replace(sequence_of([[(4, 5, 8, 9)]] * 60), annotated=tuple(range(0, 60, 10)))
    short = sequence_of([[(20, 21, 23, 24)]] * 6)
    source = ClipSampler([long, short], [], length=LENGTH, synthetic_share=0, seed=0, augment=PLAIN)
    boxes = [clip.boxes[0].tolist() for clip in source.batch(0, size=300, crop_size=None)]
    assert boxes.count([4, 5, 8, 9]) == pytest.approx(150, abs=30)


def test_clips_end_at_frames_whose_targets_are_known():
    sequence = replace(sequence_of([[(4, 5, 8, 9)], []] * 6), annotated=(0, 2, 8))
    source = ClipSampler([sequence], [], length=LENGTH, synthetic_share=0, seed=0, augment=PLAIN)
    assert all(len(clip.boxes) for clip in source.batch(0, size=40, crop_size=None))


# Images of single frames


def images(**change) -> ClipSampler:
    """Returns a sampler of 48x40 images with one target."""
    real = [replace(sequence_of([[(4, 5, 12, 9)]]), masks=(mask_of(4, 5, 12, 9),))]
    augment = replace(PLAIN, **change)
    return ClipSampler(real, [], length=1, synthetic_share=0, seed=1, augment=augment)


def mask_of(left, top, right, bottom) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def extent(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [int(n) for n in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def test_half_of_the_crops_are_transposed_with_their_masks():
    batch = images(transpose=True).batch(0, size=40, crop_size=(32, 32))
    sizes = [tuple(clip.boxes[0, 2:] - clip.boxes[0, :2]) for clip in batch if len(clip.boxes)]
    assert set(sizes) >= {(8, 4), (4, 8)}
    for clip in batch:
        np.testing.assert_array_equal(clip.mask, clip.frames[0] > 128)


def test_the_longer_side_is_any_of_a_range_alike_often():
    """The width of the target is a sixth of the longer side."""
    batch = images(long_side=(96, 192)).batch(0, size=200, crop_size=(224, 224))
    widths = np.array([clip.boxes[0, 2] - clip.boxes[0, 0] for clip in batch]) * 6
    assert 96 <= widths.min() < 102
    assert 186 < widths.max() <= 192
    assert widths.mean() == pytest.approx(144, abs=6)


def test_the_aspect_moves_both_ways_alike_and_keeps_the_area():
    """The target is twice as wide as high; sides are whole pixels, so ratios are right to 2 %."""
    batch = images(aspect=1.5).batch(0, size=200, crop_size=(96, 96))
    sizes = np.array([clip.boxes[0, 2:] - clip.boxes[0, :2] for clip in batch])
    wider = sizes[:, 0] / sizes[:, 1] / 2
    assert wider.min() == pytest.approx(1 / 1.5, rel=0.05)
    assert wider.max() == pytest.approx(1.5, rel=0.05)
    assert np.log(wider).mean() == pytest.approx(0, abs=0.06)
    assert sizes.prod(axis=1) == pytest.approx(np.full(200, 32), rel=0.04)


def test_a_stretched_image_fills_the_crop():
    (clip,) = images(stretch=True).batch(0, size=1, crop_size=(96, 160))
    assert clip.frames.shape == (1, 160, 96)
    assert clip.boxes.tolist() == [[8, 20, 24, 36]]
    assert extent(clip.mask) == [8, 20, 24, 36]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_crops_round_a_target_is_the_one_asked_for(share):
    """A random 16x16 crop of a 48x40 image contains the target in the corner with probability 0.1."""
    batch = images(on_target=share).batch(0, size=300, crop_size=(16, 16))
    found = np.mean([len(clip.boxes) > 0 for clip in batch])
    assert found == pytest.approx(share + 0.1 * (1 - share), abs=0.1)


def test_upright_images_are_mirrored_left_to_right_alone():
    batch = images(flip=True, upright=True).batch(0, size=40, crop_size=None)
    assert {tuple(clip.boxes[0]) for clip in batch} == {(4, 5, 12, 9), (36, 5, 44, 9)}


def test_an_epoch_is_all_annotated_frames():
    assert sampler().key_frames == 6 + 9


@pytest.mark.parametrize("change", [{"stretch": True}, {"scale": (0.5, 1)}], ids=lambda c: next(iter(c)))
def test_two_ways_of_scaling_exclude_each_other(change):
    with pytest.raises(ValueError, match="exclude each other"):
        replace(PLAIN, long_side=(64, 96), **change)
