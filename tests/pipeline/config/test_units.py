"""Durations and sizes with units are parsed, and invalid ones are refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pipeline.config.rotation import Rotation
from pipeline.config.schema import OutputConfig
from pipeline.config.units import byte_count, duration, frame_or_time


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 0), ("90s", 90), ("30min", 1800), ("1.5h", 5400), ("1 d", 86400), ("1H", 3600)]
)
def test_durations_are_read(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("800kB", 800_000), ("500mb", 5 * 10**8), ("1.5 GB", 15 * 10**8), ("7B", 7)]
)
def test_sizes_are_read(text, count):
    assert byte_count(text) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5s", Fraction(25, 2)),
        ("0s", 0),
        ("2min", 120),
        ("1:30", 90),
        ("90:00", 5400),
        ("1:02:03.5", Fraction(7447, 2)),
    ],
)
def test_times_are_read_exactly(text, seconds):
    found = frame_or_time(text)
    assert isinstance(found, Fraction)
    assert found == seconds


@pytest.mark.parametrize("value", [100, "100", " 100 "])
def test_whole_numbers_are_frames(value):
    found = frame_or_time(value)
    assert isinstance(found, int)
    assert found == 100


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "1:2", "1:60", "1:70:00", "12,5s", ":30", "1::30"])
def test_what_is_neither_frame_nor_time_is_refused(text):
    with pytest.raises(ValueError, match="expected a frame number such as 100, or a time such as"):
        frame_or_time(text)


@pytest.mark.parametrize("text", ["1", "h", "-1h", "0s", "1x", "1e3s", "inf", "1h 3min", "nan s", " 1h"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ValueError, match="expected a duration such as 90s"):
        duration(text)
    with pytest.raises(ValueError, match="expected a size such as 800kB"):
        byte_count(text)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--rotate-every", "often"), "--rotate-every 'often', expected a duration such as 90s, 30min"),
        (("--rotate-size", "0MB"), "--rotate-size '0MB', expected a size such as 800kB"),
        (("--disk-budget", "20"), "--disk-budget '20', expected a size"),
        (
            ("--rotate-size", "3GB", "--disk-budget", "5GB"),
            "--rotate-size '3GB' is more than half of --disk-budget '5GB'; choose a smaller --rotate-size",
        ),
    ],
)
def test_invalid_values_are_reported_in_one_line(mote, clip, tmp_path, options, reason):
    reply = mote(clip, "--output", tmp_path / "out", *options)
    assert (reply.code, reply.out, reply.err.count("\n")) == (2, "", 1)
    assert reason in reply.err
    assert not (tmp_path / "out").exists()


def test_files_rotate_for_a_budget_alone():
    assert OutputConfig(disk_budget="20GB").rotation == Rotation(0, 2 * 10**9, 20 * 10**9)
    assert OutputConfig().rotation is None
