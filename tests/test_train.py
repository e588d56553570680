"""The trainer learns, stops and goes on, and follows its schedule."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import detectors
from datasets import synthetic
from datasets.clips import read_sequence
from datasets.records import load_coco, video_records
from datasets.scene import Scene
from detectors import measure, train, trainer
from detectors.publish import main as publish_main
from detectors.publish import publish
from detectors.recipe import Recipe, Schedule
from detectors.weights import read_state_dict
from pipeline.errors import UsageError
from pipeline.settings import build

SMALL = {
    "model.name": "tridos-nano",
    "data.train": "clip.json",
    "data.val": "clip.json",
    "data.synthetic_videos": 1,
    "data.synthetic_frames": 6,
    "schedule.batch": 2,
    "schedule.crop": [64, 64],
    "schedule.whole_share": 0.5,
    "schedule.warmup": 2,
    "schedule.precision": "fp32",
    "record.save_every": 2,
    "record.measure_every": 100,
    "record.measure_stride": 6,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set of one synthetic clip of 12 frames of 96x64."""
    folder = tmp_path_factory.mktemp("data")
    synthetic.write(Scene.random(3, width=96, height=64, frames=12), folder / "clip.mp4")
    return folder


def run(root, output, steps, **more):
    """Train with the small recipe; returns the exit code."""
    config = root / "recipe.toml"
    config.write_text("")
    places = {"data.root": str(root), "record.output": str(output)}
    settings = {**SMALL, **places, "schedule.steps": steps, **more}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return train.main([str(config), "--device", "cpu", *arguments])


