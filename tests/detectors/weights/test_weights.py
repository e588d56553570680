"""Weights are loaded completely or not at all, and no file can run code."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import detectors
from detectors.weights import state_dict
from detectors.weights import zoo as zoo_module
from detectors.weights.state_dict import load_weights, read_state_dict, save
from detectors.weights.zoo import ZooEntry, locate_weights
from pipeline.system.errors import OutputError, UsageError, WeightsError
from pipeline.system.files import file_sha256

METADATA = {"note": "made by a test"}


class Tiny(torch.nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.first = torch.nn.Linear(2, width)
        self.norm = torch.nn.BatchNorm1d(width)


class Payload:
    """A pickle that creates a folder when it is read."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Tiny()


def refusal(call, *arguments) -> str:
    """Returns the message of a WeightsError: one line, exit code 4."""
    with pytest.raises(WeightsError) as error:
        call(*arguments)
    assert error.value.exit_code == 4
    assert "\n" not in str(error.value)
    return str(error.value)


def snapshot(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model, before) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Round trips


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_saved_weights_come_back_exactly(suffix, model, tmp_path):
    path, other = tmp_path / f"tiny.{suffix}", Tiny()
    if suffix == "pth":
        torch.save(model.state_dict(), path)
    else:
        save(model.state_dict(), path, metadata=METADATA)
    load_weights(other, path)
    assert unchanged(other, model.state_dict())


def test_half_precision_weights_come_back_as_floats_within_a_thousandth(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "half.safetensors"
    model, other = (detectors.build("tridos-nano") for _ in range(2))
    save(model.state_dict(), path, metadata=METADATA, half=True)
    load_weights(other, path)
    found, expected = other.state_dict(), model.state_dict()
    assert all(found[name].dtype == expected[name].dtype for name in expected)
    assert all(torch.allclose(found[name], expected[name], rtol=1e-3, atol=1e-6) for name in expected)
    assert path.stat().st_size < 0.6 * sum(t.numel() * t.element_size() for t in expected.values())


def test_metadata_is_kept_beside_the_weights(model, tmp_path):
    from safetensors import safe_open

    path = tmp_path / "tiny.safetensors"
    save(model.state_dict(), path, metadata={"step": 3, "val": {"ap50": 0.5}})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"step": "3", "val": '{"ap50": 0.5}'}


def test_weights_without_metadata_are_not_written(model, tmp_path):
    with pytest.raises(UsageError, match="metadata"):
        save(model.state_dict(), tmp_path / "tiny.safetensors", metadata={})
    assert not list(tmp_path.iterdir())


def test_saving_leaves_nothing_else_behind(model, tmp_path):
    save(model.state_dict(), tmp_path / "tiny.safetensors", metadata=METADATA)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.safetensors"]


@pytest.mark.parametrize("wrapper", state_dict.WRAPPERS)
def test_a_wrapped_checkpoint_is_opened(wrapper, model, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, wrapper: model.state_dict(), "optimizer": {"state": {}}}, path)
    assert set(read_state_dict(path)) == set(model.state_dict())


SCORES = {
    "best_mIoU": np.float64(0.71),
    "epoch": np.int64(400),
    "losses": np.linspace(1, 0, 5, dtype=np.float32),
    "random": np.random.RandomState(0).get_state(),
}
"""Values that training programs store beside the weights."""


@pytest.mark.parametrize("zipped", [True, False], ids=["zipped", "old form"])
@pytest.mark.parametrize("prefix", ["", "model.", "module.", "decode_head.", "module.decode_head."])
def test_a_checkpoint_with_scores_as_numpy_numbers_is_opened(prefix, zipped, model, tmp_path):
    path, other = tmp_path / "checkpoint.pth", Tiny()
    state = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, **SCORES}, path, _use_new_zipfile_serialization=zipped)
    load_weights(other, path)
    assert unchanged(other, model.state_dict())


