"""Files of ground truth are read in any encoding, and what cannot be used is refused with its place."""

from __future__ import annotations

import copy
import json

import pytest

from pipeline.structures.annotations import video_records
from pipeline.structures.coco_tables import load_coco, repeated_images
from pipeline.system.errors import UsageError
from tests.pipeline.structures.test_annotations import TABLE


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_every_encoding_of_json_is_read(tmp_path, encoding):
    path = tmp_path / "truth.json"
    path.write_bytes(json.dumps(TABLE).encode(encoding))
    assert load_coco(path) == TABLE


def saved(folder, table):
    (folder / "truth.json").write_text(json.dumps(table))
    return folder / "truth.json"


def with_ids(convert, *places):
    """The table with `convert` applied to the values at `places`, (list, key)."""
    table = copy.deepcopy(TABLE)
    for name, key in places:
        for row in table[name]:
            row[key] = convert(row[key])
    return table


IDS = [("images", "id"), ("videos", "id"), ("categories", "id")]
REFERENCES = [("annotations", "image_id"), ("images", "video_id"), ("annotations", "category_id")]


@pytest.mark.parametrize("convert", [str, float], ids=["text", "float"])
@pytest.mark.parametrize("places", [IDS, REFERENCES, IDS + REFERENCES], ids=["ids", "references", "all"])
def test_ids_and_references_may_be_of_different_types(tmp_path, convert, places):
    records = video_records(load_coco(saved(tmp_path, with_ids(convert, *places))))
    for record, expected in zip(records, video_records(copy.deepcopy(TABLE)), strict=True):
        assert [rows.tolist() for rows in record.boxes] == [rows.tolist() for rows in expected.boxes]
        assert [len(rows) for rows in record.labels] == [len(rows) for rows in expected.labels]


def test_ids_keep_their_type(tmp_path):
    table = load_coco(saved(tmp_path, with_ids(str, ("images", "id"))))
    assert table["images"][0]["id"] == "10"
    assert table["annotations"][0]["image_id"] == "11"


def test_frame_numbers_may_be_whole_floats_only(tmp_path):
    table = with_ids(float, ("images", "frame_id"))
    assert video_records(load_coco(saved(tmp_path, table)))[0].image_ids == {0: 10, 1: 11, 2: 12}
    table["images"][1]["frame_id"] = 0.5
    with pytest.raises(UsageError, match=r"images\[1\] has no valid 'frame_id'"):
        load_coco(saved(tmp_path, table))


def test_an_empty_box_is_left_out_with_a_remark(tmp_path):
    table, remarks = copy.deepcopy(TABLE), []
    table["annotations"][0]["bbox"] = []
    read = load_coco(saved(tmp_path, table), remark=remarks.append)
    assert [row["id"] for row in read["annotations"]] == [2, 3]
    assert remarks == ["1 of 3 annotations have no box, left out"]


def test_an_annotation_without_box_has_that_of_its_polygons(tmp_path):
    table, remarks = copy.deepcopy(TABLE), []
    del table["annotations"][0]["bbox"]
    table["annotations"][0]["segmentation"] = [[1, 2, 4, 2, 4, 6], [1, 2, 2, 3, 3, 3, 2, 2]]
    read = load_coco(saved(tmp_path, table), remark=remarks.append)
    assert read["annotations"][0]["bbox"] == TABLE["annotations"][0]["bbox"]
    assert remarks == ["1 of 3 annotations have no box, so the box of their polygons counts"]


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("image_id", 999, "annotations[1] has image 999, which is not among the 5 images; 2 of 3"),
        ("category_id", "7", "annotations[1] has category 7, which is not among the 2 categories; 2 of 3"),
    ],
)
def test_annotations_of_images_and_categories_that_are_not_listed_are_refused(tmp_path, key, value, fault):
    table = copy.deepcopy(TABLE)
    for row in table["annotations"][1:]:
        row[key] = value
    with pytest.raises(UsageError) as error:
        load_coco(saved(tmp_path, table))
    assert fault in str(error.value)


def test_detections_instead_of_ground_truth_are_named(tmp_path):
    path = saved(tmp_path, [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5}])
    with pytest.raises(UsageError, match="these are detections"):
        load_coco(path)


@pytest.mark.parametrize(
    ("images", "repeated"),
    [
        ([(1, 1, 0, "a"), (2, 1, 1, "a"), (3, 1, 0, "b")], [3]),
        ([(1, 1, 0, None), (2, 2, 0, None)], []),
        ([(1, None, None, "a/0.png"), (2, None, None, "a/1.png"), (3, None, None, "a/0.png")], [3]),
        ([(1, 1, None, None), (2, 1, None, None), (3, None, None, None)], []),
    ],
    ids=["same frame", "two videos", "same file", "unknown"],
)
def test_images_of_a_frame_that_is_listed_before_are_found(images, repeated):
    keys = ("id", "video_id", "frame_id", "file_name")
    rows = [
        {key: value for key, value in zip(keys, image, strict=True) if value is not None} for image in images
    ]
    assert [image["id"] for image in repeated_images({"images": rows})] == repeated
