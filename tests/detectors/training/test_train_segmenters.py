"""The trainer trains segmenters from masks, with the network's own loss or the shared one."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import detectors
from datasets.augmentation.sampler import ClipSampler
from datasets.sequences.clips import Clip
from detectors import evaluate
from detectors.evaluate import main as measure_main
from detectors.inference.probability_maps import ProbabilityMaps
from detectors.networks.segmenters.edge_saliency import edge_images
from detectors.publish import publish
from detectors.training.distributed import ProcessGroup
from detectors.training.optimisation import build_optimiser
from detectors.training.recipe import Recipe
from detectors.training.segmentation_task import SegmentationTask, focal_loss_per_target_pixel
from detectors.training.tasks import task_for
from detectors.training.trainer import seed_step
from detectors.weights.restore import restore_network
from pipeline.config.parsing import build
from tests.support.training_runs import (
    complaint,
    kill_at,
    losses,
    rows,
    run,
    run_segmenter,
    write_clip,
    write_masks,
)

SMALLEST = {
    "rdian": {"schedule.crop": [32, 32]},
    "madnet": {"schedule.crop": [256, 256], "model.options.dim": 1},
    "datransnet": {"schedule.crop": [32, 32]},
    "dconet": {"schedule.crop": [32, 32], "model.options.stage_num": 2},
    "drtenet": {"schedule.crop": [32, 32], "model.options.ori_h": 32},
    "dstransnet": {"schedule.crop": [32, 32]},
}
"""Options of each network with the fastest steps."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_masks(tmp_path_factory.mktemp("data"))


def smallest(name) -> tuple[torch.nn.Module, Recipe]:
    """Returns a segmenter with fresh weights and a recipe that fits it."""
    table = {"model": {"name": name, "options": {}}, "data": {"synthetic_share": 0.0}}
    table["schedule"] = {"whole_share": 0.0, "crop": SMALLEST[name]["schedule.crop"]}
    for key, value in SMALLEST[name].items():
        if key.startswith("model.options."):
            table["model"]["options"][key.removeprefix("model.options.")] = value
    torch.manual_seed(0)
    return detectors.build(name, **table["model"]["options"]), build(Recipe, table)


def with_loss(recipe: Recipe, kind: str) -> Recipe:
    return replace(recipe, objective=replace(recipe.objective, kind=kind))


def clips(recipe: Recipe, count: int = 2) -> list[Clip]:
    """Returns clips of noise with a bright square each."""
    chance, (width, height), made = np.random.default_rng(1), recipe.schedule.crop, []
    for number in range(count):
        frames = chance.integers(0, 60, (1, height, width), np.uint8)
        mask = np.zeros((height, width), bool)
        mask[5 + number : 9 + number, 7:12] = True
        frames[0][mask] = 230
        box = np.array([[7, 5 + number, 12, 9 + number]], np.float32)
        made.append(Clip(frames, box, np.zeros(1, np.int64), mask))
    return made


# Loss and training


@pytest.mark.parametrize("name", SMALLEST)
def test_a_batch_can_be_overfitted_with_the_network_s_own_loss(name):
    model, recipe = smallest(name)
    objective, optimiser = task_for(model, recipe), build_optimiser(model, recipe.optimiser, rate=1e-3)
    batch = objective.collate(clips(recipe), torch.device("cpu"))
    found = []
    for _ in range(4):
        loss, terms = objective.loss(model(*batch.inputs), batch, ProcessGroup())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(terms)
    assert objective.terms == ("loss",)
    assert min(found[1:]) < found[0]


