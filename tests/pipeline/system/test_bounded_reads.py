"""Files that a user names are read if they are regular and of a sensible size; nothing endless is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from datasets.layouts.file_names import image_size
from detectors.mmdet_adapter.checkpoints import read as read_checkpoint
from detectors.weights.zoo import locate_weights
from pipeline.config.parsing import load_toml
from pipeline.evaluation.segmentation.map_files import read_map
from pipeline.evaluation.tracking.track_rows import read_tracks
from pipeline.imaging.image_files import read_image
from pipeline.runner.run_json import read_record
from pipeline.sources import open_source
from pipeline.system import bounded_reads
from pipeline.system.bounded_reads import open_regular, read_bounded, require_bounded
from pipeline.system.errors import SourceError, UsageError, WeightsError
from pipeline.system.files import load_json, read_text
from tests.support.media import grey_frames

READERS = {
    "configuration": (load_toml, UsageError),
    "annotations": (lambda path: load_json(path, kind="annotations"), UsageError),
    "list": (lambda path: read_text(path, kind="list of images"), UsageError),
    "tracks": (read_tracks, UsageError),
    "image": (read_image, SourceError),
    "size of an image": (image_size, SourceError),
    "map": (lambda path: read_map(path, logits=False), SourceError),
    "weights": (lambda path: locate_weights(str(path)), WeightsError),
    "checkpoint": (read_checkpoint, WeightsError),
}
"""Kind of file → its reader and the error for one that cannot be read."""


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def huge(path: Path) -> Path:
    path.touch()
    os.truncate(path, 1 << 40)
    return path


@pytest.mark.parametrize("make", [device, pipe, huge])
@pytest.mark.parametrize("kind", READERS)
def test_endless_files_are_refused_in_one_line(tmp_path, kind, make):
    read, error = READERS[kind]
    path = make(tmp_path / "named.npy")
    with pytest.raises(error) as caught:
        read(path)
    assert str(path) in str(caught.value)
    if kind != "size of an image":  # which gives no reason
        assert re.search(r"it is no regular file|it has 1048576.0 MiB, and at most", str(caught.value))


@pytest.mark.parametrize("key", ["offset", "bad_pixels"])
def test_corrections_named_by_endless_files_are_usage_errors(tmp_path, key):
    Image.fromarray(grey_frames(1)[0]).save(tmp_path / "0.png")
    with pytest.raises(UsageError, match="/dev/zero cannot be read: it is no regular file"):
        open_source(tmp_path, **{key: "/dev/zero"})


@pytest.mark.parametrize("name", ["zarr.json", ".zattrs", "c/0/0/0"])
def test_pipes_in_a_zarr_store_block_nothing(tmp_path, name):
    store, frames = tmp_path / "a.zarr", np.stack(grey_frames(2))
    zarr.create_array(store, data=frames, chunks=(1, *frames.shape[1:]))
    (store / name).unlink(missing_ok=True)
    pipe(store / name)
    with pytest.raises(SourceError, match="it is no regular file"):
        list(open_source(store))


def test_the_record_of_a_run_is_read_from_a_regular_file(tmp_path):
    pipe(tmp_path / "run.json")
    with pytest.raises(UsageError, match=r"cannot read run\.json: it is no regular file"):
        read_record(tmp_path)


def test_regular_files_and_links_to_them_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"four")
    (tmp_path / "b").symlink_to("a")
    assert [read_bounded(tmp_path / name, limit=4) for name in "ab"] == [b"four", b"four"]
    with open_regular(tmp_path / "b", limit=4) as file:
        assert file.read() == b"four"


def test_a_file_above_the_limit_is_refused_with_both_sizes(tmp_path):
    (tmp_path / "a").write_bytes(b"four")
    for read in (read_bounded, open_regular, require_bounded):
        with pytest.raises(OSError, match="it has 4 bytes, and at most 3 bytes are allowed"):
            read(tmp_path / "a", limit=3)


def test_a_folder_and_a_missing_file_are_named_for_what_they_are(tmp_path):
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_bounded(tmp_path, limit=3)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "a", limit=3)


def test_a_file_whose_size_is_not_stated_is_read_to_its_end_or_the_limit():
    assert b"Name:" in read_bounded(Path("/proc/self/status"), limit=1 << 20)
    with pytest.raises(OSError, match="at most 20 bytes are allowed"):
        read_bounded(Path("/proc/self/status"), limit=20)


def test_a_pipe_that_replaces_a_file_after_the_check_is_not_waited_for(tmp_path, monkeypatch):
    pipe(tmp_path / "a")
    monkeypatch.setattr(bounded_reads, "require_bounded", lambda *_, **__: None)
    with pytest.raises(OSError, match="it is no regular file"):
        read_bounded(tmp_path / "a", limit=3)
