"""Returns free heap pages to the operating system."""

from __future__ import annotations

import ctypes
import gc
import sys


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
