"""COCO exports of annotation tools are read as they lie, wherever their images are."""

from __future__ import annotations

import json

import pytest

from datasets.layouts.image_places import locate_images
from datasets.layouts.registry import load_dataset
from pipeline.system.errors import UsageError
from tests.datasets.layouts import dataset_trees
from tests.datasets.layouts.dataset_trees import SIZE

CVAT = [f"frame_{n:06d}.PNG" for n in range(3)]
ROBOFLOW = [f"frame_{n:06d}_PNG.rf.{n}c6f9a41d2e0b7{9 - n}.png" for n in range(3)]
SERVER = "/label-studio/data/upload/3/"
LABEL_STUDIO = [f"4f2ac1d{n}-frame_{n:06d}.png" for n in range(3)]
PLAIN = [name.split("-")[1] for name in LABEL_STUDIO]


def export(root, place: str, names: list[str], files: list[str]):
    """Writes images at `files`, and the COCO file `place`, which calls them `names`."""
    width, height = SIZE
    for file in files:
        dataset_trees.write_image(root / file)
    images = [
        {"id": n, "file_name": name, "width": width, "height": height}
        for n, name in enumerate(names, start=1)
    ]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [n, 2, 3, 4]} for n in (1, 2, 3)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "drone"}]}
    dataset_trees.write_json(root / place, content)
    return content


@pytest.mark.parametrize(
    ("place", "names", "files"),
    [
        ("annotations/instances_default.json", CVAT, [f"images/{name}" for name in CVAT]),
        ("annotations/instances_default.json", CVAT, [f"images/default/{name}" for name in CVAT]),
        ("task/annotations/instances_train.json", CVAT, [f"task/images/train/{name}" for name in CVAT]),
        ("train/_annotations.coco.json", ROBOFLOW, [f"train/{name}" for name in ROBOFLOW]),
        ("result.json", [SERVER + n for n in LABEL_STUDIO], [f"images/{name}" for name in LABEL_STUDIO]),
        ("result.json", [SERVER + n for n in LABEL_STUDIO], [f"images/{name}" for name in PLAIN]),
        ("result.json", [f"http://localhost:8080/data/upload/3/{n}" for n in LABEL_STUDIO], LABEL_STUDIO),
        (
            "result.json",
            [f"/data/local-files/?d=clip%201/{n}" for n in PLAIN],
            [f"clip 1/{n}" for n in PLAIN],
        ),
        ("result.json", [f"D:\\data\\{n}" for n in CVAT], CVAT),
        ("gt.json", CVAT, CVAT),
    ],
    ids=[
        "CVAT",
        "CVAT with a subset",
        "CVAT below a folder",
        "Roboflow",
        "Label Studio",
        "Label Studio, own names",
        "Label Studio, addresses",
        "Label Studio, local files",
        "another machine",
        "as named",
    ],
)
def test_images_are_found_where_exports_put_them(tmp_path, place, names, files):
    export(tmp_path, place, names, files)
    dataset = load_dataset("coco-video", tmp_path, place)
    (record,) = dataset.records
    assert record.files == tuple(files)
    assert [rows.tolist() for rows in record.boxes] == [[[n, 2, n + 3, 6]] for n in (1, 2, 3)]
    told = f"images are read from other places: {names[0]} is {files[0]}"
    assert dataset.notes == (() if names == files else (told,))
    assert [image["file_name"] for image in dataset.to_coco()["images"]] == files


def test_different_images_never_become_the_same(tmp_path):
    names = ["/data/upload/3/frame_1.png", "/data/upload/4/frame_1.png"]
    dataset_trees.write_image(tmp_path / "frame_1.png")
    assert locate_images(names, tmp_path, "result.json") == names


def test_an_image_that_is_found_nowhere_is_named(tmp_path):
    export(tmp_path, "result.json", [SERVER + name for name in LABEL_STUDIO], [])
    with pytest.raises(UsageError, match=r"4f2ac1d0-frame_000000\.png' is absolute"):
        load_dataset("coco-video", tmp_path, "result.json")


@pytest.mark.parametrize("used", [False, True], ids=["of the whole dataset", "used"])
def test_the_category_that_roboflow_adds_is_no_class(tmp_path, used):
    content = export(tmp_path, "gt.json", CVAT, CVAT)
    content["categories"] = [
        {"id": 0, "name": "things", "supercategory": "none"},
        {"id": 1, "name": "drone", "supercategory": "things"},
    ]
    content["annotations"][0]["category_id"] = 0 if used else 1
    (tmp_path / "gt.json").write_text(json.dumps(content))
    dataset = load_dataset("coco-video", tmp_path, "gt.json")
    assert dataset.classes == (("things", "drone") if used else ("drone",))
    assert [row.tolist() for row in dataset.records[0].labels] == ([[0], [1], [1]] if used else [[0]] * 3)
