"""Number of threads of networks, and devices."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

import detectors
from detectors.backends.devices import require_compiler, thread_count, torch_threads
from pipeline.system.errors import UsageError


def test_narrow_networks_take_one_thread_and_segmenters_no_fewer_than_wide_ones():
    narrow, wide, segmenter = (detectors.build(name) for name in ("tridos-nano", "tridos", "rdian"))
    assert thread_count(narrow) == 1
    assert thread_count(segmenter) == thread_count(wide) >= 1


def test_the_number_of_threads_is_restored_even_after_an_error():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(RuntimeError, match="a fault"), torch_threads(before + 2):
        raise RuntimeError("a fault")
    assert torch.get_num_threads() == before


def test_a_network_is_compiled_for_a_gpu_alone_and_what_that_lacks_is_named(monkeypatch, hide_packages):
    with pytest.raises(UsageError, match="--compile is for a GPU"):
        require_compiler(torch.device("cpu"))
    hide_packages("triton")
    with pytest.raises(UsageError, match="--compile needs the package triton"):
        require_compiler(torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    require_compiler(torch.device("cuda"))
