"""Sources with different names get different output folders, whatever characters the names hold."""

from __future__ import annotations

import pytest

from pipeline.runner.setup import distinct_names, run_name
from tests.support.outputs import report


@pytest.fixture(autouse=True)
def sources(tmp_path, monkeypatch):
    """The working folder; it holds files and folders with unusual names."""
    for name in ("clip[1].mp4", "clip[2].mp4", "esc\x1b[31m.mp4", "tar.gz.mp4", "..mp4", "...mp4", ".mp4"):
        (tmp_path / name).touch()
    for name in ("flight.2024", "flight.2025", "rec[3]", "store.zarr", "a.b/cam1/day", "a.b/cam2/day"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("clip[1].mp4", "clip[1]"),
        ("clip[2].mp4", "clip[2]"),
        ("tar.gz.mp4", "tar.gz"),
        ("flight.2024", "flight.2024"),
        ("flight.2024/", "flight.2024"),
        ("flight.2024/*.png", "flight.2024"),
        ("flight.2024/**/f[0-9].png", "flight.2024"),
        ("rec[3]", "rec[3]"),
        ("rec[3]/*.png", "rec[3]"),
        ("a.b/cam*/day/*.png", "a.b"),
        ("a.b/cam?/day/f.png", "a.b"),
        ("store.zarr", "store"),
        ("store.zarr/", "store"),
        ("esc\x1b[31m.mp4", "esc_[31m"),
        ("..mp4", "run"),
        ("...mp4", "run"),
        (".mp4", ".mp4"),
        ("/", "run"),
        ("missing/clip.mp4", "clip"),
    ],
)
def test_the_name_is_that_of_the_file_or_of_the_folder(location, name):
    assert run_name(location) == name


def test_a_folder_is_named_alike_from_within_and_from_outside(sources, monkeypatch):
    monkeypatch.chdir(sources / "flight.2024")
    assert run_name(".") == run_name("../flight.2024") == run_name("*.png") == "flight.2024"


def test_sources_that_differ_in_their_suffix_or_brackets_do_not_collide():
    locations = ["flight.2024", "flight.2025", "clip[1].mp4", "clip[2].mp4"]
    assert distinct_names(locations) == ["flight.2024", "flight.2025", "clip[1]", "clip[2]"]


def test_two_videos_with_brackets_in_their_names_have_outputs_of_their_own(mote, clip, nano_weights, sources):
    for name in ("clip[1].mp4", "clip[2].mp4"):
        (sources / name).write_bytes(clip.read_bytes())
        reply = mote(name, "--weights", nano_weights, "--max-frames", 2, "--progress", "off")
        assert (reply.code, reply.err) == (0, "")
    assert sorted(path.name for path in (sources / "runs").iterdir()) == ["clip[1]", "clip[2]"]
    assert report(sources / "runs" / "clip[2]")["source"]["name"] == "clip[2].mp4"


@pytest.mark.parametrize(
    ("locations", "names"),
    [
        (["x/a.mp4", "x/b.mp4"], ["a", "b"]),
        (["x/a.mp4", "y/a.mkv", "z/A"], ["a", "a_2", "A_3"]),
        (["x/a.mp4", "y/a.mp4", "a_2.mp4"], ["a", "a_3", "a_2"]),
        (["a_2.mp4", "x/a.mp4", "y/a.mp4"], ["a_2", "a", "a_3"]),
        (["pictures/*.png", "pictures"], ["pictures", "pictures_2"]),
    ],
    ids=["others", "the same, in any case", "a name to come", "a name before", "pattern"],
)
def test_folder_names_are_distinct(locations, names):
    assert distinct_names(locations) == names