def test_scalars_of_numpy_1_are_ignored(model, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": model.state_dict(), **SCORES}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"cnumpy._core.multiarray\nscalar\n" in data
    path.write_bytes(data.replace(b"cnumpy._core.", b"cnumpy.core."))
    assert set(read_state_dict(path)) == set(model.state_dict())


def test_numpy_arrays_in_place_of_tensors_are_refused(tmp_path):
    torch.save({"state_dict": {"a": np.zeros(3)}}, tmp_path / "checkpoint.pth")
    assert "a are not named tensors" in refusal(read_state_dict, tmp_path / "checkpoint.pth")


def test_scalars_of_numpy_are_allowed_only_while_a_checkpoint_is_read(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    torch.save({"a": torch.zeros(1), "score": np.float64(1)}, tmp_path / "checkpoint.pth")
    refusal(read_state_dict, tmp_path / "checkpoint.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "checkpoint.pth", weights_only=True)


def test_a_prefix_of_some_names_is_kept(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, path)
    assert set(read_state_dict(path)) == {"module.a", "b"}


# Weights of another network


def without(state):
    state.pop("norm.weight")


def with_more(state):
    state["second.weight"] = torch.zeros(2)


def with_other_shape(state):
    state["first.weight"] = torch.zeros(3, 5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without, "1 missing (norm.weight)"),
        (with_more, "1 unexpected (second.weight)"),
        (with_other_shape, "1 misshapen (first.weight [3, 5] for [3, 2])"),
    ],
    ids=["missing", "unexpected", "misshapen"],
)
def test_a_partial_match_is_refused_with_what_differs(change, named, model, tmp_path):
    state, before = dict(Tiny().state_dict()), snapshot(model)
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    said = refusal(load_weights, model, tmp_path / "other.safetensors")
    assert named in said
    assert unchanged(model, before)


def test_all_differences_are_listed_together(model, tmp_path):
    state = dict(Tiny().state_dict())
    for change in (without, with_more, with_other_shape):
        change(state)
    save_file(state, tmp_path / "other.safetensors")
    said = refusal(load_weights, model, tmp_path / "other.safetensors")
    assert all(part in said for part in ("1 missing", "1 unexpected", "1 misshapen", "--detector"))


def test_weights_of_another_width_are_refused_with_the_first_shapes(model, tmp_path):
    save_file(Tiny(width=4).state_dict(), tmp_path / "wide.safetensors")
    said = refusal(load_weights, model, tmp_path / "wide.safetensors")
    assert "6 misshapen" in said
    assert "first.bias [4] for [3]" in said
    assert "… 2 more" in said


# Files that are no weights


def as_text(path, model):
    path.write_text("not weights at all\n" * 20)


def as_nothing(path, model):
    path.touch()


def as_half_a_file(path, model):
    if path.suffix == ".safetensors":
        save(model.state_dict(), path, metadata=METADATA)
    else:
        torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-60])


def as_noise(path, model):
    path.write_bytes(bytes(range(256)) * 8)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("write", [as_text, as_nothing, as_half_a_file, as_noise])
def test_a_damaged_file_is_refused_by_name(write, suffix, model, tmp_path):
    path, before = tmp_path / f"damaged.{suffix}", snapshot(model)
    write(path, model)
    assert str(path) in refusal(load_weights, model, path)
    assert unchanged(model, before)


@pytest.mark.parametrize("write", [as_text, as_nothing, as_half_a_file, as_noise])
def test_the_message_does_not_suggest_to_disable_the_guard(write, model, tmp_path):
    path = tmp_path / "damaged.pth"
    write(path, model)
    said = refusal(load_weights, model, path)
    assert said == f"{path} is not a safe weights file: not safetensors and not a plain checkpoint"


@pytest.mark.parametrize("name", ["folder", "folder.pth", "folder.safetensors"])
def test_a_folder_in_place_of_a_file_is_named(name, tmp_path):
    (tmp_path / name).mkdir()
    assert (
        refusal(locate_weights, str(tmp_path / name)) == f"weights {tmp_path / name} is a folder; give a file"
    )


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_missing_file_is_refused_by_name(suffix, model, tmp_path):
    path = tmp_path / f"absent.{suffix}"
    assert str(path) in refusal(load_weights, model, path)
    assert str(path) in refusal(locate_weights, str(path))


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {"epoch": 3}, {"state_dict": {"a": 3}}, torch.zeros(3)],
    ids=["list", "empty", "no tensors", "wrapped numbers", "bare tensor"],
)
def test_a_checkpoint_without_tensors_by_name_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "checkpoint.pth")
    assert "holds no state dict" in refusal(read_state_dict, tmp_path / "checkpoint.pth")


