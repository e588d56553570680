"""Clips keep pixels and boxes together, and training draws them reproducibly."""

from __future__ import annotations

from functools import partial

import av
import numpy as np
import pytest

from datasets.clips import (
    Clip,
    ClipSampler,
    Sequence,
    clip_at,
    crop,
    flip,
    gain_and_offset,
    random_crop,
    read_sequence,
    synthetic_sequences,
)
from datasets.records import VideoRecord
from pipeline.errors import UsageError

WIDTH, HEIGHT, LENGTH = 48, 40, 5


def sequence_of(boxes, *, seed: int = 0, name: str = "made") -> Sequence:
    """One frame for each entry of `boxes`: dim noise, the pixels inside the boxes at full brightness."""
    frames = np.random.default_rng(seed).integers(0, 40, (len(boxes), HEIGHT, WIDTH), np.uint8)
    for frame, rows in zip(frames, boxes, strict=True):
        for left, top, right, bottom in rows:
            frame[top:bottom, left:right] = 255
    arrays = tuple(np.array(rows, dtype=np.float32).reshape(-1, 4) for rows in boxes)
    return Sequence(name, frames, arrays, tuple(np.arange(len(rows)) for rows in boxes))


def random_clip(seed: int, targets: int = 3) -> Clip:
    """A clip whose targets have three, five, … pixels a side and do not touch."""
    chance = np.random.default_rng(seed)
    columns = np.sort(chance.choice(np.arange(1, 5), targets, replace=False)) * 9
    rows = chance.integers(0, 36, targets)
    boxes = [(c, r, c + 3 + 2 * i, r + 3) for i, (c, r) in enumerate(zip(columns, rows, strict=True))]
    return clip_at(sequence_of([boxes] * LENGTH, seed=seed), LENGTH - 1, length=LENGTH)


def bright_box(frame: np.ndarray, near: np.ndarray) -> list[int]:
    """x1 y1 x2 y2 of the bright pixels within two pixels of a box."""
    left, top = np.maximum(near[:2].astype(int) - 2, 0)
    right, bottom = near[2:].astype(int) + 2
    rows, columns = np.nonzero(frame[top:bottom, left:right] > 128)
    corner = [columns.min() + left, rows.min() + top, columns.max() + left + 1, rows.max() + top + 1]
    return [int(n) for n in corner]


def assert_boxes_cover_pixels(clip: Clip) -> None:
    assert (clip.frames == clip.frames[-1:])[clip.frames > 128].all()
    for box in clip.boxes:
        assert bright_box(clip.frames[-1], box) == box.tolist()


# Windows


@pytest.mark.parametrize(
    ("position", "stride", "expected"),
    [(0, 1, [0, 0, 0, 0, 0]), (2, 1, [0, 0, 0, 1, 2]), (9, 1, [5, 6, 7, 8, 9]), (9, 3, [0, 0, 3, 6, 9])],
    ids=["start", "warm-up", "later", "stride"],
)
def test_a_clip_ends_at_its_key_frame_and_repeats_the_first(position, stride, expected):
    sequence = sequence_of([[(i, 4, i + 3, 7)] for i in range(10)])
    clip = clip_at(sequence, position, length=LENGTH, stride=stride)
    assert np.array_equal(clip.frames, sequence.frames[expected])
    assert clip.boxes.tolist() == [[position, 4, position + 3, 7]]


# Openings


@pytest.mark.parametrize("seed", range(40))
def test_boxes_stay_on_their_pixels_through_openings_and_mirrors(seed):
    chance = np.random.default_rng(seed)
    clip = random_crop(random_clip(seed), (32, 24), chance)
    clip = flip(clip, horizontal=bool(seed & 1), vertical=bool(seed & 2))
    assert clip.frames.shape == (LENGTH, 24, 32)
    assert_boxes_cover_pixels(clip)


