"""Cache of exported graphs: damage, full disks, concurrent processes and its size."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from detectors import export
from detectors.backends import export_folder, graph_cache
from detectors.backends.export_folder import GRAPHS, MANIFEST
from detectors.backends.graph_cache import GraphCache
from pipeline.config.schema import DetectorConfig
from pipeline.system.files import open_to_lock, try_lock
from tests.conftest import PROJECT_ROOT
from tests.support.damage import turn_a_bit
from tests.support.outputs import detections

SIZE = (64, 32)
NO_LIMIT = sys.maxsize


@pytest.fixture
def encoded(monkeypatch):
    """Replaces the export by one of a hundred bytes a graph; returns the list of exported sizes."""
    sizes = []

    def encode(model, *, size, kind):
        sizes.append(size)
        return {name: name[:1].encode() * 100 for name in GRAPHS}

    monkeypatch.setattr(export_folder, "encode_network", encode)
    return sizes


@pytest.fixture
def place(tmp_path):
    """Folder of the cache."""
    return tmp_path / "cache"


@pytest.fixture
def load(nano_origin, encoded, place):
    """Loads the graphs of a size from the cache."""

    def call(size=SIZE, *, limit=NO_LIMIT, origin=nano_origin):
        return GraphCache(place, limit).load_or_export(None, origin, size=size, kind="onnx")

    return call


def names(folder):
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def lock(path, *, shared=False):
    """Keeps a folder locked during the block, as another process would."""
    descriptor = open_to_lock(path)
    assert try_lock(descriptor, shared=shared)
    try:
        yield
    finally:
        os.close(descriptor)


def of_size(place, size):
    """The folder of a size in a cache."""
    (folder,) = place.glob(f"*-{size[0]}x{size[1]}-*")
    return folder


def use(place, size, *, days_ago):
    """Sets the time at which the graphs of a size were last used."""
    for path in of_size(place, size).iterdir():
        os.utime(path, (time.time() - days_ago * 86400,) * 2)


# Keys


def test_a_network_is_exported_once_for_each_size(load, encoded, place):
    contents = load()
    assert load() == contents == {"frame": b"f" * 100, "pair": b"p" * 100, "join": b"j" * 100}
    load((32, 32))
    assert encoded == [SIZE, (32, 32)]
    assert len(names(place)) == 2  # nothing is left of the writing


def test_other_weights_and_other_code_are_other_exports(load, encoded, nano_origin, monkeypatch):
    load()
    load(origin=export_folder.Origin(**{**vars(nano_origin), "sha256": "0" * 64}))
    monkeypatch.setattr(export_folder, "code_digest", lambda: "another")
    load()
    assert len(encoded) == 3


# Damage


def truncate(folder):
    (folder / "frame.onnx").write_bytes(b"f" * 60)


def replace_by_link(folder):
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent.parent)


def replace_by_dangling_link(folder):
    shutil.rmtree(folder)
    folder.symlink_to("nothing")


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.touch()


def replace_by_pipe(folder):
    (folder / "join.onnx").unlink()
    os.mkfifo(folder / "join.onnx")


def of_earlier_version(folder):
    table = json.loads((folder / MANIFEST).read_text())
    del table["digest"], table["graphs"]
    (folder / MANIFEST).write_text(json.dumps(table))


def of_other_classes(folder):
    export = export_folder.read_export(folder)
    origin = export_folder.Origin(**{**vars(export.origin), "classes": ("bird",)})
    contents = export_folder.read_graphs(export)
    export_folder.write_export(contents, origin, folder, size=SIZE, kind="onnx")


DAMAGES = {
    "turned bit": lambda folder: turn_a_bit(folder / "frame.onnx"),
    "turned bit in the manifest": lambda folder: turn_a_bit(folder / MANIFEST),
    "truncated graph": truncate,
    "empty graph": lambda folder: (folder / "pair.onnx").write_bytes(b""),
    "missing graph": lambda folder: (folder / "join.onnx").unlink(),
    "missing manifest": lambda folder: (folder / MANIFEST).unlink(),
    "empty manifest": lambda folder: (folder / MANIFEST).write_text(""),
    "folder for a graph": lambda folder: ((folder / "pair.onnx").unlink(), (folder / "pair.onnx").mkdir()),
    "pipe for a graph": replace_by_pipe,
    "link": replace_by_link,
    "dangling link": replace_by_dangling_link,
    "file": replace_by_file,
    "earlier version": of_earlier_version,
    "other classes": of_other_classes,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_is_wrong_is_one_warning_and_another_export(damage, load, encoded, place, caplog):
    expected = load()
    folder = of_size(place, SIZE)
    damage(folder)
    caplog.clear()
    assert load() == expected
    (told,) = caplog.messages
    assert told.startswith("exported tridos-nano for input of 64x32 in")
    assert "because" in told
    assert load() == expected
    assert len(caplog.messages) == 1
    assert len(encoded) == 2
    assert names(place) == [folder.name]
    assert not folder.is_symlink()
    assert names(folder) == sorted([MANIFEST, *(f"{name}.onnx" for name in GRAPHS)])


def test_a_run_with_a_turned_bit_in_the_cache_finds_what_it_found_before(process, clip, place, caplog):
    first = process(clip, backend="onnxruntime", cache=str(place), folder="first")
    turn_a_bit(of_size(place, (64, 64)) / "frame.onnx")
    caplog.clear()
    again = process(clip, backend="onnxruntime", cache=str(place), folder="again")
    (told,) = [line for line in caplog.messages if "exported" in line]
    assert "frame.onnx is damaged: its digest is another one" in told
    assert len(detections(first)) > 10
    assert detections(again) == detections(first)


# Caches that cannot be written


def test_a_full_disk_leaves_the_graphs_in_memory(load, place, monkeypatch, caplog):
    def fail(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fail)
    assert set(load()) == set(GRAPHS)
    (told,) = caplog.messages
    assert told.endswith(
        f"later runs export again, since the graphs cannot be kept in {place}: No space left on device"
    )
    assert names(place) == []


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_a_run_goes_on_with_one_warning_if_the_cache_is_no_folder(backend, process, clip, place, caplog):
    kept = process(clip, backend=backend, cache=str(place), folder="kept")
    (place / "file").touch()
    caplog.clear()
    out = process(clip, backend=backend, cache=str(place / "file" / "graphs"))
    (told,) = [line for line in caplog.messages if "graphs" in line]
    assert f"{place}/file/graphs: Not a directory" in told
    assert len(detections(out)) > 10
    assert detections(out) == detections(kept)


def test_a_cache_that_others_keep_locked_is_not_waited_for(load, place, monkeypatch, caplog):
    monkeypatch.setattr(graph_cache, "PATIENCE", 0.1)
    place.mkdir()
    with lock(place):
        assert set(load()) == set(GRAPHS)
    assert "another process keeps it locked" in caplog.text


# Several processes


def test_what_killed_processes_have_left_is_removed_and_what_others_build_stays(load, place):
    load()
    name = of_size(place, SIZE).name
    left, of_earlier_version, live = (place / f"{name}.{part}.part" for part in ("0a", "4711", "0b"))
    for folder in (left, of_earlier_version, live):
        folder.mkdir()
        (folder / "frame.onnx").write_bytes(b"half")
    (place / "notes.part").touch()  # not of a cache
    with lock(live):
        load((32, 32))
        assert not left.exists()
        assert not of_earlier_version.exists()
        assert names(live) == ["frame.onnx"]
    load((96, 32))
    assert not live.exists()
    assert names(place)[0] == "notes.part"


def test_where_there_are_no_locks_only_old_parts_are_left_over(load, place, monkeypatch):
    monkeypatch.setattr(graph_cache, "try_lock", lambda descriptor, *, shared=False: True)
    load()
    name = of_size(place, SIZE).name
    old, new = (place / f"{name}.{part}.part" for part in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    load((32, 32))
    assert (old.exists(), new.exists()) == (False, True)


def test_an_export_that_another_process_has_written_meanwhile_is_kept(load, place, monkeypatch, nano_origin):
    slow = export_folder.encode_network

    def encode(model, **options):
        monkeypatch.setattr(export_folder, "encode_network", slow)
        load()  # of the other process
        os.utime(of_size(place, SIZE) / "frame.onnx", (1, 1))
        return slow(model, **options)

    monkeypatch.setattr(export_folder, "encode_network", encode)
    load()
    assert (of_size(place, SIZE) / "frame.onnx").stat().st_mtime == 1


PROCESS = """
import sys
from pathlib import Path
from detectors.backends import export_folder, graph_cache
from detectors.backends.export_folder import GRAPHS, Origin

