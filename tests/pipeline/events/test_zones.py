"""Points in zones, moves over lines, masks, and places that do not fit the frames."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipeline.config.parsing import build
from pipeline.config.schema import EventsConfig
from pipeline.events.opening import check_events, outlines_of
from pipeline.events.rules import rules_of
from pipeline.events.zones import area, contains, crosses_itself, crossing_side, resolve_places
from pipeline.system.errors import UsageError
from tests.support.watched_tracks import HEIGHT, WIDTH, camera

SQUARE = [(10, 10), (50, 10), (50, 50), (10, 50)]
NOTCHED = [(0, 0), (60, 0), (60, 40), (30, 10), (0, 40)]


def random_polygon(rng):
    """A polygon around (50, 50) whose sides do not cross."""
    angles = np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 9)))
    radii = rng.uniform(5, 40, len(angles))
    return [(50 + r * math.cos(a), 50 + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def test_a_polygon_contains_what_opencv_says():
    rng = np.random.default_rng(3)
    for _ in range(40):
        corners = random_polygon(rng)
        contour = np.array(corners, np.float32)
        for point in rng.uniform(0, 100, (60, 2)).tolist():
            distance = cv2.pointPolygonTest(contour, point, True)
            if abs(distance) > 1e-3:
                assert contains(corners, point) == (distance > 0)


def test_the_order_of_corners_does_not_matter():
    rng = np.random.default_rng(4)
    for _ in range(30):
        corners = random_polygon(rng)
        turn = int(rng.integers(len(corners)))
        other = [*corners[turn:], *corners[:turn]][::-1]
        assert area(corners) == pytest.approx(area(other))
        for point in rng.uniform(0, 100, (30, 2)).tolist():
            assert contains(corners, point) == contains(other, point)


def test_of_two_zones_with_a_common_side_exactly_one_holds_a_point_on_it():
    left, right = [(0, 0), (30, 0), (30, 40), (0, 40)], [(30, 0), (60, 0), (60, 40), (30, 40)]
    upper, lower = [(0, 0), (60, 0), (60, 20), (0, 20)], [(0, 20), (60, 20), (60, 40), (0, 40)]
    for y in range(40):
        assert contains(left, (30, y)) + contains(right, (30, y)) == 1
    for x in range(60):
        assert contains(upper, (x, 20)) + contains(lower, (x, 20)) == 1


def test_a_notch_is_outside():
    assert not contains(NOTCHED, (30, 30))
    assert contains(NOTCHED, (5, 30))


def test_a_path_crosses_a_line_as_often_as_it_changes_its_side():
    rng = np.random.default_rng(5)
    line = [(-1000, 50), (1000, 50)]  # to the right in the picture: below it is right
    for _ in range(50):
        path = np.column_stack([rng.uniform(0, 100, 30), rng.integers(46, 55, 30)]).tolist()
        moves = [crossing_side(line, a, b) for a, b in pairwise(path)]
        assert sum(moves) == int(path[-1][1] >= 50) - int(path[0][1] >= 50)
        assert set(moves) <= {-1, 0, 1}


def test_a_move_back_crosses_to_the_other_side():
    rng = np.random.default_rng(6)
    line = rng.uniform(0, 100, (4, 2)).tolist()
    crossed = 0
    for start, end in rng.uniform(0, 100, (200, 2, 2)).tolist():
        side = crossing_side(line, start, end)
        assert crossing_side(line, end, start) == -side
        assert crossing_side(line[::-1], start, end) == -side
        crossed += side != 0
    assert crossed > 20


def test_a_path_through_the_joint_of_a_line_crosses_it_once():
    bent = [(0, 0), (50, 50), (100, 0)]
    assert crossing_side(bent, (50, 20), (50, 80)) == 1
    assert crossing_side(bent, (50, 80), (50, 20)) == -1
    assert [crossing_side(bent, (50, 20), (50, 50)), crossing_side(bent, (50, 50), (50, 80))].count(1) == 1


def test_a_move_through_both_sides_of_a_bent_line_ends_where_it_began():
    assert crossing_side([(0, 0), (50, 50), (100, 0)], (10, 40), (90, 40)) == 0


def test_a_walker_up_the_picture_has_the_left_side_of_the_picture_to_the_left():
    assert crossing_side([(50, 70), (50, 10)], (60, 40), (40, 40)) == -1


def test_a_target_that_stays_crosses_nothing():
    assert crossing_side([(0, 0), (10, 10)], (5, 5), (5, 5)) == 0


def test_crossing_sides_are_noticed():
    assert crosses_itself([(0, 0), (50, 50), (50, 0), (0, 50)])
    assert not crosses_itself(SQUARE)
    assert not crosses_itself(NOTCHED)


# Places of a configuration


def places(section, info=None):
    """The places of a configuration in pixels; its rules use all of them."""
    names = {kind: list(section.get(kind, {})) for kind in ("zones", "lines", "masks")}
    config = build(EventsConfig, {"rules": [{"name": "r", **names}], **section}, "events.")
    return resolve_places(config, rules_of(config, "clip"), info or camera())


def test_shares_are_those_of_width_and_height():
    found = places({"units": "shares", "zones": {"all": [[0, 0], [1, 0], [1, 1], [0, 1]]}})
    assert found.zones["all"] == ((0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT))


def test_a_closed_polygon_may_repeat_its_first_corner():
    found = places({"zones": {"square": [*map(list, SQUARE), list(SQUARE[0])]}})
    assert found.zones["square"] == tuple(SQUARE)


def test_the_light_pixels_of_an_image_are_a_mask(tmp_path):
    picture = np.zeros((HEIGHT, WIDTH), np.uint8)
    picture[:70, :90] = 255  # most of the frame
    cv2.imwrite(str(tmp_path / "trees.png"), picture)
    found = places({"masks": {"trees": str(tmp_path / "trees.png")}})
    assert found.is_masked(["trees"], (89.9, 69.9))
    assert not found.is_masked(["trees"], (90.0, 69.9))
    assert not found.is_masked(["trees"], (-3.0, 200.0))
    (outline,) = outlines_of(found)
    assert (outline.kind, len(outline.paths)) == ("mask", 1)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"zones": {"gate": [[0, 0], [120, 0], [50, 50]]}}, r"zones.gate has the point \[120, 0\].*100x80"),
        ({"zones": {"gate": [[0, 0], [9, -1], [5, 5]]}}, r"the point \[9, -1\]"),
        ({"zones": {"gate": [[0, 0], [0.5, 0], [0.5, 0.5]]}}, "less than a pixel.*units = shares"),
        ({"zones": {"gate": [[0, 0], [50, 50], [90, 0], [0, 50]]}}, "sides that cross"),
        ({"zones": {"gate": [[0, 0], [50, 50], [0, 0]]}}, "less than a pixel"),
        ({"units": "shares", "zones": {"gate": [[0, 0], [50, 0], [50, 50]]}}, r"\[50, 0\].*0 to 1"),
        ({"lines": {"fence": [[5, 5], [5, 5]]}}, "lines.fence has no length"),
        ({"masks": {"sun": "no_such.png"}}, "events.masks.sun: .*no_such.png"),
    ],
)
def test_places_that_do_not_fit_are_refused(section, words):
    with pytest.raises(UsageError, match=words):
        places(section)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.full((40, 50), 255, np.uint8), "is 50x40, expected 100x80 as clip.mp4"),
        (np.zeros((HEIGHT, WIDTH), np.uint8), "is of one colour"),
        (np.full((HEIGHT, WIDTH), 255, np.uint8), "is of one colour"),
    ],
)
def test_mask_images_that_do_not_fit_are_refused(picture, words, tmp_path):
    cv2.imwrite(str(tmp_path / "mask.png"), picture)
    with pytest.raises(UsageError, match=words):
        places({"masks": {"trees": str(tmp_path / "mask.png")}})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"sources": ["gat"]}, "unknown source of rule 'r' 'gat'; did you mean 'gate'"),
        ({"classes": ["dron"]}, "unknown class of rule 'r' 'dron'; did you mean 'drone'"),
    ],
)
def test_rules_that_do_not_fit_the_run_are_refused(rule, words):
    config = build(EventsConfig, {"rules": [{"name": "r", **rule}]}, "events.")
    with pytest.raises(UsageError, match=words):
        check_events(config, {"gate": camera()}, names=["gate", "roof"], classes=["bird", "drone"])


def test_places_of_rules_for_other_sources_need_not_fit():
    section = {"zones": {"far": [[0, 0], [900, 0], [900, 90]]}}
    rules = [{"name": "r", "sources": ["wide"], "zones": ["far"]}]
    config = build(EventsConfig, {"rules": rules, **section}, "events.")
    check_events(config, {"narrow": camera()}, names=["narrow", "wide"])
