"""The comparison of two forms of a network counts unmatched detections and differences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.equality import Comparison, compared


def rows(*found):
    """Returns rows of boxes of 4x4 pixels for (x, score, label)."""
    boxes = np.array([[x, 0, x + 4, 4] for x, *_ in found], float).reshape(-1, 4)
    return boxes, np.array([score for _, score, _ in found]), np.array([label for *_, label in found], int)


def test_differences_within_matches_are_reported():
    plain = rows((10, 0.9, 0), (30, 0.5, 0))
    ours = rows((30.01, 0.52, 0), (10.2, 0.9, 0))
    assert compared(plain, ours) == Comparison(1, 2, 0, pytest.approx(0.2), pytest.approx(0.02))


@pytest.mark.parametrize(
    ("plain", "ours", "alone"),
    [
        (rows((10, 0.9, 0)), rows(), 1),
        (rows(), rows((10, 0.9, 0)), 1),
        (rows((10, 0.9, 0)), rows((11, 0.9, 0)), 2),
        (rows((10, 0.9, 0)), rows((10, 0.9, 1)), 2),
        (rows((10, 0.9, 0), (10.1, 0.8, 0)), rows((10, 0.9, 0)), 1),
        (rows(), rows(), 0),
    ],
    ids=["missing", "new", "moved", "another class", "one for two", "nothing"],
)
def test_unmatched_detections_are_counted(plain, ours, alone):
    assert compared(plain, ours).alone == alone


def test_sums_add_counts_and_keep_the_largest_differences():
    total = Comparison(1, 3, 0, 0.1, 0.02) + Comparison(2, 4, 1, 0.05, 0.3)
    assert total == Comparison(3, 7, 1, 0.1, 0.3)
