"""Memory that the machine has left, and free heap pages that are returned to the operating system."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

UNLIMITED = 1 << 60
"""Bytes from which a limit of a control group is none."""


def release_free_memory() -> None:
    """Collects reference cycles and returns free heap pages to the operating system.

    glibc keeps an arena for each thread and returns only the free memory at its end. Short-lived threads with
    large buffers leave arenas that are almost empty and still resident. Without glibc only cycles are
    collected.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in musl
        if trim is not None:
            trim(ctypes.c_size_t(0))


def available_memory(root: Path = Path("/")) -> int | None:
    """Returns the bytes that this process may still allocate; None where the system does not say.

    It is the least of what the system has available and of what the limit of each control group of the
    process, or of one above it, leaves. `root` is the folder of `proc` and `sys`.
    """
    known = [_system_memory(root), *_group_memory(root)]
    return min((max(amount, 0) for amount in known if amount is not None), default=None)


def resident_memory(root: Path = Path("/")) -> int:
    """Returns the bytes of memory that this process occupies; 0 where the system does not say."""
    found = re.search(r"^VmRSS:\s*(\d+) kB", _text(root / "proc/self/status"), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def _system_memory(root: Path) -> int | None:
    """Returns MemAvailable of the kernel in bytes, elsewhere the size of the memory; None if unknown."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if found:
        return 1024 * int(found[1])
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_memory(root: Path) -> Iterator[int]:
    """Yields what the limit of each control group of the process leaves, in bytes; versions 1 and 2."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers not in ("", "memory"):
            continue
        version = 2 if controllers == "" else 1
        top = root / "sys/fs/cgroup" / controllers
        # within a container the path may be that of the host, which does not exist there
        for place in dict.fromkeys([top / path.lstrip("/"), *(top / path.lstrip("/")).parents, top]):
            if place.is_relative_to(top) and (left := _left_in_group(place, version)) is not None:
                yield left


def _left_in_group(place: Path, version: int) -> int | None:
    """Returns limit less use of one control group; None without a limit. File caches can be dropped."""
    limits, uses = {1: ("limit_in_bytes", "usage_in_bytes"), 2: ("max", "current")}[version]
    limit, used = (_text(place / f"memory.{name}").strip() for name in (limits, uses))
    if not limit.isdecimal() or not used.isdecimal() or int(limit) >= UNLIMITED:
        return None
    key = {1: "total_inactive_file", 2: "inactive_file"}[version]
    cached = re.search(rf"^{key} (\d+)$", _text(place / "memory.stat"), re.MULTILINE)
    return int(limit) - int(used) + (int(cached[1]) if cached else 0)


def _text(path: Path) -> str:
    """Returns the content of a file of the kernel; empty if there is none."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