def test_an_opening_is_not_always_at_the_same_place():
    clip = random_clip(0)
    places = {random_crop(clip, (32, 24), np.random.default_rng(seed)).frames.tobytes() for seed in range(20)}
    assert len(places) > 10


def test_most_openings_hold_a_target():
    """Nine in ten are placed on a target; the share is above 0.85 of 300."""
    clip = clip_at(sequence_of([[(2, 3, 5, 6)]]), 0, length=1)
    held = [len(random_crop(clip, (8, 8), np.random.default_rng(seed)).boxes) for seed in range(300)]
    assert 0.85 < np.mean(held) < 1


def test_openings_of_an_empty_frame_are_anywhere():
    clip = clip_at(sequence_of([[]]), 0, length=1)
    found = random_crop(clip, (8, 8), np.random.default_rng(0))
    assert (found.frames.shape, found.boxes.shape) == ((1, 8, 8), (0, 4))


def test_an_opening_as_large_as_the_picture_changes_nothing():
    clip = random_clip(0)
    found = random_crop(clip, (WIDTH, HEIGHT), np.random.default_rng(0))
    assert np.array_equal(found.frames, clip.frames)
    assert np.array_equal(found.boxes, clip.boxes)


@pytest.mark.parametrize(
    ("left", "top", "expected", "labels"),
    [
        (0, 0, [[4, 5, 8, 9]], [0]),
        (4, 5, [[0, 0, 4, 4]], [0]),
        (5, 5, [[0, 0, 3, 4]], [0]),
        (6, 5, [[0, 0, 2, 4]], [0]),
        (7, 5, [], []),
        (20, 20, [[10, 8, 14, 11]], [1]),
        (4, 19, [], []),
        (16, 20, [], []),
        (20, 18, [[10, 10, 14, 12]], [1]),
    ],
    ids=[
        "first",
        "at the edge",
        "cut",
        "centre on the edge",
        "centre outside",
        "second",
        "between",
        "centre on the far edge",
        "cut below",
    ],
)
def test_targets_whose_centre_is_outside_an_opening_are_dropped(left, top, expected, labels):
    clip = clip_at(sequence_of([[(4, 5, 8, 9), (30, 28, 34, 31)]]), 0, length=1)
    found = crop(clip, left=left, top=top, width=16, height=12)
    assert found.boxes.tolist() == expected
    assert found.labels.tolist() == labels


# Mirrors and brightness


@pytest.mark.parametrize(
    ("horizontal", "vertical", "expected"),
    [
        (True, False, [WIDTH - 8, 5, WIDTH - 4, 9]),
        (False, True, [4, HEIGHT - 9, 8, HEIGHT - 5]),
        (True, True, [WIDTH - 8, HEIGHT - 9, WIDTH - 4, HEIGHT - 5]),
        (False, False, [4, 5, 8, 9]),
    ],
    ids=["across", "upside down", "both", "neither"],
)
def test_mirrors_move_boxes_with_pixels(horizontal, vertical, expected):
    clip = clip_at(sequence_of([[(4, 5, 8, 9)]]), 0, length=1)
    found = flip(clip, horizontal=horizontal, vertical=vertical)
    assert found.boxes.tolist() == [expected]
    assert_boxes_cover_pixels(found)


def test_mirroring_twice_changes_nothing():
    clip, mirror = random_clip(0), partial(flip, horizontal=True, vertical=True)
    again = mirror(mirror(clip))
    assert np.array_equal(again.frames, clip.frames)
    assert np.array_equal(again.boxes, clip.boxes)


@pytest.mark.parametrize("seed", range(10))
def test_brightness_changes_alike_in_all_frames_and_leaves_boxes_alone(seed):
    clip = random_clip(seed)
    found = gain_and_offset(clip, np.random.default_rng(seed))
    levels, first = np.unique(clip.frames, return_index=True)
    table = dict(zip(levels.tolist(), found.frames.ravel()[first].tolist(), strict=True))
    assert found.frames.dtype == np.uint8
    assert np.array_equal(found.frames, np.vectorize(table.get)(clip.frames))
    assert np.array_equal(found.boxes, clip.boxes)
    assert (np.diff(list(table.values())) >= 0).all()  # brighter stays brighter


