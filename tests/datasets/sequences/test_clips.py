"""Clips hold the window of the ring buffer, and sequences the pixels of their files."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import av
import cv2
import numpy as np
import pytest

from datasets.sequences.clips import clip_at, read_sequence, read_sequences, synthetic_sequences
from datasets.sequences.frame_store import FrameStore
from pipeline.structures.annotations import VideoRecord
from pipeline.system.errors import UsageError
from tests.support.sequences import HEIGHT, LENGTH, WIDTH, sequence_of

# Windows


@pytest.mark.parametrize(
    ("position", "stride", "expected"),
    [(0, 1, [0, 0, 0, 0, 0]), (2, 1, [0, 0, 0, 1, 2]), (9, 1, [5, 6, 7, 8, 9]), (9, 3, [0, 0, 3, 6, 9])],
    ids=["start", "warm-up", "later", "stride"],
)
def test_a_clip_ends_at_its_key_frame_and_repeats_the_first(position, stride, expected):
    sequence = sequence_of([[(i, 4, i + 3, 7)] for i in range(10)])
    clip = clip_at(sequence, position, length=LENGTH, stride=stride)
    np.testing.assert_array_equal(clip.frames, sequence.frames[expected])
    assert clip.boxes.tolist() == [[position, 4, position + 3, 7]]


@pytest.mark.parametrize(
    ("position", "missing", "expected"),
    [(9, 1, [5, 6, 7, 7, 9]), (9, 4, [4, 6, 7, 8, 9]), (1, 1, [0, 0, 0, 0, 1])],
    ids=["the last but one", "the oldest", "at the start"],
)
def test_the_frame_before_stands_in_for_one_that_is_missing(position, missing, expected):
    sequence = sequence_of([[(i, 4, i + 3, 7)] for i in range(10)])
    clip = clip_at(sequence, position, length=LENGTH, missing=missing)
    np.testing.assert_array_equal(clip.frames, sequence.frames[expected])


@pytest.mark.parametrize("missing", [0, LENGTH])
def test_the_key_frame_cannot_be_missing(missing):
    with pytest.raises(ValueError, match="expected 1 to 4"):
        clip_at(sequence_of([[]] * 10), 9, length=LENGTH, missing=missing)


# Sources of sequences


def test_synthetic_sequences_depend_on_their_seed_alone():
    made = partial(synthetic_sequences, 2, frames=3, width=64, height=48)
    first, again, other = (list(made(seed=seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[1].frames, again[1].frames)
    np.testing.assert_array_equal(first[1].frames, other[0].frames)
    assert not np.array_equal(first[0].frames, first[1].frames)
    assert first[0].frames.shape == (3, 48, 64)
    assert len(first[0].boxes) == len(first[0].labels) == 3


def record_of(frames: int, *, width: int = WIDTH) -> VideoRecord:
    none = (np.zeros((0, 4), np.float32),) * frames
    labels = (np.zeros(0, np.int64),) * frames
    return VideoRecord("made", "made.mkv", width, HEIGHT, {i: i for i in range(frames)}, none, labels)


@pytest.fixture
def video(tmp_path):
    """Writes a lossless video of four noise frames; returns their pixels."""
    images = np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH), np.uint8)
    with av.open(str(tmp_path / "made.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())
    return images


@pytest.fixture(params=["in memory", "in a store"])
def store(request, tmp_path) -> FrameStore | None:
    """The store of the sequences; None for memory."""
    return FrameStore(tmp_path / "store") if request.param == "in a store" else None


def write_images(root, images) -> tuple[str, ...]:
    """Writes one file per image; returns their paths relative to the root."""
    names = tuple(f"{number}.png" for number in range(len(images)))
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(root / name), image)
    return names


def test_a_sequence_has_the_pixels_of_its_video(video, store, tmp_path):
    sequence = read_sequence(record_of(4), tmp_path, store=store)
    np.testing.assert_array_equal(sequence.frames[:], video)
    assert len(sequence) == 4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=["8 bits", "16 bits"])
def test_a_sequence_has_the_pixels_of_its_image_files(store, tmp_path, dtype):
    full = np.iinfo(dtype).max
    images = np.random.default_rng(0).integers(0, full, (4, HEIGHT, WIDTH), dtype, endpoint=True)
    record = replace(record_of(4), file_name="", files=write_images(tmp_path, images))
    frames = read_sequence(record, tmp_path, store=store).frames
    assert frames.dtype == dtype
    np.testing.assert_array_equal(frames[:], images)


def test_a_sequence_may_be_a_folder_of_image_files(store, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (12, HEIGHT, WIDTH), np.uint8)  # 2.png before 10.png
    (tmp_path / "made").mkdir()
    write_images(tmp_path / "made", images)
    (tmp_path / "made" / "notes.txt").write_text("no image")
    record = replace(record_of(12), file_name="made")
    np.testing.assert_array_equal(read_sequence(record, tmp_path, store=store).frames[:], images)


@pytest.mark.parametrize("position", [0, 2, 3])
def test_a_clip_is_the_same_in_memory_and_in_a_store(video, tmp_path, position):
    stores = (None, FrameStore(tmp_path / "store"))
    first, second = (
        clip_at(read_sequence(record_of(4), tmp_path, store=store), position, length=LENGTH)
        for store in stores
    )
    assert isinstance(second.frames, np.ndarray)
    np.testing.assert_array_equal(first.frames, second.frames)


@pytest.mark.parametrize(
    "record",
    [record_of(5), record_of(3), record_of(4, width=50)],
    ids=["too short", "too long", "other size"],
)
def test_a_video_that_does_not_fit_its_annotations_is_refused(record, video, store, tmp_path):
    with pytest.raises(UsageError, match=r"made\.mkv: decoded frames"):
        read_sequence(record, tmp_path, store=store)


def test_a_sequence_has_the_masks_of_its_files(store, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
    record = replace(record_of(2), files=write_images(tmp_path, images)[:2], masks=("mask.png", "2.png"))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:7, 5:9] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    masks = read_sequence(record, tmp_path, store=store).masks
    assert (len(masks), masks[0].dtype) == (2, bool)
    np.testing.assert_array_equal(masks[0], mask > 0)


def test_a_mask_of_another_size_is_refused(tmp_path):
    images = [np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH - 1), np.uint8)]
    files = write_images(tmp_path, images)
    with pytest.raises(UsageError, match=r"made\.mkv: mask 0 has height, width \(40, 47\)"):
        read_sequence(replace(record_of(1), files=files[:1], masks=files[1:]), tmp_path)


def test_a_sequence_without_any_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="made: the annotations name neither"):
        read_sequence(replace(record_of(3), file_name=""), tmp_path)


def test_a_frame_without_an_image_is_refused(tmp_path):
    record = replace(record_of(3), files=("0.png", "", "2.png"))
    with pytest.raises(UsageError, match="made: frame 1 has no image"):
        read_sequence(record, tmp_path)


def test_the_progress_is_told_over_all_sequences_and_only_while_decoding(video, tmp_path, capsys):
    records = [record_of(4), replace(record_of(4), name="again")]
    store = FrameStore(tmp_path / "store")
    for expected in (["4/8 frames"], []):  # the second has the content of the first
        names = [s.name for s in read_sequences(records, tmp_path, store=store, mode="plain")]
        assert names == ["made", "again"]
        assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == expected


def test_the_progress_of_sequences_in_memory_counts_every_frame(video, tmp_path, capsys):
    assert len(list(read_sequences([record_of(4)] * 3, tmp_path, mode="plain"))) == 3
    assert capsys.readouterr().err.startswith("12/12 frames")
