"""Every command in the documentation exists and takes the options shown there; every Python example runs."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from mote.commands import COMMANDS
from tests.conftest import PROJECT_ROOT

DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "examples/*",
        "detectors/zoo/*.md",
        "tests/**/*.md",
        "configs/**/*",
        "pipeline/**/*.py",
        "datasets/**/*.py",
        "detectors/**/*.py",
        "trackers/**/*.py",
        "mote/*.py",
    )
    for path in PROJECT_ROOT.glob(pattern)
    if path.is_file() and path.suffix in (".md", ".toml", ".py", ".service", "")
)
MODULE = r"python (?:-m (?P<module>[a-z]\w*(?:\.\w+)*)|(?P<file>run_pipeline\.py))"
SUBCOMMAND = r"(?:(?<=`)|^[ #]*)(?:python -m )?mote (?P<name>[a-z]+)\b"
COMMAND = re.compile(rf"(?:{SUBCOMMAND}|{MODULE})(?P<arguments>[^`\n]*)", re.MULTILINE)
OTHERS = ("pip", "pytest", "venv", "mote")
"""Modules that are not looked at: those of other projects, and the command `mote` without a subcommand."""


def commands_of(path: Path) -> list[tuple[str, str]]:
    """Returns module and arguments of each command in a document; joins lines that end with a backslash.

    Commands in source code contain placeholders, so only their modules are kept.
    """
    text = re.sub(r"\\\n[\s#]*", " ", path.read_text(encoding="utf-8"))
    # code wrapped in a paragraph
    text = re.sub(r"`((?:python|mote) [^`\n]*)\n[\s#|]*([^`\n]*)`", r"`\1 \2`", text)
    found = []
    for match in COMMAND.finditer(text):
        arguments = re.split(r"\s+[#\[|]|[…;&>]|: |, ", match["arguments"])[0].strip().rstrip(".,:)")
        module = COMMANDS[match["name"]].module if match["name"] else match["module"] or "run_pipeline"
        found.append((module, "" if path.suffix == ".py" else arguments))
    return [(module, arguments) for module, arguments in found if module not in OTHERS]


ALL = sorted({command for path in DOCUMENTS for command in commands_of(path)})


def test_the_documentation_contains_commands():
    modules = {module for module, _ in ALL}
    assert {"run_pipeline", "detectors.train", "detectors.evaluate", "pipeline.error_analysis"} <= modules
    assert {command.module for command in COMMANDS.values()} - modules <= {"mote.listing"}
    assert len(ALL) > 100


def test_commands_are_found_in_all_their_forms(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(
        "```\nmote run in.mp4 --conf 0.2   # a remark\npython -m mote check drone-ir DATA\n```\n"
        "Use `mote train FILE --device cpu`, or `python -m detectors.train\nFILE --device cpu`.\n"
        "The word mote run is prose.\n"
    )
    assert commands_of(document) == [
        ("run_pipeline", "in.mp4 --conf 0.2"),
        ("datasets.check", "drone-ir DATA"),
        ("detectors.train", "FILE --device cpu"),
        ("detectors.train", "FILE --device cpu"),
    ]


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


EXAMPLES = [
    (path, re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
    for path in DOCUMENTS
    if path.suffix == ".md"
]


@pytest.fixture(scope="session")
def reader(own_cache, tmp_path_factory) -> Path:
    """A folder as a reader of the documents has it: in.mp4, its ground truth gt.json and the run runs/in."""
    import mote
    from datasets.synthesis import rendering
    from tests.support.outputs import scene

    folder = tmp_path_factory.mktemp("reader")
    rendering.write_scene(scene(), folder / "in.mp4")
    (folder / "in.json").rename(folder / "gt.json")
    mote.run(folder / "in.mp4", output=folder / "runs" / "in", save_zarr=True)
    return folder


def test_the_documentation_contains_python_examples():
    assert {path.name for path, blocks in EXAMPLES if blocks} >= {"README.md", "python.md", "formats.md"}


@pytest.mark.parametrize(
    ("path", "blocks"),
    [(path, blocks) for path, blocks in EXAMPLES if blocks],
    ids=[str(path.relative_to(PROJECT_ROOT)) for path, blocks in EXAMPLES if blocks],
)
def test_the_python_examples_of_a_document_run(path, blocks, reader, tmp_path, monkeypatch, capsys):
    """Each block runs alone, in a folder of its document; one that begins with `# NAME.py` is saved there."""
    folder = shutil.copytree(reader, tmp_path / "reader")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    known = set(sys.modules)
    for block in blocks:
        if match := re.match(r"# (\w+\.py)\n", block):
            (folder / match[1]).write_text(block, encoding="utf-8")
        exec(compile(block, f"{path.name}: {block[:40]!r}", "exec"), {"__name__": "__main__"})
    for name in {file.stem for file in folder.glob("*.py")} - known:
        sys.modules.pop(name, None)