def test_the_trainer_learns_the_targets_of_a_dataset(root, tmp_path, monkeypatch):
    """With the shared loss, always the same batch, and without averaging of weights."""
    draw = ClipSampler.clip

    def same(sampler, number, place, *, crop_size):
        return draw(sampler, 0, place, crop_size=crop_size)

    monkeypatch.setattr(ClipSampler, "clip", same)
    more = {
        "objective.kind": "soft-iou-focal",
        "schedule.rate": 0.01,
        "schedule.ema": 0.0,
        "schedule.batch": 4,
    }
    assert run_segmenter("rdian", root, tmp_path, 40, **more, **{"record.save_every": 100}) == 0
    assert losses(tmp_path)[-1] < 0.5 * losses(tmp_path)[0]
    val = rows(tmp_path)[-1]["val"]
    assert val["iou"] > 0.3
    assert (val["targets"], val["images"]) == (4, 4)


@pytest.mark.parametrize("name", SMALLEST)
def test_the_shared_loss_uses_the_logits_of_all_supervised_maps(name):
    model, recipe = smallest(name)
    objective = SegmentationTask(model, with_loss(recipe, "soft-iou-focal"))
    batch = objective.collate(clips(recipe), torch.device("cpu"))
    outputs = model(*batch.inputs)
    maps = model.logits(outputs)
    assert {tuple(z.shape) for z in maps} == {tuple(batch.masks.shape)}
    assert len(maps) == {"madnet": 6, "drtenet": 6, "dstransnet": 6}.get(name, 1)
    loss, terms = objective.loss(outputs, batch, ProcessGroup())
    assert objective.terms == ("loss", "soft_iou", "focal")
    with torch.no_grad():
        beside = float(model.reconstruction_loss(outputs, batch.inputs[0]))
    assert (beside > 0) == (name == "dconet")
    assert terms[0] == pytest.approx(terms[1] + terms[2] + beside, rel=1e-5)
    loss.backward()
    model.eval()
    with torch.no_grad():
        last = model.logits(model(*batch.inputs))[-1]
        torch.testing.assert_close(last, model.prediction(*batch.inputs), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SMALLEST)
def test_fresh_weights_predict_the_prior_in_every_map(name):
    model, recipe = smallest(name)
    model.set_prior(0.01)
    batch = SegmentationTask(model, recipe).collate(clips(recipe), torch.device("cpu"))
    with torch.no_grad():
        maps = model.logits(model(*batch.inputs))
    for logits in maps:
        assert 0.0005 < torch.sigmoid(logits).mean() < 0.04


def test_the_focal_loss_is_divided_by_the_area_of_the_targets():
    """For logits of 0 a target pixel costs 0.25 · 0.25 · ln 2, another one 0.75 · 0.25 · ln 2."""
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, 0, :4, :5] = 1  # 20 pixels; the other image has none, for which the lower bound of 10 is used
    expected = np.log(2) / 16 * ((20 + 3 * 44) / 20 + 3 * 64 / 10) / 2
    assert focal_loss_per_target_pixel(torch.zeros(2, 1, 8, 8), masks).item() == pytest.approx(
        expected, rel=1e-6
    )


def test_parts_of_a_batch_add_up_to_the_loss_of_the_whole():
    class World2(ProcessGroup):
        def all_gather(self, values, device):
            return torch.tensor([[2.0], [1.0]])

    model, recipe = smallest("rdian")
    model.eval()  # synchronised batch norms are tested elsewhere
    objective = SegmentationTask(model, with_loss(recipe, "soft-iou-focal"))
    three = clips(recipe, 3)
    terms = []
    for part, group in ((three, ProcessGroup()), (three[:2], World2()), (three[2:], World2())):
        batch = objective.collate(part, torch.device("cpu"))
        terms.append(objective.loss(model(*batch.inputs), batch, group)[1])
    assert np.add(terms[1], terms[2]) == pytest.approx(terms[0], rel=1e-5)


def test_edge_images_are_those_of_the_augmented_image():
    model, recipe = smallest("drtenet")
    batch = SegmentationTask(model, recipe).collate(clips(recipe), torch.device("cpu"))
    pictures = np.stack([clip.frames[-1] for clip in clips(recipe)]).astype(np.float32) / 255
    frames, edges = batch.inputs
    torch.testing.assert_close(edges, edge_images(list(pictures)))
    torch.testing.assert_close(frames, model.normalise(torch.from_numpy(pictures)[:, None]))
    assert batch.masks.sum() == 2 * 4 * 5


