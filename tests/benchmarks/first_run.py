"""Time and size of a first run from a wheel: `python -m tests.benchmarks.first_run`.

Builds the wheel, installs it with all that it requires in an empty environment, and runs the sample there
from another folder. Prints a Markdown table of seconds and megabytes. Downloads depend on the connection and
are measured apart from the installation.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.system import cli
from pipeline.system.errors import MoteError
from tests.benchmarks.options import benchmark_parser

PROJECT_ROOT = Path(__file__).resolve().parents[2]
COMPILED = "__pycache__"


def parser() -> cli.Parser:
    """Builds the command line."""
    parser = benchmark_parser("tests.benchmarks.first_run", __doc__)
    parser.add_argument(
        "--extras", default="", help="extras to install, such as export,plots (default: none)"
    )
    parser.add_argument("--frames", type=cli.int_at_least(1), default=100, help="frames (default: 100)")
    return parser


class Steps:
    """Runs commands in a folder and measures how long they take and how much a folder grows."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[tuple[str, float, int]] = []
        """Title, seconds and bytes of each step."""

    def __call__(self, title: str, *command: object, grows: Path | None = None) -> None:
        """Runs a command. Raises MoteError if it fails."""
        before, started = size_of(grows), time.perf_counter()
        done = subprocess.run(list(map(str, command)), cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise MoteError(f"{title} failed: {done.stderr.strip().splitlines()[-1]}")
        self.rows.append((title, time.perf_counter() - started, size_of(grows) - before))


def work(options: argparse.Namespace) -> None:
    """Measures and prints the table. Raises MoteError if a step fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        step = Steps(folder)
        wheels, downloads, environment = folder / "wheel", folder / "downloads", folder / "environment"
        build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps")
        step("build the wheel", *build, "--wheel-dir", wheels, PROJECT_ROOT, grows=wheels)
        (wheel,) = wheels.glob("*.whl")
        wanted = f"{wheel}[{options.extras}]" if options.extras else str(wheel)
        step("empty environment", sys.executable, "-m", "venv", environment, grows=environment)
        python = environment / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        pip = (python, "-m", "pip", "--disable-pip-version-check", "--quiet")
        step("download", *pip, "download", "--dest", downloads, wanted, grows=downloads)
        install = ("install", "--no-index", "--find-links", downloads, wanted)
        step("install", *pip, *install, grows=environment)
        sample = next(environment.rglob("mote/datasets/samples/demo.mp4"))
        run = (python.with_name("mote"), "run", sample, "--max-frames", options.frames, "--output")
        step(f"first run, {options.frames} frames", *run, folder / "first")
        step("second run", *run, folder / "second")
        packages = len(list(environment.rglob("*.dist-info")))
    print(f"{packages} packages\n\n| step | seconds | MB |\n|---|---|---|")
    for title, seconds, size in step.rows:
        print(f"| {title} | {seconds:.1f} | {size / 1e6:.0f} |")


def size_of(folder: Path | None) -> int:
    """Returns the size of the files below a folder in bytes, without Python's compiled modules."""
    if folder is None or not folder.exists():
        return 0
    files = (path for path in folder.rglob("*") if COMPILED not in path.parts and path.is_file())
    return sum(path.lstat().st_size for path in files)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
