"""COCO-video ground truth becomes sequences with the boxes and labels of every frame."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from pipeline.structures.annotations import load_coco, match_video, video_records
from pipeline.system.errors import UsageError

TABLE = {
    "videos": [
        {"id": 1, "name": "first", "file_name": "videos/first.mp4", "width": 64, "height": 48},
        {"id": 2, "name": "second", "file_name": "videos/second.mp4", "width": 32, "height": 32},
    ],
    "images": [
        {"id": 10, "video_id": 1, "frame_id": 0},
        {"id": 11, "video_id": 1, "frame_id": 1},
        {"id": 12, "video_id": 1, "frame_id": 2},
        {"id": 21, "video_id": 2, "frame_id": 1},
        {"id": 20, "video_id": 2, "frame_id": 0},
    ],
    "annotations": [
        {"id": 1, "image_id": 11, "bbox": [1, 2, 3, 4], "category_id": 9},
        {"id": 2, "image_id": 11, "bbox": [5.5, 6, 2, 2], "category_id": 4},
        {"id": 3, "image_id": 21, "bbox": [0, 0, 1, 1], "category_id": 4},
    ],
    "categories": [{"id": 9, "name": "bird"}, {"id": 4, "name": "drone"}],
}


@pytest.fixture
def records():
    return video_records(copy.deepcopy(TABLE))


def test_frames_without_targets_are_kept(records):
    assert [len(record) for record in records] == [3, 2]
    assert [[len(boxes) for boxes in record.boxes] for record in records] == [[0, 2, 0], [0, 1]]
    assert records[0].boxes[0].shape == (0, 4)
    assert records[0].labels[0].dtype == np.int64


def test_boxes_have_exclusive_right_and_bottom_edges(records):
    assert records[0].boxes[1].dtype == np.float32
    assert records[0].boxes[1].tolist() == [[1, 2, 4, 6], [5.5, 6, 7.5, 8]]


def test_labels_count_categories_in_the_order_of_their_ids(records):
    assert records[0].labels[1].tolist() == [1, 0]


def test_frames_know_their_image_ids_in_any_order(records):
    assert records[0].image_ids == {0: 10, 1: 11, 2: 12}
    assert records[1].image_ids == {0: 20, 1: 21}
    assert records[1].boxes[1].tolist() == [[0, 0, 1, 1]]


def test_frames_that_were_never_annotated_have_no_boxes_and_no_id():
    table = copy.deepcopy(TABLE)
    table["images"] = [image for image in table["images"] if image["id"] != 11]
    table["annotations"] = [a for a in table["annotations"] if a["image_id"] != 11]
    record = video_records(table)[0]
    assert len(record) == 3
    assert len(record.boxes[1]) == 0
    assert record.image_ids == {0: 10, 2: 12}


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("annotations", "image_id", 999),
        ("annotations", "category_id", 77),
        ("annotations", "bbox", [1, 2, 3]),
        ("annotations", "bbox", [1, 2, -3, 4]),
        ("images", "video_id", None),
        ("videos", "name", None),
    ],
    ids=["unknown image", "unknown category", "three numbers", "negative width", "no video", "no name"],
)
def test_ground_truth_that_contradicts_itself_is_refused(place, key, value):
    table = copy.deepcopy(TABLE)
    if value is None:
        del table[place][0][key]
    else:
        table[place][0][key] = value
    with pytest.raises(UsageError, match="not COCO-video ground truth"):
        video_records(table)


@pytest.mark.parametrize("videos", [None, []], ids=["absent", "empty"])
def test_ground_truth_without_videos_is_refused(videos):
    table = {key: value for key, value in TABLE.items() if key != "videos"}
    if videos is not None:
        table["videos"] = videos
    with pytest.raises(UsageError, match="no 'videos'"):
        video_records(table)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("split", "videos", "frames", "boxes"), [("train", 246, 76911, 74194), ("val", 37, 11528, 10984)]
)
def test_the_drone_data_is_read_whole(split, videos, frames, boxes, drone_ir):
    found = video_records(load_coco(drone_ir / "annotations" / f"{split}.json"))
    assert len(found) == videos
    assert sum(map(len, found)) == sum(len(record.image_ids) for record in found) == frames
    assert sum(len(rows) for record in found for rows in record.boxes) == boxes
    assert {int(label) for record in found for rows in record.labels for label in rows} == {0, 1, 2, 3}


# Files


def test_a_ground_truth_file_is_read(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(TABLE))
    assert load_coco(path) == TABLE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[]", "no annotations, categories, images"),
        (b'{"images": [], "annotations": []}', "no categories"),
    ],
    ids=["syntax", "binary", "list", "no categories"],
)
def test_what_is_no_ground_truth_is_refused_with_the_reason(content, reason, tmp_path):
    path = tmp_path / "truth.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as error:
        load_coco(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (["images"], 5, "'images' is not a list of objects"),
        (["images"], None, "'images' is not a list of objects"),
        (["images"], [1], "'images' is not a list of objects"),
        (["images", 2], {"video_id": 1, "frame_id": 2}, "images[2] has no valid 'id'"),
        (["images", 2, "id"], [3], "images[2] has no valid 'id'"),
        (["categories"], [], "'categories' is empty"),
        (["categories", 1], {"name": "bird"}, "categories[1] has no valid 'id'"),
        (["videos"], {}, "'videos' is not a list of objects"),
        (["videos", 1], {"id": 2}, "videos[1] has no valid 'name'"),
        (["annotations", 0, "image_id"], None, "annotations[0] has no valid 'image_id'"),
        (["annotations", 0, "category_id"], None, "annotations[0] has no valid 'category_id'"),
        *(
            (["annotations", 1, "bbox"], box, "annotations[1] has no valid 'bbox'")
            for box in (
                None,
                [1, 2, 3],
                [1, 2, -3, 4],
                [1, 2, "3", 4],
                [1, 2, float("nan"), 4],
                [10**400] * 4,
            )
        ),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) and len(str(value)) < 40 else "",
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, place, value, fault):
    table = copy.deepcopy(TABLE)
    inner = table
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(table))
    with pytest.raises(UsageError) as error:
        load_coco(path)
    assert str(error.value) == f"annotations {path} are not COCO ground truth: {fault}"


def test_a_missing_ground_truth_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        load_coco(tmp_path / "none.json")


# Matching a source with its sequence


@pytest.mark.parametrize("name", ["first.mp4", "elsewhere/first.mp4", "first", "first.avi"])
def test_a_source_is_matched_by_its_name(name, records):
    assert match_video(records, name, (64, 48)) is records[0]


def test_annotations_of_one_video_fit_any_name(records):
    assert match_video(records[:1], "cut_07.mkv", (64, 48)) is records[0]


def test_a_source_that_is_not_annotated_is_refused_with_the_closest_name(records):
    with pytest.raises(UsageError, match=r"no video named 'frist'.*first"):
        match_video(records, "frist.mp4", (64, 48))


def test_a_source_that_fits_several_videos_is_refused(records):
    with pytest.raises(UsageError, match="2 videos named 'first'"):
        match_video([records[0], records[0]], "first.mp4", (64, 48))


def test_a_source_of_another_size_is_refused(records):
    with pytest.raises(UsageError, match=r"'first\.mp4' is 32x32, annotated as 64x48"):
        match_video(records, "first.mp4", (32, 32))
