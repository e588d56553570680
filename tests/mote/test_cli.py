"""The command `mote` and its subcommands."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from mote import cli
from mote.commands import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_describes_its_options_under_the_name_that_was_typed(name, capsys):
    assert cli.main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: mote {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_is_a_module_with_a_parser(name):
    assert callable(import_module(COMMANDS[name].module).parser)


def test_a_module_keeps_its_own_name_in_its_usage():
    from pipeline import recover

    assert recover.parser().format_usage().startswith("usage: python -m pipeline.recover ")


def test_the_help_lists_all_subcommands(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert cli.main([]) == 0
    assert capsys.readouterr().out == out


def test_an_unknown_subcommand_is_refused_with_a_suggestion(capsys):
    assert cli.main(["trian"]) == 2
    assert "unknown command 'trian'; did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["in.mp4", "rtsp://camera/1", "clips/night"])
def test_a_source_in_place_of_a_subcommand_is_answered_with_the_command_for_it(capsys, source):
    assert cli.main([source]) == 2
    assert capsys.readouterr().err == f"error: '{source}' is no command; did you mean: mote run {source}\n"


def test_the_version_is_printed(capsys):
    import mote

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mote {mote.__version__}\n"


def test_the_exit_code_is_that_of_the_subcommand(tmp_path, capsys):
    assert cli.main(["run", str(tmp_path / "none.mp4")]) == 3
    assert "no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_help_loads_neither_torch_nor_opencv():
    loaded = "import sys; from mote import cli; cli.main(['--help']); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "cv2", "av", "numpy", "scipy"} & set(out.split())


def test_configurations_are_listed_and_printed(capsys):
    assert cli.main(["config"]) == 0
    listed = capsys.readouterr().out
    assert "default: All configuration keys of a run" in listed
    assert "tridos_nano_drone_ir: " in listed
    assert cli.main(["config", "--default"]) == 0
    printed = capsys.readouterr().out
    assert cli.main(["config", "default"]) == 0
    assert capsys.readouterr().out == printed
    assert "[source]" in printed
    assert cli.main(["config", "defualt"]) == 2


def test_the_printed_default_configuration_is_accepted_by_a_run(tmp_path, capsys):
    cli.main(["config", "--default"])
    (tmp_path / "run.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert cli.main(["run", str(tmp_path / "none.mp4"), "--config", str(tmp_path / "run.toml")]) == 3


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh", "powershell"])
def test_the_completion_script_knows_subcommands_and_options(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "segmenter-weights" in script


def test_the_list_is_that_of_a_run(capsys):
    assert cli.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert cli.main(["run", "--list"]) == 0
    assert capsys.readouterr().out == listed
