"""COCO-video ground truth becomes sequences with the boxes and labels of every frame."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from pipeline.structures.annotations import video_records
from pipeline.structures.coco_tables import load_coco
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


def test_of_several_images_of_a_frame_the_first_counts():
    table = copy.deepcopy(TABLE)
    table["images"].append({"id": 99, "video_id": 1, "frame_id": 1})
    table["annotations"].append({"id": 4, "image_id": 99, "bbox": [9, 9, 9, 9], "category_id": 4})
    record = video_records(table)[0]
    assert record.image_ids[1] == 11
    assert len(record.boxes[1]) == 2


def test_paths_with_backslashes_have_forward_slashes():
    table = copy.deepcopy(TABLE)
    table["videos"][0]["file_name"] = "videos\\first.mp4"
    del table["videos"][1]["file_name"]
    for image in table["images"][3:]:
        image["file_name"] = f"second\\{image['frame_id']}.png"
    first, second = video_records(table)
    assert first.file_name == "videos/first.mp4"
    assert second.files == ("second/0.png", "second/1.png")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"instance_id": 3}, {"instance_id": 5}], [3, 5]),
        ([{"track_id": 3}, {"track_id": 5}], [3, 5]),
        ([{"attributes": {"track_id": 0}}, {"attributes": {"track_id": 1}}], [0, 1]),
        ([{"instance_id": None, "track_id": 3}, {"instance_id": None, "track_id": 5}], [3, 5]),
        ([{"instance_id": 3.0}, {"instance_id": 5.0}], [3, 5]),
        ([{"instance_id": "3"}, {"instance_id": " 5 "}], [3, 5]),
        ([{"instance_id": "gull"}, {"instance_id": 7}], [8, 7]),
        ([{"instance_id": "gull"}, {"instance_id": "kite"}], [0, 1]),
        ([{"instance_id": 10**30}, {"track_id": 4}], [5, 4]),
        ([{"instance_id": 1.5}, {"instance_id": 5}], [-1, 5]),
        ([{"instance_id": True}, {"attributes": "none"}], []),
        ([{"instance_id": ""}, {"instance_id": float("nan")}], []),
    ],
    ids=[
        "instance",
        "track",
        "attributes",
        "null",
        "float",
        "text",
        "name",
        "names",
        "huge",
        "half",
        "none",
        "empty",
    ],
)
def test_identities_are_read_in_any_form(rows, expected):
    table = copy.deepcopy(TABLE)
    for annotation, row in zip(table["annotations"], rows, strict=False):
        annotation |= row
    record = video_records(table)[0]
    assert (record.instances[1].tolist() if record.instances else []) == expected


def test_category_ids_may_be_numbers_and_text():
    table = copy.deepcopy(TABLE)
    table["categories"][0]["id"] = table["annotations"][0]["category_id"] = "bird"
    assert video_records(table)[0].labels[1].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("place", "key", "value", "message"),
    [
        (
            "annotations",
            "image_id",
            999,
            r"annotations\[1\] is on image 999, which is not among the 5 images",
        ),
        ("annotations", "category_id", 7, r"annotations\[1\] is of category 7, .* categories \(4, 9\)"),
        ("images", "frame_id", None, r"images\[1\] has no 'frame_id'"),
        ("images", "video_id", None, r"images\[1\] has no 'video_id'"),
    ],
)
def test_a_row_that_contradicts_the_others_is_named(place, key, value, message):
    table = copy.deepcopy(TABLE)
    table[place][1][key] = value
    with pytest.raises(UsageError, match=message):
        video_records(table)
