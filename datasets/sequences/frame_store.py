"""Decoded frames on disk: each sequence is decoded once, and then read from a compressed zarr array.

A store is a folder with one zarr array (T, H, W) for each sequence, named by the content of the files it was
decoded from: a file under another name has the same entry, a changed file another one. An entry is made
beside its place, as KEY.partial, and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from datasets.sequences.file_digests import Digests
from pipeline.sources.sequences import Location, grey_pictures
from pipeline.system.errors import OutputError, SourceError
from pipeline.system.progress import Progress

FORMAT = 1
"""Part of every key: to be raised when the same files give other pixels, or entries are laid out anew."""
CHUNK_FRAMES, CHUNK_BYTES = 16, 2 << 20
"""Most frames, and most bytes before compression (but one frame at least), of a chunk.

Five neighbouring frames of drone-ir (320x256, 8 bits) at random take 0.4, 0.5 and 0.9 ms from chunks of 8, 16
and 32 frames, which fill 11, 7 and 6 % of the plain bytes. Frames of 0.6 MB with noise in all their 16 bits
hardly compress, and the fewer of them a chunk holds the sooner they are read: 4, 17 and 42 ms from chunks of
3, 8 and 16. The codec is plain zstd at level 1, since decoded video repeats whole areas exactly from frame to
frame: Blosc works in blocks too small to see that (47 %, eight times as slow), and level 3 saves half a per
cent. Chunks are not kept once read: random clips of tens of thousands hardly meet the same one again.
Measured in November 2026 on two busy cores of an EPYC processor.
"""


class StoredFrames:
    """The frames of one sequence in a store, (T, H, W) uint8 or uint16 grey, read when they are indexed.

    Takes what a plain array takes along its first axis (a number, a slice, a list or array of numbers in any
    order, a mask) and gives an array of its own, equal to that of the plain array. Can be pickled, and read
    by several threads and processes at once. Reading raises SourceError where the entry has been damaged.
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

    def __getitem__(self, key) -> np.ndarray:
        positions = np.arange(len(self))[key]
        found = np.empty(np.shape(positions) + self.shape[1:], self.dtype)
        chunks, places = np.divmod(positions, self._step)
        for number in np.unique(chunks):
            here = chunks == number
            found[here] = self._chunk(number)[places[here]]
        return found

    def __repr__(self) -> str:
        return f"StoredFrames({self.shape}, {self.dtype}, {str(self._folder)!r})"

    def _chunk(self, number: int) -> np.ndarray:
        """The frames of a chunk, (step, H, W); those after the last one of the sequence are black."""
        from numcodecs.zstd import Zstd

        # Not through zarr, which passes each read from thread to thread: on busy cores five frames then take
        # 6.6 ms instead of 0.5. And it gives a black chunk for one that is missing.
        try:
            plain = Zstd().decode((self._folder / _chunk_name(number)).read_bytes())
            return np.frombuffer(plain, self.dtype).reshape(-1, *self.shape[1:])
        except (OSError, RuntimeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceError(
                f"stored frames {self._folder} are damaged: {reason}; remove this folder and start again: "
                "they are made anew"
            ) from error


class FrameStore:
    """A folder of decoded sequences. Raises OutputError where the folder cannot be made.

    Several processes may use one folder; of those that need the same sequence one makes it, the others wait.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        with self._written():
            self.folder.mkdir(parents=True, exist_ok=True)
        self._digests = Digests(self.folder / "digests.jsonl")
        self._swept = False

    def open(self, name: str, location: Location, *, progress: Progress | None = None) -> StoredFrames:
        """The frames of a video file, or of picture files in order; decoded now where the store lacks them.

        `progress` advances by each decoded frame. An entry with missing or truncated parts is made anew.
        Raises SourceError for what cannot be read, UsageError for pixels that training cannot use (see
        `grey_pictures`), both calling the sequence `name`; OutputError where the folder cannot be written.
        """
        key = self._key(location)
        return _intact(self.folder / key) or self._build(key, name, location, progress)

    def holds(self, location: Location) -> bool:
        """Whether `open` will not have to decode. Raises SourceError where a file cannot be read."""
        return _intact(self.folder / self._key(location)) is not None

    def size(self) -> int:
        """Bytes of all files in the folder; entries are never removed, so delete the folder to free them."""
        files = (Path(root) / file for root, _, files in os.walk(self.folder) for file in files)
        return sum(file.stat().st_size for file in files)

    def _key(self, location: Location) -> str:
        """The name of the entry: alike for equal bytes, whatever the files are called."""
        kind, paths = ("video", [location]) if isinstance(location, Path) else ("pictures", location)
        text = "\n".join([f"format {FORMAT}", kind, *self._digests.of(paths)])
        return hashlib.sha256(text.encode()).hexdigest()

    def _build(self, key: str, name: str, location: Location, progress: Progress | None) -> StoredFrames:
        entry, partial = self.folder / key, self._partial(key)
        with self._written():
            self._sweep()
            with _claimed(self._lock(key)):
                ready = _intact(entry)  # another process may have made it meanwhile
                if ready is not None:
                    return ready
                try:
                    shutil.rmtree(partial, ignore_errors=True)
                    with closing(grey_pictures(location, name=name, progress=progress)) as pictures:
                        _write(partial, pictures)
                    if self._key(location) != key:
                        raise SourceError(f"{name} was changed while it was read; start again")
                    shutil.rmtree(entry, ignore_errors=True)  # damaged, if there is one
                    partial.rename(entry)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        return _intact(entry)

    def _sweep(self) -> None:
        """Remove what interrupted builds left, once for this store."""
        if self._swept:
            return
        left = [path for path in self.folder.iterdir() if path.suffix in (".partial", ".lock")]
        for key in {path.stem for path in left}:
            with _claimed(self._lock(key), wait=False) as ours:
                if ours:
                    shutil.rmtree(self._partial(key), ignore_errors=True)
        self._swept = True

    def _partial(self, key: str) -> Path:
        return self.folder / f"{key}.partial"

    def _lock(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Turns what the system says against writing into an OutputError that names the folder."""
        try:
            yield
        except OSError as error:
            remedy = "free space, or choose another folder"
            raise OutputError(
                f"cannot store decoded frames in {self.folder}: {error.strerror or error}; {remedy}"
            ) from error


def _write(folder: Path, pictures: Iterator[np.ndarray]) -> None:
    """Make the array of an entry, one chunk in memory at a time."""
    import zarr
    from zarr.codecs import ZstdCodec

    first = next(pictures)
    step = int(np.clip(CHUNK_BYTES // first.nbytes, 1, CHUNK_FRAMES))
    array = zarr.create_array(
        folder,
        shape=(0, *first.shape),
        chunks=(step, *first.shape),
        dtype=first.dtype,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "."},  # all chunks in one folder
        config={"write_empty_chunks": True},  # so that one that is missing is known to be lost
    )
    pictures = itertools.chain([first], pictures)
    while block := list(itertools.islice(pictures, step)):
        array.append(np.stack(block))
    array.update_attributes({"chunk_bytes": _chunk_sizes(folder, array.nchunks)})


def _intact(folder: Path) -> StoredFrames | None:
    """The frames of an entry; None where there is none, or chunks are missing or not of the size written."""
    if not folder.is_dir():
        return None
    import zarr

    try:
        array = zarr.open_array(folder, mode="r")
        whole = array.nchunks and array.attrs["chunk_bytes"] == _chunk_sizes(folder, array.nchunks)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # what zarr raises for any damage
        return None
    return StoredFrames(folder, shape=array.shape, dtype=array.dtype, step=array.chunks[0]) if whole else None


def _chunk_sizes(folder: Path, count: int) -> list[int]:
    """Bytes on disk of each chunk of an entry. Raises OSError where one is missing."""
    return [os.stat(folder / _chunk_name(number)).st_size for number in range(count)]


def _chunk_name(number: int) -> str:
    return f"c.{number}.0.0"


@contextmanager
def _claimed(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file at `path`, which ends with its process at the latest; False if another holds it."""
    descriptor = _lock(path, wait=wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(path: Path, *, wait: bool) -> int | None:
    """Descriptor of the lock file at `path`, made and locked; None if another holds it and not `wait`."""
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
        if not locked:
            os.close(descriptor)
            return None
        os.close(descriptor)  # its last holder has removed the file: others will lock another one


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
