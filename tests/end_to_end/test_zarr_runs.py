"""Runs with results.zarr that are interrupted, killed, resumed or refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from datasets.synthesis import rendering
from pipeline.sinks import zarr_store
from pipeline.sinks.zarr_store import ZarrSink, count_complete_frames
from pipeline.system.errors import OutputError
from tests.support.interrupted_runs import assert_same, kill_runs
from tests.support.outputs import cache_option, lines, report, run_on_full_disk, scene
from tests.support.zarr_stores import assert_same_arrays, contents, run_with_arrays, seen_by_reader


@pytest.fixture(scope="module")
def original(tmp_path_factory, clip, nano_weights):
    """The outputs of a complete run with arrays."""
    return run_with_arrays(clip, nano_weights, tmp_path_factory.mktemp("original") / "out")


# Interrupted and resumed


@pytest.fixture
def stored(original, tmp_path):
    """A copy of these outputs, which a test may change."""
    return Path(shutil.copytree(original, tmp_path / "whole"))


@pytest.mark.parametrize(("chunk", "batch"), [(4, 3), (16, 1)])
def test_a_resumed_run_ends_with_the_same_arrays(process, clip, tmp_path, monkeypatch, chunk, batch):
    monkeypatch.setattr(zarr_store, "CHUNK_FRAMES", chunk)
    settings = {"output": {"zarr": True}, "batch": batch}
    whole = process(clip, folder="whole", **settings)
    with monkeypatch.context() as patch:
        put = ZarrSink.write

        def end(self, result):
            put(self, result)
            if result.frame.index == 9:
                raise OutputError("interrupted")

        patch.setattr(ZarrSink, "write", end)
        if chunk == 4:  # as if killed: buffered frames are lost
            patch.setattr(ZarrSink, "__exit__", lambda self, *_: None)
        with pytest.raises(OutputError, match="interrupted"):
            process(clip, **settings)
    kept = count_complete_frames(tmp_path / "out" / "results.zarr")
    assert (kept, len(lines(tmp_path / "out"))) == ({4: 8, 16: 10}[chunk], 10)
    folder = process(clip, **{**settings, "output": {"zarr": True, "resume": True}})
    assert report(folder)["resumed_after"] == 10
    assert_same_arrays(folder, whole)
    assert_same(folder, whole)


def test_arrays_that_a_resumed_run_adds_begin_at_the_first_frame(process, clip, stored):
    folder = process(clip)
    (folder / "run.json").write_text(json.dumps({**report(folder), "state": "partial"}))
    assert process(clip, output={"zarr": True, "resume": True}) == folder
    assert_same_arrays(folder, stored)


def test_a_damaged_store_is_rewritten(process, clip, stored):
    (stored / "run.json").write_text(json.dumps({**report(stored), "state": "partial"}))
    whole = contents(stored / "results.zarr")
    (stored / "results.zarr" / "times" / "zarr.json").write_text("{")
    process(clip, folder="whole", output={"zarr": True, "resume": True})
    for name, values in contents(stored / "results.zarr").items():
        np.testing.assert_array_equal(values, whole[name], err_msg=name)


def test_a_killed_run_is_resumed_with_the_same_arrays(mote, nano_weights, tmp_path):
    source = tmp_path / "long.mp4"
    rendering.write_scene(scene(frames=40), source)
    arguments = [str(source), "--weights", nano_weights, "--progress", "off", "--save-zarr", *cache_option()]
    kill_runs(arguments, tmp_path, [18.5])
    done, kept = len(lines(tmp_path / "0")), seen_by_reader(tmp_path / "0" / "results.zarr")
    assert 16 <= kept <= done < 40
    assert mote(*arguments, "--output", tmp_path / "whole").code == 0
    killed = contents(tmp_path / "0" / "results.zarr")["frames"][:kept]
    np.testing.assert_array_equal(killed, contents(tmp_path / "whole" / "results.zarr")["frames"][:kept])
    assert mote(*arguments, "--output", tmp_path / "0", "--resume").code == 0
    assert_same_arrays(tmp_path / "0", tmp_path / "whole")


# Outputs that cannot be written


@pytest.mark.usefixtures("original")  # its graph is exported before the disk is full
def test_a_full_disk_ends_the_run_with_code_5_and_keeps_complete_chunks(nano_weights, tmp_path):
    source, out = tmp_path / "frames.bin", tmp_path / "out"
    plain = np.full((16, 64, 64), 9, np.uint8)
    plain[:, :8] = 255
    noise = np.random.default_rng(0).integers(1, 256, plain.shape, np.uint8)  # does not compress
    source.write_bytes(plain.tobytes() + noise.tobytes() * 2)
    options = ["--weights", nano_weights, "--progress", "off", "--save-zarr", "--output", str(out)]
    options += [f"--no-save-{name}" for name in ("video", "jsonl", "coco", "mot")]
    options += ["--source-format", "raw", "--source-size", "64x64", "--source-dtype", "uint8"]
    run = run_on_full_disk([source, *options], limit=30_000)
    assert run.returncode == 5, run.stderr
    assert run.stderr.startswith(f"error: cannot write {out / 'results.zarr'}: File too large; ")
    assert run.stderr.count("\n") == 1
    assert seen_by_reader(out / "results.zarr") == 16
    np.testing.assert_array_equal(contents(out / "results.zarr")["frames"], plain)
    assert not list(out.rglob("*.part"))
    assert report(out)["state"] == "partial"


@pytest.mark.parametrize(("options", "code"), [((), 5), (("--overwrite",), 0)], ids=["refused", "replaced"])
def test_an_earlier_store_is_only_replaced_with_overwrite(stored, mote, clip, nano_weights, options, code):
    before = contents(stored / "results.zarr")
    (stored / "results.zarr" / "frames" / "of earlier").touch()
    arguments = ("--weights", nano_weights, "--output", stored, "--progress", "off", "--max-frames", 5)
    assert mote(clip, *arguments, "--save-zarr", *options).code == code
    after = contents(stored / "results.zarr")
    assert len(after["times"]) == (len(before["times"]) if code else 5)
    assert (stored / "results.zarr" / "frames" / "of earlier").exists() == bool(code)


@pytest.mark.parametrize("kind", ["a folder", "a file", "a link"])
def test_other_files_in_place_of_a_store_are_never_removed(mote, clip, nano_weights, stored, tmp_path, kind):
    place = tmp_path / "other" / "results.zarr"
    place.parent.mkdir()
    if kind == "a folder":
        place.mkdir()
        (place / "dear.txt").write_text("dear")
    elif kind == "a file":
        place.write_text("dear")
    else:
        place.symlink_to(stored / "results.zarr")
    options = ("--weights", nano_weights, "--output", place.parent, "--overwrite", "--save-zarr")
    reply = mote(clip, *options, "--progress", "off")
    assert (reply.code, reply.out, reply.err.count("\n")) == (5, "", 1)
    assert str(place) in reply.err
    assert os.path.lexists(place)
    if kind == "a folder":
        assert (place / "dear.txt").read_text() == "dear"
    assert len(contents(stored / "results.zarr")["times"]) == 16


def test_a_store_that_is_the_source_is_not_overwritten(stored, mote, nano_weights):
    options = ("--weights", nano_weights, "--output", stored, "--overwrite", "--set", "source.array=frames")
    reply = mote(stored / "results.zarr", *options)
    assert reply.code == 5
    assert "is to be read and would be overwritten" in reply.err
    assert len(contents(stored / "results.zarr")["times"]) == 16
