"""Maps and masks are paired by their names, read, and scored by the command."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from scipy import io

from pipeline import mask_metrics
from pipeline.evaluation.segmentation.definitions import definitions
from pipeline.evaluation.segmentation.map_files import pair_files, read_map
from pipeline.imaging.mask_files import read_mask_file
from pipeline.system.errors import SourceError, UsageError

HEIGHT, WIDTH = 40, 48


def mask_at(top: int) -> np.ndarray:
    """A mask with one target of 3x3 pixels."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + 3, 5:8] = 255
    return mask


# Files


@pytest.mark.parametrize("suffix", [".8.png", ".16.png", ".npy", ".mat"])
def test_maps_are_read_from_every_kind_of_file(tmp_path, suffix):
    values = np.arange(6, dtype=np.float32).reshape(2, 3) / 5
    path = tmp_path / f"a{suffix}"
    if suffix == ".mat":
        io.savemat(path, {"T": values, "other": np.eye(2)})
    elif suffix == ".npy":
        np.save(path, values[None])
    else:
        full, dtype = (255, np.uint8) if suffix == ".8.png" else (65535, np.uint16)
        cv2.imwrite(str(path), (values * full).round().astype(dtype))
    read = read_map(path)
    assert (read.dtype, read.shape) == (np.float32, (2, 3))
    assert read == pytest.approx(values, abs=1e-7)


def test_logical_arrays_of_matlab_are_zero_and_one(tmp_path):
    io.savemat(tmp_path / "a.mat", {"T": np.eye(2) > 0})
    assert read_map(tmp_path / "a.mat").tolist() == [[1, 0], [0, 1]]


def test_logits_become_probabilities(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[-800.0, 0.0, np.log(3)]]))
    assert read_map(tmp_path / "a.npy", logits=True).tolist() == [[0, 0.5, 0.75]]
    with pytest.raises(SourceError, match=r"a\.npy holds values from -800 to .*--logits"):
        read_map(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.eye(2), "b": np.eye(2)}, "one called T, is expected; it holds a, b"),
        ({"T": np.zeros((2, 2, 2))}, r"shape \(2, 2, 2\)"),
        ({"T": np.eye(2) * np.nan}, "NaN"),
        ({"T": "text"}, "it holds none"),
    ],
    ids=["several arrays", "not flat", "not a number", "no array"],
)
def test_a_mat_file_without_a_map_is_refused_by_name(tmp_path, content, message):
    io.savemat(tmp_path / "odd.mat", content)
    with pytest.raises(SourceError, match=rf"odd\.mat.*{message}"):
        read_map(tmp_path / "odd.mat")


@pytest.mark.parametrize("name", ["a.mat", "a.npy", "a.png"])
def test_a_damaged_map_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00 nothing of use")
    with pytest.raises(SourceError, match=name):
        read_map(tmp_path / name)


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (0, 100, 127, 200, 255), (0,)], ids=str)
def test_levels_of_masks_are_above_a_half_on_targets(tmp_path, values):
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.random.default_rng(0).choice(values, (8, 9)).astype(np.uint8))
    mask = read_mask_file(path)
    np.testing.assert_array_equal(mask.levels > 0.5, mask.targets)


