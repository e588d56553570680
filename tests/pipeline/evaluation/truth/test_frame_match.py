"""Annotated images are laid on the frames of a source by file name, else by frame number."""

from __future__ import annotations

import pytest

from pipeline.evaluation.truth.frame_match import AnnotatedSource, PictureIndex, align, with_videos
from pipeline.system.errors import UsageError

VIDEO = {"id": 1, "name": "clip", "width": 64, "height": 48}


def table_of(*images: tuple[int | None, str]) -> dict:
    """A table of one video whose images, (frame, file name), have ids from 100 on and one target each."""
    rows = [
        {"id": 100 + n, "video_id": 1, "frame_id": frame, "file_name": name}
        for n, (frame, name) in enumerate(images)
    ]
    targets = [
        {"id": n, "image_id": row["id"], "category_id": 1, "bbox": [n, 0, 1, 1]} for n, row in enumerate(rows)
    ]
    return {"videos": [VIDEO], "images": rows, "annotations": targets, "categories": [{"id": 1}]}


def pictures(*names: str) -> AnnotatedSource:
    return AnnotatedSource("data/clip", 64, 48, 0, len(names), [f"data/clip/{name}" for name in names])


def video(count: int, **options) -> AnnotatedSource:
    return AnnotatedSource("data/clip.mp4", 64, 48, frame_count=count, **options)


def frames(table: dict, source: AnnotatedSource) -> dict[int, int]:
    """Image id → frame in the source."""
    aligned = align(table, VIDEO, source).table
    assert {row["image_id"] for row in aligned["annotations"]} == {image["id"] for image in aligned["images"]}
    return {image["id"]: image["frame_id"] for image in aligned["images"]}


def test_frames_in_the_order_of_the_alphabet_are_found_by_their_names():
    table = table_of((0, "0.png"), (1, "1.png"), (2, "10.png"), (3, "2.png"))
    assert frames(table, pictures("0.png", "1.png", "2.png", "10.png")) == {100: 0, 101: 1, 102: 3, 103: 2}


def test_frames_annotated_every_so_often_are_found_by_their_names():
    table = table_of((0, "f_0000.png"), (1, "f_0005.png"), (2, "f_0010.png"))
    assert frames(table, pictures(*(f"f_{n:04d}.png" for n in range(12)))) == {100: 0, 101: 5, 102: 10}


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("b.png", ["a.png", "b.png"]),
        ("other\\b.png", ["a.png", "b.png"]),
        ("B.PNG", ["a.png", "b.png"]),
        ("b.png", ["b.jpg", "b.png"]),
        ("b.jpeg", ["a.png", "b.png"]),
        ("f_7.png", ["f_006.png", "f_007.png"]),
        ("/up/4f2ac1d0-b.png", ["a.png", "b.png"]),
        ("y/b.png", ["x/b.png", "y/b.png"]),
    ],
    ids=["same", "backslash", "case", "exact first", "suffix", "zeros", "upload", "folder"],
)
def test_a_picture_is_found_by_a_similar_name(name, files):
    assert PictureIndex([f"data/{file}" for file in files]).frame(name) == 1


@pytest.mark.parametrize("name", ["c.png", "a.png.txt", "f_10.png", "data/"])
def test_a_picture_of_another_name_is_not_found(name):
    assert PictureIndex(["data/a.png", "data/f_1.png"]).frame(name) is None


def test_a_frame_as_png_and_jpeg_counts_once():
    table = table_of((0, "0.png"), (1, "1.png"))
    assert frames(table, pictures("0.jpg", "0.png", "1.jpg", "1.png")) == {100: 1, 101: 3}
    both = table_of((0, "0.png"), (1, "0.jpg"), (2, "1.png"))
    aligned = align(both, VIDEO, pictures("0.png", "1.png"))
    assert [image["id"] for image in aligned.table["images"]] == [100, 102]
    assert aligned.remarks == [
        "frames listed again, of which the first image counts: 1 (first left out: image 101)"
    ]


