"""Names of files cannot control the terminal, and a broken standard error does not change the exit code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.system import cli
from pipeline.system.errors import SourceError
from pipeline.system.terminal import encodable, printable
from tests.conftest import PROJECT_ROOT
from tests.support.outputs import cache_option

HOSTILE = "\x1b[2J\x1b]0;title\x07\r\x9b31m\u202egpj.exe\udcff"


def is_harmless(text):
    return not set(text) & set("\x1b\x07\r\x9b\u202e\udcff")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip.mp4", "clip.mp4"),
        ("Aufnahme für 夜间 №1\u00a0ok", "Aufnahme für 夜间 №1\u00a0ok"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\rb\x00\x7f\x9b", "a\\rb\\x00\\x7f\\x9b"),
        ("\u202e\u2066", "\\u202e\\u2066"),
        ("\udcff", "\\udcff"),
        ("a\nb\tc", "a\\nb\\tc"),
    ],
)
def test_control_characters_are_shown_as_escapes(text, shown):
    assert printable(text) == shown


def test_line_feeds_may_be_kept():
    assert printable("a\nb\tc\x1b", keep="\n\t") == "a\nb\tc\\x1b"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "3\u00d73 … für 夜"),
        ("ascii", "3x3 ... f\\xfcr \\u591c"),
        ("latin-1", "3\u00d73 ... für \\u591c"),
        ("cp437", "3x3 ... für \\u591c"),
        ("no such encoding", "3\u00d73 … für 夜"),
        (None, "3\u00d73 … für 夜"),
    ],
)
def test_characters_that_an_encoding_lacks_are_replaced_or_escaped(encoding, shown):
    assert encodable("3\u00d73 … für 夜", encoding) == shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_the_help_is_shown_in_a_terminal_of_any_encoding(encoding):
    command = [sys.executable, "run_pipeline.py", "--help"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "(rtsp, http, ...)" in " ".join(done.stdout.decode(encoding).split())


def test_what_commands_print_and_report_is_harmless(capsys):
    def work(_):
        print(f"found\t{HOSTILE}\nnext line")
        raise SourceError(f"{HOSTILE}: no such file")

    assert cli.run(cli.Parser(), work, []) == 3
    shown = capsys.readouterr()
    assert is_harmless(shown.out)
    assert is_harmless(shown.err)
    assert shown.out.startswith("found\t\\x1b[2J")
    assert shown.out.endswith("\nnext line\n")
    assert shown.err.count("\n") == 1


def test_a_run_shows_names_without_their_control_characters(mote, clip, nano_weights, tmp_path):
    source = tmp_path / "a\x1b[31m\nstate complete.mp4"
    source.write_bytes(clip.read_bytes())
    options = ("--weights", nano_weights, "--max-frames", 2, "--progress", "off")
    alone = mote(source, *options, "--output", tmp_path / "out\x1b")
    both = mote("--video", source, "--video", clip, *options, "--output", tmp_path / "both\x1b")
    lost = mote("--video", tmp_path / "no\x1b", "--video", tmp_path / "none\x1b")
    for reply in (alone, both, lost):
        assert is_harmless(reply.out + reply.err)
    assert (alone.code, both.code, lost.code) == (0, 0, 3)
    assert alone.out.startswith(f"source      {tmp_path}/a\\x1b[31m\\nstate complete.mp4, 64x64")
    assert lost.err.count("\n") == 2


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(exec 0<&-)"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("run_pipeline.py nowhere.mp4", 3),
        ("run_pipeline.py --video nowhere.mp4 --video none.mp4", 3),
        ("run_pipeline.py --sause nowhere.mp4", 2),
        ("-m pipeline.recover nowhere", 2),
    ],
)
def test_the_exit_code_does_not_depend_on_standard_error(command, code, redirection):
    line = f"{sys.executable} {command} {redirection}"
    reply = subprocess.run(["bash", "-c", line], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, check=False)
    assert reply.returncode == code
    assert b"error" not in reply.stdout  # not in place of standard error


def test_a_broken_standard_error_does_not_end_a_run(clip, nano_weights, tmp_path):
    options = f"--weights {nano_weights} --max-frames 2 --progress plain --output {tmp_path / 'out'}"
    cache = " ".join(cache_option())
    line = f"{sys.executable} run_pipeline.py {clip} {options} {cache} 2>/dev/full"
    assert subprocess.run(["bash", "-c", line], cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL).returncode == 0
