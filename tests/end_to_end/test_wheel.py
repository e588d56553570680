"""The wheel: one package, beside packages of other projects with the names of our folders."""

from __future__ import annotations

import email
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT

OTHERS = ("datasets==5.2.0", "trackers==2.6.1", "supervision==0.31.2")
"""Packages of other projects, with the names of our folders or beside which users install ours."""
MAX_BYTES = 40_000_000


def load_hook():
    """The module of the build hook."""
    path = PROJECT_ROOT / "configs" / "packaging" / "build_hook.py"
    spec = importlib.util.spec_from_file_location("build_hook", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook = load_hook()


def pip(python, *arguments):
    """Runs pip of an environment."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ".")
    (path,) = folder.glob("mote_ir-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The interpreter of an environment with the wheel, the other projects, and our libraries."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip(python, "install", "--no-deps", wheel, *OTHERS)
    (packages,) = folder.glob("lib/python*/site-packages")
    (libraries,) = Path(sys.prefix).glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(f"{libraries}\n", encoding="utf-8")
    return python


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from pipeline.system import cli", "from mote.pipeline.system import cli"),
        ("    from trackers import track", "    from mote.trackers import track"),
        ("import trackers", "from mote import trackers"),
        ("    import run_pipeline  # slow", "    from mote import run_pipeline  # slow"),
        ("import datasets.check as check", "import mote.datasets.check as check"),
        ('build("datasets.check", 1)', 'build("mote.datasets.check", 1)'),
        ('Command("run_pipeline", "run")', 'Command("mote.run_pipeline", "run")'),
        ('key = "detectors.nothing"', 'key = "detectors.nothing"'),
        ("run `python -m datasets.check DIR`", "run `python -m mote.datasets.check DIR`"),
        ("from datasets_of_others import x", "from datasets_of_others import x"),
        ("pipeline.run()", "pipeline.run()"),
    ],
)
def test_imports_are_rewritten(line, expected):
    assert hook.rewritten(line, {"datasets.check", "run_pipeline"}) == expected


def test_an_import_that_is_not_rewritten_is_found():
    assert hook.moved_imports("import os, pipeline.system\nfrom datasets import check\n") == [
        "pipeline.system",
        "datasets",
    ]
    assert hook.moved_imports("import mote.pipeline\nfrom numpy import pipeline\n") == []


def test_the_wheel_holds_one_package_and_all_that_a_run_reads(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(about))
    assert {name.split("/")[0] for name in names} == {"mote", about.split("/")[0]}
    for name in ("py.typed", "configs/default.toml", "datasets/samples/demo.mp4", "pipeline/build.json"):
        assert f"mote/{name}" in names
    weights = {path.name for path in (PROJECT_ROOT / "detectors" / "zoo").glob("*.safetensors")}
    assert {f"mote/detectors/zoo/{name}" for name in weights} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    assert wheel.stat().st_size <= MAX_BYTES
    required = {text.split(";")[0].split("<")[0].split(">")[0].split("=")[0] for text in plain(metadata)}
    assert {"torch", "av", "numpy", "opencv-python", "pycocotools", "mmdet", "motmetrics", "zarr"} <= required
    assert not {"openvino", "matplotlib", "prometheus-client", "onnx", "pytest"} & required


def plain(metadata) -> list[str]:
    """The requirements that are installed without any extra."""
    return [text for text in metadata.get_all("Requires-Dist") if "extra ==" not in text]


def test_the_wheel_runs_the_sample_beside_packages_with_the_names_of_our_folders(installed, tmp_path):
    site = next(installed.parents[1].glob("lib/python*/site-packages"))
    sample = site / "mote" / "datasets" / "samples" / "demo.mp4"
    command = [installed.parent / "mote", "run", sample, "--max-frames", "8", "--output", "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "annotated.mp4",
        "results.jsonl",
        "run.json",
    }
    assert '"commit": "' in (tmp_path / "out" / "run.json").read_text(encoding="utf-8")


def test_packages_of_other_projects_stay_whole(installed, tmp_path):
    site = next(installed.parents[1].glob("lib/python*/site-packages"))
    owners: dict[str, list[str]] = {}
    for record in site.glob("*.dist-info/RECORD"):
        for line in record.read_text(encoding="utf-8").splitlines():
            owners.setdefault(line.rsplit(",", 2)[0], []).append(record.parent.name)
    assert {name: found for name, found in owners.items() if len(found) > 1} == {}
    lines = ["import mote, supervision, importlib.util as u, mote.trackers, mote.datasets.check"]
    lines += ["print(*(u.find_spec(name).origin for name in ('datasets', 'trackers')))"]
    done = subprocess.run(
        [installed, "-c", "\n".join(lines)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.split() == [str(site / name / "__init__.py") for name in ("datasets", "trackers")]
