"""Cached digests are those of the content, and unchanged files are not read again."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from datasets.sequences.file_digests import DigestCache
from pipeline.system.errors import SourceError


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes, *, age: float = 100) -> Path:
    """Writes a file whose last change was `age` seconds ago."""
    path.write_bytes(data)
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


@pytest.fixture
def index(tmp_path) -> Path:
    return tmp_path / "digests.jsonl"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Names of the files that have been read."""
    names = []
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: names.append(Path(file.name).name) or digest(file, kind)
    )
    return names


def test_digests_come_in_the_order_of_the_files(index, tmp_path):
    files = [write(tmp_path / name, name.encode()) for name in "cab"]
    assert DigestCache(index).sha256(files) == [sha(b"c"), sha(b"a"), sha(b"b")]


def test_unchanged_files_are_not_read_again(index, tmp_path, read):
    files = [write(tmp_path / name, name.encode()) for name in "ab"]
    first = DigestCache(index).sha256(files)
    assert DigestCache(index).sha256(files) == first
    assert read == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "age"), [(b"other", 100), (b"again", 50)], ids=["other size", "other time alone"]
)
def test_changed_files_are_read_again(index, tmp_path, data, age):
    file = write(tmp_path / "a", b"first")
    DigestCache(index).sha256([file])
    assert DigestCache(index).sha256([write(file, data, age=age)]) == [sha(data)]


def test_a_file_changed_just_now_is_not_remembered(index, tmp_path, read):
    """It may change again with the same size and time."""
    file = write(tmp_path / "a", b"first", age=0)
    digests = DigestCache(index)
    assert digests.sha256([file]) == digests.sha256([file]) == [sha(b"first")]
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
        assert DigestCache(index).sha256([file]) == [sha(b"first")]
    assert read == ["a"]


def test_an_index_that_cannot_be_written_is_done_without(tmp_path):
    file = write(tmp_path / "a", b"first")
    assert DigestCache(tmp_path / "nowhere" / "digests.jsonl").sha256([file]) == [sha(b"first")]


def test_names_that_are_no_plain_text_are_remembered(index, tmp_path, read):
    file = write(tmp_path / os.fsdecode(b"a\nb\xff\"'"), b"first")
    for _ in range(2):
        assert DigestCache(index).sha256([file]) == [sha(b"first")]
    assert len(read) == 1


@pytest.mark.parametrize("name", ["nowhere", "."], ids=["missing", "a folder"])
def test_a_file_that_cannot_be_read_is_told(index, tmp_path, name):
    with pytest.raises(SourceError, match="cannot be read"):
        DigestCache(index).sha256([tmp_path / name])
