"""The command starts quickly; a mistake ends in one line, its exit code, and no partial outputs."""

from __future__ import annotations

import subprocess
import sys
import wave

import av
import numpy as np
import pytest
import torch
from PIL import Image

import detectors
import run_pipeline
from detectors.weights import state_dict
from pipeline import __version__
from tests.conftest import PROJECT_ROOT
from tests.support.nano import save_nano
from tests.support.outputs import OUTPUTS, check_consistent, lines, report, video

COMMAND = [sys.executable, "run_pipeline.py"]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def fault(mote, out):
    """Runs the command, asserts that it ends with `code` and one line of error, and returns the line."""

    def call(code, *arguments) -> str:
        reply = mote("--output", out, "--progress", "off", *arguments)
        assert reply.code == code, reply
        (line,) = reply.err.splitlines()
        assert line.startswith("error: ")
        return line

    return call


def write_video(path, sizes=((64, 64),) * 20, **container_options):
    """Writes a video of noise, one frame for each (width, height)."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "1"})
        stream.width, stream.height = sizes[0]
        for index, (width, height) in enumerate(sizes):
            picture = random.integers(0, 256, (height, width), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# Options that need no network


def test_help_lists_the_exit_codes(mote):
    code, out, err = mote("--help")
    assert (code, err) == (0, "")
    assert "exit codes: 0 success" in out


@pytest.mark.parametrize("flag", ["--help", "--version", "--list"])
def test_options_without_a_network_import_nothing_that_takes_long(flag):
    code = f"""
import sys, run_pipeline
try:
    run_pipeline.main([{flag!r}])
except SystemExit:
    pass
