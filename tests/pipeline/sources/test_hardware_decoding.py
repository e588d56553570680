"""Hardware decoding is optional, and an error of one line if it is not available."""

from __future__ import annotations

import pytest
import torch

from pipeline.sources import video
from pipeline.sources.video import hardware_decoder
from pipeline.system.errors import SourceError


def test_hardware_is_not_used_by_default():
    assert hardware_decoder("none") is None


def test_a_build_without_the_device_names_those_it_has(monkeypatch):
    monkeypatch.setattr(video, "hwdevices_available", lambda: ["vaapi", "qsv"])
    with pytest.raises(SourceError, match="decodes by vaapi, qsv, not by cuda; leave --hwaccel out"):
        hardware_decoder("cuda")
    monkeypatch.setattr(video, "hwdevices_available", list)
    with pytest.raises(SourceError, match="decodes by no hardware"):
        hardware_decoder("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU that may decode")
def test_missing_hardware_is_an_error_of_one_line(mote, clip, tmp_path):
    reply = mote(clip, "--output", tmp_path / "out", "--hwaccel", "cuda")
    assert (reply.code, reply.err.count("\n")) == (3, 1)
    assert "leave --hwaccel out" in reply.err
    assert not (tmp_path / "out").exists()


@pytest.mark.needs_cuda
def test_frames_decoded_by_hardware_equal_those_of_the_cpu(clip, request):
    if not (torch.cuda.is_available() or request.config.getoption("--require-cuda")):
        pytest.skip("no CUDA device (--require-cuda makes this a failure)")
    from pipeline.sources.opening import open_source

    with open_source(clip) as plain, open_source(clip, hwaccel="cuda") as fast:
        pairs = list(zip(plain, fast, strict=True))
    assert len(pairs) == 16
    for expected, found in pairs:
        grey = found.image if found.image.ndim == 2 else found.image[..., 0]
        assert abs(grey.astype(int) - expected.image).max() <= 3
