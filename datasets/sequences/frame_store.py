"""Store of decoded frames: each sequence is decoded once, and then read from a compressed zarr array.

A store is a folder with one zarr array (T, H, W) per sequence, named by a digest of the files it was decoded
from: a renamed file has the same entry, a changed file another one. An entry is written beside its place, as
KEY.partial, and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from datasets.sequences.file_digests import DigestCache
from pipeline.sources.sequences import Location, grey_images
from pipeline.system.errors import OutputError, SourceError
from pipeline.system.progress import Progress

FORMAT_VERSION = 1
"""Part of every key; to be raised when the same files give other pixels or the layout of entries changes."""
CHUNK_FRAMES, CHUNK_BYTES = 16, 2 << 20
"""Maximum frames, and maximum uncompressed bytes (but at least one frame), of a chunk.

Five random consecutive frames of drone-ir (320x256, 8 bits) take 0.4, 0.5 and 0.9 ms from chunks of 8, 16 and
32 frames, which compress to 11, 7 and 6 % of their size. Frames of 0.6 MB with noise in all 16 bits hardly
compress, and smaller chunks are read sooner: 4, 17 and 42 ms for chunks of 3, 8 and 16 frames. The codec is
plain zstd at level 1, since decoded video repeats whole areas exactly from frame to frame: the blocks of
Blosc are too small for that (47 %, eight times as slow), and level 3 saves half a per cent. Chunks are not
cached, since random clips of tens of thousands rarely share one. Measured in November 2026 on two busy cores
of an EPYC processor.
"""


class StoredFrames:
    """Frames of one sequence in a store, (T, H, W) uint8 or uint16 grey, read when they are indexed.

    Indices along the first axis are those of a numpy array (an integer, a slice, a list or array of integers
    in any order, a mask); the result is a new array with the same values. Can be pickled, and read by several
    threads and processes at once. Reading raises SourceError if the entry is damaged.
    """

    def __init__(self, folder: Path, *, shape: tuple[int, int, int], dtype: np.dtype, step: int):
        self.shape = shape
        """Frames, rows, columns."""
        self.dtype = dtype
        """uint8 or uint16."""
        self._folder, self._step = folder, step

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), self._step):  # each chunk once, not once for each of its frames
            yield from self[start : start + self._step]

    def __getitem__(self, key: Any) -> np.ndarray:
        positions = np.arange(len(self))[key]
        frames = np.empty(np.shape(positions) + self.shape[1:], self.dtype)
        chunks, offsets = np.divmod(positions, self._step)
        for number in np.unique(chunks):
            in_chunk = chunks == number
            frames[in_chunk] = self._chunk(number)[offsets[in_chunk]]
        return frames

    def __repr__(self) -> str:
        return f"StoredFrames({self.shape}, {self.dtype}, {str(self._folder)!r})"

    def _chunk(self, number: int) -> np.ndarray:
        """Reads a chunk, (step, H, W); frames after the end of the sequence are black."""
        from numcodecs.zstd import Zstd  # type: ignore[import-untyped]  # numcodecs has no type information

        # Not read through zarr, which passes each read between threads: on busy cores five frames then take
        # 6.6 ms instead of 0.5. It also returns a black chunk for a missing one.
        try:
            plain = Zstd().decode((self._folder / _chunk_name(number)).read_bytes())
            return np.frombuffer(plain, self.dtype).reshape(-1, *self.shape[1:])
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceError(
                f"stored frames {self._folder} are damaged: {reason}; remove this folder and start again: "
                "they are decoded again"
            ) from error


class FrameStore:
    """A folder of decoded sequences. Raises OutputError if the folder cannot be created.

    Several processes may use one folder; if they need the same sequence, one decodes it and the others wait.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        with self._write_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
        self._digests = DigestCache(self.folder / "digests.jsonl")
        self._swept = False

    def open(self, name: str, location: Location, *, progress: Progress | None = None) -> StoredFrames:
        """Returns the frames of a video file, or of image files in order, decoding those that are not stored.

        `progress` advances by each decoded frame. An entry with missing or truncated parts is decoded again.
        Raises SourceError if a file cannot be read and UsageError for pixels that training cannot use (see
        `grey_images`), both naming the sequence `name`; OutputError if the folder cannot be written.
        """
        key = self._key(location)
        return _open_entry(self.folder / key) or self._build(key, name, location, progress)

    def contains(self, location: Location) -> bool:
        """Returns True if a sequence is stored. Raises SourceError if one of its files cannot be read."""
        return _open_entry(self.folder / self._key(location)) is not None

    def size_bytes(self) -> int:
        """Returns the bytes of all files. Entries are never removed; delete the folder to free the space."""
        files = (Path(root) / file for root, _, files in os.walk(self.folder) for file in files)
        return sum(file.stat().st_size for file in files)

    def _key(self, location: Location) -> str:
        """Returns the name of the entry, which depends on the content of the files and not on their names."""
        # These words are part of the keys of existing stores.
        kind, paths = ("video", [location]) if isinstance(location, Path) else ("pictures", location)
        text = "\n".join([f"format {FORMAT_VERSION}", kind, *self._digests.sha256(paths)])
        return hashlib.sha256(text.encode()).hexdigest()

    def _build(self, key: str, name: str, location: Location, progress: Progress | None) -> StoredFrames:
        entry, partial = self.folder / key, self._partial(key)
        with self._write_errors():
            self._sweep()
            with exclusive_lock(self._lock_path(key)):
                ready = _open_entry(entry)  # another process may have built it meanwhile
                if ready is not None:
                    return ready
                try:
                    shutil.rmtree(partial, ignore_errors=True)
                    images = grey_images(location, name=name, progress=progress)
                    with closing(images):
                        _write_entry(partial, images)
                    if self._key(location) != key:
                        raise SourceError(f"{name} was changed while it was read; start again")
                    shutil.rmtree(entry, ignore_errors=True)  # damaged, if it exists
                    partial.rename(entry)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        built = _open_entry(entry)
        if built is None:
            raise SourceError(f"stored frames {entry} are damaged; start again: they are decoded again")
        return built

    def _sweep(self) -> None:
        """Removes what interrupted builds left, once for this store."""
        if self._swept:
            return
        left = [path for path in self.folder.iterdir() if path.suffix in (".partial", ".lock")]
        for key in {path.stem for path in left}:
            with exclusive_lock(self._lock_path(key), wait=False) as locked:
                if locked:
                    shutil.rmtree(self._partial(key), ignore_errors=True)
        self._swept = True

    def _partial(self, key: str) -> Path:
        return self.folder / f"{key}.partial"

    def _lock_path(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turns an OSError in the block into an OutputError that names the folder."""
        try:
            yield
        except OSError as error:
            remedy = "free space, or choose another folder"
            raise OutputError(
                f"cannot store decoded frames in {self.folder}: {error.strerror or error}; {remedy}"
            ) from error


def _write_entry(folder: Path, images: Iterator[np.ndarray]) -> None:
    """Writes the array of an entry with one chunk in memory at a time."""
    import zarr
    from zarr.codecs import ZstdCodec

    first = next(images)
    step = int(np.clip(CHUNK_BYTES // first.nbytes, 1, CHUNK_FRAMES))
    array = zarr.create_array(
        folder,
        shape=(0, *first.shape),
        chunks=(step, *first.shape),
        dtype=first.dtype,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},  # all chunks in one folder
        config={"write_empty_chunks": True},  # so a missing one is known to be lost
    )
    images = itertools.chain([first], images)
    while block := list(itertools.islice(images, step)):
        array.append(np.stack(block))
    array.update_attributes({"chunk_bytes": _chunk_sizes(folder, array.nchunks)})


def _open_entry(folder: Path) -> StoredFrames | None:
    """Returns the frames of an entry; None if it does not exist, or chunks are missing or of another size."""
    if not folder.is_dir():
        return None
    import zarr

    try:
        array = zarr.open_array(folder, mode="r")
        complete = array.nchunks and array.attrs["chunk_bytes"] == _chunk_sizes(folder, array.nchunks)
        frames, height, width = array.shape
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # zarr raises these for damaged arrays
        return None
    if not complete:
        return None
    return StoredFrames(folder, shape=(frames, height, width), dtype=array.dtype, step=array.chunks[0])


def _chunk_sizes(folder: Path, count: int) -> list[int]:
    """Returns the bytes on disk of each chunk of an entry. Raises OSError if one is missing."""
    return [os.stat(folder / _chunk_name(number)).st_size for number in range(count)]


def _chunk_name(number: int) -> str:
    return f"c.{number}.0.0"


@contextmanager
def exclusive_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds the lock file at `path` during the block; yields False if it is held elsewhere and not `wait`.

    The lock ends with the process at the latest. The file is removed when it is released.
    """
    descriptor = _acquire(path, wait=wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _acquire(path: Path, *, wait: bool) -> int | None:
    """Creates and locks a file; returns its descriptor, or None if it is locked elsewhere and not `wait`."""
    from filelock import lock_descriptor

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = lock_descriptor(descriptor, blocking=wait)
            ours = locked and _is_at(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        if ours:
            return descriptor
        os.close(descriptor)
        if not locked:
            return None
        # The last holder has removed this file, so other processes will lock another one: try again.


def _is_at(descriptor: int, path: Path) -> bool:
    """Returns True if `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