# Resuming


@pytest.mark.parametrize("name", ["rdian", "madnet"])  # dropout; stochastic depth
def test_a_network_with_random_layers_resumes_exactly(name, root, tmp_path, monkeypatch):
    more = {**SMALLEST[name], "schedule.rate": 1e-2, "record.measure_every": 2}
    assert run_segmenter(name, root, tmp_path / "whole", 4, **more) == 0
    kill_at(3, monkeypatch)
    assert run_segmenter(name, root, tmp_path / "parts", 4, **more) == 130
    monkeypatch.undo()
    torch.rand(17)  # changes the random state
    assert run_segmenter(name, root, tmp_path / "parts", 4, **more) == 0
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    states = [torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("whole", "parts")]
    assert all(torch.equal(value, states[1]["model"][key]) for key, value in states[0]["model"].items())


def test_each_step_and_each_process_has_its_own_random_numbers():
    drawn = []
    for step, rank, seed in ((0, 0, 5), (0, 0, 5), (1, 0, 5), (0, 1, 5), (0, 0, 6)):
        seed_step(seed, step, rank)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


# Outputs


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """The folder of a run of two steps with the shared loss."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    more = {"objective.kind": "soft-iou-focal", "optimiser.name": "adagrad"}
    assert run_segmenter("rdian", root, folder, 2, **more) == 0
    return folder


def test_log_csv_has_the_scores_of_masks(trained):
    table = list(csv.DictReader((trained / "log.csv").open(newline="")))
    assert {"loss", "soft_iou", "focal", "val_iou", "val_niou", "val_f1", "val_pd", "val_fa"} <= set(table[0])
    assert float(table[-1]["val_iou"]) == rows(trained)[-1]["val"]["iou"]
    assert cv2.imread(str(trained / "curves.png")).std() > 5


def test_weights_are_evaluated_with_every_definition(root, trained, tmp_path, capsys):
    arguments = ["--detector", "rdian", "--dataset", "masks", "--root", str(root), "--split", "all.txt"]
    places = ["--output", str(tmp_path / "numbers.json"), "--plots", str(tmp_path), "--device", "cpu"]
    best = str(trained / "best.safetensors")
    assert measure_main([best, *arguments, *places]) == 0
    printed = capsys.readouterr().out
    assert "nIoU" in printed
    assert "images 4 (0 without targets), targets 4" in printed
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["iou"] == pytest.approx(rows(trained)[-1]["val"]["iou"])
    assert {"default", "rdian"} <= set(numbers["definitions"])
    assert list(tmp_path.glob("*.png"))
    assert measure_main([best, *arguments, *places[:2], "--threshold", "0", "--device", "cpu"]) == 0
    everything = json.loads((tmp_path / "numbers.json").read_text())
    assert (everything["recall"], everything["iou"]) == (1, pytest.approx(12 / (40 * 36)))


def test_flip_averaging_is_the_mean_of_mirrored_views():
    model, recipe = smallest("rdian")
    frame = clips(recipe)[0].frames[0]
    mirrored = np.ascontiguousarray(frame[::-1, ::-1])
    averaged = [ProbabilityMaps(model, flip_averaging=True)(picture) for picture in (frame, mirrored)]
    assert averaged[1][::-1, ::-1] == pytest.approx(averaged[0], abs=1e-6)
    views = [frame, frame[::-1], frame[:, ::-1], mirrored]
    single = [ProbabilityMaps(model)(np.ascontiguousarray(view)) for view in views]
    turned = [single[0], single[1][::-1], single[2][:, ::-1], single[3][::-1, ::-1]]
    assert averaged[0] == pytest.approx(np.mean(turned, axis=0), abs=1e-6)
    assert abs(single[0] - averaged[0]).max() > 1e-6


def test_options_that_shapes_do_not_determine_are_in_the_metadata_of_weights(root, tmp_path):
    more = {"model.options.img_size": 64, "data.root": str(root.resolve())}
    assert run_segmenter("datransnet", root, tmp_path / "run", 1, **more) == 0
    assert restore_network("datransnet", str(tmp_path / "run" / "best.safetensors"))[0].img_size == 64
    published = publish(tmp_path / "run", "ours", zoo=tmp_path)
    assert restore_network("datransnet", str(published))[0].img_size == 64
    assert str(root).encode() not in published.read_bytes()
    assert str(tmp_path).encode() not in published.read_bytes()


def test_a_contact_sheet_of_images_has_several_columns(root, tmp_path, capsys):
    sheet = tmp_path / "out.png"
    more = {"schedule.batch": 4, "augment.transpose": True}
    assert (
        run_segmenter("rdian", root, tmp_path / "run", 2, options=["--show-batch", str(sheet)], **more) == 0
    )
    assert "4 clips of 1 frame in" in capsys.readouterr().out
    height, width, _ = cv2.imread(str(sheet)).shape
    assert 64 < height < 96
    assert 64 < width < 128


# Invalid input


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("madnet", {"schedule.crop": [128, 256]}, "crop = 128x256, 'madnet' takes multiples of 256"),
        ("drtenet", {"model.options.ori_h": 64}, "crop = 32x32, 'drtenet' as built takes 64x64"),
        ("drtenet", {"model.options.ori_h": 32, "schedule.batch": 1}, "'drtenet' needs 2 or more"),
        ("rdian", {"schedule.whole_share": 0.5}, "segmenters are trained on crops; set it to 0"),
        ("rdian", {"data.synthetic_share": 0.5}, "synthetic sequences have no masks"),
        (
            "madnet",
            {"model.initialisation": "published", **SMALLEST["madnet"]},
            "has no published initialisation",
        ),
    ],
    ids=["multiple", "size", "batch", "whole frames", "synthetic", "start values"],
)
def test_a_recipe_that_does_not_fit_the_network_is_refused_before_anything_is_read(
    root, tmp_path, capsys, name, change, said
):
    assert run_segmenter(name, root, tmp_path / "run", 1, **change) == 2
    assert said in complaint(capsys)


def test_settings_for_segmenters_are_refused_for_detectors(root, tmp_path, capsys):
    more = {"data.layout": "masks", "data.train": "all.txt", "data.val": "all.txt", "schedule.whole_share": 0}
    assert run(root, tmp_path / "a", 1, **more, **{"objective.kind": "soft-iou-focal"}) == 2
    assert 'objective.kind = "soft-iou-focal" is for segmenters' in complaint(capsys)
    assert run(root, tmp_path / "a", 1, **more, **{"model.prior": 0.01}) == 2
    assert "model.prior = 0.01 is for segmenters" in complaint(capsys)
    assert run(root, tmp_path / "b", 1, **more, **{"schedule.rule": "network"}) == 2
    assert "'tridos-nano' has no published learning rate" in complaint(capsys)


def test_options_for_detectors_are_refused_for_segmenters(root, trained, capsys):
    arguments = ["--detector", "rdian", "--dataset", "masks", "--root", str(root), "--split", "all.txt"]
    assert evaluate.main([str(trained / "best.safetensors"), *arguments, "--by-class"]) == 2
    assert "--by-class is for networks that predict boxes, RDIAN predicts masks" in complaint(capsys)


def test_data_without_masks_are_refused(tmp_path, capsys):
    write_clip(tmp_path, frames=2)
    more = {"data.layout": "coco-video", "data.train": "clip.json", "data.val": "clip.json"}
    assert run_segmenter("rdian", tmp_path, tmp_path / "run", 1, **more) == 2
    assert "clip of 'coco-video' has no mask, which 'rdian' needs" in complaint(capsys)
