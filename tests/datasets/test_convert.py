"""The command datasets.convert keeps boxes, frames, identities, classes and images in every format."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from datasets import convert as command
from datasets.layouts.conversion import convert
from datasets.layouts.registry import load_dataset
from pipeline.imaging.image_files import read_image
from pipeline.imaging.mask_files import read_mask
from pipeline.system.errors import SourceError, UsageError
from tests.datasets.layouts import dataset_trees

CORNER = [[0, 0, 1, 1]]
"""The box of the single pixel at the top left."""


@pytest.fixture
def converted(tmp_path):
    """Returns a function that converts a dataset and reads the result; `notes` collects the notes."""

    def call(dataset, to, *, name="out", notes=None):
        output = tmp_path / (f"{name}.json" if to == "coco-video" else name)
        lines = convert(dataset, to, output)
        if notes is not None:
            notes += lines
        if to == "coco-video":
            return load_dataset("coco-video", tmp_path, output.name)
        split = "." if to == "mot" else next((output / "splits").iterdir()).relative_to(output).as_posix()
        return load_dataset(to, output, split)

    return call


def assert_equal(first, second, *, identities: bool = True) -> None:
    assert second.classes == first.classes
    assert [record.name for record in second.records] == [record.name for record in first.records]
    for one, other in zip(first.records, second.records, strict=True):
        assert (len(other), other.width, other.height) == (len(one), one.width, one.height)
        for kind in ("boxes", "labels", *(["instances"] if identities else [])):
            for old, new in zip(getattr(one, kind), getattr(other, kind), strict=True):
                np.testing.assert_array_equal(new, old)


def assert_same_images(first, second) -> None:
    for one, other in zip(first.records, second.records, strict=True):
        for old, new in zip(one.files, other.files, strict=True):
            np.testing.assert_array_equal(read_image(second.root / new), read_image(first.root / old))


def test_coco_to_mot_and_back_keeps_all(converted, tmp_path):
    source = load_dataset("coco-video", dataset_trees.coco_video(tmp_path / "data"), "gt.json")
    notes = []
    there = converted(source, "mot", notes=notes)
    back = converted(there, "coco-video", notes=notes)
    for outcome in (there, back):
        assert_equal(source, outcome)
        assert_same_images(source, outcome)
        assert outcome.records[0].fps == 12.5
    assert notes == []


def test_mot_to_coco_and_back_keeps_all(converted, tmp_path):
    source = load_dataset("mot", dataset_trees.mot(tmp_path / "data"), "train")
    there = converted(source, "coco-video")
    back = converted(there, "mot")
    for outcome in (there, back):
        assert_equal(source, outcome)
        assert_same_images(source, outcome)


def test_boxes_between_pixels_survive_mot_to_the_last_bit_of_their_type(converted, tmp_path):
    source = load_dataset("coco-video", dataset_trees.coco_video(tmp_path / "data"), "gt.json")
    rng = np.random.default_rng(5)
    corners = rng.uniform(8, 500, (40, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1, 40, (40, 2))]).astype(np.float32)
    record = replace(
        source.records[0],
        boxes=(boxes, *source.records[0].boxes[1:]),
        labels=(np.zeros(40, np.int64), *source.records[0].labels[1:]),
        instances=(),
    )
    there = converted(replace(source, records=[record], coco=None), "mot")
    back = converted(there, "coco-video")
    np.testing.assert_array_equal(there.records[0].boxes[0], boxes)
    np.testing.assert_array_equal(back.records[0].boxes[0], boxes)


def test_the_corner_pixel_is_written_as_each_format_counts(converted, tmp_path):
    source = load_dataset("coco-video", dataset_trees.coco_video(tmp_path / "data"), "gt.json")
    assert source.to_coco()["annotations"][0]["bbox"] == [0, 0, 1, 1]
    converted(source, "mot", name="mot")
    assert (tmp_path / "mot/walk/gt/gt.txt").read_text().startswith("1,4,1,1,1,1,1,1,1\n")
    outcome = converted(source, "masks", name="masks")
    assert read_mask(tmp_path / "masks/masks/walk_000000.png").nonzero() == ([0], [0])
    assert outcome.records[0].boxes[0].tolist() == CORNER


def test_motmetrics_reads_the_same_corner(converted, tmp_path):
    import motmetrics

    converted(load_dataset("coco-video", dataset_trees.coco_video(tmp_path / "data"), "gt.json"), "mot")
    first = motmetrics.io.loadtxt(tmp_path / "out/walk/gt/gt.txt").iloc[0]
    assert [*first[["X", "Y", "Width", "Height"]]] == CORNER[0]


def test_rectangles_survive_masks_to_coco_and_back(converted, tmp_path):
    source = load_dataset("nuaa-sirst", dataset_trees.flat_masks(tmp_path / "data"), "train")
    there = converted(source, "coco-video")
    back = converted(there, "masks")
    assert_equal(source, there, identities=False)
    assert_equal(source, back, identities=False)
    assert_same_images(source, back)
    for one, other in zip(source.records, back.records, strict=True):
        old, new = read_mask(source.root / one.masks[0]), read_mask(back.root / other.masks[0])
        np.testing.assert_array_equal(new, old)


def test_masks_keep_their_shapes_when_they_stay_masks(converted, tmp_path):
    root = dataset_trees.flat_masks(tmp_path / "data")
    dataset_trees.write_mask(root / "masks" / "a.png", (4, 4, 6, 5), (5, 5, 6, 9))
    source = load_dataset("nuaa-sirst", root, "train")
    outcome = converted(source, "masks")
    assert outcome.split == "splits/train.txt"
    np.testing.assert_array_equal(read_mask(outcome.root / "masks/a.png"), read_mask(root / "masks/a.png"))


def test_image_ids_of_coco_stay(converted, tmp_path):
    source = load_dataset("daub", dataset_trees.coco_without_videos(tmp_path / "data"), "train")
    outcome = converted(source, "coco-video")
    assert [record.image_ids for record in outcome.records] == [{0: 71, 1: 72}, {0: 73, 1: 74}]
    assert_same_images(source, outcome)


@pytest.mark.parametrize("to", ["coco-video", "mot"])
def test_videos_are_referred_to_by_relative_path(converted, tmp_path, to):
    root = dataset_trees.coco_video(tmp_path / "data", file_name="videos/walk.mp4")
    outcome = converted(load_dataset("coco-video", root, "gt.json"), to)
    (record,) = outcome.records
    assert not record.file_name.startswith("/")
    assert (outcome.root / record.file_name).resolve() == (root / "videos/walk.mp4").resolve()


def test_a_target_numbered_zero_and_targets_without_number_stay_apart_in_mot(converted, tmp_path):
    path = dataset_trees.coco_video(tmp_path / "data") / "gt.json"
    content = json.loads(path.read_text())
    for annotation, number in zip(content["annotations"], (0, None, 3), strict=True):
        annotation["instance_id"] = number
    dataset_trees.write_json(path, content)
    notes = []
    outcome = converted(load_dataset("coco-video", path.parent, "gt.json"), "mot", notes=notes)
    assert [row.tolist() for row in outcome.records[0].instances] == [[1], [], [5, 4]]
    assert "1 boxes have no identity: each got a unique number" in notes


# What cannot be carried


def test_what_masks_cannot_hold_is_told(converted, tmp_path):
    path = dataset_trees.coco_video(tmp_path / "data", file_name="videos/walk.mp4") / "gt.json"
    content = json.loads(path.read_text())
    content["annotations"][2]["bbox"] = [3, 3, 40, 4]
    dataset_trees.write_json(path, content)
    notes = []
    with pytest.raises(SourceError, match=r"images/walk_000000\.\* is missing"):
        converted(load_dataset("coco-video", path.parent, "gt.json"), "masks", notes=notes)
    assert notes == [
        "1 boxes have fractional edges: every pixel that they touch is filled",
        "1 boxes reach beyond the image: only the part inside is filled",
        "1 boxes touch or overlap others and cannot be separated",
        "3 frames have no image file: put one for each mask into images/",
        "masks have no identities: those of 3 boxes are left out",
        "masks have no classes: drone, bird all become targets",
    ]


def test_what_masks_do_not_know_is_told(converted, tmp_path):
    source = load_dataset("nuaa-sirst", dataset_trees.flat_masks(tmp_path / "data"), "train")
    notes = []
    converted(source, "coco-video", notes=notes)
    assert notes == [
        "the shapes in 2 masks become boxes",
        "2 boxes have no identity: they are written without instance_id",
    ]
    notes.clear()
    converted(source, "mot", notes=notes)
    assert notes == [
        "the shapes in 2 masks become boxes",
        "2 boxes have no identity: each got a unique number",
        "2 sequences have no frame rate: 30 is written",
    ]


def test_frames_without_annotation_are_told(converted, tmp_path):
    root = dataset_trees.frame_lists(tmp_path / "data")
    dataset_trees.write_text(root / "l.txt", "images/train/data5/2.bmp 1,1,2,2,0")
    source = load_dataset("frame-list", root, "l.txt")
    for to, remark in (
        ("mot", "2 frames without annotation count as without targets"),
        ("masks", "2 frames without annotation are left out"),
    ):
        notes = []
        converted(source, to, name=to, notes=notes)
        assert remark in notes


# The command


@pytest.fixture
def program(capsys):
    def call(*arguments):
        return command.main([str(argument) for argument in arguments]), *capsys.readouterr()

    return call


def test_the_command_tells_what_it_wrote_and_what_it_could_not(program, tmp_path):
    root = dataset_trees.mot(tmp_path / "data", rows=("1,1,5,5,2,2,0,1,1", "1,2,7,7,2,2,1,1,1"))
    output = tmp_path / "new" / "train.json"
    code, out, err = program("mot", root, "--split", "train", "--to", "coco-video", "--output", output)
    assert code == 0
    assert out.splitlines() == [
        f"{output}: 1 sequences, 3 frames, 1 boxes",
        f"verify it: python -m datasets.check coco-video {output.parent} --split train.json",
    ]
    assert err == "note: 1 boxes that are marked as not to be counted are left out\n"
    assert sorted(output.parent.iterdir()) == [output, output.parent / "train_files"]


@pytest.mark.parametrize("to", ["coco-video", "mot", "masks"])
def test_what_exists_is_not_written_over(program, tmp_path, to):
    output = dataset_trees.write_text(tmp_path / "out", "mine")
    code, _, err = program(
        "mot", dataset_trees.mot(tmp_path / "data"), "--split", "train", "--to", to, "--output", output
    )
    assert (code, err) == (5, f"error: {output} exists; choose another place, or remove it\n")
    assert output.read_text() == "mine\n"


def test_a_conversion_that_fails_leaves_nothing(tmp_path):
    source = load_dataset("nuaa-sirst", dataset_trees.flat_masks(tmp_path / "data"), "train")
    doubled = replace(source, records=source.records * 2)
    for to in ("mot", "masks"):
        with pytest.raises(UsageError, match="two sequences would be called 'a'"):
            convert(doubled, to, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "yolo"], "invalid choice: 'yolo'"),
        (["--too", "mot"], "unknown option '--too'"),
        (["--to", "mot", "--split", "val"], "split 'val' of 'mot' is missing"),
    ],
    ids=["format", "option", "split"],
)
def test_a_mistake_is_told_in_one_line(program, tmp_path, arguments, message):
    base = ["mot", dataset_trees.mot(tmp_path / "data"), "--split", "train", "--output", tmp_path / "out"]
    code, _, err = program(*base, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


@pytest.mark.real_data
def test_the_drone_videos_survive_mot_and_back(converted, drone_ir):
    source = load_dataset("drone-ir", drone_ir, "val")
    some = replace(source, records=source.records[:4])
    back = converted(converted(some, "mot"), "coco-video")
    assert_equal(some, back)
    assert all((back.root / record.file_name).is_file() for record in back.records)