def rows(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def losses(output):
    return [row["loss"] for row in rows(output)]


def complaint(capsys):
    """The one line on standard error, without its head."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def test_a_stopped_run_goes_on_exactly(root, tmp_path, monkeypatch):
    assert run(root, tmp_path / "whole", 4) == 0

    step = trainer.Trainer._train_step

    def killed_at_the_third(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(trainer.Trainer, "_train_step", killed_at_the_third)
    assert run(root, tmp_path / "halves", 4) == 130
    monkeypatch.undo()
    assert len(rows(tmp_path / "halves")) == 3
    with (tmp_path / "halves" / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')  # as a process that is killed leaves it
    assert run(root, tmp_path / "halves", 4) == 0

    # the third step was lost with the process, and is done and logged again
    assert [row["step"] for row in rows(tmp_path / "halves")] == [1, 2, 3, 4]
    assert losses(tmp_path / "halves") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "halves")]
    for name, value in states[0]["average"].items():
        torch.testing.assert_close(states[1]["average"][name], value, rtol=1e-4, atol=1e-6)


def test_one_batch_is_learned(root, tmp_path, monkeypatch):
    one_batch = the_same_batch(trainer.ClipSampler._draw)
    monkeypatch.setattr(trainer.ClipSampler, "batch", lambda self, number, **how: one_batch(self, **how))
    assert run(root, tmp_path, 45, **{"schedule.rate": 3e-3, "schedule.whole_share": 0.0}) == 0
    assert losses(tmp_path)[-1] < 0.5 * losses(tmp_path)[0]


def the_same_batch(draw):
    """Clips with targets, drawn at the first call and given again at each later one."""
    kept = []

    def batch(sampler, *, size, crop_size):
        if not kept:
            rng = np.random.default_rng(5)
            while len(kept) < size:
                clip = draw(sampler, rng, crop_size)
                if len(clip.boxes):
                    kept.append(clip)
        return kept

    return batch


def test_the_rate_rises_then_falls_along_a_cosine():
    schedule = Schedule(steps=101, warmup=10, rate=1.0, final_rate=0.1)
    rates = [trainer.learning_rate(step, schedule) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert all(earlier >= later for earlier, later in itertools.pairwise(rates[10:]))


def test_an_average_follows_and_leaves_counters_alone():
    model = torch.nn.BatchNorm1d(2)
    average = trainer.Average(model, decay=0.5)
    model.weight.data.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    for _ in range(3000):
        average.update(model)
    assert average.state["weight"] == pytest.approx(torch.full((2,), 3.0))
    assert average.state["num_batches_tracked"] == 0


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run(root, folder, 2) == 0
    return folder


def test_weights_are_measured_and_published_from_a_run(root, trained, tmp_path, capsys):
    best = trained / "best.safetensors"
    arguments = [str(best), "--root", str(root), "--annotations", "clip.json", "--stride", "4"]
    assert measure.main([*arguments, "--device", "cpu"]) == 0
    assert "frames         3" in capsys.readouterr().out
    published = publish(trained, "ours", zoo=tmp_path)
    assert read_state_dict(published)["head.obj_preds.0.weight"].dtype == torch.float16
    assert published.stat().st_size < 0.6 * best.stat().st_size


# Measuring


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_mode_of_the_network_as_it_was(root, training):
    network = detectors.build("tridos-nano").train(training)
    truth = load_coco(root / "clip.json")
    records = video_records(truth)
    sequences = [read_sequence(record, root) for record in records]
    measure.measure(network, records, sequences, truth, stride=12)
    assert network.training == training


def test_frames_that_are_not_annotated_are_not_measured(root, trained, tmp_path, capsys):
    truth = json.loads((root / "clip.json").read_text())
    gone = truth["images"].pop(4)["id"]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] != gone]
    (tmp_path / "gaps.json").write_text(json.dumps(truth))
    arguments = [str(trained / "best.safetensors"), "--root", str(root), "--device", "cpu"]
    assert measure.main([*arguments, "--annotations", str(tmp_path / "gaps.json"), "--stride", "4"]) == 0
    assert "frames         2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--stride", "0"], 2, "--stride: '0', expected a whole number of 1 or more"),
        (["--stride", "few"], 2, "--stride: 'few', expected a whole number"),
        (["--device", "foo"], 2, "unknown device 'foo'"),
        (["--annotations", "nothing.json"], 2, "cannot read annotations"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_measuring_is_one_line(root, trained, capsys, arguments, code, message):
    best = str(trained / "best.safetensors")
    assert measure.main([best, "--root", str(root), *arguments]) == code
    assert message in complaint(capsys)


def test_weights_that_are_not_of_a_training_run_are_not_published(tmp_path, capsys):
    state = {"a": torch.zeros(1)}
    save_file(state, tmp_path / "best.safetensors", metadata={"format": "pt"})
    assert publish_main([str(tmp_path), "ours"]) == 4
    assert "is not of a training run" in complaint(capsys)


# Going on with what is no checkpoint of this run


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schedule.batch": 4}, "schedule.batch = 2, not 4"),
        ({"schedule.steps": 3}, "schedule.steps = 2, not 3"),
        ({"model.options.num_classes": 2}, "model.options.num_classes = None, not 2"),
        ({"data.synthetic_share": 0.5}, "data.synthetic_share = 0.2, not 0.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_checkpoint_of_another_recipe_is_refused_with_what_differs(root, trained, capsys, changes, named):
    before = (trained / "last.pt").read_bytes(), (trained / "log.jsonl").read_bytes()
    assert run(root, trained, changes.pop("schedule.steps", 2), **changes) == 2
    said = complaint(capsys)
    assert f"last.pt was made with {named}" in said
    assert "choose another record.output" in said
    assert ((trained / "last.pt").read_bytes(), (trained / "log.jsonl").read_bytes()) == before


def test_what_a_run_leaves_behind_may_change_when_it_goes_on(root, trained):
    assert run(root, trained, 2, **{"record.log_every": 1, "record.save_every": 1}) == 0
    assert [row["step"] for row in rows(trained)] == [1, 2]


def cut(path, whole):
    path.write_bytes(whole[: len(whole) // 2])


def text(path, whole):
    path.write_text("not a checkpoint")


def foreign(path, whole):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, path)


def a_list(path, whole):
    torch.save([1, 2], path)


def a_folder(path, whole):
    path.mkdir()


@pytest.mark.parametrize("make", [cut, text, foreign, a_list, a_folder])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(root, trained, tmp_path, capsys, make):
    make(tmp_path / "last.pt", (trained / "last.pt").read_bytes())
    assert run(root, tmp_path, 2) == 4
    said = complaint(capsys)
    assert f"{tmp_path / 'last.pt'} is damaged or not a checkpoint" in said
    assert "record.output" in said


# Mistakes


def test_a_recipe_that_makes_no_sense_is_refused(root, tmp_path, capsys):
    assert run(root, tmp_path, 2, **{"schedule.precision": "int3"}) == 2
    assert "'int3', expected one of fp32, bf16" in complaint(capsys)
    assert run(root, tmp_path, 2, **{"data.train": "nothing.json"}) == 2
    assert run(root, tmp_path, 2, **{"schedule.stepz": 3}) == 2
    assert "did you mean 'schedule.steps'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *((f"record.{name}_every", 0, "1 or more") for name in ("measure", "save", "log")),
        ("record.measure_stride", 0, "1 or more"),
        ("record.output", "", "a folder"),
        ("schedule.steps", 0, "1 or more"),
        ("schedule.batch", 0, "1 or more"),
        ("schedule.warmup", -1, "0 or more"),
        ("schedule.seed", -1, "0 or more"),
        ("schedule.rate", float("nan"), "0 or more"),
        ("schedule.whole_share", 1.5, "0 to 1"),
        ("schedule.ema", -0.1, "0 to 1"),
        ("schedule.clip_norm", 0, "more than 0"),
        ("schedule.crop", [64, 50], "two multiples of 32"),
        ("schedule.crop", [0, 64], "two multiples of 32"),
        ("data.videos", -1, "0 or more"),
        ("data.synthetic_frames", 0, "1 or more"),
        ("data.synthetic_share", 2, "0 to 1"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(key, value, expected):
    section, name = key.split(".")
    with pytest.raises(UsageError) as error:
        build(Recipe, {section: {name: value}})
    assert f"configuration section '{section}': {name} " in str(error.value)
    assert f"expected {expected}" in str(error.value)


def test_an_unknown_device_is_refused(root, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text("")
    assert train.main([str(tmp_path / "recipe.toml"), "--device", "foo"]) == 2
    assert "unknown device 'foo'" in complaint(capsys)


def test_a_folder_that_cannot_be_made_is_an_output_error(root, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(root, tmp_path / "file" / "run", 2) == 5
    assert "Not a directory; choose another record.output" in complaint(capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": []}, "no 'videos'"),
        ({"images": []}, "annotated (0, 64, 96)"),
        ({"categories": []}, "'categories' is empty"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_annotations_without_content_are_refused(root, tmp_path, capsys, change, message):
    table = {**json.loads((root / "clip.json").read_text()), **change}
    if "images" in change:
        table["annotations"] = []
    (tmp_path / "empty.json").write_text(json.dumps(table))
    assert run(root, tmp_path, 2, **{"data.train": str(tmp_path / "empty.json")}) == 2
    assert message in complaint(capsys)


def test_more_classes_than_the_network_has_are_refused(root, tmp_path, capsys):
    table = json.loads((root / "clip.json").read_text())
    table["categories"].insert(0, {"id": 0, "name": "other"})
    (tmp_path / "two.json").write_text(json.dumps(table))
    more = {"data.train": str(tmp_path / "two.json"), "data.class_agnostic": False}
    assert run(root, tmp_path, 2, **more) == 2
    assert "the annotations have 2 classes, the network 1" in complaint(capsys)


def test_whole_frames_that_the_network_cannot_take_are_refused(tmp_path, capsys):
    synthetic.write(Scene.random(3, width=100, height=64, frames=4), tmp_path / "clip.mp4")
    assert run(tmp_path, tmp_path / "run", 1) == 2
    assert "the videos are 100x64; set schedule.whole_share=0" in complaint(capsys)
