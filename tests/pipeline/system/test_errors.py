"""A lack of memory is told in one line with a remedy; other errors of networks are not taken for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.runner.steps import detect
from pipeline.system.errors import SourceLost, UsageError, out_of_memory


def allocation_errors():
    """Errors of the libraries that compute networks."""
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 60, np.uint8)
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 60, dtype=torch.uint8)
    onnx = RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9")
    return [of_numpy.value, of_torch.value, onnx, RuntimeError("std::bad_alloc"), MemoryError()]


@pytest.mark.parametrize("error", allocation_errors(), ids=lambda error: type(error).__name__)
def test_a_lack_of_memory_is_told_with_a_remedy(error):
    class Greedy:
        window = 1

        def detect(self, groups):
            raise error
            yield

    with pytest.raises(UsageError, match=r"memory does not suffice .* --tile 640x512"):
        list(detect(Greedy(), []))


@pytest.mark.parametrize(
    "error", [ValueError("shape"), SourceLost("out of memory of the camera"), SystemExit()]
)
def test_other_errors_stay_what_they_are(error):
    assert out_of_memory(error) is None
