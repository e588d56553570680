"""A short training in mmengine's Runner by the command line: loss, validation and resuming."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from datasets.synthesis import rendering
from detectors.mmdet_adapter.__main__ import main
from detectors.weights import restore
from tests.conftest import PROJECT_ROOT
from tests.support.outputs import scene

CONFIG = """
_base_ = {base!r}
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(
    layout="coco-video", split="clip.json", stride=8, pipeline=[dict(type="PackMoteClip")]))
val_dataloader = dict(num_workers=0, dataset=dict(layout="coco-video", split="clip.json", stride=5))
model = dict(weights={weights!r})
train_cfg = dict(max_iters=8, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=4), logger=dict(interval=1))
"""


def run(*commands: list) -> subprocess.CompletedProcess:
    """Runs commands one after the other in another process, because the Runner changes global settings."""
    lists = [list(map(str, command)) for command in commands]
    code = f"from detectors.mmdet_adapter.__main__ import main; print([main(words) for words in {lists}])"
    return subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)


def records(work_dir: Path) -> list[dict]:
    """Returns the logs of mmengine, run by run."""
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


class Session(NamedTuple):
    """Results of three commands."""

    reply: subprocess.CompletedProcess
    work_dir: Path
    """Folder of the first two: eight steps, interrupted after six and resumed."""
    strange: Path
    """Folder of the third, which was to resume from a checkpoint with unknown types."""


@pytest.fixture(scope="module")
def session(tmp_path_factory, nano_weights) -> Session:
    root = tmp_path_factory.mktemp("mmdet")
    rendering.write_scene(scene(frames=12), root / "clip.mp4")
    config = root / "tiny.py"
    base = PROJECT_ROOT / "configs" / "mmdet" / "tridos_nano_drone_ir.py"
    config.write_text(CONFIG.format(base=str(base), weights=nano_weights))
    strange = root / "strange"
    strange.mkdir()
    torch.save({"state_dict": {}, "more": Path("somewhere")}, strange / "iter_4.pth")
    (strange / "last_checkpoint").write_text(str(strange / "iter_4.pth"))
    command = ["train", config, "--root", root, "--work-dir"]
    first = [*command, root / "run", "--set", "train_cfg.max_iters=6"]
    reply = run(first, [*command, root / "run", "--resume"], [*command, strange, "--resume"])
    return Session(reply, root / "run", strange)


@pytest.fixture
def trained(session) -> Path:
    assert session.reply.stdout.splitlines()[-1] == "[0, 0, 4]", session.reply.stderr[-2000:]
    return session.work_dir


def test_the_loss_falls(trained):
    losses = [row["loss"] for row in records(trained) if "loss" in row]
    assert losses[5] < 0.9 * losses[0]


def test_a_run_is_resumed_from_its_last_checkpoint(trained):
    rows = [row for row in records(trained) if "loss" in row]
    steps = [row["step"] for row in rows]
    assert steps == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rows[6]["loss"] < 0.95 * rows[0]["loss"]
    assert (trained / "last_checkpoint").read_text().endswith("iter_8.pth")


def test_validation_uses_the_video_metric_of_mmdet(trained):
    measured = [row for row in records(trained) if "coco/bbox_mAP_50" in row]
    assert [row["step"] for row in measured] == [4, 6, 8]
    assert all(0 <= row["coco/bbox_mAP_50"] <= 1 for row in measured)


def test_a_checkpoint_with_unknown_types_is_not_resumed(session, trained):
    assert f"checkpoints in {trained}" in session.reply.stdout
    assert f"checkpoints in {session.strange}" not in session.reply.stdout
    expected = f"error: the checkpoint in {session.strange} or load_from holds types"
    assert session.reply.stderr.splitlines()[-1].startswith(expected)


def test_its_weights_are_exported_with_our_names(trained, tmp_path, capsys):
    output = tmp_path / "out.safetensors"
    assert main(["export", str(trained / "iter_8.pth"), str(output)]) == 0
    model, _, _ = restore.restore_network("tridos-nano", str(output))
    from detectors.mmdet_adapter.checkpoints import read

    stored = read(trained / "iter_8.pth").state
    assert f"{len(stored)} tensors in {output}" in capsys.readouterr().out
    assert all(torch.equal(value, stored[f"model.{name}"]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "none.py"], 2, "configuration none.py does not exist"),
        (["export", "none.pth", "out.safetensors"], 4, "weights file none.pth does not exist"),
        (["export", "none.pth", "out.pth"], 2, "out.pth does not end in .safetensors"),
        (
            ["compare", "--annotations", "gt.json"],
            2,
            "nothing to compare: give --detections, --tracks or both",
        ),
        (["tran"], 2, "invalid choice: 'tran'"),
        ([], 2, "the following arguments are required: task"),
    ],
    ids=str,
)
def test_invalid_input_is_reported_in_one_line(arguments, code, message, capsys):
    assert main(arguments) == code
    assert message in capsys.readouterr().err.splitlines()[-1]
