"""Settings and fixtures that every test may use."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption(
        "--shared-root",
        default=str(PROJECT_ROOT.parent / "shared"),
        help="folder with the real data (data/) and the network references (parity/)",
    )
    parser.addoption("--require-cuda", action="store_true", help="fail instead of skip without a CUDA device")


def pytest_collection_modifyitems(config, items):
    shared = Path(config.getoption("--shared-root"))
    missing = pytest.mark.skip(reason=f"real data not found under {shared} (set --shared-root)")
    for item in items:
        if "real_data" in item.keywords and not (shared / "data").is_dir():
            item.add_marker(missing)


@pytest.fixture(scope="session")
def shared_root(request) -> Path:
    """The folder that holds data/ and parity/."""
    return Path(request.config.getoption("--shared-root"))


@pytest.fixture(scope="session")
def drone_ir(shared_root) -> Path:
    """Root of the drone-ir data set: videos/ and annotations/."""
    return shared_root / "data" / "drone-ir"


@pytest.fixture(scope="session")
def parity(shared_root):
    """The module parity/weights.py: `fill_state_dict`, `make_input`."""
    spec = importlib.util.spec_from_file_location("parity_weights", shared_root / "parity" / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
