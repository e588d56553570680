"""Stored frames equal decoded ones, are found by content, and survive interrupted builds."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.sequences import frame_store as store_module
from datasets.sequences.frame_store import CHUNK_FRAMES, FrameStore
from pipeline.sources import sequences
from pipeline.system.errors import OutputError, SourceError, UsageError
from tests.conftest import PROJECT_ROOT
from tests.support.media import grey_frames, write_video

FRAMES = 2 * CHUNK_FRAMES + 5


@pytest.fixture
def plain() -> np.ndarray:
    """Noise frames (T, H, W) in three chunks, of which the last is not full."""
    return np.stack(grey_frames(FRAMES, 24, 32))


@pytest.fixture
def video(tmp_path, plain) -> Path:
    return write_video(tmp_path / "made.mkv", list(plain), codec="ffv1", pixel_format="gray")


@pytest.fixture
def store(tmp_path) -> FrameStore:
    return FrameStore(tmp_path / "store")


@pytest.fixture
def decoded(monkeypatch) -> list:
    """The videos that have been decoded."""
    opened = []
    open_source = sequences.open_source
    monkeypatch.setattr(
        sequences, "open_source", lambda path, **options: opened.append(path) or open_source(path, **options)
    )
    return opened


def write_images(folder: Path, images) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    return paths


def entries(store: FrameStore) -> list[Path]:
    return [path for path in store.folder.iterdir() if path.is_dir()]


# Reading


def random_keys() -> list:
    """Returns several indices of each kind, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    keys = [0, -1, FRAMES - 1, np.int64(7), slice(None), slice(None, None, -1), [], [0, 0, 0, 1, 2], [-1, 0]]
    for _ in range(15):
        first, last, step = rng.integers(-FRAMES - 3, FRAMES + 3, 3).tolist()
        keys += [slice(first, last, step or None), slice(first, last)]
        keys += [rng.integers(-FRAMES, FRAMES, rng.integers(1, 9)).tolist()]
        keys += [np.minimum(rng.integers(FRAMES) + np.arange(5) * rng.integers(1, 12), FRAMES - 1)]
    return [*keys, rng.random(FRAMES) < 0.3, rng.integers(0, FRAMES, (2, 3)), np.array(3)]


def test_all_indices_give_what_they_give_on_the_plain_array(store, video, plain):
    frames = store.open("made", video)
    assert (frames.shape, frames.dtype, len(frames)) == (plain.shape, plain.dtype, len(plain))
    for key in random_keys():
        found, expected = frames[key], plain[key]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), key
        assert np.array_equal(found, expected), key


@pytest.mark.parametrize("key", [FRAMES, -FRAMES - 1, [0, FRAMES], 0.5, "1", (1, 2)], ids=str)
def test_what_the_plain_array_refuses_is_refused(store, video, key):
    with pytest.raises(IndexError):
        store.open("made", video)[key]


def test_frames_come_in_order_when_iterated(store, video, plain):
    np.testing.assert_array_equal(list(store.open("made", video)), plain)


def test_an_entry_is_a_zarr_array_that_other_programs_read(store, video, plain):
    import zarr

    store.open("made", video)
    array = zarr.open_array(entries(store)[0], mode="r")
    assert array.metadata.zarr_format == 3
    np.testing.assert_array_equal(array[:], plain)


def test_what_was_read_may_be_changed(store, video, plain):
    frames = store.open("made", video)
    frames[3:6][:] = 0
    np.testing.assert_array_equal(frames[:], plain)


def test_many_threads_may_read_at_once(store, video, plain):
    frames = store.open("made", video)
    windows = np.random.default_rng(0).integers(0, FRAMES, (60, 5))
    with ThreadPoolExecutor(4) as pool:
        assert all(map(np.array_equal, pool.map(frames.__getitem__, windows), plain[windows]))


def test_pickled_frames_are_read_in_another_process(store, video, plain):
    frames = pickle.loads(pickle.dumps(store.open("made", video)))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(frames.__getitem__, ([9, 2, 2],)), plain[[9, 2, 2]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=["8 bits", "16 bits"])
def test_image_files_are_kept_to_the_bit(store, tmp_path, dtype):
    full = np.iinfo(dtype).max
    images = np.random.default_rng(0).integers(0, full, (20, 24, 32), dtype, endpoint=True)
    images[7] = 0  # a black image is no missing one
    frames = store.open("made", write_images(tmp_path / "images", images))
    assert frames.dtype == dtype
    np.testing.assert_array_equal(frames[:], images)


