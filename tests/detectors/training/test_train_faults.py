"""Invalid recipes, data, checkpoints and weights are reported in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import detectors
from datasets.sequences.clips import read_sequence
from detectors import evaluate, train
from detectors.evaluation import detection
from detectors.publish import main as publish_main
from detectors.publish import publish
from detectors.training import checkpoint
from detectors.training.data import batch_clips, training_clips
from detectors.training.detection_task import DetectionTask
from detectors.training.recipe import Recipe
from detectors.weights.state_dict import read_state_dict
from pipeline.config.parsing import build, load_toml
from pipeline.structures.annotations import video_records
from pipeline.structures.coco_tables import load_coco
from pipeline.system.errors import UsageError
from pipeline.system.signals import StopRequest
from tests.support.training_runs import complaint, run, steps, write_clip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run(root, folder, 2) == 0
    return folder


def test_weights_of_a_run_are_evaluated_and_published(root, trained, tmp_path, capsys):
    best = trained / "best.safetensors"
    arguments = [str(best), "--root", str(root), "--dataset", "coco-video", "--split", "clip.json"]
    assert evaluate.main([*arguments, "--stride", "6", "--device", "cpu"]) == 0
    assert "AP50" in capsys.readouterr().out
    published = publish(trained, "ours", zoo=tmp_path)
    assert read_state_dict(published)["head.obj_preds.0.weight"].dtype == torch.float16
    assert published.stat().st_size < 0.6 * best.stat().st_size


# Evaluation


@pytest.mark.parametrize("training", [True, False])
def test_an_evaluation_restores_the_training_mode(root, training):
    network = detectors.build("tridos-nano").train(training)
    truth = load_coco(root / "clip.json")
    records = video_records(truth)
    sequences = [read_sequence(record, root) for record in records]
    detection.evaluate_scores(network, records, sequences, truth, stride=12)
    assert network.training == training


def test_weights_that_are_not_of_a_training_run_are_not_published(tmp_path, capsys):
    state = {"a": torch.zeros(1)}
    save_file(state, tmp_path / "best.safetensors", metadata={"format": "pt"})
    assert publish_main([str(tmp_path), "ours"]) == 4
    assert "is not of a training run" in complaint(capsys)


# Invalid checkpoints


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schedule.batch": 4}, "schedule.batch = 2, not 4"),
        ({"schedule.steps": 3}, "schedule.steps = 2, not 3"),
        ({"model.options.num_classes": 2}, "model.options.num_classes = null, not 2"),
        ({"data.synthetic_share": 0.5}, "data.synthetic_share = 0.2, not 0.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_checkpoint_of_another_recipe_is_refused_naming_the_difference(
    root, trained, capsys, changes, named
):
    before = {path: path.read_bytes() for path in trained.iterdir()}
    assert run(root, trained, changes.pop("schedule.steps", 2), **changes) == 2
    said = complaint(capsys)
    assert f"last.pt was made with {named}" in said
    assert "choose another record.output" in said
    assert {path: path.read_bytes() for path in trained.iterdir()} == before


@pytest.fixture
def stopped(trained, tmp_path):
    """A copy of the run's folder, to resume in."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_output_settings_may_change_when_a_run_is_resumed(root, stopped):
    assert run(root, stopped, 2, **{"record.log_every": 1, "record.save_every": 1}) == 0
    assert [row["step"] for row in steps(stopped)] == [1, 2]


def test_data_may_be_moved_before_a_run_is_resumed(root, stopped, tmp_path, capsys):
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert run(moved, stopped, 2, **{"data.store": str(tmp_path / "frames")}) == 0
    assert f"resuming from step 2 of {stopped / 'last.pt'}" in capsys.readouterr().out


def test_a_key_that_a_checkpoint_lacks_has_its_default(root, stopped, capsys):
    state = torch.load(stopped / "last.pt", weights_only=True)
    del state["recipe"]["data"]["enlarge"], state["recipe"]["objective"]
    torch.save(state, stopped / "last.pt")
    assert run(root, stopped, 2) == 0
    assert run(root, stopped, 2, **{"data.enlarge": 2.0}) == 2
    assert "last.pt was made with data.enlarge = 1.0, not 2.0" in complaint(capsys)


