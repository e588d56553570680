"""Objects that are no COCO results are refused with words and JSON, not with what Python calls them."""

from __future__ import annotations

import re

import pytest

from pipeline.evaluation.detection.predictions import parse_results
from pipeline.system.errors import UsageError, as_json, reason_of

RESULT = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}


def without(key):
    return {name: value for name, value in RESULT.items() if name != key}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (without("score"), "detection 0 is not a COCO result: it has no 'score'"),
        (without("bbox"), "it has no 'bbox'"),
        ({**RESULT, "score": "high"}, "its 'score' is \"high\", expected a number"),
        ({**RESULT, "score": None}, "its 'score' is null, expected a number"),
        ({**RESULT, "bbox": None}, "its 'bbox' is null, expected four numbers"),
        ({**RESULT, "bbox": [1, 2, "3", None]}, "its 'bbox' is [1, 2, \"3\", null], expected four numbers"),
        ({**RESULT, "image_id": [1]}, "its 'image_id' is [1], expected a number or a text"),
        ({**RESULT, "image_id": "1"}, 'detection 0 is on image "1", which is not in the annotations'),
        ({**RESULT, "category_id": "7"}, 'detection 0 is of category "7", which is not in the annotations'),
    ],
)
def test_what_is_no_result_is_told_in_words(result, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        list(parse_results([result], {1: 0}, {1: 0}))


def test_long_values_are_abbreviated():
    assert as_json(10**400) == "1" + 76 * "0" + "…"
    assert as_json({"a": [1, True]}) == '{"a": [1, true]}'


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("score"), "there is no 'score'"),
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (ValueError("two\nlines"), "two lines"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_the_reason_of_an_error_is_words_on_one_line(error, said):
    assert reason_of(error) == said
