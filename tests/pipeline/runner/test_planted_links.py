"""Links planted in an output folder: neither `recover` nor a run writes to the files that they lead to."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from pipeline import recover
from pipeline.sinks.file_names import UNFINISHED
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.jsonl_codec import ValidPrefix
from pipeline.sinks.zarr_store import ZarrSink
from pipeline.system.errors import OutputError
from tests.pipeline.sinks.test_sinks import source_info
from tests.support.interrupted_runs import assert_same, interrupted_copy
from tests.support.outputs import OUTPUTS, check_consistent, lines, report

REPLACED = ("tracks.txt", "annotated.mp4", "detections.json", "metrics.json", *UNFINISHED)
"""Outputs that are replaced; results.jsonl and run.json are read as well."""
TRUNCATED = b'{"frame":11,"pts":0.36'


@pytest.fixture
def victims(tmp_path):
    """A folder of files that links lead to; they must stay as they are."""
    folder = tmp_path / "victims"
    folder.mkdir()
    yield folder
    assert {path.read_bytes() for path in folder.iterdir()} == {b"precious"}


def plant(path, victims, *, link=os.symlink):
    """Puts a link to a file of its own in the place of an output."""
    target = victims / path.name
    target.write_bytes(b"precious")
    path.unlink(missing_ok=True)
    link(target, path)


@pytest.fixture
def resume(mote, clip, nano_weights):
    def call(folder, *more):
        arguments = ("--weights", nano_weights, "--conf", 0.2, "--progress", "off", "--output", folder)
        return mote(clip, *arguments, "--annotations", clip.with_suffix(".json"), *more)

    return call


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_recover_replaces_links(whole, tmp_path, victims, link):
    folder = interrupted_copy(whole, tmp_path / "out", after=9, truncated=TRUNCATED)
    for name in REPLACED:
        plant(folder / name, victims, link=link)
    assert recover.main([str(folder)]) == 0
    assert len(lines(folder)) == report(folder)["frames"]["written"] == 9
    assert report(folder)["state"] == "recovered"
    assert sorted(path.name for path in folder.iterdir()) == sorted((*OUTPUTS, "metrics.json"))
    assert not [path for path in folder.iterdir() if path.is_symlink()]


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_a_run_replaces_links(whole, resume, tmp_path, victims, how, link):
    folder = interrupted_copy(whole, tmp_path / "out", after=9, truncated=TRUNCATED)
    for name in REPLACED:
        plant(folder / name, victims, link=link)
    reply = resume(folder, how)
    assert (reply.code, reply.err) == (0, "")
    assert_same(folder, whole)
    assert check_consistent(folder) == 16


@pytest.mark.parametrize("name", ["results.jsonl", "run.json"])
def test_links_in_place_of_the_record_are_refused(whole, resume, tmp_path, capsys, name):
    folder = interrupted_copy(whole, tmp_path / "out", after=9, truncated=TRUNCATED)
    elsewhere = tmp_path / "elsewhere"
    shutil.copy(folder / name, elsewhere)
    content = elsewhere.read_bytes()
    (folder / name).unlink()
    (folder / name).symlink_to(elsewhere)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert recover.main([str(folder)]) == 2
    recovered = capsys.readouterr().err
    resumed = resume(folder, "--resume")
    assert resumed.code == 2
    for message in (recovered, resumed.err):
        assert f"{name}: it is a link\n" in message
        assert message.count("\n") == 1
    assert elsewhere.read_bytes() == content
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_second_name_of_the_record_is_refused(whole, resume, tmp_path, capsys):
    """A copy of hard links, as backups are made: truncating the lines would truncate those of the backup."""
    folder = interrupted_copy(whole, tmp_path / "out", after=9, truncated=TRUNCATED)
    backup = tmp_path / "backup.jsonl"
    os.link(folder / "results.jsonl", backup)
    content = backup.read_bytes()
    assert recover.main([str(folder)]) == 5
    assert "the file has a second name" in capsys.readouterr().err
    resumed = resume(folder, "--resume")
    assert resumed.code == 5
    assert "the file has a second name" in resumed.err
    assert backup.read_bytes() == content


@pytest.mark.parametrize("name", ["results.jsonl", "run.json"])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_what_is_no_file_is_not_read(whole, resume, tmp_path, capsys, name, kind):
    """An endless file or a pipe would never be read to its end."""
    folder = interrupted_copy(whole, tmp_path / "out", after=9)
    path = folder / name
    path.unlink()
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert recover.main([str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    resumed = resume(folder, "--resume")
    assert (resumed.code, resumed.err.count("\n")) == (2, 1)


def test_lines_are_not_appended_through_a_link(tmp_path, victims):
    plant(tmp_path / "results.jsonl", victims)
    with pytest.raises(OutputError, match="it is a link; put the file itself in its place"):
        JsonlSink(tmp_path / "results.jsonl", kept=ValidPrefix(1, 4, 0)).__enter__()


@pytest.mark.parametrize("name", [".", "maps", "detections", "frames", "detections/boxes", "times"])
def test_arrays_are_not_appended_through_a_link(process, clip, tmp_path, name):
    store = process(clip, output={"zarr": True}, folder="whole") / "results.zarr"
    linked = tmp_path / "linked.zarr"
    shutil.copytree(store, linked)
    (linked / name).resolve().rename(tmp_path / "elsewhere")
    (linked if name == "." else linked / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link"):
        ZarrSink(linked, source_info(), kept=8).__enter__()


def test_a_folder_that_is_itself_a_link_is_used(mote, clip, nano_weights, tmp_path):
    """Users put outputs on another disk in this way."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    arguments = ("--weights", nano_weights, "--max-frames", 3, "--progress", "off")
    assert mote(clip, *arguments, "--output", tmp_path / "out").code == 0
    assert json.loads((tmp_path / "disk" / "run.json").read_text())["state"] == "complete"