def as_plain_pickle(path, payload):
    path.write_bytes(pickle.dumps({"a": payload}, protocol=2))


def as_old_checkpoint(path, payload):
    torch.save({"a": payload}, path, _use_new_zipfile_serialization=False)


def as_checkpoint(path, payload):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": payload}, path)


def as_array(path, payload):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "best_mIoU": np.array([payload], object)}, path)


@pytest.mark.parametrize("write", [as_plain_pickle, as_old_checkpoint, as_checkpoint, as_array])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_with_code_in_it_is_refused_and_the_code_does_not_run(write, suffix, tmp_path):
    path, made = tmp_path / f"malicious.{suffix}", tmp_path / "made"
    write(path, Payload(made))
    assert "is not a safe weights file" in refusal(read_state_dict, path)
    assert not made.exists()


def test_the_code_of_the_malicious_file_would_run_in_a_careless_reader(tmp_path):
    """Guards the test above: its payload works."""
    path = tmp_path / "malicious.pth"
    as_checkpoint(path, Payload(tmp_path / "made"))
    torch.load(path, weights_only=False)
    assert (tmp_path / "made").exists()


def test_a_whole_network_in_a_pickle_is_refused(model, tmp_path):
    torch.save(model, tmp_path / "model.pth")
    assert zipfile.is_zipfile(tmp_path / "model.pth")
    assert "is not a safe weights file" in refusal(read_state_dict, tmp_path / "model.pth")


# Supplied weights


@pytest.fixture
def zoo(model, tmp_path, monkeypatch):
    """A zoo of one entry."""
    save(model.state_dict(), tmp_path / "tiny.safetensors", metadata=METADATA)
    digest = file_sha256(tmp_path / "tiny.safetensors")
    entry = ZooEntry("tiny.safetensors", digest, "tiny-detector")
    monkeypatch.setattr(zoo_module, "ZOO", tmp_path)
    monkeypatch.setitem(zoo_module.ZOO_TABLE, "tiny-drone", entry)
    return tmp_path


def test_a_zoo_name_leads_to_its_file(zoo):
    path, entry = locate_weights("tiny-drone")
    assert path == zoo / "tiny.safetensors"
    assert entry.detector == "tiny-detector"


def test_a_path_leads_to_itself(zoo):
    assert locate_weights(str(zoo / "tiny.safetensors")) == (zoo / "tiny.safetensors", None)


def test_an_unknown_zoo_name_suggests_the_close_one(zoo):
    said = refusal(locate_weights, "tiny-dron")
    assert "did you mean 'tiny-drone'?" in said


def test_a_damaged_zoo_file_is_refused(zoo):
    with (zoo / "tiny.safetensors").open("ab") as file:
        file.write(b"\0")
    assert "damaged" in refusal(locate_weights, "tiny-drone")


def test_a_zoo_file_that_is_gone_is_refused(zoo):
    (zoo / "tiny.safetensors").unlink()
    assert "missing" in refusal(locate_weights, "tiny-drone")


def test_a_detector_knows_its_default_weights(zoo):
    assert zoo_module.default_weights("tiny-detector") == "tiny-drone"
    assert zoo_module.default_weights("no such detector") is None


@pytest.mark.parametrize("name", zoo_module.ZOO_TABLE)
def test_supplied_weights_fit_their_detector(name):
    path, entry = locate_weights(name)
    model = detectors.build(entry.detector, **entry.options)
    load_weights(model, path)
    torch.testing.assert_close(
        model.state_dict(), read_state_dict(path), rtol=0, atol=0, check_dtype=False, check_device=False
    )


def test_a_checkpoint_without_names_is_refused(tmp_path):
    path = tmp_path / "numbered.pt"
    torch.save({0: torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="not named tensors"):
        read_state_dict(path)


def test_values_beyond_half_precision_are_not_converted(tmp_path):
    path = tmp_path / "large.safetensors"
    save({"large": torch.tensor([1e5]), "small": torch.tensor([0.5])}, path, metadata={"of": 1}, half=True)
    state = read_state_dict(path)
    assert state["large"].item() == 1e5
    assert state["small"].dtype == torch.float16


def test_weights_that_cannot_be_written_are_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write weights"):
        save({"a": torch.zeros(1)}, tmp_path / "missing" / "a.safetensors", metadata={"of": 1})
