"""The closed shutter of an uncooled camera is no scene: windows and tracks go on behind it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.stages.gaps import GapMarker
from pipeline.stages.tracking import track
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, Gap, SourceInfo
from pipeline.structures.results import FrameDetections
from tests.pipeline.stages.test_scene_cuts import HEIGHT, WIDTH, landscape, noisy
from tests.support.media import LOSSLESS, write_video
from tests.support.outputs import lines, report
from trackers.centre import CentreTracker

CLOSED = range(10, 25)
"""Frames that show the shutter, half a second of them."""
INFO = SourceInfo("a", WIDTH, HEIGHT, Fraction(30), None, 8, 1)


def shutter(index: int, *, level: float = 110, sigma: float = 0.6, shading: float = 0) -> np.ndarray:
    """Returns a flat picture with noise, and with shading from left to right."""
    return noisy(level + shading * np.linspace(-1, 1, WIDTH) * np.ones((HEIGHT, 1)), index, sigma=sigma)


def sequence(before: np.ndarray, after: np.ndarray, **options: float) -> list[np.ndarray]:
    """Returns 40 images of a scene with the shutter closed in between."""
    images = [noisy(before if index < CLOSED.start else after, index) for index in range(40)]
    for index in CLOSED:
        images[index] = shutter(index, **options)
    return images


def marked(images, *, window: int = 5, policy="repeat") -> list[Frame]:
    mark = GapMarker(INFO, window=window, policy=policy)
    depth = 8 * images[0].dtype.itemsize
    frames = (
        Frame(image, index, Fraction(index, 30), "a", bit_depth=depth) for index, image in enumerate(images)
    )
    return [mark(frame) for frame in frames]


def gaps(frames: list[Frame]) -> dict[int, Gap]:
    return {frame.index: frame.gap for frame in frames if frame.gap}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("options", [{}, {"level": 40}, {"sigma": 3}, {"shading": 6}], ids=str)
def test_the_same_scene_behind_the_shutter_goes_on(seed, options):
    frames = marked(sequence(landscape(seed), landscape(seed), **options))
    assert gaps(frames) == {25: Gap("shutter", 15, repeat_previous=True, elapsed_known=True)}
    assert [frame.index for frame in frames if frame.shutter_closed] == list(CLOSED)
    for frame in frames:  # the networks see the last image before, outputs the picture as it came
        assert frame.seen is (frames[9].image if frame.index in CLOSED else None)
    assert [frame.real_frames_in_window for frame in frames[8:12]] == [5, 5, 4, 3]
    assert [frame.real_frames_in_window for frame in frames[23:31]] == [0, 0, 1, 2, 3, 4, 5, 5]


def test_the_shutter_is_found_at_sixteen_bits_and_in_colour():
    images = sequence(landscape(3), landscape(3))
    deep = [image.astype(np.uint16) * 40 + 3000 for image in images]
    colour = [np.stack([image] * 3, axis=2) for image in images]
    for frames in (marked(deep), marked(colour)):
        assert [gap.event for gap in gaps(frames).values()] == ["shutter"]


def test_a_scene_that_the_camera_has_shifted_meanwhile_goes_on():
    wide = landscape(2, margin=12)
    before, after = wide[12:-12, 12:-12], wide[15:-9, 20:-4]
    assert [gap.event for gap in gaps(marked(sequence(before, after))).values()] == ["shutter"]


def test_another_scene_behind_the_shutter_is_a_cut():
    assert gaps(marked(sequence(landscape(0), landscape(1)))) == {
        25: Gap("cut", 0, repeat_previous=False, elapsed_known=False)
    }


def test_a_picture_that_stays_without_detail_is_a_scene():
    images = [noisy(landscape(0), index) for index in range(10)] + [shutter(index) for index in range(90)]
    frames = marked(images)
    assert gaps(frames) == {70: Gap("cut", 0, repeat_previous=False, elapsed_known=False)}
    assert not any(frame.shutter_closed for frame in frames[70:])


def test_a_plain_sky_with_a_small_target_is_a_scene():
    images = sequence(landscape(0), landscape(0))
    for index in CLOSED:
        images[index][60:63, 70 + index : 73 + index] = 140
    assert [gap.event for gap in gaps(marked(images)).values()] == ["cut", "cut"]


def test_windows_restart_behind_the_shutter_if_gaps_flush_them():
    frames = marked(sequence(landscape(0), landscape(0)), policy="flush")
    assert gaps(frames) == {25: Gap("shutter", 15, repeat_previous=False, elapsed_known=True)}
    assert frames[25].real_frames_in_window == 1


@pytest.mark.parametrize("closed", [15, 45])
def test_tracks_keep_their_ids_behind_the_shutter(closed):
    def frame(index: int) -> Frame:
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        hidden = 10 <= index < 10 + closed
        gap = (
            Gap("shutter", closed, repeat_previous=True, elapsed_known=True) if index == 10 + closed else None
        )
        return replace(Frame(image, index, Fraction(index, 30), "a"), seen=image if hidden else None, gap=gap)

    def found(index: int) -> FrameDetections:
        x = 20 + index
        return FrameDetections(frame(index), Detections([[x, 50, x + 6, 56]], [0.9], [0]), warmup=False)

    results = list(track(map(found, range(20 + closed)), CentreTracker()))
    assert [result.tracks.ids.tolist() for result in results] == [[-1]] * 2 + [[1]] * (18 + closed)
    assert [len(result.detections) for result in results] == [1] * 10 + [0] * closed + [1] * 10
    assert results[10 + closed].tracks.boxes[0][0] == pytest.approx(30 + closed, abs=1)


def test_a_run_with_a_shutter_writes_its_event_and_no_detections(process, tmp_path):
    pictures = [noisy(landscape(4), index) for index in range(30)]
    pictures[12:20] = [shutter(index) for index in range(8)]
    path = write_video(tmp_path / "a.mkv", pictures, **LOSSLESS)
    folder = process(path, output={"zarr": True})
    facts, written = report(folder), lines(folder)
    assert facts["gaps"] == {"shutter": 1}
    assert written[20]["gap"] == {"event": "shutter", "missing": 8, "window": "repeated"}
    assert [bool(line["detections"]) for line in written] == [True] * 12 + [False] * 8 + [True] * 10
