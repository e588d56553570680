"""Free memory is returned to the operating system."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from pipeline.system import memory

SCATTERED = """
from pathlib import Path
from pipeline.system.memory import release_free_memory

def resident():
    status = Path("/proc/self/status").read_text().split("VmRSS:")[1]
    return int(status.split()[0]) / 1024

blocks = [bytes([n % 256]) * 50_000 for n in range(1, 3000)]
kept = blocks[::20]  # free memory between blocks in use, which glibc does not return
del blocks
before = resident()
release_free_memory()
print(before - resident())
"""


class Ring:
    """An object in a reference cycle."""

    def __init__(self):
        self.itself = self


def test_what_only_holds_itself_is_freed():
    gc.disable()  # so that only the call collects
    try:
        gone = weakref.ref(Ring())
        assert gone() is not None
        memory.release_free_memory()
    finally:
        gc.enable()
    assert gone() is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_free_memory_between_blocks_in_use_is_returned():
    """A twentieth of 150 MB remains in use; the free memory in between is more than 100 MB."""
    done = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 100


def test_without_glibc_it_still_collects(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    gone = weakref.ref(Ring())
    memory.release_free_memory()
    assert gone() is None
