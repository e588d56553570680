"""Affine maps: composition, inversion, and their robust fit to pairs of points."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.imaging.affine import (
    apply,
    compose,
    farthest,
    fit_motion,
    fit_shift,
    fit_similarity,
    invert,
)
from tests.support.moving_camera import similarity

POINTS = np.random.default_rng(0).uniform(0, 200, (40, 2))
EQUAL = np.ones(40)
SHIFT = np.array([4.0, 1.0])
TURN = similarity(3.0, -2.0, degrees=4, zoom=1.05)


def test_a_composition_applies_the_first_map_first():
    shift = similarity(5.0, 0.0)
    assert np.allclose(apply(compose(TURN, shift), POINTS), apply(TURN, POINTS + np.array([5, 0])))


def test_an_inverse_undoes_a_map():
    assert np.allclose(apply(invert(TURN), apply(TURN, POINTS)), POINTS)


def test_a_similarity_is_fitted_exactly():
    weights = np.random.default_rng(1).uniform(0.5, 2, 40)
    assert np.allclose(fit_similarity(POINTS, apply(TURN, POINTS), weights), TURN)


def test_equal_points_give_their_mean_shift():
    place = np.full((5, 2), 7.0)
    assert np.allclose(fit_similarity(place, place + np.array([1, 2]), np.ones(5)), similarity(1, 2))


def test_a_shift_is_that_of_the_majority():
    now = POINTS + SHIFT
    now[:15] = POINTS[:15] + np.random.default_rng(2).uniform(-30, 30, (15, 2))
    shift, agree = fit_shift(POINTS, now, EQUAL, tolerance=0.5)
    assert np.allclose(shift, similarity(4, 1))
    assert agree[15:].all()
    assert agree[:15].sum() <= 1


def test_weights_decide_between_two_groups():
    now = POINTS + SHIFT
    now[:25] = POINTS[:25]
    weights = np.where(np.arange(40) < 25, 1.0, 3.0)
    assert np.allclose(fit_shift(POINTS, now, EQUAL, tolerance=0.5)[0], similarity())
    assert np.allclose(fit_shift(POINTS, now, weights, tolerance=0.5)[0], similarity(4, 1))


def plain_shift(before, now, weights, tolerance):
    """The shift that most pairs agree on, pair by pair."""

    def near(shift):
        return np.linalg.norm(now - before - shift, axis=1) <= tolerance

    shift = max(now - before, key=lambda one: weights[near(one)].sum())
    for _ in range(3):
        if near(shift).any():
            shift = np.average((now - before)[near(shift)], axis=0, weights=weights[near(shift)])
    return similarity(*shift), near(shift)


@pytest.mark.parametrize("seed", range(20))
def test_a_shift_is_that_of_the_plain_search(seed):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.2, 4, 40)
    now = POINTS + rng.normal(0, 0.4, (40, 2)) + np.where(rng.random(40) < 0.4, 1.2, 0.0)[:, None]
    shift, agree = fit_shift(POINTS, now, weights, tolerance=0.5)
    plain, also = plain_shift(POINTS, now, weights, 0.5)
    assert np.allclose(shift, plain)
    assert np.array_equal(agree, also)


def test_an_inverse_is_that_of_the_matrix():
    skewed = np.array([[1.1, 0.3, 4.0], [-0.2, 0.8, -7.0]])
    assert np.allclose(np.vstack([invert(skewed), (0, 0, 1)]), np.linalg.inv(np.vstack([skewed, (0, 0, 1)])))
    with pytest.raises(np.linalg.LinAlgError):
        invert(np.array([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0]]))


def test_a_motion_turns_only_where_a_shift_explains_clearly_less():
    rng, corners = np.random.default_rng(3), np.array([(0, 0), (200, 0), (0, 200), (200, 200)], np.float64)
    noise = rng.normal(0, 0.1, POINTS.shape)
    options = {"last": similarity(), "corners": corners}
    shifted = fit_motion(POINTS, POINTS + SHIFT + noise, EQUAL, **options)[0]
    assert np.array_equal(shifted[:, :2], np.eye(2))
    turn = similarity(3.0, -2.0, degrees=0.4)
    turned, agree = fit_motion(POINTS, apply(turn, POINTS) + noise, EQUAL, **options)
    assert agree.all()
    assert farthest(turned, turn, corners) < 0.2


def test_the_distance_of_two_motions_is_that_at_the_corner_where_it_is_largest():
    corners = np.array([(0, 0), (200, 0), (0, 100), (200, 100)], np.float64)
    distances = np.linalg.norm(apply(TURN, corners) - apply(similarity(1, 1), corners), axis=1)
    assert np.isclose(farthest(TURN, similarity(1, 1), corners), distances.max())