def test_video_of_16_bits_is_kept_to_the_bit(store, tmp_path):
    images = list(np.random.default_rng(0).integers(0, 65536, (5, 24, 32), np.uint16))
    formats = {"pixel_format": "gray16le", "source_format": "gray16le"}
    video = write_video(tmp_path / "made.mkv", images, codec="ffv1", **formats)
    np.testing.assert_array_equal(store.open("made", video)[:], images)


def test_images_stored_as_colour_become_grey(store, tmp_path, plain):
    coloured = np.repeat(plain[:3, ..., None], 3, axis=3)
    np.testing.assert_array_equal(
        store.open("made", write_images(tmp_path / "images", coloured))[:], plain[:3]
    )


# Keyed by content


def test_an_epoch_after_the_first_decodes_nothing(tmp_path, video, plain, decoded):
    for _ in range(3):
        np.testing.assert_array_equal(FrameStore(tmp_path / "store").open("made", video)[:], plain)
    assert decoded == [video]


def test_the_same_bytes_under_another_name_have_the_same_entry(store, video, tmp_path, decoded):
    store.open("made", video)
    other = shutil.copy(video, tmp_path / "other.mkv")
    assert store.contains(other)
    store.open("other", other)
    assert (len(decoded), len(entries(store))) == (1, 1)


def test_a_changed_file_has_another_entry(store, video, plain):
    store.open("made", video)
    write_video(video, list(255 - plain), codec="ffv1", pixel_format="gray")
    assert not store.contains(video)
    np.testing.assert_array_equal(store.open("made", video)[:], 255 - plain)
    assert len(entries(store)) == 2


def test_images_in_another_order_have_another_entry(store, tmp_path, plain):
    paths = write_images(tmp_path / "images", plain[:4])
    np.testing.assert_array_equal(store.open("made", paths)[:], plain[:4])
    np.testing.assert_array_equal(store.open("made", paths[::-1])[:], plain[3::-1])


# Interrupted and damaged