def test_pictures_that_are_not_in_the_source_are_remarked():
    aligned = align(table_of((0, "0.png"), (1, "1.png")), VIDEO, pictures("1.png"))
    assert [image["frame_id"] for image in aligned.table["images"]] == [0]
    assert aligned.remarks == ["1 of 2 annotated pictures are not in the source (first: 0.png)"]


def test_pictures_none_of_which_is_in_the_source_are_refused_with_both_names():
    with pytest.raises(UsageError, match=r"none of the 1 .*'clip' \(first: x\.png\).* \(first: 0\.png\)"):
        align(table_of((0, "x.png")), VIDEO, pictures("0.png", "1.png"))


def test_labels_of_the_frames_of_a_video_name_no_pictures():
    aligned = align(table_of((0, "clip/000000"), (1, "clip/000001")), VIDEO, pictures("a.png", "b.png"))
    assert [image["frame_id"] for image in aligned.table["images"]] == [0, 1]
    assert "they name no picture of the source ('clip/000000')" in aligned.remarks[0]


def test_in_a_video_frame_numbers_count():
    table = table_of((0, "clip/000001.png"), (2, "clip/000003.png"))
    assert frames(table, video(9)) == {100: 0, 101: 2}


def test_a_frame_listed_twice_is_that_of_the_first_image():
    aligned = align(table_of((0, ""), (1, ""), (0, "")), VIDEO, video(2))
    assert [image["id"] for image in aligned.table["images"]] == [100, 101]
    assert aligned.remarks == [
        "frames listed again, of which the first image counts: 1 (first left out: image 102)"
    ]


@pytest.mark.parametrize("names", [["0.png", "5.png", "10.png"], ["0.png", "10.png", "2.png"]])
def test_frame_numbers_and_file_names_of_a_video_that_contradict_each_other_are_refused(names):
    table = table_of(*enumerate(names))
    with pytest.raises(
        UsageError, match=r"image 101 of 'clip' is frame 1 by its frame_id and \d+ by its file"
    ):
        align(table, VIDEO, video(11))


def test_times_in_file_names_contradict_nothing():
    aligned = align(table_of((0, "t0.png"), (1, "t33.png"), (2, "t67.png")), VIDEO, video(3))
    assert [image["frame_id"] for image in aligned.table["images"]] == [0, 1, 2]
    assert "frame 1 by its frame_id, which counts" in aligned.remarks[0]


def test_annotations_without_size_have_that_of_the_source():
    table = table_of((0, ""))
    sizeless = {"id": 1, "name": "clip"}
    (row,) = align(table, sizeless, video(1)).table["videos"]
    assert (row["width"], row["height"]) == (64, 48)


def without_videos(*names: str) -> dict:
    table = table_of(*((None, name) for name in names))
    del table["videos"]
    for image in table["images"]:
        del image["video_id"], image["frame_id"]
    return table


def test_images_without_videos_are_one_video_with_the_frames_of_their_numbers():
    found = with_videos(without_videos("x/f_002.png", "x/f_000.png"), numbered=True).table
    assert [video["name"] for video in found["videos"]] == ["frames"]
    assert [image["frame_id"] for image in found["images"]] == [2, 0]


@pytest.mark.parametrize(
    "names", [["f_1.png", "f_2.png"], ["a/f_0.png", "b/f_1.png"], ["f_0.png", "last.png"]]
)
def test_images_that_do_not_count_from_0_need_a_conversion(names):
    with pytest.raises(UsageError, match=r"no 'videos'.*python -m datasets\.convert"):
        with_videos(without_videos(*names), numbered=True)


def test_folders_of_pictures_are_videos():
    found = with_videos(without_videos("a/1.png", "b/1.png"), numbered=False).table
    assert [video["name"] for video in found["videos"]] == ["a", "b"]
