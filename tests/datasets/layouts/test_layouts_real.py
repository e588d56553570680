"""Layouts: the real datasets are read completely."""

from __future__ import annotations

import pytest

from datasets.layouts.registry import LAYOUTS, load_dataset


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("split", "frames", "boxes"),
    [("train", 256, 327), ("val", 85, 97), ("trainval", 341, 424), ("test", 86, 109)],
)
def test_the_single_frames_are_read_whole(split, frames, boxes, shared_root):
    dataset = load_dataset("nuaa-sirst", shared_root / "data" / "nuaa-sirst", split)
    assert len(dataset.records) == frames
    assert sum(len(record.boxes[0]) for record in dataset.records) == boxes
    assert not dataset.findings


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("split", "videos", "frames", "boxes"), [("train", 246, 76911, 74194), ("val", 37, 11528, 10984)]
)
def test_the_drone_videos_are_read_whole(split, videos, frames, boxes, drone_ir):
    dataset = load_dataset("drone-ir", drone_ir, split)
    assert dataset.classes == LAYOUTS["drone-ir"].classes
    assert len(dataset.records) == videos
    assert sum(map(len, dataset.records)) == frames
    assert sum(len(rows) for record in dataset.records for rows in record.boxes) == boxes
    assert all((drone_ir / record.file_name).is_file() for record in dataset.records)
    assert not dataset.findings
