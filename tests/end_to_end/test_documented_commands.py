"""Every command in the documentation exists and accepts the options shown there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT

DOCUMENTS = sorted(
    path
    for pattern in (
        "README.md",
        "docs/**/*.md",
        "detectors/zoo/*.md",
        "tests/**/*.md",
        "configs/**/*",
        "pipeline/**/*.py",
        "datasets/**/*.py",
        "detectors/**/*.py",
        "trackers/**/*.py",
    )
    for path in PROJECT_ROOT.glob(pattern)
    if path.is_file() and path.suffix in (".md", ".toml", ".py", ".service", "")
)
COMMAND = re.compile(
    r"python (?:-m (?P<module>[a-z]\w*(?:\.\w+)*)|(?P<file>run_pipeline\.py))(?P<arguments>[^`\n]*)"
)
OTHERS = ("pip", "pytest", "venv")
"""Modules of other projects that the documentation runs."""


def commands_of(path: Path) -> list[tuple[str, str]]:
    """Returns module and arguments of each command in a document; joins lines that end with a backslash.

    Commands in source code contain placeholders, so only their modules are kept.
    """
    text = re.sub(r"\\\n[\s#]*", " ", path.read_text(encoding="utf-8"))
    text = re.sub(r"`(python [^`\n]*)\n[\s#|]*([^`\n]*)`", r"`\1 \2`", text)  # code wrapped in a paragraph
    found = []
    for match in COMMAND.finditer(text):
        arguments = re.split(r"\s+[#\[|]|[…;&>\"]|: |, ", match["arguments"])[0].strip().rstrip(".,:)")
        found.append((match["module"] or "run_pipeline", "" if path.suffix == ".py" else arguments))
    return [(module, arguments) for module, arguments in found if module not in OTHERS]


ALL = sorted({command for path in DOCUMENTS for command in commands_of(path)})


def test_the_documentation_contains_commands():
    modules = {module for module, _ in ALL}
    assert {"run_pipeline", "detectors.train", "detectors.evaluate", "pipeline.error_analysis"} <= modules
    assert len(ALL) > 60


@pytest.mark.parametrize(("module", "arguments"), ALL, ids=lambda part: part or "-")
def test_a_documented_command_takes_its_options(module, arguments):
    try:
        program = importlib.import_module(module)
    except ModuleNotFoundError:
        program = importlib.import_module(f"{module}.__main__")
    if not hasattr(program, "parser"):  # a package with its command in __main__
        program = importlib.import_module(f"{module}.__main__")
    words = shlex.split(arguments)
    parser = program.parser()
    if words and words[0] in getattr(program, "SUBCOMMANDS", ()):
        parser = program.SUBCOMMANDS[words.pop(0)].parser()
    if complete(parser, words) and not {"--help", "--version"} & set(words):
        parser.parse_args(words)
    for word in (word for word in words if word.startswith("--")):
        flag = word.partition("=")[0]
        assert flag in known_flags(parser), f"python -m {module} has no {flag}"


def complete(parser, words: list[str]) -> bool:
    """Returns whether a command has all required arguments; text may name one with a single option."""
    required = [action for action in parser._actions if action.required and action.option_strings]
    places = [
        action for action in parser._actions if not action.option_strings and action.nargs not in ("?", "*")
    ]
    given = [word for word in words if word.startswith("--")]
    options = {option for action in required for option in action.option_strings}
    return len(options & set(given)) == len(required) and (not places or words[:1] != given[:1])


def known_flags(parser) -> set[str]:
    """Returns all options of a parser and of its subcommands."""
    flags = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for sub in action.choices.values():
                flags |= known_flags(sub)
    return flags


def test_the_python_example_of_the_readme_runs(clip, nano_weights, capsys):
    text = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = (
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "open_source" in block
    )
    example = example.replace('"in.mp4"', repr(str(clip)))
    exec(example.replace("DetectorConfig()", f"DetectorConfig(weights={str(nano_weights)!r})"), {})
    assert len(capsys.readouterr().out.splitlines()) >= 16
