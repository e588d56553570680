"""Scene cuts are distinguished from changes within a scene; they reset windows and end tracks."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from pipeline.sources.opening import open_source
from pipeline.stages.gaps import GapMarker
from pipeline.stages.scene_cuts import MAX_SHUTTER_FRAMES, SceneCutDetector, shift_tolerant_correlation
from pipeline.structures.frame import Frame, Gap, SourceInfo
from pipeline.system.errors import SourceLost
from tests.support.media import LOSSLESS, write_video
from tests.support.outputs import check_consistent, lines, report, video

WIDTH, HEIGHT = 160, 128
NAMES = ("AIRPLANE_022", "BIRD_024", "BIRD_027", "HELICOPTER_017")
"""Validation clips: skies, and birds in front of a harbour, with a fast pan."""
REAL_CUTS = {"BIRD_024": [140, 279]}
"""Frames of these clips before which recordings were joined, found by eye."""


def landscape(seed: int, *, margin: int = 0) -> np.ndarray:
    """Returns clouds over ground without noise: (HEIGHT + 2 margin, WIDTH + 2 margin) float32, 0 to 255."""
    chance = np.random.default_rng(seed)
    size = HEIGHT + 2 * margin, WIDTH + 2 * margin
    image = sum(
        cv2.GaussianBlur(chance.normal(0, width * 30, size).astype(np.float32), (0, 0), width)
        for width in (2, 6, 20)
    )
    skyline = chance.uniform(0.5, 0.9) * size[0]
    return np.clip(90 + image + 60 * (np.arange(size[0])[:, None] > skyline), 0, 255).astype(np.float32)


def noisy(image: np.ndarray, seed: int, *, sigma: float = 2) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return np.clip(image + chance.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def cuts(images) -> list[int]:
    """Returns the indices of the images before which a cut is detected."""
    is_cut = SceneCutDetector()
    return [index for index, image in enumerate(images) if is_cut(image)]


@pytest.mark.parametrize("seed", range(6))
def test_another_scene_is_a_cut(seed):
    first, second = landscape(2 * seed), landscape(2 * seed + 1)
    images = [noisy(first if index < 10 else second, index) for index in range(20)]
    assert cuts(images) == [10]


def test_cuts_are_found_at_any_depth_colour_and_size():
    first, second = (landscape(seed) for seed in (1, 2))
    grey = [noisy(first if index < 8 else second, index) for index in range(16)]
    assert cuts([image.astype(np.uint16) * 40 + 3000 for image in grey]) == [8]
    assert cuts([cv2.merge([image] * 3) for image in grey]) == [8]
    assert cuts([image[:31, :21] for image in grey]) == [8]
    assert cuts([cv2.resize(image, (1920, 1080)) for image in grey]) == [8]


def panning(step):
    wide = landscape(3, margin=100)
    return [noisy(wide[100:, index * step :][:HEIGHT, :WIDTH], index) for index in range(16)]


def jolting():
    wide = landscape(3, margin=40)
    places = [(40, 40)] * 8 + [(22, 60)] * 8
    return [noisy(wide[y : y + HEIGHT, x : x + WIDTH], i) for i, (y, x) in enumerate(places)]


def changed(change):
    still = landscape(4)
    return [noisy(still if index < 8 else change(still), index) for index in range(16)]


def flickering():
    still = landscape(4)
    return [noisy(still * (0.7 + 0.3 * (index % 2)), index) for index in range(16)]


def covered():
    image = landscape(4)
    image[40:90, 50:100] = 255  # an eighth of it
    return [noisy(landscape(4) if index < 8 else image, index) for index in range(16)]


def noise():
    return [np.random.default_rng(index).integers(0, 256, (64, 96), np.uint8) for index in range(16)]


CALM = {
    "slow pan": lambda: panning(1),
    "fast pan": lambda: panning(6),
    "jolt": jolting,
    "gain": lambda: changed(lambda image: image * 0.5),
    "offset": lambda: changed(lambda image: image * 0.6 + 90),
    "flicker": flickering,
    "large bright target": covered,
    "nothing but noise": noise,
    "black": lambda: [np.zeros((HEIGHT, WIDTH), np.uint8)] * 16,
    "another level of an even image": lambda: [
        np.full((HEIGHT, WIDTH), 90 + 60 * (i > 8), np.uint8) for i in range(16)
    ],
}


@pytest.mark.parametrize("name", CALM)
def test_changes_within_one_scene_are_no_cut(name):
    assert cuts(CALM[name]()) == []


def test_a_change_to_a_uniform_image_that_lasts_is_a_cut():
    images = [noisy(landscape(5), index) for index in range(8)]
    assert cuts([*images, *[np.full((HEIGHT, WIDTH), 90, np.uint8)] * 80]) == [8 + MAX_SHUTTER_FRAMES]


def test_images_without_details_do_not_correlate():
    even = np.zeros((32, 40), np.float32)
    assert shift_tolerant_correlation(even, even) == 0


@pytest.mark.real_data
def test_real_clips_have_exactly_the_visible_cuts(drone_ir):
    for name in NAMES:
        with open_source(drone_ir / "videos" / f"IR_{name}.mp4") as source:
            found = cuts(frame.image for frame in source)
        assert found == REAL_CUTS.get(name, []), name


@pytest.mark.real_data
def test_joined_real_clips_have_a_cut_at_the_joint(drone_ir):
    clips = []
    for name in NAMES:
        with open_source(drone_ir / "videos" / f"IR_{name}.mp4", max_frames=8) as source:
            clips.append([frame.image for frame in source])
    joined = [cuts([*first, *second]) for first in clips for second in clips if first is not second]
    assert all(found in ([], [8]) for found in joined)
    assert joined.count([8]) >= 0.8 * len(joined)


INFO = SourceInfo("camera", WIDTH, HEIGHT, Fraction(30), None, 8, 1)


def marked(frames, *, cuts=True) -> list[Gap | None]:
    """Returns the gap before each of the frames."""
    marker = GapMarker(INFO, window=5, policy="repeat", cuts=cuts)
    return [marker(frame).gap for frame in frames]


def frames_of_two_scenes(**change) -> list[Frame]:
    """Returns eight frames of each scene; the first of the second scene with the fields changed."""
    images = [noisy(landscape(1 + index // 8), index) for index in range(16)]
    frames = [Frame(image, i, Fraction(i, 30), "camera") for i, image in enumerate(images)]
    frames[8] = replace(frames[8], **change)
    return frames


def test_a_cut_is_not_bridged():
    gaps = marked(frames_of_two_scenes())
    assert gaps[8] == Gap("cut", 0, repeat_previous=False, elapsed_known=False)
    assert [gap for gap in gaps if gap] == [gaps[8]]


def test_a_cut_takes_precedence_over_missing_frames():
    frames = frames_of_two_scenes()
    del frames[6:8]
    assert marked(frames)[6] == Gap("cut", 2, repeat_previous=False, elapsed_known=False)


def test_other_discontinuities_take_precedence_over_a_cut():
    assert marked(frames_of_two_scenes(pts=Fraction(-100)))[8].event == "jump"


def test_cut_detection_can_be_turned_off():
    assert not any(marked(frames_of_two_scenes(), cuts=False))


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A recording of two scenes, eight frames of each."""
    images = [noisy(landscape(1 + index // 8), index)[:64, :96] for index in range(16)]
    return write_video(tmp_path_factory.mktemp("joined") / "joined.mkv", images, **LOSSLESS)


EAGER = {"options": {"high_score": 0.2, "low_score": 0.2}}
"""Options of a tracker that follows every detection."""


def ids(line: dict) -> set[int]:
    return {track["id"] for track in line["tracks"]}


@pytest.mark.parametrize("on_gap", ["repeat", "flush"])
def test_a_run_resets_its_window_and_ends_its_tracks_at_a_cut(joined, process, on_gap):
    folder = process(joined, sections={"live": {"on_gap": on_gap}, "tracker": EAGER})
    assert check_consistent(folder) == 16
    written = lines(folder)
    gap = {"event": "cut", "missing": None, "window": "restarted"}
    assert {line["frame"]: line["gap"] for line in written if "gap" in line} == {8: gap}
    assert [line["behind"] for line in written] == [1, 2, 3, 4, 5, 5, 5, 5] * 2
    assert [line["warmup"] for line in written] == ([True] * 4 + [False] * 4) * 2
    assert report(folder)["gaps"] == {"cut": 1}
    before, after = (set().union(*map(ids, part)) for part in (written[:8], written[8:]))
    assert before
    assert after
    assert not before & after


def test_a_run_ignores_cuts_if_detection_is_off(joined, process):
    folder = process(joined, sections={"live": {"scene_cuts": False}, "tracker": EAGER})
    written = lines(folder)
    assert not [line for line in written if "gap" in line]
    assert [line["behind"] for line in written][8:] == [5] * 8
    assert ids(written[7]) & ids(written[8])


def of_two_sizes(folder) -> str:
    """Writes a video of six frames of 64x64 and then three of 96x64; returns its path."""
    parts = [
        write_video(folder / f"{width}.ts", [noisy(landscape(1)[:64, :width], i) for i in range(count)])
        for width, count in ((64, 6), (96, 3))
    ]
    path = folder / "sizes.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("batch", [1, 4])
def test_a_change_of_size_within_a_video_is_a_gap_and_the_run_continues(tmp_path, process, batch):
    folder = process(of_two_sizes(tmp_path), batch=batch)
    assert check_consistent(folder) == 9
    facts = report(folder)
    assert (facts["state"], facts["gaps"]) == ("complete", {"resize": 1})
    assert (facts["source"]["width"], facts["source"]["height"]) == (64, 64)
    written = lines(folder)
    assert [line["behind"] for line in written] == [1, 2, 3, 4, 5, 5, 1, 2, 3]
    assert written[6]["gap"] == {"event": "resize", "missing": None, "window": "restarted"}
    assert {size for _, size in video(folder / "annotated.mp4")} == {(64, 64)}


def test_pixel_corrections_end_the_source_at_a_change_of_size(tmp_path, process):
    with pytest.raises(SourceLost, match="frame size changes from 64x64 to 96x64 at frame 6"):
        process(of_two_sizes(tmp_path), sections={"source": {"bad_pixels": "auto"}})
    assert check_consistent(tmp_path / "out") == 6
