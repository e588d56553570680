"""Digests are those of the bytes, and unchanged files are not read again."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from datasets.sequences.file_digests import Digests
from pipeline.system.errors import SourceError


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes, *, age: float = 100) -> Path:
    """A file that was last changed `age` seconds ago."""
    path.write_bytes(data)
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


@pytest.fixture
def index(tmp_path) -> Path:
    return tmp_path / "digests.jsonl"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files that have been read, by name."""
    names = []
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: names.append(Path(file.name).name) or digest(file, kind)
    )
    return names


def test_digests_come_in_the_order_of_the_files(index, tmp_path):
    files = [write(tmp_path / name, name.encode()) for name in "cab"]
    assert Digests(index).of(files) == [sha(b"c"), sha(b"a"), sha(b"b")]


def test_unchanged_files_are_not_read_again(index, tmp_path, read):
    files = [write(tmp_path / name, name.encode()) for name in "ab"]
    first = Digests(index).of(files)
    assert Digests(index).of(files) == first
    assert read == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "age"), [(b"other", 100), (b"again", 50)], ids=["other size", "other time alone"]
)
def test_changed_files_are_read_again(index, tmp_path, data, age):
    file = write(tmp_path / "a", b"first")
    Digests(index).of([file])
    assert Digests(index).of([write(file, data, age=age)]) == [sha(data)]


def test_a_file_changed_just_now_is_not_remembered(index, tmp_path, read):
    """It may change again with the same size and time."""
    file = write(tmp_path / "a", b"first", age=0)
    digests = Digests(index)
    assert digests.of([file]) == digests.of([file]) == [sha(b"first")]
    assert read == ["a", "a"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe\x00\n",
        b"[1, 2\n",
        b"{}\nnull\n3\n",
        b'["x", 1]\n[[], 1, 1, 5]\n["x", 1, 1, "zz"]\n',
        b'["torn", 5, 17',
    ],
    ids=["empty", "no text", "cut off", "other values", "wrong rows", "a torn last line"],
)
def test_a_damaged_index_costs_no_more_than_reading_again(index, tmp_path, read, damage):
    file = write(tmp_path / "a", b"first")
    index.write_bytes(damage)
    for _ in range(2):
        assert Digests(index).of([file]) == [sha(b"first")]
    assert read == ["a"]


def test_an_index_that_cannot_be_written_is_done_without(tmp_path):
    file = write(tmp_path / "a", b"first")
    assert Digests(tmp_path / "nowhere" / "digests.jsonl").of([file]) == [sha(b"first")]


def test_names_that_are_no_plain_text_are_remembered(index, tmp_path, read):
    file = write(tmp_path / os.fsdecode(b"a\nb\xff\"'"), b"first")
    for _ in range(2):
        assert Digests(index).of([file]) == [sha(b"first")]
    assert len(read) == 1


@pytest.mark.parametrize("name", ["nowhere", "."], ids=["missing", "a folder"])
def test_a_file_that_cannot_be_read_is_told(index, tmp_path, name):
    with pytest.raises(SourceError, match="cannot be read"):
        Digests(index).of([tmp_path / name])
