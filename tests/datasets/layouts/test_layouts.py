"""Layouts: datasets are read from miniature trees, and errors name the file and the reason."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from datasets.layouts.mask_folders import mask_to_boxes
from datasets.layouts.registry import LAYOUTS, available_splits, load_dataset
from pipeline.imaging.mask_files import read_mask
from pipeline.system.errors import SourceError, UsageError
from tests.datasets.layouts import dataset_trees
from tests.datasets.layouts.dataset_trees import FOREIGN_ROOT, SIZE


def boxes_of(record) -> list[list]:
    return [rows.tolist() for rows in record.boxes]


# Text lists


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("daub", "coco_train_DAUB.txt"),
        ("itsdt-15k", "coco_train_ITSDT.txt"),
        ("irdst", "coco_train_IRDST.txt"),
    ],
)
def test_a_text_list_gives_the_sequences_of_its_folders_in_order_of_frames(tmp_path, name, file):
    dataset = load_dataset(name, dataset_trees.frame_lists(tmp_path, name=file), "train")
    first, second = dataset.records
    assert (first.name, second.name) == ("train/data5", "train/data8")
    assert first.files == tuple(f"images/train/data5/{n}.bmp" for n in range(3))
    assert boxes_of(first) == [[[1, 2, 9, 10]], [[2, 2, 10, 10]], [[3, 2, 11, 10], [20, 4, 28, 12]]]
    assert boxes_of(second) == [[[5, 5, 13, 13]], []]
    assert (first.width, first.height, first.file_name) == (*SIZE, "")
    assert dataset.classes == ("target",)


def test_image_ids_of_a_text_list_are_its_line_numbers(tmp_path):
    dataset = load_dataset("daub", dataset_trees.frame_lists(tmp_path), "train")
    assert dataset.records[0].image_ids == {0: 1, 1: 3, 2: 2}
    assert {image["id"]: image["frame_id"] for image in dataset.to_coco()["images"]}[2] == 2


def test_a_frame_that_the_list_leaves_out_has_an_image_but_no_image_id(tmp_path):
    dataset_trees.frame_lists(tmp_path)
    dataset_trees.write_text(tmp_path / "l.txt", "images/train/data5/2.bmp 1,1,2,2,0")
    (record,) = load_dataset("frame-list", tmp_path, "l.txt").records
    assert record.files == tuple(f"images/train/data5/{n}.bmp" for n in range(3))
    assert (record.image_ids, len(record)) == ({2: 1}, 3)


def test_frames_count_from_the_first_listed_where_no_image_lies_before(tmp_path):
    dataset_trees.write_image(tmp_path / "s" / "0007.png")
    dataset_trees.write_text(tmp_path / "l.txt", "s/0007.png 1,1,2,2,0", "s/0009.png 2,1,3,2,0")
    (record,) = load_dataset("frame-list", tmp_path, "l.txt").records
    assert record.files == ("s/0007.png", "s/0008.png", "s/0009.png")


def test_paths_with_blanks_and_backslashes_are_understood(tmp_path):
    dataset_trees.write_image(tmp_path / "images" / "my clip" / "0.png")
    dataset_trees.write_text(tmp_path / "l.txt", "D:\\data\\images\\my clip\\0.png 1,1,2,2,0")
    (record,) = load_dataset("frame-list", tmp_path, "l.txt").records
    assert record.files == ("images/my clip/0.png",)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("images/s/0.bmp 1,2,3", "'images/s/0.bmp 1,2,3' is not the path of an image"),
        ("images/s/0.bmp 1,2,3,x,0", "is not the path of an image"),
        ("images/s/0.bmp 5,2,3,9,0", "a box ends before it begins: 5,2,3,9,0"),
        ("images/s/0.bmp 1,2,3,4,1", "class 1 of 1 classes"),
        ("/elsewhere/0.bmp 1,2,3,4,0", "'/elsewhere/0.bmp' is absolute"),
    ],
    ids=["too few", "letters", "inverted", "class", "foreign path"],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, reason):
    dataset_trees.write_text(tmp_path / "l.txt", "", line)
    with pytest.raises(UsageError, match=r"l\.txt, line 2: ") as error:
        load_dataset("frame-list", tmp_path, "l.txt")
    assert reason in str(error.value)


def test_an_image_without_a_number_is_refused(tmp_path):
    dataset_trees.write_text(tmp_path / "l.txt", "images/s/first.bmp")
    with pytest.raises(UsageError, match=r"'images/s/first\.bmp' has no number"):
        load_dataset("frame-list", tmp_path, "l.txt")


def test_a_missing_first_image_names_the_path_expected(tmp_path):
    dataset_trees.write_text(
        tmp_path / "coco_val_DAUB.txt", f"{FOREIGN_ROOT}/images/test/data6/0.bmp 1,1,2,2,0"
    )
    with pytest.raises(SourceError, match=r"images/test/data6/0\.bmp is missing") as error:
        load_dataset("daub", tmp_path, "test")
    assert str(tmp_path) in str(error.value)
    lenient = load_dataset("daub", tmp_path, "test", strict=False)
    assert (lenient.records[0].width, lenient.records[0].height) == (0, 0)


def test_a_frame_that_is_listed_twice_is_told(tmp_path):
    dataset_trees.frame_lists(tmp_path)
    line = "images/train/data5/0.bmp"
    dataset_trees.write_text(tmp_path / "l.txt", f"{line} 1,1,2,2,0", f"{line} 3,3,4,4,0")
    dataset = load_dataset("frame-list", tmp_path, "l.txt")
    assert [(f.kind, f.where) for f in dataset.findings] == [("frames listed twice", line)]
    assert boxes_of(dataset.records[0]) == [[[1, 1, 2, 2]]]


# COCO


def test_published_coco_is_grouped_by_folder_and_keeps_its_ids(tmp_path):
    dataset = load_dataset("daub", dataset_trees.coco_without_videos(tmp_path), "train")
    first, second = dataset.records
    assert (first.image_ids, second.image_ids) == ({0: 71, 1: 72}, {0: 73, 1: 74})
    assert second.files == ("images/train/data8/10.bmp", "images/train/data8/11.bmp")
    assert boxes_of(first) == [[], [[3, 4, 11, 12]]]
    assert [image["id"] for image in dataset.to_coco()["images"]] == [71, 72, 73, 74]
    assert dataset.to_coco()["annotations"][0]["image_id"] == 72


def test_frames_left_out_of_published_coco_at_the_beginning_are_found_on_disk(tmp_path):
    dataset_trees.coco_without_videos(tmp_path)
    dataset_trees.write_image(tmp_path / "images" / "train" / "data8" / "0.bmp")
    second = load_dataset("daub", tmp_path, "train").records[1]
    assert second.image_ids == {10: 73, 11: 74}
    assert second.files[3] == "images/train/data8/3.bmp"


def test_coco_video_with_frames_in_folders_gives_files(tmp_path):
    dataset = load_dataset("coco-video", dataset_trees.coco_video(tmp_path), "gt.json")
    (record,) = dataset.records
    assert (record.file_name, record.fps) == ("", 12.5)
    assert record.files == ("frames/0000.png", "frames/0001.png", "frames/0002.png")
    assert boxes_of(record) == [[[0, 0, 1, 1]], [], [[1.25, 2, 4.75, 6], [20, 10, 24, 14]]]
    assert dataset.classes == ("drone", "bird")
    assert [row.tolist() for row in record.labels] == [[0], [], [0, 1]]
    assert [row.tolist() for row in record.instances] == [[4], [], [4, 5]]


def test_coco_video_is_given_back_as_it_was(tmp_path):
    dataset = load_dataset("coco-video", dataset_trees.coco_video(tmp_path), "gt.json")
    assert dataset.to_coco() == json.loads((tmp_path / "gt.json").read_text())


def test_coco_video_with_videos_gives_no_files(tmp_path):
    root = dataset_trees.coco_video(tmp_path, file_name="videos/walk.mp4")
    (record,) = load_dataset("coco-video", root, "gt.json").records
    assert (record.file_name, record.files) == ("videos/walk.mp4", ())


def test_two_images_of_one_frame_are_told(tmp_path):
    path = dataset_trees.coco_video(tmp_path) / "gt.json"
    content = json.loads(path.read_text())
    content["images"][1]["frame_id"] = 0
    dataset_trees.write_json(path, content)
    dataset = load_dataset("coco-video", tmp_path, "gt.json")
    assert [finding.where for finding in dataset.findings] == ["walk frame 0: 2 images"]


# Masks


@pytest.mark.parametrize("name", ["nuaa-sirst", "nudt-sirst", "irstd-1k", "sirst-aug"])
@pytest.mark.parametrize(
    ("ending", "suffix"), [("", ".png"), ("_pixels0", ".png"), ("_mask", ".png"), ("", ".bmp")]
)
def test_listed_images_find_their_masks(tmp_path, name, ending, suffix):
    dataset = load_dataset(name, dataset_trees.flat_masks(tmp_path, ending=ending, suffix=suffix), "train")
    first, second = dataset.records
    assert (first.name, first.files) == ("a", ("images/a.png",))
    assert first.masks == (f"masks/a{ending}{suffix}",)
    assert boxes_of(first) == [[[0, 0, 1, 1], [10, 4, 13, 9]]]
    assert boxes_of(second) == [[]]
    assert (first.image_ids, second.image_ids) == ({0: 1}, {0: 2})
    assert (first.width, first.height) == SIZE


@pytest.mark.parametrize(
    ("name", "place", "split"),
    [
        ("nuaa-sirst", "splits/test.txt", "test"),
        ("nuaa-sirst", "idx_427/trainval.txt", "trainval"),
        ("nudt-sirst", "50_50/train.txt", "train"),
        ("nudt-sirst", "img_idx/test_NUDT-SIRST.txt", "test"),
        ("irstd-1k", "trainval.txt", "trainval"),
    ],
)
def test_lists_are_found_where_each_dataset_keeps_them(tmp_path, name, place, split):
    dataset_trees.flat_masks(tmp_path, split=place)
    assert available_splits(name, tmp_path) == [split]
    assert [record.name for record in load_dataset(name, tmp_path, split).records] == ["a", "c"]


def test_a_split_may_be_a_folder_of_its_own(tmp_path):
    for number in (10, 2):
        dataset_trees.write_image(tmp_path / "trainval" / "images" / f"{number}.png")
        dataset_trees.write_mask(tmp_path / "trainval" / "masks" / f"{number}.png", (1, 1, 3, 3))
    dataset = load_dataset("sirst-aug", tmp_path, "trainval")
    assert [record.files[0] for record in dataset.records] == [
        "trainval/images/2.png",
        "trainval/images/10.png",
    ]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([[0, 0], [0, 0]], []),
        ([[1, 0], [0, 0]], [[0, 0, 1, 1]]),
        ([[1, 0], [0, 1]], [[0, 0, 2, 2]]),
        ([[1, 0, 1], [1, 0, 1]], [[0, 0, 1, 2], [2, 0, 3, 2]]),
    ],
    ids=["none", "one pixel", "corners touch", "two groups"],
)
def test_the_box_of_a_target_ends_after_its_last_pixel(pixels, expected):
    found = mask_to_boxes(np.array(pixels, dtype=bool))
    assert (found.tolist(), found.dtype, found.shape) == (expected, np.float32, (len(expected), 4))


@pytest.mark.parametrize(
    "pixels",
    [[[0, 1]], [[0, 255]], [[90, 255]], [[[0, 0, 0], [0, 0, 255]]]],
    ids=["0 and 1", "0 and 255", "soft edge", "colour"],
)
def test_masks_of_all_levels_read_alike(tmp_path, pixels):
    path = tmp_path / "m.png"
    cv2.imwrite(str(path), np.array(pixels, dtype=np.uint8))
    assert read_mask(path).tolist() == [[False, True]]


@pytest.mark.parametrize("gone", ["images", "masks"])
def test_a_missing_file_of_a_pair_is_named(tmp_path, gone):
    dataset_trees.flat_masks(tmp_path)
    (tmp_path / gone / "a.png").unlink()
    with pytest.raises(SourceError, match=rf"{gone}/a\.\* is missing"):
        load_dataset("nuaa-sirst", tmp_path, "train")
    lenient = load_dataset("nuaa-sirst", tmp_path, "train", strict=False)
    assert [record.name for record in lenient.records] == ["c"]
    assert lenient.records[0].image_ids == {0: 2}
    assert len(lenient.findings) == 1


# The table


def test_every_row_of_the_table_says_how_to_read_it():
    for name, layout in LAYOUTS.items():
        assert layout.description, name
        assert len(set(layout.classes)) == len(layout.classes) >= 1, name


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("nuaa-srist", "train", "unknown dataset 'nuaa-srist'; did you mean 'nuaa-sirst'?"),
        ("nuaa-sirst", "trian", "unknown split of 'nuaa-sirst' 'trian'; did you mean 'train'?"),
        ("drone-ir", "val", "annotations/val.json"),
        ("coco-video", "annotations/all.json", "annotations/all.json"),
    ],
    ids=["dataset", "split", "missing split", "missing file"],
)
def test_what_is_unknown_or_missing_is_named(tmp_path, name, split, message):
    with pytest.raises(UsageError) as error:
        load_dataset(name, tmp_path, split)
    assert message in str(error.value)


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is no folder; give the one that holds the dataset 'daub'"):
        load_dataset("daub", tmp_path / "none", "train")


def test_splits_are_those_that_lie_below_the_root(tmp_path):
    assert available_splits("daub", dataset_trees.frame_lists(tmp_path)) == ["train"]
    with pytest.raises(UsageError, match="holds no split of 'irdst'"):
        available_splits("irdst", tmp_path)
    with pytest.raises(UsageError, match="the splits of 'mot' have no names"):
        available_splits("mot", tmp_path)
