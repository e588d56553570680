"""Options that users know from other programs."""

from __future__ import annotations

import pytest

import run_pipeline
from pipeline.config.other_programs import OTHER_NAMES
from pipeline.system.errors import UsageError


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_options_of_other_programs_are_named_as_they_are_here(name):
    ours = OTHER_NAMES[name].split()[0]
    assert ours in run_pipeline.parser()._option_string_actions
    with pytest.raises(UsageError, match=f"unknown option '{name}', which is {ours}"):
        run_pipeline.parser().parse_args([name, "1", "in.mp4"])


def test_source_is_another_name_of_video():
    options = run_pipeline.parser().parse_args(["--source", "a.mp4", "--video", "b.mp4"])
    assert run_pipeline.locations(options) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize(("device", "precision"), [("cpu", "bf16")])
def test_half_is_the_short_format_of_the_device(device, precision):
    options = run_pipeline.parser().parse_args(["in.mp4", "--half", "--device", device])
    assert run_pipeline.configuration(options).detector.precision == precision
