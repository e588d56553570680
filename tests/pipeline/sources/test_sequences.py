"""Sequences have the pixels of a run, and those that training cannot use are refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.sources.opening import open_source
from pipeline.sources.sequences import grey_images
from pipeline.system.errors import SourceError, UsageError
from tests.support.media import cut, grey_frames, write_video


def test_a_video_gives_the_pixels_of_a_run(tmp_path):
    """The video has limited range, which is stretched."""
    video = write_video(tmp_path / "made.mp4", grey_frames(4))
    with open_source(video) as source:
        expected = [frame.image for frame in source]
    np.testing.assert_array_equal(list(grey_images(video, name="made")), expected)


def test_image_files_give_the_pixels_of_a_run(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path, image in zip(paths, grey_frames(3), strict=True):
        cv2.imwrite(str(path), image)
    with open_source(tmp_path) as source:
        expected = [frame.image for frame in source]
    np.testing.assert_array_equal(list(grey_images(paths, name="made")), expected)


def test_images_come_in_the_order_given(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in (2, 10, 1)]
    images = grey_frames(3)
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    np.testing.assert_array_equal(list(grey_images(paths, name="made")), images)


def test_a_dim_image_of_a_data_set_gets_no_remark(tmp_path, caplog):
    """A run over it gets one; a data set may hold hundreds."""
    path = tmp_path / "dim.png"
    cv2.imwrite(str(path), grey_frames(1)[0] // 40)
    list(grey_images([path], name="dim"))
    assert caplog.messages == []
    with open_source(path) as source:
        list(source)
    assert "use grey levels" in caplog.text


def test_a_video_that_is_cut_off_is_refused(tmp_path):
    video = cut(write_video(tmp_path / "made.mkv", grey_frames(20), codec="ffv1", pixel_format="gray"))
    with pytest.raises(SourceError, match="the file is cut off"):
        list(grey_images(video, name="made"))


def test_colour_video_is_refused(tmp_path):
    images = list(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    video = write_video(tmp_path / "made.mp4", images, source_format="rgb24")
    with pytest.raises(UsageError, match="made: training reads grey video"):
        next(grey_images(video, name="made"))


def test_depths_between_8_and_16_bits_are_refused(tmp_path):
    """Their full scale is not that of their dtype."""
    images = list(np.random.default_rng(0).integers(0, 1024, (3, 32, 32), np.uint16))
    formats = {"pixel_format": "gray10le", "source_format": "gray10le"}
    video = write_video(tmp_path / "made.mkv", images, codec="ffv1", **formats)
    with pytest.raises(UsageError, match="made: training reads 8- and 16-bit grey, this is 10-bit"):
        next(grey_images(video, name="made"))