def test_a_checkpoint_from_before_automatic_scaling_keeps_its_scaling(root, stopped):
    state = torch.load(stopped / "last.pt", weights_only=True)
    state["recipe"]["data"]["scaling"] = "full-range"
    torch.save(state, stopped / "last.pt")
    assert run(root, stopped, 3) == 2  # another number of steps is another recipe
    assert run(root, stopped, 2) == 0
    assert run(root, stopped, 2, **{"data.scaling": "percentile"}) == 2


def test_initial_weights_are_not_needed_to_resume(root, trained, tmp_path, capsys):
    start = {"model.init": str(shutil.copy(trained / "best.safetensors", tmp_path / "start.safetensors"))}
    assert run(root, tmp_path / "run", 1, **start) == 0
    (tmp_path / "start.safetensors").unlink()
    assert run(root, tmp_path / "run", 1, **start) == 0
    assert "resuming from step 1" in capsys.readouterr().out
    assert run(root, tmp_path / "other", 1, **start) == 4  # needed for a new run
    assert "start.safetensors" in complaint(capsys)


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
def test_an_invalid_checkpoint_is_refused_by_name(root, trained, tmp_path, capsys, make):
    make(tmp_path / "last.pt", (trained / "last.pt").read_bytes())
    assert run(root, tmp_path, 2) == 4
    said = complaint(capsys)
    assert f"{tmp_path / 'last.pt'} is damaged or not a checkpoint" in said
    assert "record.output" in said


@pytest.fixture(scope="module")
def saved_often(root, tmp_path_factory):
    """The folder of a run of three steps that saved each of them."""
    folder = tmp_path_factory.mktemp("often") / "run"
    assert run(root, folder, 3, **{"record.save_every": 1}) == 0
    return folder


def remove(path, whole):
    path.unlink()


@pytest.mark.parametrize("make", [cut, remove])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    root, saved_often, tmp_path, capsys, caplog, make
):
    folder = Path(shutil.copytree(saved_often, tmp_path / "run"))
    good = torch.load(folder / "last.pt", weights_only=True)
    kept = (folder / "previous.pt").read_bytes()
    assert torch.load(folder / "previous.pt", weights_only=True)["step"] == 2
    make(folder / "last.pt", (folder / "last.pt").read_bytes())
    assert run(root, folder, 3, **{"record.save_every": 1}) == 0
    assert f"resuming from step 2 of {folder / 'previous.pt'}" in capsys.readouterr().out
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{folder / 'last.pt'} is ")
    assert warning.endswith("the run goes on from previous.pt, the one before it")
    again = torch.load(folder / "last.pt", weights_only=True)
    assert again["step"] == 3
    torch.testing.assert_close(again["model"], good["model"], rtol=0, atol=0)
    assert (folder / "previous.pt").read_bytes() == kept  # not replaced by the damaged one


def test_two_damaged_checkpoints_are_refused(root, saved_often, tmp_path, capsys):
    folder = Path(shutil.copytree(saved_often, tmp_path / "run"))
    for name in ("last.pt", "previous.pt"):
        (folder / name).write_bytes(b"damaged")
    assert run(root, folder, 3, **{"record.save_every": 1}) == 4
    assert f"{folder / 'last.pt'} is damaged or not a checkpoint" in complaint(capsys)


def test_a_checkpoint_before_that_is_of_another_recipe_is_refused(root, saved_often, tmp_path, capsys):
    folder = Path(shutil.copytree(saved_often, tmp_path / "run"))
    assert run(root, folder, 4) == 2
    assert "last.pt was made with schedule.steps = 3, not 4" in complaint(capsys)


