"""The recipes of examples/ do what they say, on synthetic clips."""

from __future__ import annotations

import csv
import json
import sys
from importlib import import_module

import cv2
import numpy as np
import pytest

from datasets.synthesis.rendering import write_scene
from datasets.synthesis.scene import Scene, Target
from tests.conftest import PROJECT_ROOT

EXAMPLES = PROJECT_ROOT / "examples"
FAST = Target(x=20, y=40, vx=1.5, sigma=1.6, scr=60)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A folder with one video of 40 frames, in which one bright target crosses the sky."""
    folder = tmp_path_factory.mktemp("recordings")
    write_scene(Scene(width=128, height=96, frames=40, targets=(FAST,)), folder / "night.mp4")
    return folder


@pytest.fixture
def recipe(own_cache):
    """Runs the program of a recipe."""

    def run(name, *arguments):
        import_module(f"examples.{name}").main([str(argument) for argument in arguments])

    return run


def test_a_night_at_a_wind_farm_becomes_a_table_of_tracks(recipe, night, tmp_path, capsys):
    recipe("wind_farm_night", night, tmp_path)
    with (tmp_path / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 1
    longest = max(rows, key=lambda row: float(row["duration_s"]))
    assert float(longest["duration_s"]) > 0.8
    assert float(longest["path_px"]) == pytest.approx(1.5 * (int(longest["frames"]) - 1), rel=0.3)
    assert f"night.mp4, hour 0: {len(rows)} tracks" in capsys.readouterr().out


def test_a_night_that_is_done_is_not_computed_again(recipe, night, tmp_path):
    recipe("wind_farm_night", night, tmp_path)
    written = (tmp_path / "night" / "results.jsonl").stat().st_mtime_ns
    table = (tmp_path / "tracks.csv").read_text()
    recipe("wind_farm_night", night, tmp_path)
    assert (tmp_path / "night" / "results.jsonl").stat().st_mtime_ns == written
    assert (tmp_path / "tracks.csv").read_text() == table


def test_a_drone_watch_runs_by_its_configuration(mote, night, tmp_path):
    config = EXAMPLES / "drone_watch.toml"
    reply = mote(
        night / "night.mp4",
        "--config",
        config,
        "--output",
        tmp_path / "watch",
        "--set",
        "service.health_port=0",
    )
    assert (reply.code, reply.err) == (0, reply.err)
    record = json.loads((tmp_path / "watch" / "run.json").read_text())
    assert (record["state"], record["frames"]["written"]) == ("complete", 40)
    assert record["config"]["live"]["reconnect"] == "forever"
    assert len(list((tmp_path / "watch").glob("annotated-*.mp4"))) == 1
    (events,) = (tmp_path / "watch").glob("events-*.jsonl")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [(row["rule"], row["phase"], row["zone"]) for row in told] == [
        ("drone", "start", "sky"),
        ("drone", "end", "sky"),
    ]
    assert record["events"]["drone"] == 1


def test_a_sky_station_has_a_stack_and_a_picture_of_the_track(recipe, night, tmp_path, capsys):
    recipe("sky_station", night / "night.mp4", tmp_path)
    stack = cv2.imread(str(tmp_path / "stack.png"))
    assert stack.shape == (96, 128, 3)
    coloured = stack[np.ptp(stack.astype(int), axis=2) > 50]
    assert len(coloured) > 30, "the path is drawn"
    pictures = list(tmp_path.glob("track-*.png"))
    assert len(pictures) >= 1
    assert f"{len(pictures)} tracks" in capsys.readouterr().out


def test_a_search_card_lists_the_pictures_with_something_on_them(recipe, tmp_path, capsys):
    card = tmp_path / "card" / "100MEDIA"
    card.mkdir(parents=True)
    chance = np.random.default_rng(0)
    for name, (height, width), spot in (
        ("a.png", (96, 128), None),
        ("b.png", (64, 96), (30, 40)),
        ("c.tif", (96, 128), None),
    ):
        picture = chance.normal(90, 2, (height, width))
        if spot:
            rows, columns = np.mgrid[:height, :width]
            picture += 140 * np.exp(-((rows - spot[0]) ** 2 + (columns - spot[1]) ** 2) / 4)
        cv2.imwrite(str(card / name), picture.clip(0, 255).astype(np.uint8))
    recipe("search_card", tmp_path / "card", tmp_path / "finds")
    with (tmp_path / "finds" / "finds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["100MEDIA/b.png"]
    assert float(rows[0]["x1"]) < 40 < float(rows[0]["x2"])
    assert cv2.imread(str(tmp_path / "finds" / "finds.png")).shape == (160, 6 * 160, 3)
    assert "1 marks on 1 pictures" in capsys.readouterr().out


def test_an_irstd_table_has_a_row_for_each_weights_and_definition(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(PROJECT_ROOT)  # where `python -m mote` finds the command
    for kind in ("images", "masks"):
        (tmp_path / "test" / kind).mkdir(parents=True)
    for number in range(2):
        spot = np.zeros((64, 64), np.uint8)
        spot[20 + number : 23 + number, 30:33] = 255
        noise = np.random.default_rng(number).normal(60, 3, (64, 64))
        picture = (noise + 0.6 * spot).clip(0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "test" / "images" / f"{number}.png"), picture)
        cv2.imwrite(str(tmp_path / "test" / "masks" / f"{number}.png"), spot)
    recipe("irstd_table", tmp_path, "--weights", "rdian-nuaa-sirst")
    assert capsys.readouterr().out.splitlines() == [
        "| weights | definition | IoU | nIoU | F1 | Pd | Fa x1e-6 |",
        "|---|---|---|---|---|---|---|",
        "| rdian-nuaa-sirst | default | 100.0 | 100.0 | 100.0 | 100.0 | 0.0 |",
        "| rdian-nuaa-sirst | basicirstd | 100.0 | - | - | 100.0 | 0.0 |",
    ]


def test_every_recipe_is_tested():
    text = (PROJECT_ROOT / "tests" / "examples" / "test_recipes.py").read_text()
    names = {path.stem for path in EXAMPLES.glob("*.*") if path.suffix in (".py", ".toml")} - {"first_steps"}
    assert len(names) == 5
    assert [name for name in sorted(names) if name not in text] == []


def test_the_notebook_runs_cell_by_cell(own_cache, monkeypatch, capsys):
    jupytext = pytest.importorskip("jupytext")
    monkeypatch.chdir(PROJECT_ROOT)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = jupytext.read(EXAMPLES / "first_steps.py")
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    names: dict = {}
    for cell in cells:
        exec(compile(cell.replace("FRAMES = 60", "FRAMES = 16"), "cell", "exec"), names)
    assert len(names["results"]) == 16
    assert len(names["paths"]) >= 2
    sys.modules["matplotlib.pyplot"].close("all")
    assert "track 1: score" in capsys.readouterr().out