export_folder.encode_network = lambda model, **_: {name: name.encode() * 100_000 for name in GRAPHS}
origin = Origin("tridos-nano", "w", "0" * 64, ("target",), 1.0, 1, 0.25)
cache = graph_cache.GraphCache(Path(sys.argv[1]), 2_000_000)
for number in range(20):
    contents = cache.load_or_export(None, origin, size=(32, 32 + 32 * (number % 3)), kind="onnx")
    assert contents == export_folder.encode_network(None), number
"""


def test_processes_that_share_a_small_cache_read_only_complete_graphs(load, place):
    """1.3 MB a size and 2 MB in all: they write and remove the same three folders all the time."""
    command = [sys.executable, "-c", PROCESS, str(place)]
    started = [
        subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert "damaged" not in "".join(said)
    load(limit=10_000)  # nobody reads any more, so all others can go
    assert names(place) == [of_size(place, SIZE).name]


# Size


def test_the_least_recently_used_graphs_are_removed_at_the_limit(load, encoded, place):
    sizes = [(32, 32), (64, 32), (96, 32)]
    for days_ago, size in zip((3, 2, 1), sizes, strict=True):
        load(size)
        use(place, size, days_ago=days_ago)
    load(sizes[0])  # used now
    kept = sum(entry.size for entry in GraphCache(place, NO_LIMIT).entries())
    load((128, 32), limit=kept + 10)
    assert [of_size(place, size).exists() for size in (sizes[0], sizes[2], (128, 32))] == [True] * 3
    assert not list(place.glob("*-64x32-*"))
    assert len(encoded) == 4


def test_graphs_that_a_process_is_reading_are_not_removed(load, place):
    load((32, 32))
    use(place, (32, 32), days_ago=1)
    load()
    with lock(of_size(place, (32, 32)), shared=True):
        load((96, 32), limit=2000)
    assert {path.name.split("-")[3] for path in place.iterdir()} == {"32x32", "96x32"}


def test_graphs_above_the_limit_are_not_kept(load, encoded, place, caplog):
    for _ in range(2):
        load(limit=200)
    assert len(encoded) == 2
    assert "detector.cache_limit" in caplog.messages[0]
    assert not place.exists()


def test_the_limit_of_the_configuration_has_a_unit():
    assert GraphCache.at("", DetectorConfig().cache_limit) == GraphCache(graph_cache.CACHE, 4 * 10**9)
    assert GraphCache.at("~/graphs", "").folder == Path.home() / "graphs"
    with pytest.raises(ValueError, match="cache_limit = '4', expected a size"):
        DetectorConfig(cache_limit="4")


# The command


def test_the_command_shows_and_clears_the_cache(load, place, capsys):
    for size in (SIZE, (32, 32)):
        load(size)
    use(place, SIZE, days_ago=1)
    (place / "notes").mkdir()
    assert export.main(["--list-cache", "--cache", str(place)]) == 0
    first, second, total = capsys.readouterr().out.splitlines()
    assert ("32x32" in first, "64x32" in second) == (True, True)
    assert total.startswith("2 exports, 0.0 MB")
    with lock(of_size(place, SIZE), shared=True):
        assert export.main(["--clear-cache", "--cache", str(place)]) == 0
    removed, left, total = capsys.readouterr().out.splitlines()
    assert removed.startswith("1 export, ")
    assert "64x32" in left
    assert export.main(["--clear-cache", "--cache", str(place)]) == 0
    assert names(place) == ["notes"]
    assert export.main(["--clear-cache", "--cache", str(place / "none")]) == 0
    assert export.main(["--clear-cache", "tridos-nano"]) == 2
    assert export.main([]) == 2