def test_a_build_that_is_killed_leaves_a_usable_store(store, video, plain):
    """The process is killed in the middle of a build, while it holds the lock."""
    code = f"""
import time
from pathlib import Path
from datasets.sequences.frame_store import FrameStore
class Slow:
    done = 0
    def advance(self):
        self.done += 1
        if self.done == {CHUNK_FRAMES + 3}:
            print("half", flush=True)
            time.sleep(60)
FrameStore({str(store.folder)!r}).open("made", Path({str(video)!r}), progress=Slow())
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        (partial,) = entries(store)
        process.kill()
    assert partial.suffix == ".partial"
    assert (partial / "c.0.0.0").exists()
    assert not store.contains(video)
    np.testing.assert_array_equal(store.open("made", video)[:], plain)
    assert entries(store) == [partial.with_suffix("")]
    assert not list(store.folder.glob("*.lock"))


def test_the_next_build_removes_what_another_sequence_left(store, video, tmp_path):
    (store.folder / "0123.partial").mkdir()
    (store.folder / "0123.partial" / "c.0.0.0").write_bytes(b"half")
    (store.folder / "4567.lock").touch()
    store.open("made", video)
    assert [path.suffix for path in entries(store)] == [""]
    assert not list(store.folder.glob("*.lock"))


def test_a_build_under_way_is_left_alone(store, video):
    (store.folder / "0123.partial").mkdir()
    with store_module.exclusive_lock(store.folder / "0123.lock"):
        store.open("made", video)
        assert (store.folder / "0123.partial").is_dir()


def test_an_interrupted_build_leaves_nothing(store, video, plain):
    class Stop:
        def advance(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.open("made", video, progress=Stop())
    assert not entries(store)
    np.testing.assert_array_equal(store.open("made", video)[:], plain)


def test_two_builds_of_the_same_sequence_decode_it_once(tmp_path, video, plain, decoded):
    stores = [FrameStore(tmp_path / "store") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda store: store.open("made", video)[:], stores))
    assert all(np.array_equal(frames, plain) for frames in found)
    assert decoded == [video]
    assert not list(stores[0].folder.glob("*.lock"))


DAMAGE = {
    "a truncated chunk": lambda entry: os.truncate(entry / "c.1.0.0", 100),
    "a missing chunk": lambda entry: (entry / "c.2.0.0").unlink(),
    "no metadata": lambda entry: (entry / "zarr.json").unlink(),
    "empty metadata": lambda entry: (entry / "zarr.json").write_bytes(b""),
    "half the metadata": lambda entry: os.truncate(entry / "zarr.json", 200),
    "metadata of something else": lambda entry: (entry / "zarr.json").write_text("[]"),
    "metadata that are no text": lambda entry: (entry / "zarr.json").write_bytes(b"\xff\xfe\x00"),
    "metadata without our own": lambda entry: (entry / "zarr.json").write_text(
        (entry / "zarr.json").read_text().replace("chunk_bytes", "bytes")
    ),
    "nothing in it": lambda entry: [path.unlink() for path in entry.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_made_anew(store, video, plain, decoded, damage):
    store.open("made", video)
    damage(entries(store)[0])
    assert not store.contains(video)
    np.testing.assert_array_equal(store.open("made", video)[:], plain)
    assert len(decoded) == 2
    assert len(entries(store)) == 1


def flip_a_bit(chunk: Path) -> None:
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink], ids=["a flipped bit", "gone"])
def test_damage_after_opening_never_gives_wrong_pixels(store, video, plain, damage):
    frames = store.open("made", video)
    (entry,) = entries(store)
    damage(entry / "c.1.0.0")
    np.testing.assert_array_equal(frames[:CHUNK_FRAMES], plain[:CHUNK_FRAMES])
    with pytest.raises(SourceError, match=rf"{entry} are damaged: .*remove this folder"):
        frames[CHUNK_FRAMES]


def test_a_full_disk_is_told_with_the_folder_and_leaves_nothing(store, video, plain):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OutputError, match=rf"{store.folder}: File too large; free space"):
            store.open("made", video)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not entries(store)
    np.testing.assert_array_equal(store.open("made", video)[:], plain)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/store: Not a directory"):
        FrameStore(tmp_path / "file" / "store")


# Sources


@pytest.mark.parametrize(
    ("location", "error", "says"),
    [
        (Path("nowhere.mp4"), SourceError, r"nowhere\.mp4 cannot be read: No such file"),
        ([], UsageError, "made: no image files are listed"),
    ],
    ids=["no file", "no images"],
)
def test_what_cannot_be_read_is_told(store, location, error, says):
    with pytest.raises(error, match=says):
        store.open("made", location)


def test_images_of_several_sizes_are_refused_and_not_stored(store, tmp_path, plain):
    paths = write_images(tmp_path / "images", [plain[0], plain[1], plain[2, 1:]])
    with pytest.raises(SourceError, match=r"made: frame size changes from 32x24 .* \(2\.png\)"):
        store.open("made", paths)
    assert not entries(store)


def test_a_file_that_changes_while_it_is_read_is_not_stored(store, video):
    class Change:
        def advance(self):
            os.truncate(video, video.stat().st_size)
            with video.open("ab") as file:
                file.write(b"more")

    with pytest.raises(SourceError, match="made was changed while it was read"):
        store.open("made", video, progress=Change())
    assert not entries(store)


# Memory and size


def test_a_build_holds_a_few_chunks_and_not_the_sequence(store, tmp_path):
    images = np.zeros((12 * CHUNK_FRAMES, 64, 64), np.uint8)
    video = write_video(tmp_path / "made.mkv", list(images), codec="ffv1", pixel_format="gray")
    store.open("first", write_images(tmp_path / "images", images[:1]))  # zarr is loaded
    tracemalloc.start()
    store.open("made", video)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes / 2


def test_large_frames_have_short_chunks(store, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 2500)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    frames = store.open("made", write_images(tmp_path / "images", images))
    assert len(list(entries(store)[0].glob("c.*"))) == 3
    np.testing.assert_array_equal(frames[[4, 1, 2]], images[[4, 1, 2]])


def test_the_size_is_that_of_all_files(store, video):
    assert store.size_bytes() == 0
    store.open("made", video)
    whole = subprocess.run(["du", "-ab", store.folder], capture_output=True, text=True, check=True).stdout
    files = [line.split("\t") for line in whole.splitlines()]
    assert store.size_bytes() == sum(int(size) for size, path in files if Path(path).is_file()) > 0


# Real data


@pytest.mark.real_data
def test_a_real_clip_is_stored_as_the_pipeline_reads_it(store, drone_ir):
    from pipeline.sources.opening import open_source

    video = min((drone_ir / "videos").iterdir(), key=lambda path: path.stat().st_size)
    with open_source(video) as source:
        plain = np.stack([frame.image for frame in source])
    np.testing.assert_array_equal(store.open(video.name, video)[:], plain)
    assert store.size_bytes() < 0.3 * plain.nbytes
