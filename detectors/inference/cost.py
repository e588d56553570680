"""What a network takes for inputs of a size: operations of a frame, and memory of a run.

The formulas count products of convolutions and attention, and the arrays that live at the same time.
`docs/performance.md` has what was measured beside them.
"""

from __future__ import annotations

import math
import time
from functools import cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from detectors.backends.devices import torch_threads
from detectors.networks.tridos.head import STRIDE

Form = Literal["graph", "torch"]
"""Exported graphs, by any runtime, or the network in torch."""

LINEAR = 2170.0
"""Operations of all convolutions and linear layers of Tridos per cell and squared channel of the neck."""
WINDOWS = 3200.0
"""Operations of the window attention per cell and channel: two layers, 5 tokens a cell, 80 in a window."""
READER = 3.0
"""Operations of the memory reader per pair of cells and channel: keys of half the width, and values."""
PLAIN = 2.7e6
"""Operations of the plain network per cell of 64 pixels."""

MAPS: dict[Form, float] = {"torch": 105.0, "graph": 275.0}
"""Maps of the neck's width, float32, that live at the same time when a window is joined, by form."""
RING_MAPS: dict[Form, float] = {"torch": 8.4, "graph": 20.4}
"""Such maps that the state of a sequence holds: four frames of features and three pairs."""
SCORES: dict[Form, tuple[float, float]] = {
    "torch": (3 * 256 * 4.0, 3 * 4.0 * 2**23),
    "graph": (2 * 320 * 4.0, math.inf),
}
"""Bytes per cell of the scores of one chunk of the memory reader, and at most."""
WINDOW_SCORES = 3 * 6400.0
"""Bytes per cell of the window attention in a graph: its constant, scores and their softmax, 4 heads."""
PLAIN_BYTES = 12_000.0
"""Bytes per cell of the plain network."""

PROCESS = 420e6
"""Bytes of a process that has loaded all libraries, and of buffers that do not depend on the size."""
FRAMES = 16
"""Frames that wait before the network and after it, at most."""
PIXEL = 80.0
"""Bytes per source pixel of preparation, drawing and the encoder, which keeps some frames."""

EFFICIENCY = 0.5
"""Share of the speed of the convolution of `core_rate` that a whole frame reaches."""


class Shape(NamedTuple):
    """What the cost of a network depends on."""

    channels: int
    """Channels of the neck of a Tridos network; 0 for the plain network."""
    threads: int
    """CPU threads of an operation."""
    joins: int
    """Windows that are joined at the same time, each with arrays of its own."""


def cells(size: tuple[int, int]) -> int:
    """Returns the cells of the output for a network input of (width, height) pixels."""
    return -(-size[0] // STRIDE) * -(-size[1] // STRIDE)


def operations(shape: Shape, count: int) -> float:
    """Returns the operations, products and sums, of a frame whose input has `count` cells."""
    if not shape.channels:
        return PLAIN * count
    linear = (LINEAR * shape.channels + WINDOWS) * shape.channels * count
    return linear + READER * shape.channels * count**2


def network_bytes(shape: Shape, form: Form, count: int) -> float:
    """Returns the bytes of the arrays that compute a frame whose input has `count` cells."""
    if not shape.channels:
        return PLAIN_BYTES * count
    windows = WINDOW_SCORES if form == "graph" else 0.0
    per_cell, most = SCORES[form]
    scores = min(per_cell * count, most)
    return ((4 * MAPS[form] * shape.channels + windows) * count + scores) * shape.joins


def ring_bytes(shape: Shape, form: Form, count: int) -> float:
    """Returns the bytes of the state of a sequence whose input has `count` cells."""
    if not shape.channels:
        return 8 * STRIDE**2 * 4.0 * count
    return 4 * RING_MAPS[form] * shape.channels * count


def frame_bytes(size: tuple[int, int], *, samples: int) -> float:
    """Returns the bytes that frames of (width, height) with `samples` bytes a pixel take outside networks."""
    return (FRAMES * samples + PIXEL) * size[0] * size[1]


@cache
def core_rate() -> float:
    """Returns the operations per second of a convolution in torch on one free core, measured in 50 ms.

    Time of other programs does not count.
    """
    work, best = 2 * 9 * 64**4, 0.0
    with torch_threads(1), torch.inference_mode():
        x, weight = torch.ones(1, 64, 64, 64), torch.ones(64, 64, 3, 3)
        F.conv2d(x, weight, padding=1)  # the first one prepares the library
        latest = time.thread_time() + 0.05
        while (started := time.thread_time()) < latest or not best:
            F.conv2d(x, weight, padding=1)
            best = max(best, work / max(time.thread_time() - started, 1e-6))
    return best
