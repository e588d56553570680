"""Checkpoints of mmengine are read and converted without executing code in them."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from detectors.mmdet_adapter import checkpoints, installation
from pipeline.system.errors import WeightsError


@pytest.fixture(scope="module", autouse=True)
def _mmdet():
    installation.prepare()


def layer() -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


def as_mmengine_writes(state) -> dict:
    """Returns a checkpoint with everything that mmengine's Runner stores beside the weights."""
    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer

    history = HistoryBuffer([1.0, 2.0], [1, 1])
    hub = {"log_scalars": {"train/loss": history}, "runtime_info": {"iter": np.int64(4)}}
    meta = {
        "epoch": 1,
        "cfg": ConfigDict(model=ConfigDict(type="X")),
        "dataset_meta": {"classes": ("a", "b")},
    }
    return {"meta": meta, "state_dict": state, "message_hub": hub, "shift": np.arange(3.0)}


def test_weights_are_read_and_other_contents_ignored(tmp_path):
    path, source, target = tmp_path / "last.pth", layer(), layer()
    torch.save(as_mmengine_writes(source.state_dict()), path)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True)
    checkpoint = checkpoints.read(path)
    checkpoints.fill(target, checkpoint, path)
    torch.testing.assert_close(target.weight, source.weight, rtol=0, atol=0)
    assert checkpoint.meta["dataset_meta"]["classes"] == ("a", "b")


def test_a_plain_state_dict_and_a_file_of_old_torch_are_read(tmp_path):
    path, state = tmp_path / "old.pth", layer().state_dict()
    for zipped in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        torch.testing.assert_close(checkpoints.read(path).state["weight"], state["weight"], rtol=0, atol=0)


class Payload:
    """Creates a folder when it is unpickled without restrictions."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_types_that_could_execute_code_are_refused(tmp_path, zipped):
    path = tmp_path / "bad.pth"
    contents = {**as_mmengine_writes(layer().state_dict()), "more": Payload(tmp_path / "made")}
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="refers to posix.mkdir" if zipped else "not a checkpoint"):
        checkpoints.read(path)
    del contents["meta"]
    torch.save(contents, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Exception, match="mkdir"), checkpoints.allow_training_state():
        torch.load(path, weights_only=True)
    assert not (tmp_path / "made").exists()


def test_no_code_of_ignored_types_is_executed(tmp_path, monkeypatch):
    from mmengine.logging import HistoryBuffer

    path = tmp_path / "last.pth"
    torch.save(as_mmengine_writes(layer().state_dict()), path)
    monkeypatch.setattr(HistoryBuffer, "__setstate__", lambda *_: pytest.fail("was restored"))
    assert set(checkpoints.read(path).state) == set(layer().state_dict())


def test_a_run_is_resumed_with_its_histories(tmp_path):
    path = tmp_path / "last.pth"
    contents = as_mmengine_writes(layer().state_dict())
    del contents["meta"]["cfg"]  # the Runner writes it as a string
    torch.save(contents, path)
    with checkpoints.allow_training_state():
        loaded = torch.load(path, weights_only=True)
    assert loaded["message_hub"]["log_scalars"]["train/loss"].mean() == 1.5
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("kind", "name"), [(type("HistoryBuffer", (), {}), "__init__"), (np.ndarray, "max"), (os, "system")]
)
def test_getattr_of_a_checkpoint_is_limited_to_methods_of_histories(kind, name):
    with pytest.raises(WeightsError, match=name):
        checkpoints._history_method(kind, name)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, r"1 missing \(bias\); choose the config it was trained with"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)},
            r"unexpected \(more\)",
        ),
        ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, "size mismatch for weight"),
        ({}, "holds no state dict"),
        ({"weight": "text"}, "weight are not named tensors"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path, state, message):
    path = tmp_path / "other.pth"
    torch.save({"state_dict": state}, path)
    with pytest.raises(WeightsError, match=message):
        checkpoints.fill(layer(), checkpoints.read(path), path)


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"none.pth does not exist"):
        checkpoints.read(tmp_path / "none.pth")
    (tmp_path / "half.pth").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(WeightsError, match=r"half.pth is damaged or not a checkpoint"):
        checkpoints.read(tmp_path / "half.pth")
