"""The trainer trains, stops, resumes exactly, and reports its progress."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from dataclasses import asdict

import cv2
import pytest
import torch

from datasets.augmentation.sampler import ClipSampler
from detectors import train
from detectors.training import detection_task
from detectors.training.detection_task import DetectionTask
from detectors.training.recipe import Recipe
from pipeline.config.parsing import build, load_toml
from tests.support.training_runs import (
    SMALL,
    before_each_step,
    complaint,
    kill_at,
    losses,
    rows,
    run,
    steps,
    write_clip,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("data"))


# Stopping and resuming


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """The folder of an uninterrupted run of four steps."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(root, folder, 4) == 0
    return folder


def check_alike(folder, whole):
    """Checks that an interrupted run has the same steps, losses and weights as an uninterrupted one."""
    assert [row["step"] for row in steps(folder)] == [1, 2, 3, 4]
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-5)
    states = [torch.load(path / "last.pt", weights_only=True) for path in (whole, folder)]
    for name, value in states[0]["average"].items():
        torch.testing.assert_close(states[1]["average"][name], value, rtol=1e-4, atol=1e-6)


def test_a_killed_run_resumes_exactly(root, whole, tmp_path, monkeypatch):
    kill_at(3, monkeypatch)
    assert run(root, tmp_path, 4) == 130
    monkeypatch.undo()
    assert len(rows(tmp_path)) == 3
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # a line that a killed process has left incomplete
    # the third step was lost with the process and is repeated
    assert run(root, tmp_path, 4) == 0
    check_alike(tmp_path, whole)


def signal_in_step(number, step, monkeypatch):
    """Sends a signal to this process during a step."""

    def interrupted(trainer):
        if trainer.steps_done == step - 1:
            os.kill(os.getpid(), number)

    before_each_step(monkeypatch, interrupted)


def test_a_terminated_run_completes_its_step_and_resumes_exactly(root, whole, tmp_path, monkeypatch, capsys):
    signal_in_step(signal.SIGTERM, 3, monkeypatch)
    more = {"record.save_every": 100}
    assert run(root, tmp_path, 4, **more) == 143
    expected = "interrupted by SIGTERM; step 3 is saved; run the same command to resume"
    assert complaint(capsys) == expected
    assert (tmp_path / "curves.png").exists()
    monkeypatch.undo()
    assert run(root, tmp_path, 4, **more) == 0
    assert f"resuming from step 3 of {tmp_path / 'last.pt'}" in capsys.readouterr().out
    check_alike(tmp_path, whole)


def test_ctrl_c_stops_a_run_after_the_current_step(root, tmp_path, monkeypatch, capsys):
    signal_in_step(signal.SIGINT, 1, monkeypatch)
    assert run(root, tmp_path, 4) == 130
    assert complaint(capsys).startswith("interrupted by SIGINT; step 1 is saved")
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 1


