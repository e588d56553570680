"""Imports of mmdet, messages for missing packages, and the replacement of compiled operators."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from detectors.inference.postprocess import nms
from detectors.mmdet_adapter import installation, operators
from pipeline.system.errors import UsageError
from tests.conftest import PROJECT_ROOT

ASKS = "sys.exit(any(name.split('.')[0] in ('mmdet', 'mmengine', 'mmcv') for name in sys.modules))"


@pytest.mark.parametrize(
    "code",
    [
        "import run_pipeline; run_pipeline.main(['--help'])",
        "import run_pipeline; run_pipeline.main(['--list'])",
        "import pipeline.runner.single, detectors.train, trackers; trackers.build('centre')",
        "from detectors.mmdet_adapter import clips, comparison, networks, stage, training",
        "import trackers.mmdet",
    ],
)
def test_mmdet_is_not_imported_if_it_is_not_used(code):
    reply = subprocess.run([sys.executable, "-c", f"import sys\n{code}\n{ASKS}"], cwd=PROJECT_ROOT)
    assert reply.returncode == 0


@pytest.mark.parametrize("task", [[], ["train"], ["export"], ["compare"]], ids=" ".join)
def test_help_of_the_command_imports_neither_torch_nor_mmdet(task):
    code = f"import sys; from detectors.mmdet_adapter.__main__ import main; main({[*task, '--help']})"
    asks = "sys.exit(any(name in sys.modules for name in ('torch', 'mmdet', 'mmengine', 'mmcv')))"
    reply = subprocess.run(
        [sys.executable, "-c", f"{code}; {asks}"], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert (reply.returncode, reply.stderr) == (0, "")
    assert reply.stdout.startswith(" ".join(["usage: python -m detectors.mmdet_adapter", *task, "["]))


def test_the_adapter_starts_within_a_minute(capsys):
    code = "from detectors.mmdet_adapter import installation; installation.prepare()"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True, capture_output=True)
    seconds = time.perf_counter() - started
    with capsys.disabled():
        print(f" [start of mmdet, torch included: {seconds:.1f} s]", end="")
    assert seconds < 60


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"mmdet": None}, "mmdet is not installed; run: pip install mmdet==3.3.0"),
        (
            {"mmdet": "2.28.2"},
            r"mmdet 2.28.2 is not supported, 3.0 or newer and older than 4 .* mmdet==3.3.0",
        ),
        ({"mmengine": None}, "mmengine is not installed; run: pip install mmengine==0.10.7"),
        ({"mmcv-lite": None}, "mmcv is not installed; run: pip install mmcv-lite==2.1.0"),
        ({"mmcv-lite": "2.2.0"}, "mmcv-lite 2.2.0 is not supported, .* older than 2.2 .* mmcv-lite==2.1.0"),
        ({"mmcv": "2.1.0"}, "mmcv and mmcv-lite are installed .* pip uninstall mmcv mmcv-lite; .* mmcv-lite"),
        ({"lap": None}, "lap is not installed; run: pip install lap==0.5.13"),
        ({"trackeval": None}, "trackeval is not installed; run: pip install trackeval==1.3.0"),
    ],
    ids=str,
)
def test_a_missing_or_unsupported_package_is_named_with_the_command_for_pip(versions, message, monkeypatch):
    there = {"mmdet": "3.3.0", "mmengine": "0.10.7", "mmcv-lite": "2.1.0", "lap": "0.5", "trackeval": "1.3.0"}
    monkeypatch.setattr(installation, "_version", there.get)
    installation.check("lap", "trackeval")
    monkeypatch.setattr(installation, "_version", {**there, **versions}.get)
    with pytest.raises(UsageError, match=message):
        installation.check("lap", "trackeval")


def boxes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(3)
    corners = torch.randint(4, (count, 2), generator=chance) * 20.0
    sides = 10 + torch.rand(count, 2, generator=chance) * 10
    scores = (torch.rand(count, generator=chance) * 20).round() / 20  # with ties
    return torch.cat([corners, corners + sides], dim=1), scores


@pytest.mark.parametrize("iou", [0.1, 0.5, 0.8])
def test_the_replacement_equals_our_suppression(iou):
    found, scores = boxes(200)
    kept = operators.nms(found, scores, iou_threshold=iou)
    assert 10 < len(kept) < 200
    assert kept.tolist() == nms(found, scores, torch.zeros(200), iou=iou).tolist()


def test_the_replacement_includes_the_last_pixel_with_offset_one():
    pair = torch.tensor([[0.0, 0, 3, 0], [1.0, 0, 4, 0]])  # rows of pixels 0 to 3 and 1 to 4: IoU 3 / 5
    scores = torch.tensor([0.5, 0.9])
    assert operators.nms(pair, scores, 0.59, offset=1).tolist() == [1]
    assert operators.nms(pair, scores, 0.61, offset=1).tolist() == [1, 0]
    assert operators.nms(pair, scores, 0.0, offset=0).tolist() == [1, 0]


def test_the_replacement_accepts_no_boxes():
    assert operators.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_mmcv_uses_the_replacement():
    installation.prepare()
    from mmcv.ops import nms as of_mmcv

    found, scores = boxes(50)
    scores = scores + torch.arange(50) * 1e-4  # no ties: their order is undefined in the compiled operator
    _, kept = of_mmcv(found, scores, iou_threshold=0.4)
    assert kept.tolist() == operators.nms(found, scores, 0.4).tolist()


def test_a_missing_operator_is_named_when_it_is_called():
    module = operators.MissingOperators("mmcv._ext")
    with pytest.raises(UsageError, match=r"needs 'roi_align_forward' of the full mmcv.*mmcv==2.1.0"):
        module.roi_align_forward(torch.zeros(1), pooled_height=7)


def test_installed_operators_are_not_replaced(monkeypatch):
    monkeypatch.delitem(sys.modules, operators.EXTENSION, raising=False)
    monkeypatch.setattr(operators, "find_spec", lambda name: object())
    operators.provide_operators()
    assert operators.EXTENSION not in sys.modules