@pytest.fixture
def folders(tmp_path):
    """Three masks of 48x40 and maps equal to them, in natural order: a1, a2, a10."""
    for folder in ("maps", "masks"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(("a1", "a2", "a10")):
        target = mask_at(4 + 9 * number)
        cv2.imwrite(str(tmp_path / "masks" / f"{name}_pixels0.png"), target)
        cv2.imwrite(str(tmp_path / "maps" / f"{name}.png"), target)
    return tmp_path


@pytest.fixture
def measured(folders, capsys):
    """Runs the command on the folders: options → exit code, standard output, standard error."""

    def call(*options):
        where = ["--predictions", folders / "maps", "--masks", folders / "masks"]
        return mask_metrics.main([str(text) for text in [*where, *options]]), *capsys.readouterr()

    return call


def test_masks_and_maps_belong_together_by_name(folders):
    found = pair_files(folders / "maps", folders / "masks")
    assert [(pair.name, pair.prediction.name, pair.mask.name) for pair in found] == [
        (name, f"{name}.png", f"{name}_pixels0.png") for name in ("a1", "a2", "a10")
    ]


@pytest.mark.parametrize("line", ["a10", "a10.png", "a10_pixels0", "  a10  \n\na10\na10_pixels0"])
def test_a_list_says_what_is_scored(folders, line):
    (folders / "list.txt").write_text(line)
    found = pair_files(folders / "maps", folders / "masks", split=folders / "list.txt")
    assert [pair.name for pair in found] == ["a10"]


def test_two_files_of_one_name_are_refused(folders):
    np.save(folders / "maps" / "a1.npy", np.zeros((HEIGHT, WIDTH)))
    with pytest.raises(UsageError, match=r"both a1\.npy and a1\.png"):
        pair_files(folders / "maps", folders / "masks")


# The command


def test_the_command_prints_every_definition(measured):
    code, out, _ = measured()
    assert code == 0
    assert out.startswith("images 3 (0 without targets), targets 3, hit 3, false pixels 0")
    table = out.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in table[1:]] == list(definitions())
    assert table[1].split()[1:] == ["1.0000"] * 6 + ["0.00", "1.0000", "1.0000"]


def test_the_numbers_are_written_with_their_rules_and_those_of_each_image(measured, folders):
    cv2.imwrite(str(folders / "maps" / "a2.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    assert measured("--output", folders / "out.json")[0] == 0
    table = json.loads((folders / "out.json").read_text())
    assert (table["pd"], table["images"], table["threshold"]) == (pytest.approx(2 / 3), 3, 0.5)
    assert table["definitions"]["abc"]["pd"] == pytest.approx(2 / 3)
    assert table["rules"]["dconet"]["targets"]["distance"] == 2
    assert table["per_image"][1] == {"name": "a2", "iou": 0, "hits": 0, "targets": 1, "false_pixels": 0}


@pytest.mark.slow
def test_curves_are_drawn(measured, folders):
    code, out, _ = measured("--plots", folders / "plots")
    assert code == 0
    assert out.rstrip().endswith("roc.png")
    assert cv2.imread(str(folders / "plots" / "roc.png")).shape[0] > 300


def test_missing_maps_are_refused_by_name_or_counted_as_empty(measured, folders):
    (folders / "maps" / "a10.png").unlink()
    code, _, err = measured()
    assert (code, "no map of a10;" in err, "--allow-missing" in err) == (2, True, True)
    code, out, _ = measured("--allow-missing")
    assert code == 0
    assert "targets 3, hit 2" in out
    assert "note: missing maps, counted as empty: 1, the first of them a10" in out


def test_a_map_of_another_size_is_refused_by_name(measured, folders):
    cv2.imwrite(str(folders / "maps" / "a2.png"), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    code, _, err = measured()
    assert code == 2
    assert "a2.png is 49x40, its mask" in err
    assert err.count("\n") == 1


def test_a_mask_whose_background_is_in_doubt_is_reported(measured, folders):
    cv2.imwrite(str(folders / "masks" / "a2_pixels0.png"), 255 - mask_at(13))
    out = measured()[1]
    assert "masks whose background is in doubt: 1, the first of them a2: value 255, in 99." in out


def test_maps_without_a_mask_are_reported(measured, folders):
    cv2.imwrite(str(folders / "maps" / "b.png"), np.zeros((2, 2), np.uint8))
    assert "note: maps without a mask, left out: 1" in measured()[1]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--threshold", "1"), 2, "'1', expected a probability from 0 to less than 1"),
        (("--split", "nowhere.txt"), 2, "cannot read list of images nowhere.txt"),
        (("--output", "nowhere/a.json"), 5, "cannot write nowhere/a.json"),
    ],
    ids=["threshold", "list", "output"],
)
def test_mistakes_are_reported_in_one_line(measured, options, code, message):
    result, _, err = measured(*options)
    assert result == code
    assert err.startswith("error: ")
    assert message in err


def test_a_colour_image_is_no_map(measured, folders):
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 2] = 200
    cv2.imwrite(str(folders / "maps" / "a1.png"), image)
    code, _, err = measured()
    assert (code, "a1.png is in colour" in err) == (3, True)
