"""Where the network is computed: which device, and how many threads of a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch

from pipeline.system.errors import UsageError


def pick_device(name: str) -> torch.device:
    """'auto' takes a GPU where there is one. Raises UsageError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}', expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device '{name}', expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device '{name}' is not there: {torch.cuda.device_count()} GPUs found; use cpu")
    return device


def require_precision(precision: str, device: torch.device) -> None:
    """Raise UsageError for a number format that the device does not compute in."""
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; on a CPU use fp32 or bf16")


def require_compiler(device: torch.device) -> None:
    """Raise UsageError where torch.compile gains nothing, or has no compiler for the device."""
    if device.type == "cpu":
        raise UsageError("--compile is for a GPU: on a CPU a network is arranged by hand; leave it out")
    if find_spec("triton") is None:
        raise UsageError("--compile needs the package triton; install it, or leave --compile out")


def thread_count(model: torch.nn.Module) -> int:
    """CPU threads that pay: all cores for wide networks and for segmenters, one for narrow ones.

    The operations of `tridos-nano` are too short to be shared by threads, which then fight for their cores
    with decoder and encoder; its halves have a thread each (`StreamingDetector.halves`). `tridos` gains from
    every core. To measure: tests/benchmarks/whole_job.py --threads.
    """
    if getattr(model, "width", 1.0) < 0.5:  # segmenters have none: they work at full resolution
        return 1
    return core_count()


def core_count() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute the block with so many CPU threads, and what comes after it with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
