"""Settings and fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

PROJECT_ROOT = Path(__file__).resolve().parent.parent
TESTS = PROJECT_ROOT / "tests"

SLOW_PLACES = (
    "end_to_end",
    "examples",
    "benchmarks",
    "detectors/backends",
    "detectors/evaluation",
    "detectors/mmdet_adapter",
    "detectors/training",
    "pipeline/runner",
    "detectors/networks/",
    "detectors/weights",
    "detectors/test_segment",
    "detectors/inference/test_multi_stream",
    "datasets/augmentation/test_kinds",
    "pipeline/system/test_terminal",
    "pipeline/system/test_cli",
    "pipeline/sources/test_lost_recordings",
    "pipeline/sources/test_streams",
    "pipeline/sources/test_live",
    "pipeline/sinks/test_video",
)
"""Folders and modules whose tests run the whole pipeline or networks, train, or start processes."""
SLOW_FIXTURES = {"mote", "process", "whole", "original", "real_clip", "drone_ir"}
"""Fixtures that run the whole pipeline or read real videos."""


def pytest_addoption(parser):
    parser.addoption(
        "--shared-root",
        default=str(PROJECT_ROOT.parent / "shared"),
        help="folder with the real data (data/) and the network references (parity/)",
    )
    parser.addoption("--require-cuda", action="store_true", help="fail instead of skip without a CUDA device")


def pytest_configure():
    # a shell ignores SIGINT in background jobs and their processes
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # ignored if nohup started the tests
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config, items):
    shared = Path(config.getoption("--shared-root"))
    missing = pytest.mark.skip(reason=f"real data not found under {shared} (set --shared-root)")
    for item in items:
        if "real_data" in item.keywords and not (shared / "data").is_dir():
            item.add_marker(missing)
        place = Path(item.path).relative_to(TESTS).as_posix()
        if place.startswith(SLOW_PLACES) or SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def random_state():
    """Restores the global random states, so that no test depends on those that ran before it."""
    torch = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    if torch:
        torch.set_rng_state(states[2])


@pytest.fixture
def hide_packages(monkeypatch):
    """Makes packages look as if they were not installed: for `import` and for `find_spec`."""

    def hide(*names):
        loaded = [module for module in sys.modules if module.partition(".")[0] in names]
        for name in {*names, *loaded}:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.fixture(scope="session")
def shared_root(request) -> Path:
    """The folder of data/ and parity/."""
    return Path(request.config.getoption("--shared-root"))


@pytest.fixture(scope="session")
def drone_ir(shared_root) -> Path:
    """Root of the drone-ir data set: videos/ and annotations/."""
    return shared_root / "data" / "drone-ir"


@pytest.fixture(scope="session")
def parity(shared_root):
    """The module parity/weights.py with `fill_state_dict` and `make_input`."""
    spec = importlib.util.spec_from_file_location("parity_weights", shared_root / "parity" / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def own_cache(tmp_path_factory):
    """Exports graphs to a temporary folder instead of the user's cache. Loads torch."""
    from detectors.backends import graph_cache

    kept, graph_cache.CACHE = graph_cache.CACHE, tmp_path_factory.mktemp("exported")
    yield
    graph_cache.CACHE = kept


@pytest.fixture(scope="session")
def nano_weights(own_cache, tmp_path_factory) -> str:
    """Path of untrained weights of tridos-nano that detect some boxes in every frame."""
    from tests.support.nano import save_nano

    return save_nano(tmp_path_factory.mktemp("weights") / "nano.safetensors")


@pytest.fixture(scope="session")
def nano(nano_weights):
    """The network with these weights."""
    from detectors.weights import restore

    return restore.restore_network("tridos-nano", nano_weights)[0].eval()


@pytest.fixture(scope="session")
def nano_origin(nano, nano_weights):
    """The origin that exports of this network record."""
    from detectors.backends import export_folder
    from detectors.weights import zoo

    path, _ = zoo.locate_weights(nano_weights)
    return export_folder.describe_origin("tridos-nano", nano_weights, path, nano, ("target",))


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A video of 16 frames of 64x64, with its ground truth beside it as .json."""
    from datasets.synthesis import rendering
    from tests.support.outputs import scene

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    rendering.write_scene(scene(), path)
    return path


@pytest.fixture
def mote(own_cache, capsys):
    """Runs the command line in this process; returns exit code, standard output and standard error."""
    import run_pipeline
    from tests.support.outputs import Reply

    def call(*arguments) -> Reply:
        try:
            code = run_pipeline.main([str(argument) for argument in arguments])
        except SystemExit as ending:
            code = ending.code
        return Reply(code, *capsys.readouterr())

    return call


@pytest.fixture
def process(tmp_path, nano_weights):
    """Runs the pipeline with detector settings as keywords; returns the folder of the outputs."""
    from pipeline.config.parsing import build
    from pipeline.config.schema import RunConfig
    from pipeline.runner.single import run
    from run_pipeline import parts

    def call(source, *, truth=None, folder="out", output=None, sections=None, **detector):
        table = {"detector": {"weights": nano_weights, "conf": 0.2, **detector}, **(sections or {})}
        table["output"] = {"folder": str(tmp_path / folder), **(output or {})}
        annotations = str(truth) if truth else None
        record = run(str(source), build(RunConfig, table), parts(), annotations=annotations, progress="off")
        if record.failure:
            raise record.failure
        return tmp_path / folder

    return call


@pytest.fixture(scope="session")
def whole(tmp_path_factory, clip, nano_weights):
    """The outputs of a run over the whole clip with ground truth."""
    from pipeline.config.parsing import build
    from pipeline.config.schema import RunConfig
    from pipeline.runner.single import run
    from run_pipeline import parts

    folder = tmp_path_factory.mktemp("whole") / "out"
    table = {"detector": {"weights": nano_weights, "conf": 0.2}, "output": {"folder": str(folder)}}
    truth = str(clip.with_suffix(".json"))
    run(str(clip), build(RunConfig, table), parts(), annotations=truth, progress="off")
    return folder
