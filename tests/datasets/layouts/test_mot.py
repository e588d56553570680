"""MOT folders: rows of all conventions are read, and errors name the file and the reason."""

from __future__ import annotations

import pytest

from datasets.layouts.registry import load_dataset
from pipeline.system.errors import SourceError, UsageError
from tests.datasets.layouts import dataset_trees
from tests.datasets.layouts.dataset_trees import SIZE


def boxes_of(record) -> list[list]:
    return [rows.tolist() for rows in record.boxes]


@pytest.mark.parametrize("facts", [True, False], ids=["seqinfo", "without seqinfo"])
@pytest.mark.parametrize("split", ["train", "train/walk"], ids=["folder", "sequence"])
def test_mot_frames_and_pixels_count_from_one(tmp_path, facts, split):
    (record,) = load_dataset("mot", dataset_trees.mot(tmp_path, facts=facts), split).records
    assert (record.name, record.width, record.height) == ("walk", *SIZE)
    assert boxes_of(record) == [[[0, 0, 1, 1]], [], [[1.25, 2, 4.75, 6], [20, 10, 24, 14]]]
    assert [row.tolist() for row in record.instances] == [[4], [], [4, 5]]
    assert record.files == tuple(f"train/walk/img1/{n:06d}.png" for n in (1, 2, 3))
    assert sorted(record.image_ids) == [0, 1, 2]


def test_mot_images_may_count_from_zero(tmp_path):
    folder = dataset_trees.mot(tmp_path, facts=False) / "train" / "walk" / "img1"
    (folder / "000003.png").rename(folder / "000000.png")
    (record,) = load_dataset("mot", tmp_path, "train").records
    assert record.files[0].endswith("000000.png")


def test_mot_rows_that_do_not_count_are_left_out_and_told(tmp_path):
    root = dataset_trees.mot(tmp_path, rows=("1,1,5,5,2,2,0,1,1", "1,2,7,7,2,2,1,1,1"))
    dataset = load_dataset("mot", root, "train")
    assert boxes_of(dataset.records[0])[0] == [[6, 6, 8, 8]]
    assert dataset.notes == ("1 boxes that are marked as not to be counted are left out",)


@pytest.mark.parametrize(
    ("row", "labels", "classes", "label"),
    [
        ("1,1,5,5,2,2,1,3,1", [], ("class 1", "class 2", "class 3"), 2),
        ("1,1,5,5,2,2,1,2,1", ["drone", "bird"], ("drone", "bird"), 1),
        ("1,1,5,5,2,2,1,-1,-1,-1", [], ("target",), 0),
        ("1,1,5,5,2,2,1,3.5,-1.2,0", [], ("target",), 0),
        ("1,1,5,5,2,2,1,3,1240,0", [], ("target",), 0),
        ("1,1,5,5,2,2", [], ("target",), 0),
        ("1,0,5,5,2,2,1,3,0,2", [], ("class 1", "class 2", "class 3"), 2),
        ("1,1,5,5,2,2,1,2,0.8,-1", ["drone", "bird"], ("drone", "bird"), 1),
        ("1,1,5,5,2,2,1,2,-1,-1,7", [], ("class 1", "class 2"), 1),
    ],
    ids=[
        "number",
        "labels.txt",
        "unknown position",
        "position",
        "position of whole numbers",
        "six columns",
        "VisDrone",
        "TrackEval",
        "eleven columns",
    ],
)
def test_mot_classes_have_the_names_of_the_labels_file(tmp_path, row, labels, classes, label):
    root = dataset_trees.mot(tmp_path, rows=(row,))
    if labels:
        dataset_trees.write_text(root / "train" / "walk" / "gt" / "labels.txt", *labels)
    dataset = load_dataset("mot", root, "train")
    assert dataset.classes == classes
    assert dataset.records[0].labels[0].tolist() == [label]


