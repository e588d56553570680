"""The systemd unit and the container start this program, with few privileges."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import run_pipeline
from pipeline.config.parsing import build, override, parse_setting
from pipeline.config.schema import RunConfig, ServiceConfig
from pipeline.runner.health import serve_health
from pipeline.runner.summary import Summary
from pipeline.system.errors import Interrupted, UsageError, WeightsError
from tests.conftest import PROJECT_ROOT
from tests.support.stream_servers import free_port

SERVICE = PROJECT_ROOT / "configs" / "service"
HOME = "/opt/mote/"


@pytest.fixture(scope="module")
def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string((SERVICE / "mote.service").read_text())
    return parser


@pytest.fixture(scope="module")
def container() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments."""
    text = re.sub(r"^#.*\n", "", (SERVICE / "Dockerfile").read_text(), flags=re.MULTILINE)
    rows = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(row.split(maxsplit=1)) for row in rows if row]


def arguments_of(container, instruction: str) -> list[str]:
    (value,) = (value for name, value in container if name == instruction)
    return json.loads(value)


def started(unit) -> list[str]:
    """Returns the arguments that the unit passes to Python: its shell prints them instead."""
    shell, flag, script = shlex.split(unit["Service"]["ExecStart"])
    python = f"{HOME}.venv/bin/python "
    assert script.startswith(f"exec {python}")
    script = script.replace(python, "printf '%s\\n' ").replace("%%", "%")
    folders = {"STATE_DIRECTORY": "/var/lib/mote", "CACHE_DIRECTORY": "/var/cache/mote"}
    environment = {**folders, "MOTE_SOURCE": "rtsp://camera/1?a=b c&d=$HOME;`ls`", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([shell, flag, script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_unit_starts_a_run_of_this_program(unit):
    program, *arguments = started(unit)
    assert (PROJECT_ROOT / program.removeprefix(HOME)).samefile(run_pipeline.__file__)
    arguments[arguments.index("/etc/mote/mote.toml")] = str(PROJECT_ROOT / "configs" / "default.toml")
    options = run_pipeline.parser().parse_args(arguments)
    assert run_pipeline.locations(options) == ["rtsp://camera/1?a=b c&d=$HOME;`ls`"]
    config = run_pipeline.configuration(options)
    assert config.service.health_port == 9464
    assert config.detector.cache == "/var/cache/mote"
    assert re.fullmatch(r"/var/lib/mote/\d{8}T\d{6}", config.output.folder)


def test_the_unit_restarts_by_the_exit_codes_of_the_program(unit):
    service = unit["Service"]
    assert service["KillSignal"] == "SIGTERM"
    assert service["Restart"] == "on-failure"
    stopped = {Interrupted(number).exit_code for number in (2, 15)}
    assert set(map(int, service["SuccessExitStatus"].split())) == stopped
    hopeless = {UsageError.exit_code, WeightsError.exit_code}
    assert set(map(int, service["RestartPreventExitStatus"].split())) == hopeless


def test_the_unit_runs_as_a_dynamic_user_and_only_writes_to_its_own_folders(unit):
    service = unit["Service"]
    assert service["DynamicUser"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert {service["StateDirectory"], service["CacheDirectory"]} == {"mote"}
    assert not {"User", "ReadWritePaths", "AmbientCapabilities"} & set(service)


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (SERVICE / "mote.service").read_text()
    (tmp_path / "mote.service").write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "mote.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_holds_the_program_and_only_existing_files(container):
    copied = [value.split()[:-1] for name, value in container if name == "COPY"]
    names = {name for row in copied for name in row}
    assert all((PROJECT_ROOT / name).exists() for name in names)
    packages = {"pipeline", "detectors", "trackers", "datasets"}
    required = re.findall(
        r"^--requirement (\S+)", (PROJECT_ROOT / "requirements.txt").read_text(), re.MULTILINE
    )
    assert packages | {"run_pipeline.py", "requirements.txt", *required, "configs"} <= names
    kept = (SERVICE / "Dockerfile.dockerignore").read_text().split()
    assert kept[0] == "*"
    assert {name.removeprefix("!") for name in kept if name.startswith("!")} == names


def test_the_container_takes_its_base_as_an_argument_and_does_not_run_as_root(container):
    assert container[0] == ("ARG", "BASE=ubuntu:24.04")
    assert container[1] == ("FROM", "${BASE}")
    (user,) = (value for name, value in container if name == "USER")
    assert int(user) > 0
    added = next(value for name, value in container if name == "RUN" and "useradd" in value)
    assert f"--uid {user} " in added
    after = [name for name, _ in container[container.index(("USER", user)) :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_the_container_starts_this_program_with_valid_options(container):
    python, program, *arguments = arguments_of(container, "ENTRYPOINT")
    assert python == f"{HOME}.venv/bin/python"
    assert (PROJECT_ROOT / program.removeprefix(HOME)).samefile(run_pipeline.__file__)
    options = run_pipeline.parser().parse_args([*arguments, "--video", "a.mp4"])
    port = run_pipeline.configuration(options).service.health_port
    assert ("EXPOSE", str(port)) in container
    assert f":{port}/healthz" in dict(container)["HEALTHCHECK"]


@pytest.mark.parametrize("well", [True, False])
def test_the_container_is_healthy_while_the_run_is(container, well):
    check = json.loads(dict(container)["HEALTHCHECK"].partition("CMD ")[2])
    port, summary = free_port(), Summary()
    if not well:
        summary.unopened["north"] = UsageError("no such file")
    command = [sys.executable, check[1], check[2].replace("9464", str(port))]
    with serve_health(summary, ServiceConfig(health_port=port)):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) == well, done.stderr


def test_the_settings_of_the_unit_are_keys_of_the_configuration(unit):
    settings = re.findall(r"--set ([\w.]+)=", unit["Service"]["ExecStart"])
    assert settings == ["detector.cache"]
    table = override({}, [parse_setting(f"{key}=a") for key in settings])
    build(RunConfig, table)
