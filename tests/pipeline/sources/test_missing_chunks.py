"""A frame of a zarr array with a missing chunk is lost, and never partly black."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from pipeline.sources.opening import open_source
from tests.support.media import grey_frames, read_until_lost

FRAMES = np.stack(grey_frames(12, 64, 96))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("place", ["1.1.0", "1.0.1"])
def test_a_missing_part_of_a_frame_ends_the_source_before_it(tmp_path, version, place):
    zarr.create_array(tmp_path / "a.zarr", data=FRAMES, chunks=(4, 32, 48), zarr_format=version)
    (tmp_path / "a.zarr" / (place if version == 2 else f"c/{place.replace('.', '/')}")).unlink()
    frames, lost = read_until_lost(tmp_path / "a.zarr")
    np.testing.assert_array_equal([frame.image for frame in frames], FRAMES[:4])
    assert f"lost at frame 4: chunk {place.replace('.', ', ')} is missing" in lost


def test_a_border_that_is_absent_from_all_frames_is_of_the_fill_value(tmp_path):
    framed = FRAMES.copy()
    framed[:, 32:] = 7
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=framed.shape, chunks=(4, 32, 96), dtype=np.uint8, fill_value=7
    )
    array[:] = framed
    assert not (tmp_path / "a.zarr/c/0/1").exists()
    with open_source(tmp_path / "a.zarr") as source:
        np.testing.assert_array_equal([frame.image for frame in source], framed)
