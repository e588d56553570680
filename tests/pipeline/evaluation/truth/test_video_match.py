"""The annotated video of a source is found by its name, and names that contradict each other are refused."""

from __future__ import annotations

import pytest

from pipeline.evaluation.truth.frame_match import AnnotatedSource
from pipeline.evaluation.truth.video_match import choose_video, choose_videos, source_components
from pipeline.system.errors import UsageError


def table_of(*names: str, images: dict[int, list[str]] | None = None) -> dict:
    """A table of videos that are numbered from 0; a name with a suffix is a file, too."""
    videos = [
        {
            "id": number,
            "name": name.rpartition(".")[0] or name,
            **({"file_name": name} if "." in name else {}),
        }
        for number, name in enumerate(names)
    ]
    paths = [(video, path) for video, files in (images or {}).items() for path in files]
    rows = [{"id": n, "video_id": video, "file_name": path} for n, (video, path) in enumerate(paths)]
    return {"videos": videos, "images": rows}


def source(name: str, *pictures: str) -> AnnotatedSource:
    return AnnotatedSource(name, 64, 48, pictures=[f"{name}/{picture}" for picture in pictures])


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        (["videos/first.mp4", "videos/second.mp4"], "first.mp4", 0),
        (["videos/first.mp4", "videos/second.mp4"], "elsewhere/SECOND.mkv", 1),
        (["first", "second"], "second", 1),
        (["a/clip.mp4", "b/clip.mp4"], "data/b/clip.mp4", 1),
        (["a/clip.mp4", "b/clip.mp4"], "data/b/clip.avi", 1),
        (["a/clip", "b/clip"], "a/clip.avi", 0),
        (["a\\clip.mp4", "b\\clip.mp4"], "b/clip.mp4", 1),
        (["clip.mp4", "clip.avi"], "clip.avi", 1),
        (["clip.mp4", "CLIP.mp4"], "CLIP.mp4", 1),
        (["flight.2023", "flight.2024"], "runs/flight.2024", 1),
        (["scene", "other"], "scene/*.png", 0),
        (["clip.mp4"], "rtsp://camera:554/live/clip.mp4?token=1", 0),
        (["clip.mp4"], "rtsp://camera/stream", 0),
        (["clip.mp4"], "-", 0),
        (["clip.mp4"], "0", 0),
        (["video"], "cut_07.mkv", 0),
        (["images"], "cut_07.mkv", 0),
        (["frames/seq"], "data/frames/seq", 0),
    ],
)
def test_a_source_has_the_video_of_its_name(names, name, expected):
    assert choose_video(table_of(*names), source(name))["id"] == expected


@pytest.mark.parametrize(
    ("names", "name", "message"),
    [
        (["demo.mp4"], "x/cut_07.mkv", "are those of 'demo.mp4', the source is 'cut_07.mkv'; --annotated-as"),
        (["demo.mp4"], "rtsp://camera/live/cut.mp4", "those of 'demo.mp4', the source is 'cut.mp4'"),
        (["seq_01"], "seq_02", "are those of 'seq_01', the source is 'seq_02'"),
        (["first.mp4", "second.mp4"], "frist.mp4", r"no video named 'frist' \(closest of 2: first\)"),
        (["a/clip.mp4", "b/clip.mp4"], "c/clip.mp4", r"2 videos that fit 'clip.mp4' \(a/clip, b/clip\)"),
        (["first", "second"], "-", "no video named '-'"),
    ],
)
def test_a_source_of_another_name_is_refused_with_both_names(names, name, message):
    with pytest.raises(UsageError, match=message):
        choose_video(table_of(*names), source(name))


def test_another_video_can_be_named():
    table = table_of("a/demo.mp4", "b/demo.mp4", "other.mp4")
    for named, expected in {"other": 2, "other.mp4": 2, "b/demo": 1, "b/demo.mp4": 1}.items():
        assert choose_video(table, source("x/cut_07.mkv"), named=named)["id"] == expected
    with pytest.raises(UsageError, match=r"unknown annotated video 'otter'; did you mean 'other'\?"):
        choose_video(table, source("x/cut_07.mkv"), named="otter")
    with pytest.raises(UsageError, match=r"2 videos named 'demo'; name the file: a/demo\.mp4, b/demo\.mp4"):
        choose_video(table, source("x/cut_07.mkv"), named="demo")


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ({0: ["0.png", "1.png"]}, 0),
        ({0: ["frames/0.png"]}, 0),
        ({0: ["5.png"], 1: ["1.png"]}, 1),
        ({0: ["/label-studio/data/upload/3/4f2ac1d0-1.png"]}, 0),
        ({0: ["elsewhere/0.png"], 1: ["data/1.png"]}, 1),
    ],
    ids=["names", "general folder", "one of two", "upload", "folder of another"],
)
def test_pictures_have_the_video_that_names_them(images, expected):
    table = table_of("one", "two", images=images)
    table["videos"] = table["videos"][: max(images) + 1]
    assert choose_video(table, source("data", "0.png", "1.png"))["id"] == expected


def test_pictures_in_another_folder_are_not_those_of_the_source():
    with pytest.raises(UsageError, match="are those of 'flight_3', the source is 'flight_4'"):
        choose_video(table_of("flight_3", images={0: ["flight_3/0.png"]}), source("flight_4", "0.png"))


def test_several_sources_have_their_own_videos_or_none():
    sources = [source(name) for name in ("b/clip.mp4", "a/clip.mp4", "a/other.mp4")]
    chosen = choose_videos(table_of("a/clip.mp4", "b/clip.mp4"), sources)
    assert [video and video["name"] for video in chosen] == ["b/clip", "a/clip", None]


@pytest.mark.parametrize(
    ("names", "sources", "message"),
    [
        (["demo.mp4"], ["a.mp4", "b.mp4"], "those of 'demo.mp4', the source is 'a.mp4'"),
        (["video"], ["a.mp4", "b.mp4"], "do not say which of 2 sources they belong to"),
        (
            ["clip.mp4"],
            ["x/clip.mp4", "y/clip.mp4"],
            "'x/clip.mp4' and 'y/clip.mp4' both fit the video 'clip'",
        ),
        (["x/a.mp4", "y/a.mp4"], ["z/a.mp4", "b.mp4"], "2 videos that fit 'a.mp4'"),
    ],
    ids=["none", "untold", "shared", "several"],
)
def test_several_sources_that_cannot_be_told_apart_are_refused(names, sources, message):
    with pytest.raises(UsageError, match=message):
        choose_videos(table_of(*names), [source(name) for name in sources])


def test_encodings_of_one_video_share_its_annotations():
    chosen = choose_videos(table_of("clip.mp4"), [source("x/clip.mp4"), source("x/clip.mkv")])
    assert all(chosen)


def test_a_source_that_joins_later_may_have_no_video():
    assert choose_videos(table_of("demo.mp4"), [source("other.mp4")], complete=False) == [None]


def test_names_of_sources_that_tell_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert source_components("-") == source_components("0") == source_components("rtsp://camera/live") == []
    assert source_components("http://clip.mp4") == []
    (tmp_path / "0").mkdir()
    assert source_components("0")[-1] == "0"
    assert source_components("a/*/x_*.png")[-1] == "a"
