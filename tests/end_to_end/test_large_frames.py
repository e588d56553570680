"""A run takes the next thing that works if whole frames do not fit the memory; tiles and regions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from detectors.inference import cost, sizing
from detectors.inference.sizing import Sizing
from pipeline.config.schema import DetectorConfig
from pipeline.structures.frame import SourceInfo
from tests.support.media import grey_frames, write_video
from tests.support.outputs import check_consistent, detections, lines, report

SIZE = 192, 128
INFO = SourceInfo("in.avi", *SIZE, Fraction(30), 3, 8, 1)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Three frames of 192x128."""
    path = tmp_path_factory.mktemp("recording") / "in.avi"
    write_video(path, grey_frames(3, SIZE[1], SIZE[0]), codec="ffv1", pixel_format="gray")
    return path


@pytest.fixture
def machine(monkeypatch):
    """Sets the available memory to a multiple of the estimate for a form of the network on whole frames."""
    monkeypatch.setattr(cost, "PROCESS", 0.0)
    monkeypatch.setattr(cost, "PIXEL", 0.0)
    monkeypatch.setattr(cost, "FRAMES", 0)
    monkeypatch.setattr(sizing, "TILES", ((64, 64),))
    monkeypatch.setattr(sizing, "LARGE", 0)
    monkeypatch.setattr(sizing.memory, "resident_memory", lambda: 0)

    def set_memory(times, form):
        choice = Sizing(DetectorConfig(), width=0.25, enlarge=1.0, graph=True, sources=[INFO])
        memory = choice.estimate(DetectorConfig(), form).memory * times / sizing.SHARE
        monkeypatch.setattr(sizing.memory, "available_memory", lambda: int(memory))

    return set_memory


@pytest.fixture
def run(mote, recording, nano_weights, tmp_path):
    """Runs the command on the recording; returns the reply and the folder."""

    def call(*arguments):
        out = tmp_path / "out"
        fixed = ("--weights", nano_weights, "--output", out, "--overwrite", "--progress", "off")
        return mote("--video", recording, *fixed, *arguments), out

    return call


def test_a_run_without_the_memory_for_graphs_takes_torch_and_says_so(run, machine, caplog):
    machine(1.1, "torch")
    reply, out = run()
    assert reply.code == 0, reply
    assert report(out)["config"]["detector"]["backend"] == "torch"
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("frames of 192x128: whole frames would need about")
    assert "using torch" in said
    assert "frames/s" in said


def test_a_run_without_the_memory_for_whole_frames_takes_tiles_and_says_so(run, machine, caplog):
    machine(0.7, "torch")
    reply, out = run("--tile-overlap", "16")
    assert reply.code == 0, reply
    assert check_consistent(out) == 3
    assert report(out)["config"]["detector"]["tile"] == "64x64"
    assert report(out)["detector"]["tile"] == "64x64"
    (said,) = [record.message for record in caplog.records if "exported" not in record.message]
    assert "using tiles of 64x64" in said


@pytest.mark.parametrize("arguments", [(), ("--tile", "none"), ("--tile", "128x128", "--backend", "torch")])
def test_a_run_that_fits_in_no_way_ends_with_code_2_and_a_remedy(run, machine, arguments):
    machine(0.01, "torch")
    reply, out = run(*arguments)
    assert reply.code == 2
    (line,) = reply.err.splitlines()
    assert "frames of 192x128: the detector needs about" in line
    assert "are available; give --" in line
    assert not out.exists()


def test_tiles_and_regions_by_the_command(run):
    reply, out = run("--tile", "96x96", "--tile-overlap", "32", "--roi", "0,0,1.0,0.75", "--backend", "torch")
    assert reply.code == 0, reply
    assert check_consistent(out) == 3
    config = report(out)["config"]["detector"]
    assert (config["tile"], config["tile_overlap"], config["roi"]) == ("96x96", 32, ["0,0,1.0,0.75"])
    boxes = np.array([row["bbox"] for row in detections(out)])
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    assert len(centres)
    assert centres[:, 1].max() < 96
    assert centres[:, 0].max() > 96
    assert [line["warmup"] for line in lines(out)] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tile", "16x640"], "--tile '16x640', expected sides of 32 pixels or more"),
        (["--tile", "640"], "--tile '640', expected auto, none or WxH such as 640x512"),
        (["--tile", "64x64"], "--tile '64x64', expected sides of 128 pixels or more, twice the overlap"),
        (["--tile", "64x64", "--tile-overlap", "-1"], "--tile-overlap -1, expected 0 pixels or more"),
        (["--roi", "1,2,3"], "expected X,Y,W,H, or three or more corners"),
        (["--roi", "500,0,9,9"], "--roi 500,0,9,9 lies outside of the frames, which have 192x128 pixels"),
        (["--tile", "64x64", "--tile-overlap", "8", "--detector", "rdian"], "detectors that predict boxes"),
        (["--max-rate", "5"], "--max-rate 5 has no effect on"),
        (["--set", "live.max_rate=-1"], "expected frames per second, or 0 for all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_in_one_line(run, arguments, message):
    reply, _ = run(*arguments)
    assert reply.code == 2
    (line,) = reply.err.splitlines()
    assert message in line
