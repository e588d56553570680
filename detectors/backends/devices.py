"""Device, precision and number of CPU threads of a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.system.errors import UsageError
from pipeline.system.packages import require_package

LARGE = 640 * 512
"""Pixels of a network input above which the run reports its cost and the progress of its first frame."""
MAX_JOINS = 4
"""Most windows that are joined at once: decoding, features and outputs do not keep up with more."""


def pick_device(name: str) -> torch.device:
    """Returns the device of a name; auto is a CUDA device if there is one, else the CPU.

    Raises UsageError for unknown and unavailable devices.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unknown = UsageError(f"unknown device '{name}', expected auto, cpu, mps, cuda or cuda:N")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise unknown
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps' is not available: it needs macOS on Apple silicon; use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device '{name}' is not available: {torch.cuda.device_count()} GPUs found; use cpu")
    return device


def require_precision(precision: str, device: torch.device) -> None:
    """Raises UsageError if the device does not support a precision."""
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("--precision fp16 needs a GPU; on a CPU use fp32 or bf16")


def require_compiler(device: torch.device) -> None:
    """Raises UsageError if torch.compile is of no use on a device, or its compiler is missing."""
    if device.type == "cpu":
        raise UsageError("--compile is for a GPU: on a CPU networks are optimised without it; leave it out")
    require_package("triton", "--compile")


def thread_count(network: object) -> int:
    """Returns the number of CPU threads for a network: all cores for wide ones and segmenters, else one.

    The operations of `tridos-nano` are too short for several threads, which would compete with decoder and
    encoder; instead its two phases have a thread each (`StreamingDetector.schedule`). `tridos` is faster with
    every core. Measured with tests/benchmarks/whole_job.py --threads.
    """
    if getattr(network, "width", 1.0) < 0.5:  # segmenters have no width: they work at full resolution
        return 1
    return core_count()


def core_count() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def join_count() -> int:
    """Returns how many windows of a narrow network are joined at once: one a core, up to `MAX_JOINS`."""
    return min(core_count(), MAX_JOINS)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets the number of torch's CPU threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
