"""Files are replaced as a whole or not at all, and locks end with their process."""

import errno
import os
import subprocess
import sys

import pytest

from pipeline.system import files
from pipeline.system.errors import OutputError, UsageError
from pipeline.system.files import (
    atomic_write,
    fingerprint,
    lock_folder,
    replace_on_success,
    require_idle,
    try_lock,
)

WRITERS = [atomic_write, replace_on_success]
HOLDER = """
import os, sys, time
from pathlib import Path
from pipeline.system.files import lock_folder
lock = lock_folder(Path(sys.argv[1]))
lock.__enter__()
print("locked", flush=True)
time.sleep(60)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(partial, error):
    partial.write_text("new")
    raise error


# Replacement


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("writer", WRITERS)
def test_the_old_content_stays_until_the_block_ends(writer, sync, tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with writer(path, sync=sync) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["run.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("writer", WRITERS)
def test_an_exception_leaves_the_old_content_and_nothing_else(writer, error, tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")
    with pytest.raises(error), writer(path) as partial:
        write_and_fail(partial, error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["run.json"]


def test_files_that_differ_in_their_suffix_have_parts_of_their_own(tmp_path):
    with atomic_write(tmp_path / "a.pt") as weights, atomic_write(tmp_path / "a.csv") as table:
        assert (weights.name, table.name) == ("a.pt.part", "a.csv.part")
        weights.write_text("1")
        table.write_text("2")
    assert names(tmp_path) == ["a.csv", "a.pt"]


def test_errors_of_the_system_become_output_errors_with_a_remedy(tmp_path):
    path = tmp_path / "missing" / "run.json"
    with pytest.raises(OutputError) as caught, atomic_write(path) as partial:
        partial.write_text("new")
    assert str(caught.value) == f"cannot write {path}: No such file or directory; create the folder first"


def test_errors_of_the_system_keep_their_type_where_the_caller_words_them(tmp_path):
    with pytest.raises(FileNotFoundError), replace_on_success(tmp_path / "missing" / "last.pt") as partial:
        partial.write_text("new")


def test_content_and_name_reach_the_disk_before_the_block_is_left(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor):
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), names(tmp_path)))

    monkeypatch.setattr(files.os, "fsync", fsync)
    with atomic_write(tmp_path / "run.json") as partial:
        partial.write_text("new")
    assert synced == [(f"{tmp_path}/run.json.part", ["run.json.part"]), (str(tmp_path), ["run.json"])]


def test_a_late_fault_of_the_disk_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    path.write_text("old")

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OutputError, match="free space on the disk"), atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["run.json"]


# Locks


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("{}\n")
    return path


@pytest.fixture
def holder(results):
    """A process that holds the lock of the folder of results.jsonl until it is killed."""
    command = [sys.executable, "-c", HOLDER, results.parent]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_until_the_first_is_killed(holder, results):
    folder = results.parent
    with pytest.raises(UsageError, match=f"the run in {folder} is still going"), require_idle(folder):
        pass
    with pytest.raises(OutputError, match="another run writes to it; use another --output"):
        with lock_folder(folder):
            pass
    holder.kill()
    holder.wait()
    with require_idle(folder):
        pass
    with lock_folder(folder):
        pass
    assert results.read_text() == "{}\n"
    assert names(results.parent) == ["results.jsonl"]


def test_a_lock_ends_with_its_block(tmp_path):
    with lock_folder(tmp_path), pytest.raises(UsageError, match="still going"), require_idle(tmp_path):
        pass
    with require_idle(tmp_path), pytest.raises(OutputError, match="another run"), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        assert names(tmp_path) == []


def test_a_missing_folder_belongs_to_no_run(tmp_path):
    with require_idle(tmp_path / "out"), require_idle(tmp_path / "out"):
        assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_systems_without_locks_refuse_nobody(number, results, monkeypatch):
    def missing(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", missing)
    with results.open() as first, results.open() as second:
        assert try_lock(first.fileno())
        assert try_lock(second.fileno())


def test_the_lock_needs_no_fcntl_until_it_is_taken():
    code = "import sys, run_pipeline, pipeline.sinks.rotating; print('fcntl' in sys.modules)"
    reply = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert reply.stdout == "False\n"


# Fingerprints


def test_a_fingerprint_changes_with_the_size_the_start_and_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_EDGE", 4)
    path, found = tmp_path / "video.mp4", {}
    for content in (b"abcd....efgh", b"abcd.....efgh", b"Abcd....efgh", b"abcd....efgH", b"abcd..!.efgh"):
        path.write_bytes(content)
        found[content] = fingerprint(str(path))
    assert len(set(found.values())) == 4
    assert found[b"abcd....efgh"] == found[b"abcd..!.efgh"]  # the middle is not read


@pytest.mark.parametrize("location", ["missing.mp4", ".", "rtsp://camera/1", "a\0b"])
def test_what_is_no_regular_file_has_no_fingerprint(location, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fingerprint(location) is None