def test_brightness_does_change():
    clip = random_clip(0)
    means = [gain_and_offset(clip, np.random.default_rng(seed)).frames.mean() for seed in range(20)]
    assert np.ptp(means) > 20


# Training batches


def sampler(seed: int = 3, share: float = 0.5) -> ClipSampler:
    real = [sequence_of([[(4, 5, 8, 9)]] * n, seed=n, name=f"real {n}") for n in (6, 9)]
    made = [sequence_of([[(20, 21, 23, 24)]] * 7, seed=50)]
    return ClipSampler(real, made, length=LENGTH, synthetic_share=share, seed=seed)


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


@pytest.mark.parametrize(("crop_size", "shape"), [((32, 24), (24, 32)), (None, (HEIGHT, WIDTH))], ids=str)
def test_clips_of_a_batch_have_one_size_and_true_boxes(crop_size, shape):
    batch = sampler().batch(0, size=8, crop_size=crop_size)
    assert {clip.frames.shape for clip in batch} == {(LENGTH, *shape)}
    for clip in batch:
        bright = clip.frames[-1] > clip.frames[-1].mean() + 60
        outside = bright.copy()
        for left, top, right, bottom in clip.boxes.astype(int):
            assert bright[top:bottom, left:right].all()
            outside[top:bottom, left:right] = False
        assert not len(clip.boxes) or not outside.any()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_synthetic_clips_is_the_one_asked_for(share):
    """Within 0.1 of the share, of 300 clips; the synthetic target has nine pixels, the real one sixteen."""
    batch = sampler(share=share).batch(0, size=300, crop_size=None)
    areas = [float(np.prod(clip.boxes[0, 2:] - clip.boxes[0, :2])) for clip in batch]
    assert np.mean([area == 9 for area in areas]) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(UsageError, match="empty"):
        ClipSampler([sequence_of([[]])], [], length=LENGTH, synthetic_share=0.5, seed=0)


# Sources of sequences


def test_synthetic_sequences_depend_on_their_seed_alone():
    made = partial(synthetic_sequences, 2, frames=3, width=64, height=48)
    first, again, other = (list(made(seed=seed)) for seed in (5, 5, 6))
    assert np.array_equal(first[1].frames, again[1].frames)
    assert np.array_equal(first[1].frames, other[0].frames)
    assert not np.array_equal(first[0].frames, first[1].frames)
    assert first[0].frames.shape == (3, 48, 64)
    assert len(first[0].boxes) == len(first[0].labels) == 3


def record_of(frames: int, *, width: int = WIDTH) -> VideoRecord:
    none = (np.zeros((0, 4), np.float32),) * frames
    labels = (np.zeros(0, np.int64),) * frames
    return VideoRecord("made", "made.mkv", width, HEIGHT, {i: i for i in range(frames)}, none, labels)


@pytest.fixture
def video(tmp_path):
    """Four frames of noise without loss; gives their pixels."""
    pictures = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH), np.uint8)
    with av.open(str(tmp_path / "made.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode())
    return pictures


def test_a_sequence_has_the_pixels_of_its_video(video, tmp_path):
    assert np.array_equal(read_sequence(record_of(4), tmp_path).frames, video)


@pytest.mark.parametrize(
    "record",
    [record_of(5), record_of(3), record_of(4, width=50)],
    ids=["too short", "too long", "other size"],
)
def test_a_video_that_does_not_fit_its_annotations_is_refused(record, video, tmp_path):
    with pytest.raises(UsageError, match=r"made\.mkv: decoded frames"):
        read_sequence(record, tmp_path)