@pytest.mark.parametrize(
    "row",
    ["-1,1,5,5,2,2,1,1,1", "1,1,5,5", "1,a,5,5,2,2", "1,1,nan,5,2,2", "1,1,5,,2,2,1,1,1"],
    ids=["frame -1", "few", "letter", "nan", "empty column"],
)
def test_a_mot_row_that_cannot_be_used_is_named(tmp_path, row):
    with pytest.raises(UsageError, match=r"gt\.txt, line 1: '.*' is not frame,id,left"):
        load_dataset("mot", dataset_trees.mot(tmp_path, rows=(row,)), "train")


def test_regions_that_visdrone_ignores_are_left_out_and_told(tmp_path):
    rows = ("1,0,5,5,2,2,1,4,0,1", "1,1,9,9,2,2,1,0,0,0", "2,2,7,7,2,2,0,11,0,0")
    dataset = load_dataset("mot", dataset_trees.mot(tmp_path, rows=rows), "train")
    assert boxes_of(dataset.records[0]) == [[[4, 4, 6, 6]], [], []]
    assert dataset.notes == (
        "1 boxes that are marked as not to be counted are left out",
        "1 boxes of class 0, regions to ignore, are left out",
    )


def test_mot_classes_may_count_from_zero(tmp_path):
    root = dataset_trees.mot(tmp_path, rows=("1,1,5,5,2,2,1,0,1", "1,2,9,9,2,2,1,1,1"))
    dataset = load_dataset("mot", root, "train")
    assert dataset.classes == ("class 0", "class 1")
    assert dataset.records[0].labels[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    "rows",
    [
        ("frame,id,left,top,width,height,conf,class,vis", "1,1,5,5,2,2,1,2,1", "3,1,6,5,2,2,1,2,1"),
        ("1;1;5;5;2;2;1;2;1", "3;1;6;5;2;2;1;2;1"),
        ("1 1 5 5 2 2 1 2 1", "3  1 6 5 2 2 1 2 1"),
        ("1\t1\t5\t5\t2\t2\t1\t2\t1", "3\t1\t6\t5\t2\t2\t1\t2\t1"),
        ("1.0, 1.0, 5, 5, 2, 2, 1, 2.0, 1,", "3.0, 1.0, 6, 5, 2, 2, 1, 2.0, 1,"),
        ("0,1,5,5,2,2,1,2,1", "2,1,6,5,2,2,1,2,1"),
    ],
    ids=["header", "semicolons", "blanks", "tabs", "decimals", "frames from 0"],
)
def test_rows_of_other_tools_are_read(tmp_path, rows):
    dataset = load_dataset("mot", dataset_trees.mot(tmp_path, rows=rows), "train")
    assert boxes_of(dataset.records[0]) == [[[4, 4, 6, 6]], [], [[5, 4, 7, 6]]]
    assert dataset.records[0].labels[0].tolist() == [1]
    assert dataset.notes == (("1 sequences count frames from 0",) if rows[0][0] == "0" else ())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("seqLength=three", "seqlength is 'three', expected a number from 0"),
        ("frameRate=nan", "framerate is 'nan'"),
        ("no value", "is no seqinfo.ini"),
    ],
    ids=["word", "nan", "syntax"],
)
def test_facts_that_cannot_be_used_are_named(tmp_path, line, reason):
    dataset_trees.write_text(
        dataset_trees.mot(tmp_path) / "train" / "walk" / "seqinfo.ini", "[Sequence]", line
    )
    with pytest.raises(UsageError, match=r"seqinfo\.ini") as error:
        load_dataset("mot", tmp_path, "train")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("gone", "error", "message"),
    [
        ("gt/gt.txt", UsageError, "gt/gt.txt: No such file"),
        ("img1", SourceError, "img1 is missing"),
    ],
)
def test_a_part_that_is_missing_from_a_mot_sequence_is_named(tmp_path, gone, error, message):
    folder = dataset_trees.mot(tmp_path) / "train" / "walk"
    (folder / gone).rename(folder / "elsewhere")
    with pytest.raises(error, match=message):
        load_dataset("mot", tmp_path, "train")


def test_a_folder_without_mot_sequences_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"holds no MOT sequences; .*/SEQUENCE/gt/gt\.txt is expected"):
        load_dataset("mot", tmp_path, ".")
