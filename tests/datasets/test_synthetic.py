"""The command datasets.synthetic, the files that it writes, and the sample of the project."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from datasets import synthetic
from datasets.synthesis import rendering
from datasets.synthesis.rendering import render, write_scene
from datasets.synthesis.scene import PRESETS
from datasets.synthetic import main
from pipeline.system.errors import OutputError
from tests.support.scenes import SMALL, pictures, truths

SAMPLES = Path(synthetic.__file__).parent / "samples"


def centre(box) -> np.ndarray:
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def decode(path: Path, pixel_format: str) -> tuple[list[np.ndarray], list[Fraction]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return (
        [frame.to_ndarray(format=pixel_format) for frame in frames],
        [frame.pts * Fraction(frame.time_base) for frame in frames],
    )


def command(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(SAMPLES.parent.parent)}
    return subprocess.run(
        [sys.executable, "-m", "datasets.synthetic", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )


# Files


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)], ids=["25", "ntsc"])
def test_the_written_video_has_every_frame_at_its_exact_time(tmp_path, rate):
    scene = replace(SMALL, rate=rate)
    write_scene(scene, tmp_path / "clip.mp4")
    shown, times = decode(tmp_path / "clip.mp4", "gray")
    assert times == [index / rate for index in range(scene.frames)]
    error = np.abs(np.stack(shown).astype(int) - pictures(scene))
    assert error.mean() < 1.5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_deep_video_is_lossless(tmp_path, suffix):
    scene = replace(SMALL, bits=14)
    write_scene(scene, tmp_path / f"deep{suffix}")
    shown, times = decode(tmp_path / f"deep{suffix}", "gray16le")
    np.testing.assert_array_equal(np.stack(shown), pictures(scene))
    for index, moment in enumerate(times):
        assert abs(moment - index / scene.rate) <= (0 if suffix == ".mp4" else Fraction(1, 2000))


def test_the_ground_truth_is_coco_with_videos(tmp_path):
    write_scene(SMALL, tmp_path / "clip.mp4")
    truth = COCO(str(tmp_path / "clip.json"))
    assert truth.dataset["videos"] == [
        {
            "id": 1,
            "name": "clip",
            "file_name": "clip.mp4",
            "width": 96,
            "height": 64,
            "fps": 25.0,
            "length": 12,
            "bit_depth": 8,
        }
    ]
    assert truth.dataset["categories"] == [{"id": 1, "name": "target"}]
    assert [image["frame_id"] for image in truth.dataset["images"]] == list(range(12))
    for image, records in zip(truth.dataset["images"], truths(SMALL), strict=True):
        annotations = truth.loadAnns(truth.getAnnIds(imgIds=image["id"]))
        assert [a["instance_id"] for a in annotations] == list(records)
        for annotation in annotations:
            record = records[annotation["instance_id"]]
            x, y, width, height = annotation["bbox"]
            np.testing.assert_allclose((x, y, x + width, y + height), record.box, atol=0.0011)
            np.testing.assert_array_equal(truth.annToMask(annotation), record.mask)
            assert annotation["area"] == coco_mask.area(annotation["segmentation"])
            assert (annotation["category_id"], annotation["iscrowd"], annotation["video_id"]) == (1, 0, 1)


def test_frames_without_targets_stay_in_the_ground_truth(tmp_path):
    truth = write_scene(replace(SMALL, targets=()), tmp_path / "empty.mp4")
    assert len(truth["images"]) == 12
    assert truth["annotations"] == []


def test_existing_files_are_kept_unless_told_otherwise(tmp_path):
    video, labels = tmp_path / "clip.mp4", tmp_path / "clip.json"
    labels.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_scene(SMALL, video)
    assert labels.read_text() == "mine"
    assert not video.exists()
    write_scene(SMALL, video, overwrite=True)
    assert len(json.loads(labels.read_text())["images"]) == 12


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def broken(scene):
        yield from itertools.islice(render(scene), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(rendering, "render", broken)
    assert main([str(tmp_path / "clip.mp4")]) == 130
    assert list(tmp_path.iterdir()) == []


# The command


def test_the_command_writes_both_files_and_says_so(tmp_path, capsys):
    code = main(
        [str(tmp_path / "out.mp4"), "--seed", "3", "--frames", "5", "--width", "64", "--height", "48"]
    )
    assert code == 0
    assert "5 frames" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.mp4"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["clip.avi"], 2, ".mp4"),
        (["clip.mp4", "--bits", "40"], 2, "bits = 40"),
        (["clip.mp4", "--rate", "fast"], 2, "fast"),
        (["clip.mp4", "--rate", "0"], 2, "rate = 0"),
        (["clip.mp4", "--rate", "5000"], 2, "rate = 5000"),
        (["clip.mp4", "--crf", "99"], 2, "crf = 99"),
        (["clip.mp4", "--preset", "nonsense"], 2, "nonsense"),
        (["clip.mp4", "--seed", "-1"], 2, "seed = -1"),
        (["clip.mp4", "--width", "65", "--frames", "2"], 2, "even"),
        (["clip.mp4", "--colour"], 2, "--colour"),
        ([], 2, "OUT"),
        (["taken.mp4", "--frames", "2"], 5, "--overwrite"),
        (["missing/clip.mp4", "--frames", "2"], 5, "missing"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_ends_with_one_line_and_its_exit_code(
    tmp_path, monkeypatch, capsys, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    Path("taken.mp4").write_bytes(b"")
    assert main(arguments) == code
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert words in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["taken.mp4"]


def test_the_module_runs_as_a_command_and_reports_without_traceback(tmp_path):
    failed = command(str(tmp_path / "missing" / "clip.mp4"), "--frames", "2")
    assert (failed.returncode, failed.stdout) == (5, "")
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("\n") == 1


# The sample


@pytest.mark.slow
def test_the_sample_is_what_the_command_makes(tmp_path):
    assert main([str(tmp_path / "demo.mp4"), "--preset", "demo"]) == 0
    made, kept = (json.loads((folder / "demo.json").read_text()) for folder in (tmp_path, SAMPLES))
    assert made == kept
    again, _ = decode(tmp_path / "demo.mp4", "gray")
    shown, times = decode(SAMPLES / "demo.mp4", "gray")
    assert times == [Fraction(index, 30) for index in range(300)]
    assert {picture.shape for picture in shown} == {(256, 320)}
    for index in (0, 150, 299):  # the encoder decides a little differently on processors of other kinds
        assert np.abs(shown[index].astype(int) - again[index]).mean() < 2
        assert np.abs(shown[index].astype(int) - again[(index + 40) % 300]).mean() > 2


def test_the_sample_is_small():
    assert (SAMPLES / "demo.mp4").stat().st_size <= 1_000_000
    assert (SAMPLES / "demo.json").stat().st_size <= 400_000


@pytest.mark.slow
def test_the_sample_holds_a_crossing_an_exit_an_occlusion_and_a_dim_target():
    records = truths(PRESETS["demo"]())
    seen = {number: [number in frame for frame in records] for number in range(1, 6)}
    apart = [centre(frame[1].box)[0] - centre(frame[2].box)[0] for frame in records]
    assert apart[0] < 0 < apart[-1]
    assert seen[3] == sorted(seen[3], reverse=True)
    assert not seen[3][-1]
    assert [value for value, _ in itertools.groupby(seen[4])] == [True, False, True]
    assert PRESETS["demo"]().targets[4].scr == 3
    assert all(seen[5])
