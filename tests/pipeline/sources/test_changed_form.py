"""A live camera that comes back in another form is converted to the form of its first connection."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import RunConfig
from pipeline.sources.live import in_form
from pipeline.sources.pending import PendingSource
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.system.signals import StopRequest
from tests.pipeline.sources.test_live import QUICK, in_turn
from tests.support import stream_servers
from tests.support.media import grey_frames, write_video
from tests.support.outputs import lines, report

FORMS = {"grey": ("gray", "gray"), "deep": ("gray16le", "gray16le"), "colour": ("bgr0", "rgb24")}
"""Pixel format of the video, and of the images that are encoded."""
INFO = SourceInfo("a", 4, 3, Fraction(30), None, 8, 1)


def stream(path, form: str) -> bytes:
    """Returns a video of 4 frames of 64x64 in one of the `FORMS`."""
    images = grey_frames(4, 64, 64)
    if form == "deep":
        images = [image.astype(np.uint16) * 257 for image in images]
    if form == "colour":
        images = [np.stack([image, image // 2, 255 - image], axis=2) for image in images]
    pixel_format, source_format = FORMS[form]
    path = path / f"{form}.mkv"
    formats = {"pixel_format": pixel_format, "source_format": source_format}
    write_video(path, images, codec="ffv1", container_options={"live": "1"}, **formats)
    return path.read_bytes()


@pytest.mark.parametrize(
    "forms", [("colour", "grey"), ("grey", "colour"), ("deep", "grey"), ("grey", "deep")]
)
def test_a_run_with_arrays_goes_on_when_the_camera_comes_back_in_another_form(process, tmp_path, forms):
    zarr = pytest.importorskip("zarr")
    clips = [stream_servers.sending(stream(tmp_path, form)) for form in forms]
    sections = {"source": {"timeout": 5.0, "max_frames": 8}, "live": {**QUICK, "on_full": "wait"}}
    with stream_servers.listener(in_turn(*clips)) as port:
        folder = process(f"tcp://127.0.0.1:{port}", sections=sections, output={"zarr": True})
    facts = report(folder)
    assert facts["state"] == "complete"
    assert facts["gaps"] == {"reconnect": 1}
    assert len(lines(folder)) == 8
    frames = zarr.open_array(str(folder / "results.zarr" / "frames"), mode="r")
    assert frames.shape[0] == 8
    assert frames.dtype == (np.uint16 if forms[0] == "deep" else np.uint8)
    assert (frames.ndim == 4) == (forms[0] == "colour")


@pytest.mark.parametrize("forms", [("deep", "grey"), ("grey", "deep")])
def test_equal_pictures_of_another_depth_are_equal_after_the_conversion(tmp_path, forms):
    clips = [stream_servers.sending(stream(tmp_path, form)) for form in forms]
    source = {"timeout": 5.0, "max_frames": 8, "scaling": "full-range"}
    with stream_servers.listener(in_turn(*clips)) as port:
        config = build(RunConfig, {"source": source, "live": QUICK})
        with PendingSource(f"tcp://127.0.0.1:{port}", config, StopRequest()).wait() as opened:
            frames = list(opened)
    assert len({(frame.image.dtype, frame.bit_depth) for frame in frames}) == 1
    for before, after in zip(frames[:4], frames[4:], strict=True):
        np.testing.assert_array_equal(before.image, after.image)


def test_a_narrow_range_of_a_deep_picture_fills_the_eight_bits():
    image = np.array([[3000, 3100], [3050, 5000]], np.uint16)
    frame = Frame(image, 0, Fraction(0), "a", bit_depth=14, levels=(3000.0, 3100.0))
    found = in_form(frame, INFO, np.dtype(np.uint8))
    assert (found.bit_depth, found.levels) == (8, None)
    np.testing.assert_array_equal(found.image, np.array([[0, 255], [128, 255]], np.uint8))


def test_levels_are_scaled_with_a_deeper_form():
    frame = Frame(np.full((2, 2), 255, np.uint8), 0, Fraction(0), "a", levels=(51.0, 102.0))
    found = in_form(frame, replace(INFO, bit_depth=16), np.dtype(np.uint16))
    assert found.levels == pytest.approx((51 * 257, 102 * 257))
    assert found.image.tolist() == [[65535, 65535]] * 2


def test_a_frame_of_the_same_form_is_not_touched():
    frame = Frame(np.zeros((3, 4), np.uint8), 0, Fraction(0), "a")
    assert in_form(frame, INFO, np.dtype(np.uint8)) is frame
