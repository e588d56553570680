"""Export of networks as graphs: files and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import onnx
import pytest
import torch

import detectors
from detectors import export
from detectors.backends import export_folder
from detectors.backends.graphs import graphs
from detectors.backends.real_spectrum import RealFrequencyBlock
from detectors.networks.tridos.frequency import FrequencyBlock
from detectors.weights import zoo
from pipeline.system.errors import UsageError, WeightsError
from pipeline.system.files import file_sha256
from tests.conftest import PROJECT_ROOT

SIZE = (64, 32)


@pytest.fixture
def command(capsys):
    """The command line: arguments → exit code, standard output, standard error."""

    def call(*arguments):
        try:
            code = export.main([str(argument) for argument in arguments])
        except SystemExit as ending:
            code = ending.code
        return code, *capsys.readouterr()

    return call


# The spectrum without complex numbers


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (12, 10), (32, 40)], ids=str)
def test_matrices_give_the_spectrum_that_the_network_was_trained_with(size):
    torch.manual_seed(1)
    block, maps = FrequencyBlock(8).eval(), torch.randn(2, 8, *size)
    with torch.inference_mode():
        expected, found = block(maps), RealFrequencyBlock(block, *size)(maps)
    assert expected.std() > 0.1
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))


def test_a_spectrum_of_zeros_has_the_phase_0():
    torch.manual_seed(1)
    block, maps = FrequencyBlock(8).eval(), torch.full((1, 8, 8, 8), -1e-8)  # the block adds 1e-8
    with torch.inference_mode():
        assert torch.allclose(RealFrequencyBlock(block, 8, 8)(maps), block(maps), rtol=1e-4, atol=1e-9)


# The graphs


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("size", [SIZE, (32, 32), (96, 64)], ids=str)
def test_the_parts_that_are_exported_compute_what_the_network_does(gamma, size, nano):
    with torch.no_grad():
        nano.neck.nolocal.gamma.fill_(gamma)
        parts = graphs(nano, size)
        images = torch.randn(3, 3, size[1], size[0], generator=torch.Generator().manual_seed(2))
        features, found = nano.frame_features(images), parts["frame"].module(images)
        window = [x[[0, 0, 0, 1, 2]][None] for x in features]
        older, newer = (window[0][0][part] for part in (slice(0, 4), slice(1, 5)))
        pairs = nano.pair_features(older, newer)
        raw = nano.join(type(features)(*window), pairs[None])
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, features, strict=True))
        assert torch.allclose(parts["pair"].module(older, newer), pairs, atol=1e-5)
        joined = parts["join"].module(*window, pairs[None])
        assert (joined - raw).abs().max() < 1e-4 * raw.abs().max()
        nano.neck.nolocal.gamma.zero_()


def test_export_does_not_change_the_network(nano):
    before = {name: value.clone() for name, value in nano.state_dict().items()}
    graphs(nano, SIZE)
    after = nano.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert isinstance(nano.neck.agpf.body[0], FrequencyBlock)


# The command


def test_the_command_writes_three_graphs_for_any_number_of_samples(command, nano_weights, tmp_path):
    place = tmp_path / "nano"
    code, out, _ = command("tridos-nano", "--weights", nano_weights, "--size", "64x32", "--output", place)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        str(place / f"{name}.onnx") for name in ("frame", "pair", "join")
    ]
    for path in place.glob("*.onnx"):
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
        for value in (*graph.graph.input, *graph.graph.output):
            first, *others = value.type.tensor_type.shape.dim
            assert first.dim_param == "samples"
            assert all(other.dim_value > 0 for other in others)
    table = json.loads((place / export_folder.MANIFEST).read_text())
    assert (table["size"], table["format"], table["detector"]) == ([64, 32], "onnx", "tridos-nano")
    assert table["sha256"] == file_sha256(zoo.locate_weights(nano_weights)[0])
    code, _, err = command("tridos-nano", "--weights", nano_weights, "--size", "64x32", "--output", place)
    assert (code, "--overwrite" in err) == (5, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("rdian",), 2, "not for 'rdian'"),
        (("tridos-nanno",), 2, "tridos-nano"),
        (("tridos-nano", "--size", "native"), 2, "has one size"),
        (("tridos-nano", "--size", "100x64"), 2, "multiples of 32"),
        (("tridos-nano-drone-ir", "--weights", "other.safetensors"), 2, "names weights already"),
        (("tridos-nano", "--weights", "nothing.safetensors"), 4, "does not exist"),
        (("tridos",), 4, "--weights"),
        (("tridos-nano", "--format", "tflite"), 2, "torch-export"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    arguments, code, said, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found, out, err = command(*arguments)
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert said in err
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_the_line_that_installs_it(command, hide_packages, tmp_path):
    hide_packages("onnx")
    code, _, err = command("tridos-nano", "--output", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "pip install onnx" in err


# Reading


@pytest.fixture
def written(nano_origin, tmp_path):
    """A folder of graphs of a few bytes each."""
    contents = {name: name.encode() * 9 for name in export_folder.GRAPHS}
    return export_folder.write_export(contents, nano_origin, tmp_path / "written", size=SIZE, kind="onnx")


def test_an_export_is_read_as_it_was_written(written):
    export = export_folder.read_export(written.folder)
    assert export == written
    assert export_folder.read_graphs(export) == {name: name.encode() * 9 for name in export_folder.GRAPHS}


def test_a_graph_whose_bytes_are_others_is_refused(written):
    path = written.file("pair")
    good = path.read_bytes()
    for bad, said in (
        (b"", "0 bytes"),
        (good[:-1], "35 bytes"),
        (good + b"x", "more than"),
        (good[::-1], "digest"),
    ):
        path.write_bytes(bad)
        with pytest.raises(WeightsError, match=rf"pair\.onnx is damaged: .*{said}.*; export again"):
            export_folder.read_graphs(export_folder.read_export(written.folder))
    path.unlink()
    with pytest.raises(WeightsError, match=r"pair\.onnx is missing"):
        export_folder.read_graphs(written)
    os.mkfifo(path)
    with pytest.raises(WeightsError, match="no regular file"):
        export_folder.read_graphs(written)


def test_a_manifest_whose_bytes_are_others_is_refused(written):
    path = written.folder / export_folder.MANIFEST
    table = json.loads(path.read_text())
    for key, value in (
        ("enlarge", 9.0),
        ("classes", ["bird"]),
        ("size", [32, 32]),
        ("graphs", {}),
        ("digest", "0"),
    ):
        path.write_text(json.dumps({**table, key: value}))
        with pytest.raises(WeightsError, match="is damaged; export again"):
            export_folder.read_export(written.folder)
    for text in ("", "{", "[]", "[" * 100_000, "1", '{"digest": 1}'):
        path.write_text(text)
        with pytest.raises(WeightsError, match="is damaged; export again"):
            export_folder.read_export(written.folder)


def test_an_export_of_an_earlier_version_is_to_be_repeated(written):
    path = written.folder / export_folder.MANIFEST
    table = {
        key: value for key, value in json.loads(path.read_text()).items() if key not in ("digest", "graphs")
    }
    path.write_text(json.dumps(table))
    with pytest.raises(WeightsError, match="no digests, as in earlier versions; export again"):
        export_folder.read_export(written.folder)


def test_a_folder_that_is_no_export_says_what_is_expected(tmp_path):
    with pytest.raises(WeightsError, match=r"without export\.json.*python -m detectors\.export"):
        export_folder.read_export(tmp_path)
    (tmp_path / export_folder.MANIFEST).write_text("{}")
    with pytest.raises(WeightsError, match="damaged"):
        export_folder.read_export(tmp_path)


def test_only_networks_of_five_frames_are_exported():
    assert set(export_folder.NETWORKS) <= set(detectors.DETECTORS)
    with pytest.raises(UsageError, match="tridos-nano"):
        export_folder.require_exportable("madnet", "export")


# The digest of the code


def test_the_digest_covers_every_module_that_the_graphs_import():
    """Modules of this project outside of these packages are layers below, such as the ring buffer."""
    packages = ("detectors.backends.", "detectors.networks.tridos.", "detectors.networks.layers.")
    code = f"""
        import sys, detectors.backends.graphs
        for name, module in sys.modules.items():
            if name.startswith({packages!r}):
                print(module.__file__)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    imported = {Path(line) for line in done.stdout.splitlines()}
    assert {path.name for path in imported} >= {"graphs.py", "swin.py", "frequency.py", "blocks.py"}
    assert imported <= set(export_folder.code_files())


def test_the_digest_changes_with_the_bytes_of_any_module(tmp_path, monkeypatch):
    copies = []
    for number, file in enumerate(export_folder.code_files()):
        copies.append(tmp_path / f"{number}.py")
        copies[-1].write_bytes(file.read_bytes())
    before = export_folder.code_digest()
    monkeypatch.setattr(export_folder, "code_files", lambda: copies)
    assert export_folder.code_digest() == before
    digests = {before}
    for copy in copies:
        copy.write_bytes(copy.read_bytes() + b"#")
        digests.add(export_folder.code_digest())
    assert len(digests) == len(copies) + 1
