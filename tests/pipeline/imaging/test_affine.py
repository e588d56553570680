"""Affine maps: composition, inversion, and their robust fit to pairs of points."""

from __future__ import annotations

import numpy as np

from pipeline.imaging.affine import apply, compose, fit_shift, fit_similarity, invert
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
