"""Networks take the threads that pay, and no longer than they compute."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import detectors
from detectors.backends.devices import require_compiler, thread_count, threads
from pipeline.system.errors import UsageError
from tests.conftest import PROJECT_ROOT


def test_narrow_networks_take_one_thread_and_segmenters_no_fewer_than_wide_ones():
    narrow, wide, segmenter = (detectors.build(name) for name in ("tridos-nano", "tridos", "rdian"))
    assert thread_count(narrow) == 1
    assert thread_count(segmenter) == thread_count(wide) >= 1


def test_threads_are_as_many_as_before_whatever_happens():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with pytest.raises(RuntimeError, match="a fault"), threads(before + 2):
        raise RuntimeError("a fault")
    assert torch.get_num_threads() == before


def test_a_network_is_compiled_for_a_gpu_alone_and_what_that_lacks_is_named(monkeypatch):
    with pytest.raises(UsageError, match="--compile is for a GPU"):
        require_compiler(torch.device("cpu"))
    monkeypatch.setattr("detectors.backends.devices.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--compile needs the package triton"):
        require_compiler(torch.device("cuda"))
    monkeypatch.setattr("detectors.backends.devices.find_spec", lambda name: name)
    require_compiler(torch.device("cuda"))


@pytest.mark.parametrize(("asked", "spins"), [(None, "5000"), ("70", "70")])
@pytest.mark.parametrize("package", ["detectors", "trackers", "datasets.layouts.registry", "run_pipeline"])
def test_threads_that_wait_let_others_have_the_core_soon_unless_the_user_says_otherwise(
    package, asked, spins
):
    """Read when torch is loaded, so before that."""
    code = f"import sys, os, {package}; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    environment |= {"GOMP_SPINCOUNT": asked} if asked else {}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["False", spins], done.stderr