@pytest.mark.parametrize("links", [True, False])
def test_a_checkpoint_keeps_the_one_before_on_every_file_system(tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError("no links")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    for step in range(3):
        checkpoint.save({"step": step}, last, previous=previous)
    steps = [torch.load(path, weights_only=True)["step"] for path in (previous, last)]
    assert steps == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


# Values that are not finite


def test_a_batch_whose_loss_is_not_finite_ends_the_run_and_is_saved(root, tmp_path, capsys):
    """The rate is so large that the weights overflow in the second step."""
    assert run(root, tmp_path, 4, **{"schedule.rate": 1e30, "schedule.warmup": 0}) == 1
    kept_in = tmp_path / "bad_batch.pt"
    assert (
        complaint(capsys)
        == f"loss or gradient not finite at step 1; batch and weights are saved in {kept_in}"
    )
    assert [row["step"] for row in steps(tmp_path)] == [1]
    assert not (tmp_path / "last.pt").exists()

    kept = torch.load(kept_in, weights_only=True)
    recipe = build(Recipe, load_toml(tmp_path / "config.toml"))
    clips = batch_clips(training_clips(recipe, StopRequest(), frames=5, num_classes=1), recipe, 1, range(2))
    expected = DetectionTask().collate(clips, torch.device("cpu"))
    (batch,) = kept["batches"]
    torch.testing.assert_close(batch["frames"], expected.frames, rtol=0, atol=0)
    for name in ("boxes", "labels"):
        assert all(map(torch.equal, batch[name], getattr(expected, name)))
    network = detectors.build("tridos-nano").train()
    network.load_state_dict(kept["model"])  # the saved state reproduces the fault
    assert not network(batch["frames"]).isfinite().all()


# Invalid input


def test_an_invalid_recipe_is_refused(root, tmp_path, capsys):
    assert run(root, tmp_path, 2, **{"schedule.precision": "int3"}) == 2
    assert '"int3", expected one of fp32, bf16' in complaint(capsys)
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
        ("schedule.ema_ramp", -1, "0 or more"),
        ("schedule.rate_every", 0, "1 or more"),
        ("optimiser.accumulate", 0, "1 or more"),
        ("optimiser.betas", [0.9, 1.0], "two from 0 to less than 1"),
        ("optimiser.eps", -1, "0 or more"),
        ("data.letterbox", [64, 50], "two multiples of 32"),
        ("optimiser.clip_norm", 0, "more than 0"),
        ("schedule.crop", [64, 50], "two multiples of 32"),
        ("schedule.crop", [0, 64], "two multiples of 32"),
        ("data.videos", -1, "0 or more"),
        ("data.synthetic_frames", 0, "1 or more"),
        ("data.synthetic_share", 2, "0 to 1"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_with_the_allowed_range(key, value, expected):
    section, name = key.split(".")
    with pytest.raises(UsageError) as error:
        build(Recipe, {section: {name: value}})
    assert f"configuration section '{section}': {name} " in str(error.value)
    assert f"expected {expected}" in str(error.value)


def test_an_unknown_device_is_refused(root, tmp_path, capsys):
    (tmp_path / "recipe.toml").write_text("")
    assert train.main([str(tmp_path / "recipe.toml"), "--device", "foo"]) == 2
    assert "unknown device 'foo'" in complaint(capsys)


def test_a_folder_that_cannot_be_created_is_an_output_error(root, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(root, tmp_path / "file" / "run", 2) == 5
    assert "Not a directory; choose another record.output" in complaint(capsys)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"videos": []}, 3, "clip/000000 cannot be read"),  # without videos, each image is a file
        ({"images": []}, 2, "annotated (0, 64, 96)"),
        ({"categories": []}, 2, "'categories' is empty"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_annotations_without_content_are_refused(root, tmp_path, capsys, change, code, message):
    table = {**json.loads((root / "clip.json").read_text()), **change}
    if "images" in change:
        table["annotations"] = []
    (tmp_path / "empty.json").write_text(json.dumps(table))
    assert run(root, tmp_path, 2, **{"data.train": str(tmp_path / "empty.json")}) == code
    assert message in complaint(capsys)


def test_more_classes_than_the_network_has_are_refused(root, tmp_path, capsys):
    table = json.loads((root / "clip.json").read_text())
    table["categories"].insert(0, {"id": 0, "name": "other"})
    (tmp_path / "two.json").write_text(json.dumps(table))
    more = {"data.train": str(tmp_path / "two.json"), "data.class_agnostic": False}
    assert run(root, tmp_path, 2, **more) == 2
    assert "the annotations have 2 classes, the network 1" in complaint(capsys)


def test_whole_frames_that_the_network_cannot_take_are_refused(tmp_path, capsys):
    write_clip(tmp_path, width=100, frames=4)
    assert run(tmp_path, tmp_path / "run", 1) == 2
    assert "the videos are 100x64; set data.letterbox, or schedule.whole_share=0" in complaint(capsys)
