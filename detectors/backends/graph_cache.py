"""Cache of exported graphs: a folder for each network, size of input and version of the code.

A cache can be rebuilt, so no run ends because of it: graphs that are missing or damaged are exported again,
and graphs that cannot be written stay in memory. Processes may share a cache. Each builds in a folder of its
own, `NAME.ID.part`, which it keeps locked until it is complete and renamed; one without a lock was
left by a killed process and is removed. A folder that is being read has a shared lock. A process locks the
cache while it adds or removes folders.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detectors.backends import export_folder
from detectors.backends.export_folder import MANIFEST, NETWORKS, Contents, Origin
from pipeline.config.units import byte_count
from pipeline.system.errors import WeightsError
from pipeline.system.files import open_to_lock, sync_folder, try_lock

if TYPE_CHECKING:
    from detectors.networks.tridos import Tridos

log = logging.getLogger(__name__)

CACHE = Path("~/.cache/mote/exported")
"""Default folder."""
PATIENCE = 10.0
"""Seconds to wait for another process that adds or removes folders."""
MAX_AGE = 86400.0
"""Seconds after which a folder that is being built is left over, on file systems without locks."""
PART = ".part"
"""End of the name of a folder that is being built or removed."""

_NAME = re.compile(
    rf"({'|'.join(NETWORKS)})-[0-9a-f]{{12}}-\d+x\d+-[0-9a-f]{{16}}(\.[\w-]+{re.escape(PART)})?"
)
"""Names in a cache; whatever has another name was put there by others and stays."""


class CacheEntry(NamedTuple):
    """The graphs of a network for one size of input."""

    folder: Path
    size: int
    """Bytes of its files."""
    last_used: float
    """When a run read or wrote it, seconds since 1970."""


@dataclass(frozen=True)
class GraphCache:
    """A folder of exported graphs that is bounded in size."""

    folder: Path
    """Made when it is first written to."""
    limit: int
    """Maximum bytes of all graphs; those that were not used for the longest time are removed."""

    @classmethod
    def at(cls, folder: str, limit: str) -> GraphCache:
        """Returns the cache of a configuration: both may be empty; `limit` has a unit, such as 4GB."""
        return cls(Path(os.path.expanduser(folder or CACHE)), byte_count(limit) or sys.maxsize)

    def load_or_export(self, model: Tridos, origin: Origin, *, size: tuple[int, int], kind: str) -> Contents:
        """Returns the graphs of a network for inputs of `size` in the format `kind`.

        They are read from the cache; if they are missing or damaged, the network is exported and the cache
        written, which is reported in one warning. Raises UsageError if a package for it is missing.
        """
        folder = self.folder / _entry_name(origin, size=size, kind=kind)
        contents, fault = _read(folder, origin, size=size, kind=kind)
        if contents:
            return contents
        started = time.perf_counter()
        contents = export_folder.encode_network(model, size=size, kind=kind)
        seconds = time.perf_counter() - started
        trouble = self._store(contents, folder, origin, size=size, kind=kind)
        message = f"exported {origin.detector} for input of {size[0]}x{size[1]} in {seconds:.1f} s"
        message += f", because {fault}" if fault else ""
        kept = f"later runs export again, since the graphs cannot be kept in {self.folder}: {trouble}"
        log.warning("%s; %s", message, kept if trouble else f"later runs take it from {folder}")
        return contents

    def entries(self) -> list[CacheEntry]:
        """Returns what the cache holds, the least recently used first."""
        found = []
        for path in self._items():
            if not path.name.endswith(PART):
                with suppress(OSError):  # removed meanwhile
                    found.append(_describe(path))
        return sorted(found, key=lambda entry: (entry.last_used, entry.folder))

    def clear(self) -> list[CacheEntry]:
        """Removes everything but what a process is reading or writing; returns what was removed.

        Raises OSError if the cache cannot be changed.
        """
        if not self.folder.is_dir():
            return []
        with _locked(self.folder):
            self._sweep()
            return [entry for entry in self.entries() if _remove(entry.folder)]

    def _store(
        self, contents: Contents, folder: Path, origin: Origin, *, size: tuple[int, int], kind: str
    ) -> str:
        """Writes graphs to `folder`, which may hold damaged ones; returns why not, empty if it was done."""
        needed = sum(map(len, contents.values()))
        if needed > self.limit:
            return f"detector.cache_limit is {self.limit / 1e9:.3g} GB, they have {needed / 1e9:.3g} GB"
        part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}{PART}")
        lock = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder):
                self._sweep()
                part.mkdir()
                lock = open_to_lock(part)
                try_lock(lock)
            export_folder.write_export(contents, origin, part, size=size, kind=kind)
            with _locked(self.folder):
                if _read(folder, origin, size=size, kind=kind)[0]:
                    return ""  # another process was faster
                _discard(folder)
                self._make_room(needed)
                os.close(lock)
                lock = None
                part.rename(folder)
                sync_folder(self.folder)
        except OSError as error:
            return error.strerror or str(error)
        finally:
            if lock is not None:
                os.close(lock)
            shutil.rmtree(part, ignore_errors=True)
        return ""

    def _items(self) -> list[Path]:
        """Returns the files and folders of the cache whose names are its own."""
        with suppress(OSError):
            return [self.folder / name for name in os.listdir(self.folder) if _NAME.fullmatch(name)]
        return []

    def _make_room(self, needed: int) -> None:
        """Removes entries, the least recently used first, until `needed` bytes more are within the limit."""
        entries = self.entries()
        excess = sum(entry.size for entry in entries) + needed - self.limit
        for entry in entries:
            if excess <= 0:
                return
            if _remove(entry.folder):
                log.info("removed %s, which was not used for the longest time", entry.folder)
                excess -= entry.size

    def _sweep(self) -> None:
        """Removes what killed processes have left; the cache is locked."""
        locks_work = _is_locked(self.folder)
        for path in self._items():
            with suppress(OSError):
                left_over = locks_work or time.time() - path.lstat().st_mtime > MAX_AGE
                if path.name.endswith(PART) and left_over:
                    _remove(path)


def _entry_name(origin: Origin, *, size: tuple[int, int], kind: str) -> str:
    """Returns the name of a folder: it differs in whatever determines the graphs."""
    code, versions = export_folder.code_digest(), export_folder.versions()
    key = {"size": size, "format": kind, "code": code, "versions": versions, **asdict(origin)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return f"{origin.detector}-{origin.sha256[:12]}-{size[0]}x{size[1]}-{digest}"


def _read(folder: Path, origin: Origin, *, size: tuple[int, int], kind: str) -> tuple[Contents | None, str]:
    """Returns the graphs of a folder, or None and what is wrong with it; nothing is if it is missing."""
    if not os.path.lexists(folder):
        return None, ""
    try:
        with _reading(folder):
            export = export_folder.read_export(folder)
            if (export.origin, export.size, export.format) != (origin, size, kind):
                raise WeightsError(f"{folder} is of another network")
            contents = export_folder.read_graphs(export)
            with suppress(OSError):  # it may be another user's
                os.utime(folder / MANIFEST)
            return contents, ""
    except (OSError, WeightsError) as error:
        return None, str(error).removesuffix("; export again") if os.path.lexists(folder) else ""


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Keeps a folder from being removed during the block. Raises OSError if it cannot be opened."""
    descriptor = open_to_lock(folder)
    try:
        try_lock(descriptor, shared=True)  # without it the folder may be removed, and is then found missing
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the whole cache during the block. Raises OSError if others keep it locked for `PATIENCE`."""
    descriptor, started = open_to_lock(folder), time.monotonic()
    try:
        while not try_lock(descriptor):
            if time.monotonic() - started > PATIENCE:
                raise OSError(errno.EBUSY, "another process keeps it locked")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _is_locked(folder: Path) -> bool:
    """Returns whether a file or folder is locked; False where there are no locks."""
    descriptor = open_to_lock(folder)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> bool:
    """Removes a file or folder of the cache unless a process uses it; returns whether it did."""
    try:
        if path.is_dir() and not path.is_symlink() and _is_locked(path):
            return False
        _discard(path)
    except OSError as error:
        log.info("cannot remove %s: %s", path, error.strerror or error)
        return False
    return True


def _discard(path: Path) -> None:
    """Removes a folder, file or link, if it is there. Raises OSError if that fails.

    A folder is renamed first, so that nobody reads a part of it.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    if not path.name.endswith(PART):
        path = path.rename(path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{PART}"))
    shutil.rmtree(path, ignore_errors=True)


def _describe(path: Path) -> CacheEntry:
    """Returns the description of an entry. Raises OSError if it was removed."""
    status = path.lstat()
    if not path.is_dir() or path.is_symlink():
        return CacheEntry(path, status.st_size, status.st_mtime)
    files = [entry.stat(follow_symlinks=False) for entry in os.scandir(path)]
    last_used = max((file.st_mtime for file in files), default=status.st_mtime)
    return CacheEntry(path, sum(file.st_size for file in files), last_used)
