"""Variants of tridos-nano have the changes they are named after and are trained and evaluated equally."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import detectors
from detectors.inference.normalisation import to_network_input
from tests.benchmarks import ablated, ablations
from tests.benchmarks.ablations import VARIANTS
from tests.support.training_runs import SMALL, complaint, kill_at, write_clip


def clip_of(frames, *, seed=0):
    return torch.randn(1, 3, frames, 64, 64, generator=torch.Generator().manual_seed(seed))


def network(name):
    torch.manual_seed(0)
    return VARIANTS[name].change(detectors.build("tridos-nano")).eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("data"))


def run(root, output, *names, steps=1, options=()):
    """Runs the command on a tiny data set; returns the exit code."""
    settings = {key: value for key, value in SMALL.items() if key != "model.name"} | {"data.root": str(root)}
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    budget = ["--steps", str(steps), "--stride", "6", "--output", str(output)]
    return ablations.main([*given, *budget, "--only", *names, *options])


# Networks


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_the_output_shape_of_the_full_network(name):
    model = network(name)
    with torch.inference_mode():
        cells = 16 if name == "plain" else 8
        assert model(clip_of(model.frames)).shape == (1, 6, cells, cells)


@pytest.mark.parametrize("name", ["no-frequency", "no-memory", "no-difference", "no-swin"])
def test_a_variant_without_a_part_learns_fewer_parameters(name):
    assert ablated.learned_parameters(network(name)) < ablated.learned_parameters(network("full"))


@pytest.mark.parametrize("name", ["one-frame", "no-swin", "stride-2", "moments", "peaks", "plain"])
def test_streams_and_clips_give_equal_outputs(name):
    model, frames = network(name), clip_of(11)
    stream = model.stream()
    with torch.inference_mode():
        streamed = torch.cat([stream.push(frames[0, :, [number]].transpose(0, 1)) for number in range(11)])
        whole = model(frames[:, :, -model.frames :])
    torch.testing.assert_close(streamed[-1:], whole, rtol=1e-4, atol=1e-4)


class Seen(nn.Module):
    """A network that returns its input."""

    frames, num_classes = 5, 1

    def forward(self, clip):
        return clip


def test_the_stride_2_variant_uses_every_second_of_nine_frames():
    seen, frames = VARIANTS["stride-2"].change(Seen()), clip_of(9)
    torch.testing.assert_close(seen(frames), frames[:, :, [0, 2, 4, 6, 8]])


def test_the_one_frame_variant_repeats_the_key_frame_five_times():
    seen, frames = VARIANTS["one-frame"].change(Seen()), clip_of(1)
    assert seen.frames == 1
    torch.testing.assert_close(seen(frames), frames[:, :, [0, 0, 0, 0, 0]])


def normalised(grey):
    """Converts grey windows (B, T, H, W) in [0, 1] to network input."""
    return torch.stack([to_network_input(window.numpy(), full_scale=1) for window in grey]).transpose(1, 2)


@pytest.mark.parametrize("name", ["percentiles", "moments"])
def test_scaled_windows_do_not_depend_on_brightness_and_contrast(name):
    grey = torch.rand(2, 5, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = VARIANTS[name].change(Seen())
    bright, dim = seen(normalised(grey)), seen(normalised(0.3 + 0.1 * grey))
    torch.testing.assert_close(bright, dim, rtol=1e-3, atol=1e-3)
    assert bright.std() > 0.5
    assert not torch.equal(bright[0], bright[1])


def test_percentiles_become_black_and_white():
    grey = torch.linspace(0.2, 0.6, 1001)[None]
    scaled = ablated.by_percentiles(grey)
    assert (scaled == 0).float().mean() == pytest.approx(ablated.LOW, abs=0.004)
    assert (scaled == 1).float().mean() == pytest.approx(1 - ablated.HIGH, abs=0.004)
    assert scaled[0, 500] == pytest.approx(0.5, abs=0.01)


def test_a_window_without_contrast_stays_finite():
    flat = torch.full((1, 400), 0.4)
    assert ablated.by_percentiles(flat).isfinite().all()
    assert ablated.by_moments(flat).isfinite().all()


# The command


def test_variants_are_trained_once_and_shown_in_one_table(root, tmp_path, capsys, monkeypatch):
    assert run(root, tmp_path, "full", "no-swin") == 0
    printed = capsys.readouterr().out
    (head, _, *lines) = printed[printed.index("| variant") :].splitlines()
    assert [line.split(":")[0] for line in lines] == ["| `full`", "| `no-swin`"]
    assert {line.count("|") for line in lines} == {head.count("|")}
    assert not any(name.startswith("ablation-") for name in detectors.DETECTORS)

    def refused(*_, **__):
        raise AssertionError("a finished variant must not be trained again")

    monkeypatch.setattr(ablations, "trained", refused)
    assert run(root, tmp_path, "no-swin") == 0
    again = capsys.readouterr().out
    assert again == printed[printed.index("| variant") :]

    old = json.loads((tmp_path / "full-0" / "result.json").read_text())
    del old["budget"]["data"]["balance"]  # as written before this key existed
    (tmp_path / "full-0" / "result.json").write_text(json.dumps(old))
    assert run(root, tmp_path, "full") == 0
    assert capsys.readouterr().out == again
    assert run(root, tmp_path, "stride-2", options=["--show"]) == 0
    assert capsys.readouterr().out == again


def test_an_interrupted_variant_is_resumed(root, tmp_path, capsys, monkeypatch):
    kill_at(2, monkeypatch)
    assert run(root, tmp_path, "no-memory", steps=3) == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert run(root, tmp_path, "no-memory", steps=3) == 0
    assert "resuming from step 2 of" in capsys.readouterr().out


def test_several_seeds_are_shown_as_mean_and_range():
    run = dict.fromkeys(ablations.NUMBERS, 0.5) | {"parameters": 1353938}
    *_, row = ablations.table({"full": [run, {**run, "ap50": 0.7}]}).splitlines()
    assert row == (
        "| `full`: all of it | 0.600 (0.500 to 0.700) | 0.500 (0.500 to 0.500) | 0.500 (0.500 to 0.500) "
        "| 1 353 938 | 0.50 | 2 |"
    )


def test_results_of_another_budget_are_refused(root, tmp_path, capsys):
    assert run(root, tmp_path, "full") == 0
    capsys.readouterr()
    assert run(root, tmp_path, "full", steps=2) == 2
    result = tmp_path / "full-0" / "result.json"
    assert complaint(capsys) == f"{result} is of schedule.steps = 1, not 2; choose another --output"
    result.write_text("{}")
    assert run(root, tmp_path, "full") == 4
    assert complaint(capsys) == f"{result} is no result of this command; delete it"


def test_an_unknown_variant_is_reported_by_name(root, tmp_path, capsys):
    assert run(root, tmp_path, "no-swim") == 2
    assert "no-swim" in complaint(capsys)
