"""All commands parse options alike and end with one line and an exit code, never with a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.system import cli
from pipeline.system.errors import OutputError
from tests.conftest import PROJECT_ROOT
from tests.support.outputs import lines

MODULES = (
    *("run_pipeline", "pipeline.vid_map_coco", "datasets.synthetic"),
    *("detectors.train", "detectors.evaluate", "detectors.publish"),
)


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m some.command", description="Does something.")
    parser.add_argument("file", nargs="?")
    parser.add_argument("--size")
    parser.add_argument("--count", type=cli.int_at_least(1))
    return parser


def shell(text: str) -> subprocess.CompletedProcess:
    """Runs a shell command in which `mote` is the program; the exit code is that of the program."""
    script = f"set -o pipefail; mote() {{ '{sys.executable}' run_pipeline.py \"$@\"; }}; {text}"
    return subprocess.run(["bash", "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True)


def python(code: str) -> list[str]:
    """Returns the words that Python code prints in a new process."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


# Start and end of a command


@pytest.mark.parametrize("module", MODULES)
def test_help_loads_neither_torch_nor_the_libraries_for_pictures(module):
    code = f"""
import importlib, sys
assert importlib.import_module({module!r}).main(["--help"]) == 0
sys.exit(any(name in sys.modules for name in ("torch", "cv2", "av", "scipy", "pycocotools")))
"""
    reply = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert (reply.returncode, reply.stderr) == (0, "")
    name = "run_pipeline.py" if module == "run_pipeline" else f"python -m {module}"
    assert reply.stdout.startswith(f"usage: {name} ")


@pytest.mark.parametrize("package", ["pipeline", "datasets", "detectors", "trackers", "run_pipeline"])
def test_an_import_leaves_the_environment_as_it_was(package):
    code = f"import os; before = dict(os.environ); import {package}; print(dict(os.environ) == before)"
    assert python(code) == ["True"]


@pytest.mark.parametrize(("asked", "spins"), [(None, "5000"), ("70", "70")], ids=["default", "user"])
def test_a_command_limits_the_spinning_of_threads_before_torch_is_loaded(monkeypatch, asked, spins):
    if asked:
        monkeypatch.setenv("GOMP_SPINCOUNT", asked)
    else:
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    code = """
import os, sys
from pipeline.system import cli

def work(options):
    print("torch" in sys.modules, os.environ.get("GOMP_SPINCOUNT"))

sys.exit(cli.run(cli.Parser(), work, []))
"""
    assert python(code) == ["False", spins]


def test_no_command_loads_torch_before_it_runs():
    modules = [
        f"{folder.name}.{path.stem}"
        for folder in map(PROJECT_ROOT.joinpath, ("pipeline", "datasets", "detectors"))
        for path in folder.glob("*.py")
        if "cli.run(" in path.read_text(encoding="utf-8")
    ]
    assert len(modules) >= 16
    names = ", ".join([*modules, "run_pipeline", "detectors.mmdet_adapter.__main__"])
    assert python(f"import sys, {names}; print('torch' in sys.modules)") == ["False"]


@pytest.mark.parametrize("work", [lambda options: None, lambda options: 0])
def test_work_that_comes_to_its_end_gives_code_zero(work):
    assert cli.run(parser(), work, []) == 0


def test_options_reach_the_work():
    seen = []
    cli.run(parser(), seen.append, ["in.mp4", "--count", "3", "--siz", "8"])
    assert (seen[0].file, seen[0].count, seen[0].size) == ("in.mp4", 3, "8")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OutputError("cannot write"), 5, "error: cannot write\n"),
        (KeyboardInterrupt(), 130, "error: interrupted by SIGINT"),
        (BrokenPipeError(), 1, ""),
    ],
    ids=["known", "Ctrl-C", "closed"],
)
def test_what_ends_the_work_gives_its_code_and_at_most_one_line(capsys, error, code, line):
    def work(options):
        raise error

    assert cli.run(parser(), work, []) == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == bool(line)


@pytest.mark.parametrize(("options", "shown"), [([], False), (["-W", "default"], True)])
def test_warnings_of_libraries_are_shown_on_request_only(options, shown):
    code = """
import sys, warnings
from pipeline.system import cli
sys.exit(cli.run(cli.Parser(), lambda _: warnings.warn("of a library"), []))
"""
    reply = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert reply.returncode == 0
    assert ("of a library" in reply.stderr) == shown


def test_a_fault_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.run(parser(), lambda options: 1 // 0, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sise", "3"], "unknown option '--sise', did you mean '--size'?; see --help"),
        (["--sise=3"], "unknown option '--sise', did you mean '--size'?; see --help"),
        (["--zzz"], "unknown option '--zzz'; see --help"),
        (["a", "b"], "unrecognized arguments: b; see --help"),
        (["--count", "0"], "argument --count: '0', expected a whole number of 1 or more; see --help"),
        (["--count", "1.5"], "argument --count: '1.5', expected a whole number of 1 or more; see --help"),
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_are_told(capsys, arguments, message):
    assert cli.run(parser(), print, arguments) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


def test_what_looks_like_an_option_is_a_file_after_two_dashes():
    seen = []
    cli.run(parser(), seen.append, ["--", "--odd name"])
    assert seen[0].file == "--odd name"


# Standard output


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("flag", ["--list", "--help"])
def test_an_output_that_nobody_reads_ends_the_command_quietly(flag, unbuffered):
    reply = shell(f"PYTHONUNBUFFERED={unbuffered} mote {flag} | true")
    assert reply.stderr == ""
    assert reply.returncode in ((1,) if flag == "--list" else (0, 1))  # argparse may suppress the error


def test_a_reader_that_takes_the_first_line_only_is_no_fault():
    reply = shell("mote --list | head -1")
    assert (reply.stdout, reply.stderr) == ("detectors\n", "")


def test_an_output_that_is_closed_is_no_fault():
    reply = shell("mote --list >&-")
    assert (reply.returncode, reply.stderr) == (0, "")


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_an_output_that_is_full_is_told_in_one_line(unbuffered):
    reply = shell(f"PYTHONUNBUFFERED={unbuffered} mote --list > /dev/full")
    assert reply.returncode == 5
    assert reply.stderr == "error: cannot write to standard output: No space left on device\n"


# The source of a run


@pytest.mark.parametrize("options", [["--max-frames", "2"], ["--max-frames", "0"]], ids=" ".join)
@pytest.mark.parametrize("flag", [[], ["--video"]], ids=["bare", "--video"])
def test_a_source_is_given_with_or_without_its_flag(mote, tmp_path, clip, nano_weights, flag, options):
    out = tmp_path / "out"
    fixed = ("--weights", nano_weights, "--output", out, "--progress", "off", "--no-save-video")
    assert mote(*fixed, *flag, clip, *options).code == 0
    assert len(lines(out)) == (2 if options[1] == "2" else 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4", "--video", "b.mp4"], "two sources are given, 'a.mp4' and --video 'b.mp4'; leave one out"),
        (["--video", ""], "the source is an empty text, expected a video file, a folder of images"),
        ([""], "the source is an empty text, expected a video file, a folder of images"),
        (["a.mp4", "b.mp4"], "unrecognized arguments: b.mp4"),
    ],
    ids=["both", "empty --video", "empty", "two"],
)
def test_a_source_that_is_not_clear_is_refused(mote, arguments, message):
    code, out, err = mote(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {message}")
