"""Range checks name the field, its value and what is allowed."""

import re
from types import SimpleNamespace

import pytest

from pipeline.config.ranges import require_range
from pipeline.system.errors import UsageError


@pytest.mark.parametrize(
    ("bounds", "inside", "outside", "expected"),
    [
        ({"low": 0}, [0, 7, 1e9], [-1], "0 or more"),
        ({"low": 0, "high": 1}, [0, 0.5, 1], [-0.1, 1.1], "0 to 1"),
        ({"low": 0, "below": 1}, [0, 0.99], [-0.1, 1], "0 or more and less than 1"),
        ({"above": 0}, [0.1, 1e9], [0, -1], "more than 0"),
        ({"above": 0, "high": 0.5}, [0.1, 0.5], [0, 0.6], "more than 0 and at most 0.5"),
        ({"above": 0, "below": 1}, [0.1, 0.9], [0, 1], "more than 0 and less than 1"),
        ({"low": 8, "high": 16, "expected": "8 to 16, or 0 for all"}, [8, 16], [7], "8 to 16, or 0 for all"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bounds_are_kept_and_named(bounds, inside, outside, expected):
    for value in inside:
        require_range(SimpleNamespace(share=value), "share", **bounds)
    for value in [*outside, float("nan"), float("inf")]:
        with pytest.raises(ValueError, match=f"^{re.escape(f'share = {value}, expected {expected}')}$"):
            require_range(SimpleNamespace(share=value), "share", **bounds)


def test_the_first_field_out_of_range_is_named():
    section = SimpleNamespace(batch=1, threads=-1, queue=-2)
    with pytest.raises(ValueError, match=r"^threads = -1, expected 0 or more$"):
        require_range(section, "batch", "threads", "queue", low=0)


def test_callers_choose_the_error_and_the_words_before_the_name():
    with pytest.raises(UsageError, match=r"^tracker option gate = 0, expected 0\.001 or more$"):
        require_range(SimpleNamespace(gate=0), "gate", low=0.001, prefix="tracker option ", error=UsageError)
