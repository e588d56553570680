"""Whatever form the ground truth of a source has, it is laid on the right frames, or refused."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from fractions import Fraction

import cv2
import numpy as np
import pytest

from pipeline.config.schema import RunConfig
from pipeline.runner.ground_truth import GroundTruth, annotated_source, read_annotations
from pipeline.runner.recovery import recorded_truth
from pipeline.structures.detections import Detections
from pipeline.structures.frame import Frame, SourceInfo
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from pipeline.system.errors import UsageError
from tests.support.truth import annotations_of

COUNT, SIZE = 12, (64, 48)
PICTURES = [f"clip/{number}.png" for number in range(COUNT)]


def boxes_of(frame: int) -> list[list[float]]:
    """Left, top, width, height of the two targets in a frame; no two frames have the same boxes."""
    return [[4.0 + 3 * frame, 5, 6, 5], [50.0 - 3 * frame, 30, 6, 5]]


def table() -> dict:
    """Right ground truth of the clip, ids from 1."""
    size = {"width": SIZE[0], "height": SIZE[1]}
    images = [
        {"id": n + 1, "video_id": 1, "frame_id": n, "file_name": f"clip/{n:06d}", **size}
        for n in range(COUNT)
    ]
    targets = [
        {"image_id": n + 1, "category_id": 1, "bbox": box, "instance_id": identity, "iscrowd": 0}
        for n in range(COUNT)
        for identity, box in enumerate(boxes_of(n))
    ]
    video = {"id": 1, "name": "clip", "file_name": "clip.mp4", **size}
    rows = [{"id": number, **row} for number, row in enumerate(targets, start=1)]
    categories = [{"id": 1, "name": "target"}]
    return {"videos": [video], "images": images, "annotations": rows, "categories": categories}


def info(name="clip.mp4") -> SourceInfo:
    return SourceInfo(name, *SIZE, Fraction(30), COUNT, 8, 1)


def save(path, content: dict, encoding="utf-8"):
    path.write_bytes(json.dumps(content).encode(encoding))
    return path


def score(path, name="clip.mp4", pictures=(), named=""):
    """Scores right detections and tracks; returns AP50, MOTA and the number of scored frames."""
    truth = GroundTruth(annotations_of(path, info(name), pictures=pictures, named=named), 1)
    blank = np.zeros(SIZE[::-1], np.uint8)
    lines = []
    for index in range(COUNT):
        corners = [[x, y, x + width, y + height] for x, y, width, height in boxes_of(index)]
        frame = Frame(blank, index, Fraction(index, 30), name)
        found = Detections(corners, [0.9] * 2, [0] * 2)
        truth.add(Result(frame, found, tracks=Tracks.empty(), warmup=False))
        lines += [
            f"{index + 1},{identity},{x + 1},{y + 1},{width},{height},1,-1,-1,-1\n"
            for identity, (x, y, width, height) in enumerate(boxes_of(index), start=1)
        ]
    tracks = path.with_name("tracks.txt")
    tracks.write_text("".join(lines))
    ap50 = truth.score(0.5).scores.ap50
    return round(ap50, 6), truth.score_tracks(tracks)["iou"].mota, truth.frames


def changed(**keys):
    """A change that sets keys of every annotation; a value may be a function of the annotation."""

    def change(content):
        for row in content["annotations"]:
            row |= {key: value(row) if callable(value) else value for key, value in keys.items()}

    return change


def drop_identity(row):
    return row.pop("instance_id")


def twice(content):
    content["images"].append({**content["images"][2], "id": 800})
    content["annotations"].append({**content["annotations"][0], "id": 900, "image_id": 800})


def outlined(content):
    for row in content["annotations"]:
        x, y, width, height = row.pop("bbox")
        row["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]


def without_videos(content):
    del content["videos"]
    for image in content["images"]:
        del image["video_id"], image["frame_id"]


def uploaded(content):
    without_videos(content)
    for number, image in enumerate(content["images"]):
        image["file_name"] = f"/label-studio/data/upload/3/4f2ac1d{number:x}-frame_{number:06d}.png"


def backslashes(content):
    content["videos"][0]["file_name"] = "videos\\clip.mp4"
    for image in content["images"]:
        image["file_name"] = image["file_name"].replace("/", "\\")


def text_ids(content):
    for image in content["images"]:
        image["id"] = str(image["id"])


def float_frames(content):
    for image in content["images"]:
        image |= {"id": float(image["id"]), "frame_id": float(image["frame_id"])}


FORMS = {
    "as it is": lambda content: None,
    "no name": lambda content: content["videos"][0].update(name="video", file_name=""),
    "image ids as text": text_ids,
    "references as text": changed(image_id=lambda row: str(row["image_id"]), category_id="1"),
    "floats": float_frames,
    "category ids of two types": lambda content: content["categories"].append({"id": "2", "name": "bird"}),
    "root category": lambda content: content["categories"].insert(0, {"id": 0, "name": "root"}),
    "identities as text": changed(instance_id=lambda row: str(row["instance_id"])),
    "identities as names": changed(instance_id=lambda row: "ab"[row["instance_id"]]),
    "identities as floats": changed(instance_id=lambda row: float(row["instance_id"])),
    "null beside track_id": changed(track_id=lambda row: row["instance_id"], instance_id=None),
    "identities in attributes": changed(attributes=lambda row: {"track_id": drop_identity(row)}),
    "a frame listed twice": twice,
    "an empty box": lambda content: content["annotations"].append(
        {"id": 900, "image_id": 1, "category_id": 1, "bbox": []}
    ),
    "polygons for boxes": outlined,
    "no videos": without_videos,
    "uploads": uploaded,
    "backslashes": backslashes,
    "annotation ids that repeat": changed(id=1),
}


@pytest.mark.parametrize("form", FORMS)
def test_ground_truth_in_any_form_gives_the_right_scores(tmp_path, form):
    content = table()
    FORMS[form](content)
    assert score(save(tmp_path / "gt.json", content)) == (1.0, 1.0, COUNT)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_ground_truth_in_any_encoding_gives_the_right_scores(tmp_path, encoding):
    assert score(save(tmp_path / "gt.json", table(), encoding)) == (1.0, 1.0, COUNT)


def by_name(order: list[int]) -> dict:
    """Ground truth of pictures; `frame_id` follows the order in which the numbers of the frames are given."""
    content = table()
    content["videos"] = [{"id": 1, "name": "clip", "width": SIZE[0], "height": SIZE[1]}]
    content["images"] = [
        {"id": number + 1, "video_id": 1, "frame_id": frame, "file_name": f"frames/{number}.png"}
        for frame, number in enumerate(order)
    ]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in kept]
    return content


ALPHABETICAL = sorted(range(COUNT), key=str)


@pytest.mark.parametrize(
    "order", [ALPHABETICAL, list(range(0, COUNT, 5))], ids=["alphabetical", "every fifth"]
)
def test_pictures_are_scored_by_their_names(tmp_path, order):
    path = save(tmp_path / "gt.json", by_name(order))
    assert score(path, "clip", PICTURES) == (1.0, 1.0, len(order))


def test_a_frame_as_png_and_jpeg_is_scored_once(tmp_path):
    path = save(tmp_path / "gt.json", by_name(list(range(COUNT // 2))))
    doubled = [f"clip/{number}.{suffix}" for number in range(COUNT // 2) for suffix in ("jpg", "png")]
    known = annotations_of(path, info("clip"), pictures=doubled)
    assert sorted(known.record.image_ids) == list(range(1, COUNT, 2))


@pytest.mark.parametrize(
    "order", [ALPHABETICAL, list(range(0, COUNT, 5))], ids=["alphabetical", "every fifth"]
)
def test_a_video_whose_frame_numbers_contradict_its_file_names_is_refused(tmp_path, order):
    with pytest.raises(UsageError, match=r"by its frame_id and \d+ by its file_name 'frames/"):
        score(save(tmp_path / "gt.json", by_name(order)))


def test_ground_truth_of_another_video_is_refused_unless_it_is_named(tmp_path):
    path = save(tmp_path / "gt.json", table())
    with pytest.raises(
        UsageError, match=r"those of 'clip\.mp4', the source is 'cut\.mp4'; --annotated-as 'clip'"
    ):
        score(path, "cut.mp4")
    assert score(path, "cut.mp4", named="clip") == (1.0, 1.0, COUNT)


def test_ground_truth_of_another_size_is_refused(tmp_path):
    other = SourceInfo("clip.mp4", 32, 32, Fraction(30), COUNT, 8, 1)
    with pytest.raises(UsageError, match=r"'clip\.mp4' is 32x32, annotated as 64x48"):
        annotations_of(save(tmp_path / "gt.json", table()), other)


def test_lost_images_are_refused_with_the_place(tmp_path):
    content = table()
    for row in content["annotations"]:
        row["image_id"] = 5 * row["image_id"]
    with pytest.raises(UsageError, match=r"annotations\[4\] has image 15, which is not among the 12 images"):
        score(save(tmp_path / "gt.json", content))


def test_each_source_has_its_own_ground_truth_or_none(tmp_path, caplog):
    content, other = table(), table()
    other["videos"][0] |= {"id": 2, "name": "b/clip", "file_name": "b/clip.mp4"}
    content["videos"][0] |= {"name": "a/clip", "file_name": "a/clip.mp4"}
    content["videos"] += other["videos"]
    content["images"] += [{**image, "id": 100 + image["id"], "video_id": 2} for image in other["images"][:3]]
    sources = [annotated_source(info(name)) for name in ("b/clip.mp4", "other.mp4", "a/clip.mp4")]
    with caplog.at_level(logging.WARNING):
        found = read_annotations(save(tmp_path / "gt.json", content), sources, among=3)
    assert [known and len(known.record.image_ids) for known in found] == [3, None, COUNT]
    assert caplog.messages == ["annotations of other.mp4: there are none, so it is not scored"]


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (changed(bbox=lambda row: [row["bbox"][0], row["bbox"][1], 60, 45]), "corners x1 y1 x2 y2"),
        (changed(bbox=lambda row: [side / 64 for side in row["bbox"]]), "parts of the image"),
        (changed(bbox=lambda row: [*row["bbox"][:2], 0, 0]), "24 of 24 boxes have no size"),
        (twice, "frames listed again, of which the first image counts: 1"),
        (without_videos, "they have no 'videos': their numbers count the frames of the source"),
    ],
    ids=["corners", "parts", "points", "twice", "no videos"],
)
def test_what_is_odd_about_ground_truth_is_remarked(tmp_path, caplog, change, remark):
    content = copy.deepcopy(table())
    change(content)
    with caplog.at_level(logging.WARNING):
        annotations_of(save(tmp_path / "gt.json", content), info())
    assert [remark in message for message in caplog.messages] == [True]


def recorded(source, path, **more):
    """What run.json says of a run over `source` with ground truth at `path`."""
    about = {**vars(info(str(source))), "rate": "30", **more}
    return {"source": about, "annotations": str(path), "detector": {"classes": ["target"]}}


def test_recovery_finds_the_frames_by_the_names_of_the_pictures(tmp_path):
    path = save(tmp_path / "gt.json", by_name(ALPHABETICAL))
    picture = np.zeros((*SIZE[::-1], 3), np.uint8)
    (tmp_path / "clip").mkdir()
    for name in PICTURES:
        cv2.imwrite(str(tmp_path / name), picture)
    truth = recorded_truth(recorded(tmp_path / "clip", path), RunConfig(), None)
    blank = np.zeros(SIZE[::-1], np.uint8)
    for frame in range(COUNT):
        assert truth.image_id(Frame(blank, frame, Fraction(frame, 30), "clip")) == frame + 1
    shutil.rmtree(tmp_path / "clip")
    with pytest.raises(UsageError, match="the source must be there, to tell which frames are annotated"):
        recorded_truth(recorded(tmp_path / "clip", path), RunConfig(), None)


def test_recovery_needs_no_video(tmp_path):
    path = save(tmp_path / "gt.json", table())
    assert recorded_truth(recorded("gone/clip.mp4", path, fingerprint="f"), RunConfig(), None) is not None
    assert recorded_truth(recorded("rtsp://camera/live", path, fingerprint=None), RunConfig(), None)


def test_a_name_is_for_one_source_only(tmp_path):
    sources = [annotated_source(info(name)) for name in ("a.mp4", "b.mp4")]
    with pytest.raises(UsageError, match="--annotated-as 'clip' is the video of one source, and 2 are given"):
        read_annotations(save(tmp_path / "gt.json", table()), sources, among=2, named="clip")
