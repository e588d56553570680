"""The command datasets.check counts what a dataset holds and names what is wrong with it."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest

from datasets import check
from pipeline.imaging.image_files import read_image
from tests.datasets.layouts import dataset_trees
from tests.support.media import cut, grey_frames, write_video


@pytest.fixture
def checked(capsys):
    """Returns a function that runs the command: arguments → exit code, standard output, standard error."""

    def call(*arguments):
        return check.main([str(argument) for argument in arguments]), *capsys.readouterr()

    return call


def video(root, *, frames: int = 4, annotated: int = 4, boxes=()) -> None:
    """Writes one 96x64 video with boxes (frame, [left, top, width, height])."""
    write_video(root / "clip.mp4", grey_frames(frames))
    content = {
        "videos": [{"id": 1, "name": "clip", "file_name": "clip.mp4", "width": 96, "height": 64}],
        "images": [{"id": n + 1, "video_id": 1, "frame_id": n} for n in range(annotated)],
        "annotations": [
            {"id": n, "image_id": frame + 1, "category_id": 1, "bbox": box}
            for n, (frame, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "drone"}],
    }
    dataset_trees.write_json(root / "gt.json", content)


def line_of(out: str, label: str) -> str:
    return next(line for line in out.splitlines() if line.strip().startswith(label))


def test_a_clean_dataset_is_counted(checked, tmp_path):
    code, out, err = checked("daub", dataset_trees.frame_lists(tmp_path))
    assert code == 0
    assert out.startswith("daub train: target\n")
    assert line_of(out, "sequences").split()[1:] == ["2", "of", "2", "to", "3", "frames"]
    assert line_of(out, "frames ").split() == ["frames", "5"]
    assert line_of(out, "boxes").split() == ["boxes", "5"]
    assert line_of(out, "frames without target").endswith(" 1 (20.0%)")
    assert "8 / 8 / 8 / 8 / 8" in line_of(out, "box width, px")
    assert line_of(out, "image sizes").endswith("32x24 (5)")
    assert out.endswith("daub: clean in train\n")
    assert "5/5 frames" in err


def test_frames_without_annotation_are_told_apart(checked, tmp_path):
    dataset_trees.frame_lists(tmp_path)
    dataset_trees.write_text(tmp_path / "l.txt", "images/train/data5/2.bmp 1,1,2,2,0")
    _, out, _ = checked("frame-list", tmp_path, "--split", "l.txt")
    assert line_of(out, "frames ").endswith("3, 1 annotated")


@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["whole", "quick"])
def test_a_video_that_fits_its_annotations_is_clean(checked, tmp_path, quick):
    video(tmp_path)
    code, out, _ = checked("coco-video", tmp_path, "--split", "gt.json", *quick)
    assert (code, out.splitlines()[-1].startswith("coco-video: clean in gt.json")) == (0, True)
    assert ("frames were not decoded" in out) == bool(quick)


@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["whole", "quick"])
def test_a_video_of_another_length_is_named(checked, tmp_path, quick):
    video(tmp_path, frames=5)
    code, out, _ = checked("coco-video", tmp_path, "--split", "gt.json", *quick)
    assert code == 1
    assert "clip.mp4: 5 frames, 4 annotated" in out
    assert out.splitlines()[-1].startswith("coco-video: 1 finding in gt.json")


def test_a_video_that_is_cut_off_is_named(checked, tmp_path):
    video(tmp_path, frames=30, annotated=30)
    cut(tmp_path / "clip.mp4").replace(tmp_path / "clip.mp4")
    code, out, _ = checked("coco-video", tmp_path, "--split", "gt.json")
    assert code == 1
    assert "1 unreadable files" in out
    assert "clip.mp4" in out


@pytest.mark.parametrize(
    ("boxes", "finding"),
    [
        ([(1, [90, 2, 8, 4])], "clip frame 1: [90, 2, 98, 6]"),
        ([(0, [-1, 2, 8, 4])], "clip frame 0: [-1, 2, 7, 6]"),
        ([(2, [5, 5, 0, 4])], "clip frame 2: [5, 5, 5, 9]"),
        ([(3, [5, 5, 2, 2])] * 2, "clip frame 3: [5, 5, 7, 7] 2 times"),
    ],
    ids=["beyond the right", "beyond the left", "no width", "twice"],
)
def test_a_box_that_cannot_be_is_named(checked, tmp_path, boxes, finding):
    video(tmp_path, boxes=boxes)
    code, out, _ = checked("coco-video", tmp_path, "--split", "gt.json", "--quick")
    assert (code, out.count("  ! 1 ")) == (1, 1)
    assert finding in out


@pytest.mark.parametrize(
    ("boxes", "sign"),
    [
        ([(n % 4, [60 + n, 40, 68 + n, 44]) for n in range(6)], "corners x1 y1 x2 y2"),
        ([(n % 4, [0.5, n / 9, 0.1, 0.1]) for n in range(6)], "parts of the image"),
        ([(n % 4, [9 * n, 9, 0, 0]) for n in range(6)], "6 of 6 boxes have no size"),
        ([(n % 4, [9 * n, 9, 5, 5]) for n in range(6)] + [(0, [])], "1 of 7 annotations have no box"),
    ],
    ids=["corners", "parts", "points", "empty"],
)
def test_boxes_in_another_convention_are_named(checked, tmp_path, boxes, sign):
    video(tmp_path, boxes=boxes)
    code, out, _ = checked("coco-video", tmp_path, "--split", "gt.json", "--quick")
    assert code == 1
    assert "1 signs that boxes are not left, top, width, height in pixels\n      gt.json: " in out
    assert sign in out


def test_equal_boxes_in_different_frames_and_boxes_up_to_the_edge_are_fine(checked, tmp_path):
    video(tmp_path, boxes=[(0, [88, 60, 8, 4]), (1, [88, 60, 8, 4]), (1, [0, 0, 1, 1])])
    assert checked("coco-video", tmp_path, "--split", "gt.json", "--quick")[0] == 0


def test_a_first_image_that_is_missing_is_named_once(checked, tmp_path):
    (dataset_trees.frame_lists(tmp_path) / "images" / "train" / "data5" / "0.bmp").unlink()
    code, out, _ = checked("daub", tmp_path)
    assert code == 1
    assert "daub: 1 finding in train" in out


@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["whole", "quick"])
@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda path: path.unlink(), "data5/1.bmp"),
        (lambda path: path.write_bytes(b"no image"), "data5/1.bmp"),
        (
            lambda path: dataset_trees.write_image(path, size=(30, 24)),
            "data5/1.bmp is 30x24, annotated 32x24",
        ),
    ],
    ids=["missing", "damaged", "another size"],
)
def test_an_image_that_cannot_be_used_is_named(checked, tmp_path, quick, spoil, finding):
    spoil(dataset_trees.frame_lists(tmp_path) / "images" / "train" / "data5" / "1.bmp")
    code, out, _ = checked("daub", tmp_path, *quick)
    assert code == 1
    assert finding in out
    assert "daub: 1 finding in train" in out


def test_damage_that_only_decoding_shows_is_found(checked, tmp_path):
    path = dataset_trees.flat_masks(tmp_path) / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:60])
    assert checked("nuaa-sirst", tmp_path, "--quick")[0] == 0
    code, out, _ = checked("nuaa-sirst", tmp_path)
    assert code == 1
    assert "a.png" in out


@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["whole", "quick"])
def test_a_mask_that_does_not_fit_its_image_is_named(checked, tmp_path, quick):
    dataset_trees.write_image(dataset_trees.flat_masks(tmp_path) / "images" / "a.png", size=(16, 12))
    code, out, _ = checked("nuaa-sirst", tmp_path, *quick)
    assert code == 1
    assert "1 masks that do not fit the image" in out
    assert "images/a.png is 16x12, masks/a.png 32x24" in out


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (
            lambda mask: 255 - mask,
            "masks whose background is in doubt\n      masks/a.png: value 255, in 97.9%",
        ),
        (lambda mask: mask // 255, "masks/a.png: 0.4% of the full scale, others up to 100%"),
        (
            lambda mask: np.where(np.arange(32) < 5, mask // 4, mask),
            "masks of several values, all of which were taken for targets\n      masks/a.png: 63, 255",
        ),
    ],
    ids=["inverted", "dark", "two values"],
)
def test_a_mask_that_may_have_been_meant_otherwise_is_named(checked, tmp_path, spoil, finding):
    path = dataset_trees.flat_masks(tmp_path) / "masks" / "a.png"
    mask = read_image(path)
    dataset_trees.write_mask(tmp_path / "masks" / "c.png", (5, 5, 7, 7))
    cv2.imwrite(str(path), spoil(mask).astype(np.uint8))
    code, out, _ = checked("nuaa-sirst", tmp_path)
    assert (code, out.splitlines()[-1]) == (1, "nuaa-sirst: 1 finding in train")
    assert finding in out
    assert line_of(out, "boxes").split() == ["boxes", "3"]


def test_soft_edges_of_masks_are_told_and_are_no_finding(checked, tmp_path):
    path = dataset_trees.flat_masks(tmp_path) / "masks" / "a.png"
    cv2.imwrite(str(path), cv2.GaussianBlur(read_image(path), (5, 5), 1))
    code, out, _ = checked("nuaa-sirst", tmp_path)
    assert code == 0
    assert "1 masks have soft edges" in out
    assert line_of(out, "boxes").split() == ["boxes", "2"]


def test_masks_and_images_without_a_counterpart_are_named(checked, tmp_path):
    for name in ("a", "b"):
        dataset_trees.write_image(tmp_path / "test" / "images" / f"{name}.png")
        dataset_trees.write_mask(tmp_path / "test" / "masks" / f"{name}.png", (1, 1, 3, 3))
    (tmp_path / "test" / "images" / "a.png").unlink()
    (tmp_path / "test" / "masks" / "b.png").unlink()
    dataset_trees.write_image(tmp_path / "test" / "images" / "c.png")
    dataset_trees.write_mask(tmp_path / "test" / "masks" / "c.png", (1, 1, 3, 3))
    code, out, _ = checked("nudt-sirst", tmp_path)
    assert code == 1
    assert "1 masks without an image\n      test/masks/a.png" in out
    assert "masks/b.* is missing" in out


def test_images_of_equal_content_are_named(checked, tmp_path):
    dataset_trees.flat_masks(tmp_path)
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / "c.png")
    code, out, _ = checked("nuaa-sirst", tmp_path)
    assert code == 1
    assert "images/c.png and images/a.png" in out


def test_frames_that_stand_still_are_counted_but_are_no_finding(checked, tmp_path):
    dataset_trees.coco_video(tmp_path)
    for frame in range(3):
        dataset_trees.write_image(tmp_path / "frames" / f"{frame:04d}.png", seed=1)
    code, out, _ = checked("coco-video", tmp_path, "--split", "gt.json")
    assert code == 0
    assert line_of(out, "frames equal to the one before").endswith(" 2")


@pytest.mark.parametrize(
    ("second", "code"), [("splits/test.txt", 1), ("splits/trainval.txt", 0)], ids=["test", "trainval"]
)
def test_an_image_in_training_and_test_is_named(checked, tmp_path, second, code):
    dataset_trees.flat_masks(tmp_path)
    dataset_trees.write_text(tmp_path / second, "a", "b")
    found, out, _ = checked("nuaa-sirst", tmp_path)
    assert found == code
    assert ("images/a.png in train and test" in out) == bool(code)


def test_names_listed_twice_are_named(checked, tmp_path):
    dataset_trees.flat_masks(tmp_path)
    dataset_trees.write_text(tmp_path / "splits" / "train.txt", "a", "c", "a.png")
    code, out, _ = checked("nuaa-sirst", tmp_path)
    assert code == 1
    assert "1 frames listed twice\n      a in train.txt" in out


def test_only_the_first_offenders_are_listed(checked, tmp_path):
    video(tmp_path, frames=8, annotated=8, boxes=[(n, [95, 1, 3, 3]) for n in range(8)])
    _, out, _ = checked("coco-video", tmp_path, "--split", "gt.json", "--quick")
    assert "! 8 boxes outside the image" in out
    assert out.count("clip frame ") == check.MAX_EXAMPLES
    assert "… and 3 more" in out


def test_remarks_of_the_reader_are_shown(checked, tmp_path):
    root = dataset_trees.mot(tmp_path, rows=("1,1,5,5,2,2,0,1,1",))
    code, out, _ = checked("mot", root, "--split", "train")
    assert code == 0
    assert "1 boxes that are marked as not to be counted are left out" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["daubb", "."], "unknown dataset 'daubb'; did you mean 'daub'?"),
        (["daub", "none"], "none holds no split of 'daub'"),
        (["mot", "."], "the splits of 'mot' have no names, give one"),
        (["daub", ".", "--quik"], "unknown option '--quik', did you mean '--quick'?"),
    ],
    ids=["name", "root", "no split", "option"],
)
def test_a_mistake_is_told_in_one_line(checked, arguments, message):
    code, out, err = checked(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_annotations_that_cannot_be_read_at_all_are_an_error(checked, tmp_path):
    dataset_trees.write_text(tmp_path / "gt.json", "{")
    code, _, err = checked("coco-video", tmp_path, "--split", "gt.json")
    assert (code, "are not JSON" in err) == (2, True)


@pytest.mark.real_data
def test_the_single_frames_are_clean(checked, shared_root):
    code, out, _ = checked("nuaa-sirst", shared_root / "data" / "nuaa-sirst", "--split", "test", "val")
    assert (code, out.splitlines()[-1]) == (0, "nuaa-sirst: clean in test, val")


@pytest.mark.real_data
def test_a_drone_video_is_clean_and_known_to_the_frame(checked, tmp_path, drone_ir):
    whole = json.loads((drone_ir / "annotations" / "val.json").read_text())
    first = whole["videos"][0]
    for part in ("images", "annotations"):
        whole[part] = [row for row in whole[part] if row["video_id"] == first["id"]]
    (tmp_path / "videos").symlink_to(drone_ir / "videos")
    dataset_trees.write_json(tmp_path / "gt.json", {**whole, "videos": [first]})
    code, out, _ = checked("coco-video", tmp_path, "--split", "gt.json")
    assert code == 0
    assert line_of(out, "frames ").split() == ["frames", str(first["length"])]
