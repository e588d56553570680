"""Networks are built by name; unknown names and options are refused."""

from __future__ import annotations

import pytest

import detectors
from pipeline.system.errors import UsageError


def test_an_unknown_detector_suggests_the_close_one():
    with pytest.raises(UsageError, match="unknown detector 'tridos-nan'; did you mean 'tridos-nano'"):
        detectors.build("tridos-nan")


@pytest.mark.parametrize(
    "options", [{"num_classes": 0}, {"width": 0.3}, {"colour": 3}, {"num_classes": "x"}], ids=str
)
def test_an_option_that_the_network_does_not_have_is_refused(options):
    with pytest.raises(UsageError, match="cannot build detector 'tridos'"):
        detectors.build("tridos", **options)
