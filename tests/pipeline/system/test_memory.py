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


def kernel_files(root, files):
    """Writes files as the kernel has them."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       8000 kB\nMemAvailable:   4000 kB\n"}


def test_available_memory_is_what_the_system_says(tmp_path):
    assert memory.available_memory(kernel_files(tmp_path, MEMINFO)) == 4000 * 1024


def test_the_limit_of_a_control_group_counts_without_file_caches(tmp_path):
    group = "sys/fs/cgroup/a/b/memory."
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/a/b\n",
        f"{group}max": "1000000\n",
        f"{group}current": "700000\n",
        f"{group}stat": "anon 5\ninactive_file 100000\nactive_file 7\n",
    }
    assert memory.available_memory(kernel_files(tmp_path, files)) == 400_000


@pytest.mark.parametrize("limited", ["a/b", "a", ""], ids=["its own", "the one above", "the first"])
def test_each_control_group_above_the_process_counts(tmp_path, limited):
    files = {**MEMINFO, "proc/self/cgroup": "0::/a/b\n"}
    for group in ("a/b/", "a/", ""):
        limit = "1000" if group.rstrip("/") == limited else "max"
        files |= {f"sys/fs/cgroup/{group}memory.{name}": limit for name in ("max",)}
        files |= {f"sys/fs/cgroup/{group}memory.current": "400"}
    assert memory.available_memory(kernel_files(tmp_path, files)) == 600


def test_control_groups_of_version_1_count(tmp_path):
    group = "sys/fs/cgroup/memory/job/memory."
    files = {
        **MEMINFO,
        "proc/self/cgroup": "5:devices:/job\n4:memory:/job\n0::/\n",
        f"{group}limit_in_bytes": "1000000\n",
        f"{group}usage_in_bytes": "300000\n",
        f"{group}stat": "total_inactive_file 50000\n",
    }
    assert memory.available_memory(kernel_files(tmp_path, files)) == 750_000


def test_a_group_beyond_its_limit_leaves_nothing(tmp_path):
    files = {**MEMINFO, "proc/self/cgroup": "0::/a\n"}
    files |= {"sys/fs/cgroup/a/memory.max": "100", "sys/fs/cgroup/a/memory.current": "400"}
    assert memory.available_memory(kernel_files(tmp_path, files)) == 0


def test_without_files_of_the_kernel_the_size_of_the_memory_counts(tmp_path):
    known = memory.available_memory(tmp_path)
    assert known is None or known > 1 << 28


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_that_the_process_occupies_is_known():
    assert memory.resident_memory() > 10**6


def test_it_is_0_where_the_system_does_not_say(tmp_path):
    assert memory.resident_memory(tmp_path) == 0
