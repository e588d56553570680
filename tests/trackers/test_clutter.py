"""What trackers learn about clutter while they run."""

from __future__ import annotations

import numpy as np
import pytest

from trackers.clutter import Crowds, PlaceMap, ScoreDensity


def test_scores_that_occur_often_are_dense_and_others_stay_rare():
    density = ScoreDensity()
    before = density.at(np.array([0.12, 0.8]))
    for _ in range(100):
        density.observe(np.full(20, 0.12), 1.0)
    faint, bright = density.at(np.array([0.12, 0.8]))
    assert faint > 20 * before[0]
    assert bright < before[1]


def test_a_burst_counts_at_once_and_is_over_at_once():
    density = ScoreDensity()
    for _ in range(100):
        density.observe(np.zeros(0), 1.0)
    calm = density.at(np.array([0.6]))[0]
    density.observe(np.linspace(0.5, 0.7, 21), 1.0)
    burst = density.at(np.array([0.6]))[0]
    assert burst > 100 * calm
    density.observe(np.zeros(0), 1.0)
    assert density.at(np.array([0.6]))[0] < burst / 50


def test_a_lone_detection_is_no_burst():
    density = ScoreDensity()
    density.observe(np.array([0.6]), 1.0)
    once = density.at(np.array([0.6]))[0]
    density.clear()
    density.observe(np.array([0.6, 0.61]), 1.0)
    assert density.at(np.array([0.6]))[0] < 2 * once


def test_bright_clutter_makes_bright_scores_less_telling_and_faint_clutter_changes_nothing():
    faint, bright, new = ScoreDensity(), ScoreDensity(), ScoreDensity()
    for _ in range(200):
        faint.observe(np.full(10, 0.1), 1.0)
        bright.observe(np.full(10, 0.6), 1.0)
    at = np.array([0.6])
    assert bright.log_share(at) > new.log_share(at) + 2
    assert faint.log_share(at) == pytest.approx(new.log_share(at))


def test_parts_of_the_picture_with_much_clutter_are_known():
    crowds = Crowds()
    crowds.fit(320, 256)
    trees = np.random.default_rng(0).uniform((0, 200), (320, 256), (20, 2))
    for _ in range(50):
        crowds.observe(trees, 1.0)
    tree, sky = crowds.at(np.array([trees[0], (160, 50)]))
    assert tree > 2
    assert sky == 1


def test_a_place_where_detections_recur_becomes_clutter_and_is_forgotten_later():
    places = PlaceMap()
    places.fit(320, 256)
    lamp, elsewhere = np.array([[100.0, 80.0]]), np.array([[200.0, 80.0]])
    assert places.probability(lamp) == 0
    for _ in range(100):
        places.forget(1.0)
        places.add(lamp)
    assert places.probability(lamp) > 0.8
    assert places.probability(lamp + 2) > 0.8
    assert places.probability(elsewhere) == 0
    places.forget(3000.0)
    assert places.probability(lamp) < 0.01


def test_the_map_has_the_same_size_for_large_frames_and_for_places_far_outside():
    places = PlaceMap()
    places.fit(1920, 1080)
    size = places._hits.nbytes
    places.add(np.array([[-4000.0, 9000.0], [1900.0, 1000.0]]))
    assert places._hits.nbytes == size
    assert (places.probability(np.array([[-4000.0, 9000.0], [1900.0, 1000.0]])) > 0).all()
