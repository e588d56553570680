"""The annotator draws tracks, detections and insets, and covers no pixel of a target."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pipeline.drawing.annotator import PALETTE, Annotator, AnnotatorOptions, colour_of
from pipeline.drawing.bitmap_font import GLYPH_HEIGHT, render_text
from pipeline.drawing.tone_mapping import ToneMapper
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.structures.rectangle import Rectangle
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks, TrackState

CONFIRMED, TENTATIVE, COASTING = TrackState.CONFIRMED, TrackState.TENTATIVE, TrackState.COASTING
BARE = AnnotatorOptions(trail=0, insets=0, labels=False)


def scene(height=256, width=320, *, seed=0, dtype=np.uint8, channels=1):
    top = 200 if dtype == np.uint8 else 9000
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(top // 4, top, shape).astype(dtype)


def make_tracks(rows):
    """Makes tracks from rows of (id, box, state)."""
    count = len(rows)
    return Tracks(
        boxes=np.reshape([box for _, box, _ in rows], (count, 4)),
        scores=[0.9] * count,
        labels=[0] * count,
        ids=[track_id for track_id, _, _ in rows],
        state=[int(state) for _, _, state in rows],
        velocity=np.zeros((count, 2)),
        age=[20] * count,
    )


def result(image, rows=(), *, boxes=(), index=0, warmup=False, bit_depth=None):
    depth = bit_depth or (8 if image.dtype == np.uint8 else 14)
    frame = Frame(image, index, Fraction(index, 30), "test", depth)
    count = len(boxes)
    detections = Detections(np.reshape(boxes, (count, 4)), [0.5] * count, [0] * count)
    return Result(frame, detections, warmup, tracks=make_tracks(list(rows)))


def as_rgb(image):
    return np.stack([image] * 3, axis=-1) if image.ndim == 2 else image


def changed(annotated, image):
    """Returns the pixels that differ from the plain image, (H, W) bool."""
    return (annotated != as_rgb(image)).any(axis=-1)


@pytest.mark.parametrize("shape", [(256, 320), (101, 77), (1080, 1920), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_has_the_size_of_the_source_and_the_input_is_not_modified(shape, channels):
    image = scene(*shape, channels=channels)
    before = image.copy()
    image.setflags(write=False)
    annotated = Annotator()(result(image, [(1, (2.5, 2.5, 6, 6), CONFIRMED)], boxes=[(1, 1, 3, 3)]))
    assert annotated.shape == (*shape, 3)
    assert annotated.dtype == np.uint8
    assert (image == before).all()
    assert not np.shares_memory(annotated, image)


@pytest.mark.parametrize("state", list(TrackState))
@pytest.mark.parametrize(
    "box",
    [(100, 90, 103, 93), (100.4, 90.6, 112.2, 99.9), (0, 0, 5, 5), (1, 50, 4, 54), (312, 250, 320, 256)],
)
def test_the_outline_never_covers_a_pixel_of_its_box(box, state):
    image = scene()
    annotated = Annotator(BARE)(result(image, [(1, box, state)], boxes=[(200, 200, 204, 204)]))
    difference = changed(annotated, image)
    assert not difference[Rectangle.around(box).slices()].any()
    assert not difference[200:204, 200:204].any()
    assert difference.any()


def test_trails_labels_and_insets_cover_no_target():
    annotator = Annotator()
    for index in range(40):
        image = scene(seed=index)
        boxes = [(100 + index, 90, 105 + index, 95), (200 - index, 100, 204 - index, 104)]
        annotated = annotator(
            result(image, [(k, box, CONFIRMED) for k, box in enumerate(boxes, 1)], index=index)
        )
    difference = changed(annotated, image)
    for box in boxes:
        inside = difference[Rectangle.around(box).slices()]
        assert not inside.any()
    assert difference.sum() > 2 * 70 * 70  # both insets are there


def test_a_box_outside_the_image_is_not_drawn():
    image = scene()
    annotated = Annotator()(
        result(image, [(1, (-30, -30, -20, -20), COASTING), (2, (400, 9, 410, 20), CONFIRMED)])
    )
    assert not changed(annotated, image).any()


def test_a_track_has_one_colour_for_life_and_its_neighbours_have_others():
    assert colour_of(3) == colour_of(3)
    assert len({colour_of(k) for k in range(1, len(PALETTE) + 1)}) == len(PALETTE)
    for index in range(3):
        annotated = Annotator(BARE)(result(scene(), [(7, (50, 50, 60, 60), CONFIRMED)], index=index))
        assert (annotated[47, 47] == colour_of(7)).all()


def test_states_look_different_and_coasting_tracks_have_gaps():
    drawn = {}
    for state in TrackState:
        image = np.zeros((256, 320), np.uint8)
        drawn[state] = Annotator(BARE)(result(image, [(1, (100, 100, 130, 130), state)]))
    assert (drawn[CONFIRMED][97, 97:133] == colour_of(1)).all()
    line = drawn[COASTING][97, 97:133]
    assert 0.3 < (line == colour_of(1)).all(axis=-1).mean() < 0.8
    grey = drawn[TENTATIVE][97, 97]
    assert grey[0] == grey[1] == grey[2] > 0


def test_a_detection_is_marked_only_if_no_track_has_it():
    image = np.zeros((256, 320), np.uint8)
    tracked = Annotator(BARE)(result(image, [(1, (50, 50, 60, 60), CONFIRMED)]))
    same = Annotator(BARE)(result(image, [(1, (50, 50, 60, 60), CONFIRMED)], boxes=[(51, 50, 61, 60)]))
    more = Annotator(BARE)(result(image, [(1, (50, 50, 60, 60), CONFIRMED)], boxes=[(90, 90, 95, 95)]))
    assert (same == tracked).all()
    assert (more != tracked).any()
    coasting = Annotator(BARE)(result(image, [(1, (50, 50, 60, 60), COASTING)], boxes=[(51, 50, 61, 60)]))
    assert (coasting != Annotator(BARE)(result(image, [(1, (50, 50, 60, 60), COASTING)]))).any()


def test_a_trail_follows_the_centres_and_is_forgotten_with_its_track():
    annotator = Annotator(AnnotatorOptions(trail=20, insets=0, labels=False))
    image = np.zeros((256, 320), np.uint8)
    for index in range(60):
        x = 50 + 2 * index
        annotated = annotator(result(image, [(5, (x, 100, x + 6, 106), CONFIRMED)], index=index))
    trail = annotated[103, :160].any(axis=-1)
    assert trail[135:155].all()  # the last twenty centres
    assert not trail[:120].any()  # and no more
    assert not changed(annotator(result(image, index=60)), image).any()
    again = annotator(result(image, [(5, (60, 100, 66, 106), CONFIRMED)], index=61))
    assert not again[103, 80:].any()


def test_the_memory_of_trails_is_bounded_by_the_living_tracks():
    annotator = Annotator(AnnotatorOptions(trail=5))
    image = np.zeros((64, 64), np.uint8)
    for index in range(300):
        annotator(result(image, [(index + 1, (20, 20, 24, 24), CONFIRMED)], index=index))
    assert len(annotator._trails) == 1


def inset_positions(annotator):
    return [slot.position for slot in annotator._layout._slots.values() if slot.position]


@pytest.mark.slow
def test_an_inset_never_hides_a_track_and_seldom_moves():
    annotator = Annotator()
    image = scene()
    moves, before = 0, None
    for index in range(200):
        angle = index / 200 * 2 * np.pi
        x, y = 160 + 130 * np.cos(angle), 128 + 100 * np.sin(angle)
        rows = [(1, (x, y, x + 4, y + 4), CONFIRMED), (2, (30, 30, 40, 38), TENTATIVE)]
        shown = result(image, rows, index=index)
        annotated = annotator(shown)
        for box in shown.tracks.boxes.tolist():
            assert all(
                position.distance(Rectangle.around(box)) > 0 for position in inset_positions(annotator)
            )
            assert not changed(annotated, image)[Rectangle.around(box).slices()].any()
        moves += before is not None and inset_positions(annotator) != before
        before = inset_positions(annotator)
        assert len(before) == 1
    assert 1 <= moves <= 4


def test_insets_are_few_and_go_to_confirmed_small_targets():
    rows = [(k, (40 + 30 * k, 120, 44 + 30 * k, 124), CONFIRMED) for k in range(1, 6)]
    annotator = Annotator(AnnotatorOptions(insets=2))
    annotator(result(scene(), rows))
    assert len(inset_positions(annotator)) == 2
    large = Annotator()
    large(result(scene(), [(1, (100, 80, 200, 160), CONFIRMED), (2, (20, 100, 24, 104), TENTATIVE)]))
    assert inset_positions(large) == []


def test_an_inset_shows_the_target_enlarged():
    image = np.zeros((256, 320), np.uint8)
    image[128:131, 160:163] = 200
    annotator = Annotator(AnnotatorOptions(inset_interpolation="nearest", labels=False, trail=0))
    annotated = annotator(result(image, [(1, (160, 128, 163, 131), CONFIRMED)]))
    view = annotated[inset_positions(annotator)[0].slices()]
    assert ((view == 200).all(axis=-1)).sum() == (3 * 4) ** 2
    middle = np.argwhere((view == 200).all(axis=-1)).mean(axis=0) + 0.5
    assert np.allclose(middle, np.array(view.shape[:2]) / 2, atol=1)


def test_warm_up_and_status_are_written_into_a_free_corner():
    image = scene()
    assert changed(Annotator()(result(image, warmup=True)), image)[240:, :80].any()
    assert not changed(Annotator()(result(image)), image).any()
    options = AnnotatorOptions(status=True)
    assert changed(Annotator(options)(result(image)), image)[240:, :80].any()
    taken = [(1, (0, 246, 20, 256), CONFIRMED)]
    bare = AnnotatorOptions(status=True, labels=False, insets=0, trail=0)
    assert not changed(Annotator(bare)(result(image, taken)), image)[246:256, 0:20].any()


@pytest.mark.parametrize("rate", [1, 0.05])
def test_deep_frames_are_mapped_monotonically(rate):
    levels = np.arange(1 << 14, dtype=np.uint16).reshape(128, 128)
    mapper = ToneMapper(smoothing=rate)
    shown = mapper(Frame(levels, 0, Fraction(0), "test", 14))
    assert shown.dtype == np.uint8
    assert (np.diff(shown.ravel().astype(int)) >= 0).all()
    assert shown.min() == 0
    assert shown.max() == 255


def test_tone_mapping_does_not_flicker_for_a_hot_object_but_follows_a_new_scene_at_once():
    mapper = ToneMapper()
    base = np.tile(np.linspace(1000, 12000, 320).astype(np.uint16), (256, 1))
    hot = base.copy()
    hot[:40, :40] = 16000
    calm = mapper(Frame(base, 0, Fraction(0), "test", 14))[100:].astype(int)
    flash = mapper(Frame(hot, 1, Fraction(1, 30), "test", 14))[100:].astype(int)
    assert np.abs(calm - flash).max() < 255 * 0.06
    elsewhere = mapper(Frame(base // 100 + 13000, 2, Fraction(2, 30), "test", 14))
    assert elsewhere.std() > 40


def test_noise_of_a_uniform_deep_frame_is_not_amplified():
    noise = np.random.default_rng(0).normal(5000, 1, (64, 64)).astype(np.uint16)
    assert ToneMapper()(Frame(noise, 0, Fraction(0), "test", 14)).std() < 20


def test_reset_forgets_trails_insets_and_tone():
    used, fresh = Annotator(), Annotator()
    for index in range(10):
        rows = [(1, (50 + 5 * index, 50, 54 + 5 * index, 54), CONFIRMED)]
        used(result(scene(dtype=np.uint16, seed=index), rows, index=index))
    used.reset()
    last = result(scene(dtype=np.uint16, seed=99) // 2, [(1, (100, 50, 104, 54), CONFIRMED)])
    assert (used(last) == fresh(last)).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("trail", -1), ("insets", -1), ("margin", -1), ("inset_zoom", 1), ("inset_share", 0.7)],
)
def test_invalid_options_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        AnnotatorOptions(**{name: value})


def test_every_printable_character_can_be_rendered():
    for code in range(32, 127):
        assert render_text(chr(code)).shape[0] == GLYPH_HEIGHT
    assert render_text("12", scale=3).shape == (3 * GLYPH_HEIGHT, 3 * render_text("12").shape[1])
    digits = [render_text(character).tobytes() for character in "0123456789"]
    assert len(set(digits)) == 10
