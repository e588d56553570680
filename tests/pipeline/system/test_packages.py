"""Packages of other projects that are missing or cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from detectors import evaluate, export, sensitivity, train
from pipeline import calibration, error_analysis, mask_metrics, vid_map_coco
from pipeline.system import cli
from pipeline.system.packages import MissingPackage, import_failure, is_installed, require_package
from tests.conftest import PROJECT_ROOT


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package `whatever` of the given code; it is forgotten afterwards."""

    def make(code):
        (tmp_path / "whatever.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "whatever", raising=False)

    return make


def test_a_missing_package_is_named_with_the_command_of_pip(hide_packages):
    hide_packages("prometheus_client")
    assert not is_installed("prometheus_client")
    with pytest.raises(MissingPackage) as error:
        require_package("prometheus_client", "--health-port")
    said = "--health-port needs the package prometheus_client; install it with: pip install prometheus-client"
    assert str(error.value) == said
    assert error.value.exit_code == 2


def test_a_finder_that_refuses_a_package_hides_it(monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "shtab_of_nobody":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(MissingPackage, match="pip install shtab_of_nobody"):
        require_package("shtab_of_nobody", "this")


def test_a_package_that_lacks_another_names_that_one(package, hide_packages):
    package("import pandas")
    hide_packages("pandas")
    with pytest.raises(MissingPackage, match=r"whatever, which needs pandas; .* pip install pandas"):
        require_package("whatever", "this")


def test_a_package_that_cannot_be_imported_says_why(package):
    package("raise ImportError('libGL.so.1: cannot open shared object file')")
    with pytest.raises(MissingPackage, match=r"whatever, which cannot be imported: libGL\.so\.1"):
        require_package("whatever", "this")


def test_a_fault_of_the_program_is_no_missing_package():
    for statement in (
        "import pipeline.nothing",
        "from pipeline.system import nothing",
        "import _nothing_of_c",
    ):
        with pytest.raises(ImportError) as error:
            exec(statement)
        found = import_failure(error.value)
        assert (found is None) == ("pipeline" in statement)


def test_every_command_reports_what_it_cannot_import_in_one_line(capsys, hide_packages):
    hide_packages("motmetrics")

    def work(options):
        import motmetrics  # noqa: F401

    assert cli.run(cli.Parser(), work, []) == 2
    said = "error: the package motmetrics is not installed; install it with: pip install motmetrics\n"
    assert capsys.readouterr().err == said


def test_every_command_raises_faults_of_its_own():
    def work(options):
        from pipeline.system import nothing  # noqa: F401

    with pytest.raises(ImportError, match="nothing"):
        cli.run(cli.Parser(), work, [])


# The commands


RECIPE = PROJECT_ROOT / "configs" / "tridos_nano_drone_ir.toml"
COCO = ("--annotations", "missing.json", "--detections", "missing.json")
COMMANDS = {
    "curves of detections": ("matplotlib", vid_map_coco, (*COCO, "--plots", "plots")),
    "scores of tracks": ("motmetrics", vid_map_coco, (*COCO, "--tracks", "tracks.txt")),
    "curves of masks": (
        "matplotlib",
        mask_metrics,
        ("--predictions", "a", "--masks", "b", "--plots", "plots"),
    ),
    "kinds of errors": ("matplotlib", error_analysis, (*COCO, "--plots", "plots")),
    "reliability": ("matplotlib", calibration, (*COCO, "--plots", "plots")),
    "curves of a dataset": ("matplotlib", evaluate, ("weights", "--root", "data", "--plots", "plots")),
    "sensitivity": ("matplotlib", sensitivity, ("weights", "--plots", "plots")),
    "learning curves": ("matplotlib", train, (RECIPE,)),
    "log of training": ("tensorboardX", train, (RECIPE,)),
    "export": ("onnx", export, ("tridos-nano-drone-ir",)),
}


@pytest.mark.parametrize(("package", "command", "arguments"), COMMANDS.values(), ids=COMMANDS)
def test_a_command_names_a_missing_package_before_it_computes(
    package, command, arguments, hide_packages, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    hide_packages(package)
    assert command.main(list(map(str, arguments))) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert f"needs the package {package}; install it with: pip install {package}\n" in said.err
    assert not list(tmp_path.iterdir())


RUNS = {
    "arrays": ("zarr", ("--save-zarr",)),
    "health": ("prometheus_client", ("--health-port", "19464")),
    "scores of tracks": ("motmetrics", ("--annotations", "TRUTH")),
    "scores": ("pycocotools", ("--annotations", "TRUTH")),
    "tracker": ("lap", ("--tracker", "mmdet:ByteTracker")),
    "openvino": ("openvino", ("--backend", "openvino")),
    "onnxruntime": ("onnxruntime", ("--backend", "onnxruntime")),
    "onnx": ("onnx", ("--backend", "onnxruntime")),
}


@pytest.mark.parametrize(("package", "arguments"), RUNS.values(), ids=RUNS)
def test_a_run_names_a_missing_package_before_its_first_frame(
    package, arguments, mote, clip, nano_weights, hide_packages, tmp_path
):
    hide_packages(package)
    given = [clip.with_suffix(".json") if text == "TRUTH" else text for text in arguments]
    out = tmp_path / "out"
    reply = mote(clip, "--weights", nano_weights, "--output", out, "--progress", "off", *given)
    assert (reply.code, reply.out, reply.err.count("\n")) == (2, "", 1)
    assert f"needs the package {package}; install it with: pip install" in reply.err
    assert not out.exists()


@pytest.mark.parametrize("package", ["zarr", "tifffile"])
def test_a_source_whose_package_is_missing_is_not_called_damaged(package, mote, hide_packages, tmp_path):
    import zarr

    image = np.zeros((8, 8), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.tif")
    zarr.save_array(tmp_path / "a.zarr", image[None])
    hide_packages(package)
    source = tmp_path / {"zarr": "a.zarr", "tifffile": "a.tif"}[package]
    reply = mote(source, "--output", tmp_path / "out")
    assert (reply.code, reply.err.count("\n")) == (2, 1)
    assert f"needs the package {package}; install it with: pip install {package}" in reply.err


def test_a_new_process_without_the_packages_of_training_runs():
    """Without tomli_w, matplotlib and the like everything but what needs them works."""
    code = """
        import sys
        for name in ("matplotlib", "tensorboardX", "tomli_w", "prometheus_client", "onnx", "openvino"):
            sys.modules[name] = None
        import run_pipeline
        sys.exit(run_pipeline.main(["--list"]) or run_pipeline.main(["datasets/samples/none.mp4"]))
    """
    command = [sys.executable, "-c", "if 1:" + code]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