def test_an_interrupted_validation_is_repeated_when_the_run_is_resumed(root, tmp_path, monkeypatch):
    evaluate_scores = detection_task.evaluate_scores

    def interrupted(model, records, sequences, truth, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate_scores(model, records, sequences, truth, **options)

    monkeypatch.setattr(detection_task, "evaluate_scores", interrupted)
    assert run(root, tmp_path, 2) == 143
    monkeypatch.undo()
    assert not any("val" in row for row in rows(tmp_path))
    assert not (tmp_path / "best.safetensors").exists()
    assert run(root, tmp_path, 2) == 0
    assert [row["step"] for row in rows(tmp_path) if "val" in row] == [2]
    assert (tmp_path / "best.safetensors").exists()


def test_a_loss_that_is_not_finite_ends_the_run_and_saves_the_batch(root, tmp_path, monkeypatch, capsys):
    loss = DetectionTask.loss

    def spoilt_at_the_third(self, raw, batch, group):
        total, terms = loss(self, raw, batch, group)
        if (tmp_path / "last.pt").exists():  # written after the second step
            total, terms = total * math.nan, [math.nan] * len(terms)
        return total, terms

    monkeypatch.setattr(DetectionTask, "loss", spoilt_at_the_third)
    assert run(root, tmp_path, 4) == 1
    assert f"not finite at step 2; batch and weights are saved in {tmp_path / 'bad_batch.pt'}" in complaint(
        capsys
    )
    kept = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    (batch,) = kept["batches"]
    assert kept["step"] == 2
    assert batch["frames"].shape == (2, 3, 5, 64, 96)  # of the second half, with whole frames
    assert len(batch["boxes"]) == len(batch["labels"]) == 2
    assert all(value.isfinite().all() for value in kept["model"].values())


# Training


def test_one_batch_can_be_overfitted(root, tmp_path, monkeypatch):
    one_batch = the_same_clips(ClipSampler.clip)
    monkeypatch.setattr(ClipSampler, "clip", one_batch)
    assert run(root, tmp_path, 30, **{"schedule.rate": 3e-3, "schedule.whole_share": 0.0}) == 0
    assert losses(tmp_path)[-1] < 0.5 * losses(tmp_path)[0]


def the_same_clips(draw):
    """Returns a `ClipSampler.clip` that gives the same clips, with targets, in every batch."""
    kept = {}

    def clip(sampler, number, place, *, crop_size):
        while place not in kept:
            number += 1
            found = draw(sampler, number, place, crop_size=crop_size)
            if len(found.boxes):
                kept[place] = found
        return kept[place]

    return clip


def test_gradients_of_several_batches_are_averaged(root, tmp_path, monkeypatch):
    """The mean over four equal batches is that of the batch."""
    monkeypatch.setattr(ClipSampler, "clip", the_same_clips(ClipSampler.clip))
    for name, batches in (("one", 1), ("four", 4)):
        more = {"optimiser.accumulate": batches, "optimiser.eps": 0.01, "schedule.whole_share": 0.0}
        assert run(root, tmp_path / name, 1, **more) == 0
    (one,), (four,) = steps(tmp_path / "one"), steps(tmp_path / "four")
    assert (four["loss"], four["norm"]) == pytest.approx((one["loss"], one["norm"]), rel=1e-4)


def test_frames_are_letterboxed_for_training_and_validation(tmp_path):
    write_clip(tmp_path, width=100, height=60, frames=8)
    more = {"data.letterbox": [128, 128], "schedule.whole_share": 1.0}
    assert run(tmp_path, tmp_path / "run", 1, **more) == 0
    assert rows(tmp_path / "run")[-1]["val"]["frames"] == 2


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run(root, folder, 2) == 0
    return folder


# Outputs


def test_a_run_writes_its_configuration_logs_curves_and_weights(trained):
    files = ["best.safetensors", "config.toml", "curves.png", "events.out.tfevents.00000000.mote", "last.pt"]
    assert sorted(path.name for path in trained.iterdir()) == sorted([*files, "log.csv", "log.jsonl"])
    recipe = build(Recipe, load_toml(trained / "config.toml"))
    assert asdict(recipe) == torch.load(trained / "last.pt", weights_only=True)["recipe"]


def test_a_run_prints_its_progress_and_the_path_of_its_results(root, tmp_path, capsys):
    assert run(root, tmp_path, 2, **{"record.log_every": 1}) == 0
    best = tmp_path / "best.safetensors"
    first, second, measured, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"step 1/2: loss \S+, ciou \S+, objectness \S+, classes \S+, \S+ s/step, 0:\d\d left", first
    )
    assert second.startswith("step 2/2: ")
    assert re.fullmatch(r"step 2: validation AP50 0\.\d+, best F1 0\.\d+", measured)
    assert re.fullmatch(
        rf"2 steps in 0:\d\d; best weights: AP50 0\.\d+ at step 2, {re.escape(str(best))}", last
    )


def test_a_key_that_is_in_one_section_only_needs_no_section(root, tmp_path):
    (tmp_path / "recipe.toml").write_text("")
    settings = {**SMALL, "data.root": str(root), "record.output": str(tmp_path / "run")}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    assert train.main([str(tmp_path / "recipe.toml"), "--device", "cpu", *arguments, "--set", "steps=1"]) == 0
    assert len(steps(tmp_path / "run")) == 1


def test_a_contact_sheet_has_crops_and_whole_frames_and_nothing_is_trained(root, tmp_path, capsys):
    sheet = tmp_path / "out.png"
    assert run(root, tmp_path / "run", 2, options=["--show-batch", str(sheet)]) == 0
    assert "4 clips of 5 frames" in capsys.readouterr().out
    height, width, _ = cv2.imread(str(sheet)).shape
    assert width > 5 * 96
    assert height > 4 * 64
    assert not (tmp_path / "run").exists()


def test_a_contact_sheet_that_cannot_be_written_is_an_output_error(root, tmp_path, capsys):
    sheet = tmp_path / "no" / "out.png"
    assert run(root, tmp_path / "run", 2, options=["--show-batch", str(sheet)]) == 5
    assert f"cannot write {sheet}: No such file or directory; choose another" in complaint(capsys)