import importlib.metadata
installed = importlib.metadata.packages_distributions()
packages = {{name.partition(".")[0] for name in sys.modules}}
print(sorted(name for name in packages if name in installed and name[0] != "_"), file=sys.stderr)
"""
    reply = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert reply.stderr == "['numpy']\n"


def test_version_names_the_program_and_its_version(mote):
    assert mote("--version") == (0, f"mote {__version__}\n", "")


def test_list_names_detectors_weights_and_trackers(mote):
    code, out, err = mote("--list")
    assert (code, err) == (0, "")
    names = out.split()
    for name in ("detectors", "tridos", "tridos-nano", "weights", "trackers", "centre", "none"):
        assert name in names


@pytest.mark.parametrize("set_in", ["flag", "file"])
def test_supplied_weights_choose_their_detector(tmp_path, set_in):
    flags = ["--weights", "plain-specks"]
    if set_in == "file":
        (tmp_path / "a.toml").write_text('[detector]\nweights = "plain-specks"\n')
        flags = ["--config", str(tmp_path / "a.toml")]
    options = run_pipeline.parser().parse_args(["in.mp4", *flags])
    assert run_pipeline.configuration(options).detector.name == "plain"


def test_weights_of_another_detector_are_refused_with_its_name(fault):
    line = fault(2, "--video", "in.mp4", "--detector", "tridos-nano", "--weights", "plain-specks")
    assert line == "error: --detector tridos-nano: weights 'plain-specks' are for 'plain'; leave it out"


@pytest.mark.parametrize("text", ['weights = ["plain-specks"]', 'name = ["a"]\nweights = "plain-specks"'])
def test_weights_and_detectors_that_are_no_text_are_refused(fault, tmp_path, text):
    (tmp_path / "a.toml").write_text(f"[detector]\n{text}\n")
    assert "expected text" in fault(2, "--video", "in.mp4", "--config", tmp_path / "a.toml")


def test_a_missing_source_is_a_usage_error(mote):
    assert mote() == (
        2,
        "",
        "error: a source is required: a video file, a folder of images, or a pattern of images; see --help\n",
    )


# Sources that cannot be opened


def text_as_video(folder):
    (folder / "in.mp4").write_text("This is not a video.\n" * 100)


def empty(folder):
    (folder / "in.mp4").touch()


def sound_only(folder):
    with wave.open(str(folder / "in.mp4"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))


def missing(folder):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "no such file"),
        (text_as_video, "cannot be opened as video"),
        (empty, "is empty"),
        (sound_only, "holds no video, only audio"),
    ],
)
def test_a_source_that_cannot_be_opened_leaves_no_outputs(fault, tmp_path, out, nano_weights, make, message):
    make(tmp_path)
    line = fault(3, "--video", tmp_path / "in.mp4", "--weights", nano_weights)
    assert "in.mp4" in line
    assert message in line
    assert not out.exists()


# Sources that are lost during the run


def test_all_frames_of_a_truncated_video_are_processed(fault, mote, tmp_path, out, nano_weights):
    path = write_video(tmp_path / "in.mp4", movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: int(0.7 * len(data))])
    line = fault(3, "--video", path, "--weights", nano_weights)
    count = check_consistent(out)
    assert 12 <= count <= 15
    assert f"lost after {count} of 20 frames" in line
    assert line == f"error: {report(out)['reason']}"
    assert report(out)["state"] == "partial"


def images_of_two_sizes(folder):
    pictures = folder / "in"
    pictures.mkdir()
    for index in range(9):
        size = (64, 64) if index < 6 else (96, 64)
        Image.new("L", size, index).save(pictures / f"{index}.png")
    return pictures


@pytest.mark.parametrize("batch", [1, 4])
def test_pictures_before_a_change_of_size_are_kept(fault, tmp_path, out, nano_weights, batch):
    line = fault(3, "--video", images_of_two_sizes(tmp_path), "--weights", nano_weights, "--batch", batch)
    assert "frame size changes from 64x64" in line
    assert check_consistent(out) == 6
    assert report(out)["state"] == "partial"


# Outputs


def test_a_folder_below_a_file_cannot_be_written(fault, tmp_path, clip, nano_weights):
    (tmp_path / "file").write_text("kept")
    line = fault(5, "--video", clip, "--weights", nano_weights, "--output", tmp_path / "file" / "out")
    assert "choose a folder" in line
    assert (tmp_path / "file").read_text() == "kept"


def test_a_file_in_place_of_the_folder_cannot_be_written(fault, out, clip, nano_weights):
    out.write_text("kept")
    assert str(out) in fault(5, "--video", clip, "--weights", nano_weights)
    assert out.read_text() == "kept"


def test_an_earlier_run_is_only_replaced_with_overwrite(fault, out, clip, nano_weights):
    out.mkdir()
    (out / "tracks.txt").write_text("precious")
    line = fault(5, "--video", clip, "--weights", nano_weights)
    assert "--overwrite" in line
    assert [path.name for path in out.iterdir()] == ["tracks.txt"]
    assert (out / "tracks.txt").read_text() == "precious"


def test_overwriting_deletes_all_files_of_the_earlier_run(mote, out, clip, nano_weights):
    out.mkdir()
    for name in (*OUTPUTS, "metrics.json", "detections.json.part", "run.json.part", "notes.md"):
        (out / name).write_text("old")
    arguments = ("--video", clip, "--weights", nano_weights, "--output", out, "--overwrite")
    assert mote(*arguments, "--no-save-mot", "--max-frames", 3).code == 0
    left = {path.name for path in out.iterdir()}
    assert left == {"annotated.mp4", "detections.json", "results.jsonl", "run.json", "notes.md"}
    assert len(video(out / "annotated.mp4")) == len(lines(out)) == 3


def test_the_source_is_never_overwritten(fault, out, nano_weights):
    out.mkdir()
    source = write_video(out / "annotated.mp4")
    before = source.read_bytes()
    line = fault(5, "--video", source, "--weights", nano_weights, "--overwrite")
    assert "would be overwritten" in line
    assert source.read_bytes() == before


def test_the_folder_is_named_after_the_source_unless_given(mote, tmp_path, clip, nano_weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mote("--video", clip, "--weights", nano_weights, "--max-frames", 2).code == 0
    assert check_consistent(tmp_path / "runs" / "clip") == 2


# Names and values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "tridos-nan"], "unknown detector 'tridos-nan'; did you mean 'tridos-nano'?"),
        (["--tracker", "center"], "unknown tracker 'center'; did you mean 'centre'?"),
        (["--set", "detector.confidence=0.1"], "'detector.confidence'; did you mean 'detector.conf'?"),
        (["--set", "detectors.conf=0.1"], "'detectors'; did you mean 'detector'?"),
        (["--set", "tracker.options.costs=3"], "unknown tracker option 'costs'; did you mean 'coast'?"),
        (["--set", "annotate.trial=3"], "'annotate.trial'; did you mean 'annotate.trail'?"),
        (["--set", "annotate.trail=long"], "'annotate.trail' = \"long\", expected a whole number"),
        (["--set", "tracker.options.coast=-3"], "tracker option coast = -3"),
        (["--set", "tracker.options.coast=long"], 'coast\' = "long", expected a whole number'),
        (["--set", "output.quality=99"], "--set output.quality=99, expected 0 to 51"),
        (["--set", "conf"], "setting 'conf' is not of the form section.key=value"),
        (["--conf", "1.5"], "--conf 1.5, expected 0 to 1"),
        (["--conf", "high"], "argument --conf: invalid float value: 'high'"),
        (["--iou", "-0.5"], "--iou -0.5, expected 0 to 1"),
        (["--size", "512"], "--size '512', expected native or WxH such as 512x512"),
        (["--size", "500x500"], "--size '500x500', expected multiples of 32"),
        (["--batch", "-1"], "--batch -1, expected 0 or more"),
        (["--start", "-1"], "--start -1, expected a frame index from 0"),
        (["--max-frames", "-1"], "--max-frames -1, expected 0 (all) or more"),
        (["--set", "source.max_frames=-1"], "--set source.max_frames=-1, expected 0 (all) or more"),
        (["--set", "conf=1"], "unknown configuration key 'conf'; did you mean 'detector.conf'?"),
        (["--device", "gpu"], "unknown device 'gpu', expected auto, cpu, mps, cuda or cuda:N"),
        (["--device", "meta"], "unknown device 'meta', expected auto, cpu, mps, cuda or cuda:N"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available"),
        (["--device", "cpu", "--precision", "fp16"], "precision fp16 needs a GPU"),
        (["--precision", "int8"], "invalid choice: 'int8'"),
        (["--source-rate", "10"], "--source-rate 10 has no effect on"),
        (["--sise", "64x64"], "unknown option '--sise', did you mean '--size'?"),
        (["--config", "nowhere.toml"], "cannot read configuration nowhere.toml"),
        (["--annotations", "nowhere.json"], "cannot read annotations nowhere.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_name_or_value_is_reported_with_the_valid_ones(
    fault, out, clip, nano_weights, arguments, message
):
    assert message in fault(2, "--video", clip, "--weights", nano_weights, *arguments)
    assert not out.exists()


def test_an_unknown_key_in_the_configuration_file_is_reported_with_a_close_match(fault, tmp_path, clip):
    (tmp_path / "my.toml").write_text("[tracker]\nnaem = 'none'\n")
    line = fault(2, "--video", clip, "--config", tmp_path / "my.toml")
    assert "unknown configuration key 'tracker.naem'; did you mean 'tracker.name'?" in line


def test_flags_override_settings_and_settings_override_the_file(mote, tmp_path, out, clip, nano_weights):
    (tmp_path / "my.toml").write_text("[detector]\nconf = 0.1\niou = 0.1\nbatch = 4\n")
    files = ("--video", clip, "--weights", nano_weights, "--output", out, "--config", tmp_path / "my.toml")
    settings = ("--set", "detector.conf=0.2", "--set", "detector.iou=0.2")
    assert mote(*files, *settings, "--conf", 0.3, "--max-frames", 1).code == 0
    used = report(out)["config"]["detector"]
    assert (used["conf"], used["iou"], used["batch"]) == (0.3, 0.2, 4)


# Weights


def test_weights_of_another_network_are_refused_with_the_differences(fault, out, clip, nano_weights):
    line = fault(4, "--video", clip, "--weights", nano_weights, "--detector", "tridos")
    assert "is not for this Tridos" in line
    assert "misshapen (backbone." in line
    assert not out.exists()


def test_weights_that_lack_entries_are_refused(fault, tmp_path, clip):
    state = detectors.build("tridos-nano").state_dict()
    state.pop("head.obj_preds.0.bias")
    state_dict.save({**state, "stranger": torch.zeros(1)}, tmp_path / "w.safetensors", metadata={"a": 1})
    line = fault(4, "--video", clip, "--weights", tmp_path / "w.safetensors")
    assert "1 missing (head.obj_preds.0.bias); 1 unexpected (stranger)" in line


def cut_in_half(folder):
    path = folder / "half.safetensors"
    data = (folder / "whole.safetensors").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def text_as_weights(folder):
    path = folder / "text.safetensors"
    path.write_text("These are no weights.")
    return path


def text_as_checkpoint(folder):
    path = folder / "text.pth"
    path.write_text("These are no weights.")
    return path


@pytest.mark.parametrize("damage", [cut_in_half, text_as_weights, text_as_checkpoint])
def test_damaged_weights_are_refused(fault, tmp_path, out, clip, damage):
    save_nano(tmp_path / "whole.safetensors")
    path = damage(tmp_path)
    assert f"{path} is not a safe weights file" in fault(4, "--video", clip, "--weights", path)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere.safetensors"], "weights file nowhere.safetensors does not exist"),
        (["--weights", "tridos-sea"], "unknown weights 'tridos-sea'"),
        (["--detector", "tridos"], "no weights ship for detector 'tridos'; give a file with --weights"),
    ],
    ids=["file", "name", "none ship"],
)
def test_missing_weights_are_reported(fault, out, clip, arguments, message):
    assert message in fault(4, "--video", clip, *arguments)
    assert not out.exists()


# Annotations


def test_annotations_without_the_video_suggest_the_closest_name(fault, tmp_path, out, clip, nano_weights):
    videos = [{"id": n, "name": name, "width": 64, "height": 64} for n, name in enumerate(("clop", "other"))]
    table = {"videos": videos, "images": [], "annotations": [], "categories": [{"id": 1, "name": "target"}]}
    (tmp_path / "gt.json").write_text(str(table).replace("'", '"'))
    line = fault(2, "--video", clip, "--weights", nano_weights, "--annotations", tmp_path / "gt.json")
    assert "no video named 'clip'" in line
    assert "clop" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("This is not JSON.", "are not JSON"),
        ("[]", "are not COCO ground truth: no annotations, categories, images"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "have no 'videos'"),
        (
            '{"images": [], "annotations": [], "categories": [], "videos": [{}]}',
            "videos[0] has no valid 'id'",
        ),
        ('{"images": [{}], "annotations": [], "categories": []}', "images[0] has no valid 'id'"),
    ],
    ids=["text", "list", "no videos", "empty video", "empty image"],
)
def test_annotations_in_another_format_are_refused(fault, tmp_path, out, clip, nano_weights, text, message):
    (tmp_path / "gt.json").write_text(text)
    line = fault(2, "--video", clip, "--weights", nano_weights, "--annotations", tmp_path / "gt.json")
    assert message in line
    assert not out.exists()


def test_annotations_of_another_size_are_refused(fault, tmp_path, clip, nano_weights):
    text = clip.with_suffix(".json").read_text().replace('"width":64', '"width":128')
    (tmp_path / "gt.json").write_text(text)
    line = fault(2, "--video", clip, "--weights", nano_weights, "--annotations", tmp_path / "gt.json")
    assert "is 64x64, annotated as 128x64" in line
