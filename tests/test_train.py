"""The trainer learns, stops and goes on, and follows its schedule."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from datasets import synthetic
from datasets.scene import Scene
from detectors import train
from detectors.measure import main as measure
from detectors.publish import publish
from detectors.recipe import Schedule
from detectors.weights import read_state_dict

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


def losses(output):
    return [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]


def test_a_stopped_run_goes_on_exactly(root, tmp_path, monkeypatch):
    assert run(root, tmp_path / "whole", 4) == 0

    step = train.Trainer._train_step

    def killed_at_the_third(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(train.Trainer, "_train_step", killed_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "halves", 4)
    monkeypatch.undo()
    assert run(root, tmp_path / "halves", 4) == 0

    # the third step was lost with the process and is done again
    first, second = losses(tmp_path / "whole"), losses(tmp_path / "halves")
    assert second[:3] + second[4:] == pytest.approx(first, rel=1e-5)
    assert second[2] == pytest.approx(second[3], rel=1e-5)
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "halves")]
    for name, value in states[0]["average"].items():
        torch.testing.assert_close(states[1]["average"][name], value, rtol=1e-4, atol=1e-6)


def test_one_batch_is_learned(root, tmp_path, monkeypatch):
    one_batch = the_same_batch(train.ClipSampler._draw)
    monkeypatch.setattr(train.ClipSampler, "batch", lambda self, number, **how: one_batch(self, **how))
    assert run(root, tmp_path, 25, **{"schedule.rate": 3e-3, "schedule.whole_share": 0.0}) == 0
    assert losses(tmp_path)[-1] < 0.6 * losses(tmp_path)[0]


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
    rates = [train.learning_rate(step, schedule) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert all(earlier >= later for earlier, later in itertools.pairwise(rates[10:]))


def test_an_average_follows_and_leaves_counters_alone():
    model = torch.nn.BatchNorm1d(2)
    average = train.Average(model, decay=0.5)
    model.weight.data.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    for _ in range(3000):
        average.update(model)
    assert average.state["weight"] == pytest.approx(torch.full((2,), 3.0))
    assert average.state["num_batches_tracked"] == 0


def test_weights_are_measured_and_published_from_a_run(root, tmp_path, capsys):
    assert run(root, tmp_path, 2) == 0
    best = tmp_path / "best.safetensors"
    arguments = [str(best), "--root", str(root), "--annotations", "clip.json", "--stride", "4"]
    assert measure(arguments) == 0
    assert "frames         3" in capsys.readouterr().out
    published = publish(tmp_path, "ours", zoo=tmp_path)
    assert read_state_dict(published)["head.obj_preds.0.weight"].dtype == torch.float16
    assert published.stat().st_size < 0.6 * best.stat().st_size


def test_a_recipe_that_makes_no_sense_is_refused(root, tmp_path, capsys):
    assert run(root, tmp_path, 2, **{"schedule.precision": "int3"}) == 2
    assert "int3" in capsys.readouterr().err
    assert run(root, tmp_path, 2, **{"data.train": "nothing.json"}) == 2
    assert run(root, tmp_path, 2, **{"schedule.stepz": 3}) == 2
    assert "did you mean 'schedule.steps'" in capsys.readouterr().err
