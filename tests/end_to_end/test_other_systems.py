"""A run on a system without the modules and signals that only Unix has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT

WITHOUT_UNIX = """
import os, signal, sys
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGALRM", "SIGPIPE", "alarm", "setitimer",
             "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("sched_getaffinity", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_DIRECTORY", "fork", "getuid",
             "geteuid", "killpg", "mkfifo", "statvfs", "posix_fadvise", "posix_fallocate", "fchmod"):
    if hasattr(os, name):
        delattr(os, name)
"""


def without_unix(folder: Path, text: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs Python code in a process without what only Unix has, in a folder."""
    code = f"{WITHOUT_UNIX}\nsys.path.insert(0, {str(PROJECT_ROOT)!r})\n{text}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder
    )


@pytest.fixture
def sample(clip, nano_weights) -> tuple[str, ...]:
    """Arguments of a run over the synthetic clip."""
    return ("run", str(clip), "--weights", str(nano_weights), "--output", "out", "--progress", "off")


def test_a_run_needs_no_module_and_no_signal_of_unix(sample, clip, tmp_path):
    run = "import mote.cli; sys.exit(mote.cli.main(sys.argv[1:]))"
    done = without_unix(
        tmp_path, run, *sample, "--annotations", str(clip.with_suffix(".json")), "--save-zarr"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["state"] == "complete"
    again = without_unix(tmp_path, run, *sample)
    assert again.returncode == 5
    assert "--overwrite" in again.stderr
    recovered = without_unix(tmp_path, run, "recover", "out")
    assert recovered.returncode == 0, recovered.stderr


def test_no_module_imports_what_only_unix_has_when_it_is_loaded(tmp_path):
    load = """
import importlib, pkgutil
for top in ("pipeline", "datasets", "detectors", "trackers", "mote"):
    for module in pkgutil.walk_packages(importlib.import_module(top).__path__, f"{top}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
    done = without_unix(tmp_path, load)
    assert done.returncode == 0, done.stderr
