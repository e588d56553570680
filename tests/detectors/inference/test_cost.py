"""Estimates of operations and memory agree with what networks take."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from detectors.inference import cost
from detectors.inference.cost import Shape
from detectors.networks.plain import PlainNetwork
from detectors.networks.tridos import Tridos

NANO = Shape(channels=32, threads=1, joins=1)

PEAK = """
from pathlib import Path
import torch
from detectors.networks.tridos import Tridos
from detectors.networks.tridos.optimised.fused import FusedTridos

torch.set_num_threads(1)
stream = FusedTridos(Tridos(width=0.25).eval()).stream()
peak = lambda: 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
stream.push(torch.zeros(1, 3, 64, 64))
before = peak()
stream.reset()
for _ in range(2):
    stream.push(torch.rand(1, 3, 512, 640))
print(peak() - before)
"""


@pytest.mark.parametrize(("width", "channels"), [(0.25, 32), (0.5, 64)])
def test_operations_of_tridos_without_attention_are_those_that_torch_counts(width, channels):
    stream = Tridos(width=width).eval().stream()
    with FlopCounterMode(display=False) as counted:
        stream.push(torch.zeros(1, 3, 64, 64))
    cells = cost.cells((64, 64))
    attention = channels * (cost.WINDOWS * cells + cost.READER * cells**2)
    expected = cost.operations(Shape(channels, 1, 1), cells) - attention
    assert counted.get_total_flops() == pytest.approx(expected, rel=0.02)


def test_operations_of_the_plain_network_are_those_that_torch_counts():
    stream = PlainNetwork().eval().stream()
    with FlopCounterMode(display=False) as counted:
        stream.push(torch.zeros(1, 3, 64, 64))
    assert counted.get_total_flops() == pytest.approx(
        cost.operations(Shape(0, 1, 1), cost.cells((64, 64))), rel=0.02
    )


def test_the_memory_reader_dominates_large_frames():
    small, large = (cost.operations(NANO, cost.cells(size)) for size in ((320, 256), (1280, 1024)))
    assert large > 16 * 1.5 * small


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_the_network_in_torch_is_about_the_estimate():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    cells = cost.cells((640, 512))
    expected = cost.network_bytes(NANO, "torch", cells) + cost.ring_bytes(NANO, "torch", cells)
    assert expected / 2.5 < float(done.stdout) < expected * 2


def test_the_speed_of_the_machine_is_measured_without_changing_its_threads():
    before = torch.get_num_threads()
    assert 1e8 < cost.core_rate() < 1e13
    assert torch.get_num_threads() == before
