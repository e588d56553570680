"""Memory that a program holds and no longer uses, given back."""

from __future__ import annotations

import ctypes
import gc
import sys


def release_free_memory() -> None:
    """Free what only cycles hold, and hand free pages to the system.

    glibc keeps an arena for each thread, and gives back by itself only what lies free at its end. Threads
    that come and go, each with buffers of its own, leave arenas that are almost empty and still resident.
    Where there is no glibc the second part does nothing.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(ctypes.c_size_t(0))
