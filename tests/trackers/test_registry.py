"""Trackers are built by name, with options."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame
from pipeline.system.errors import UsageError
from tests.conftest import PROJECT_ROOT
from trackers import TRACKERS, build
from trackers.centre import CentreTracker
from trackers.centre_options import CentreOptions


def test_the_tracker_none_has_no_tracks():
    tracker = build("none")
    frame = Frame(np.zeros((256, 320), np.uint8), 0, Fraction(0), "clip")
    assert len(tracker.update(Detections([[97, 97, 103, 103]], [0.9], [0]), frame)) == 0
    tracker.reset()


def test_options_reach_the_tracker():
    tracker = build("centre", coast=7, unrelated=3.0)
    assert isinstance(tracker, CentreTracker)
    assert tracker.options == CentreOptions(coast=7, unrelated=3.0)
    assert sorted(TRACKERS) == [
        *("byte", "centre", "centre:quiet", "centre:sensitive", "mmdet:ByteTracker", "mmdet:OCSORTTracker"),
        *("none", "ocsort", "sort"),
    ]


def test_presets_differ_in_their_defaults_and_take_options():
    assert build("centre").options == CentreOptions()
    quiet, sensitive = build("centre:quiet").options, build("centre:sensitive").options
    assert quiet.birth_hits > CentreOptions().birth_hits > 1
    assert sensitive.high_score < CentreOptions().high_score < quiet.high_score
    assert build("centre:quiet", birth_hits=2, coast=5).options == replace(quiet, birth_hits=2, coast=5)
    with pytest.raises(UsageError, match="unknown tracker 'centre:quite'; did you mean 'centre:quiet'"):
        build("centre:quite")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("center", {}, "unknown tracker 'center'; did you mean 'centre'"),
        ("centre", {"coasting": 3}, "unknown tracker option 'coasting'; did you mean 'coast'"),
        ("centre", {"low_score": 0.9}, r"low_score = 0.9, expected 0 to 0.45"),
        ("centre", {"birth_window": 2}, "birth_window = 2, expected 3 or more"),
        ("centre", {"unrelated": 0}, "tracker option unrelated = 0, expected 0.001 or more"),
        ("centre", {"calm_acceleration": float("nan")}, "calm_acceleration = nan, expected 0 or more"),
        ("none", {"coast": 3}, "tracker 'none' takes no options, got coast"),
    ],
)
def test_invalid_names_and_values_are_refused_with_the_valid_ones(name, options, message):
    with pytest.raises(UsageError, match=message):
        build(name, **options)


def test_listing_the_trackers_does_not_load_scipy():
    code = "import sys, trackers; sys.exit(any(name.split('.')[0] == 'scipy' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=False).returncode == 0
