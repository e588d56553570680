"""Build hook of the wheel: puts all packages of the repository below the one package `mote`.

`pipeline`, `datasets`, `detectors` and `trackers` are common names, and other distributions use them. The
folders of the repository stay where they are; this hook copies them to a temporary folder with their imports
rewritten, such as `from pipeline.system import cli` to `from mote.pipeline.system import cli`.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "mote"
MOVED = ("pipeline", "datasets", "detectors", "trackers")
"""Packages of the repository that the wheel holds below `mote`."""
COMMAND = "run_pipeline"
"""The module of the main command, a single file beside them."""
LEFT_OUT = ("__pycache__", "*.pyc", ".*", "service", "packaging")
"""Patterns of what is not copied: caches, and the files of servers and of the build."""

_NAMES = "|".join((*MOVED, COMMAND))
_FROM = re.compile(rf"^(\s*from )({_NAMES})(?=[. ])", re.MULTILINE)
_IMPORT_AS = re.compile(rf"^(\s*import )({_NAMES})((?:\.\w+)+ as )", re.MULTILINE)
_IMPORT = re.compile(rf"^(\s*)import ({_NAMES})(?=\s*(?:#.*)?$)", re.MULTILINE)
_MODULE_NAME = re.compile(rf"([\"'])((?:{'|'.join(MOVED)})(?:\.\w+)+|{COMMAND})(?=\1)")
_TYPED = re.compile(rf"(python -m )({'|'.join(MOVED)})(?=\.)")


def rewritten(text: str, modules: set[str]) -> str:
    """Returns the text of a module with its imports of the moved packages below `mote`.

    Names of `modules` in quotes, which are imported by name, and commands `python -m …` are rewritten, too.
    """

    def quoted(match: re.Match[str]) -> str:
        quote, name = match.groups()
        return f"{quote}{PACKAGE}.{name}" if name in modules else match[0]

    text = _FROM.sub(rf"\1{PACKAGE}.\2", text)
    text = _IMPORT_AS.sub(rf"\1{PACKAGE}.\2\3", text)
    text = _IMPORT.sub(rf"\1from {PACKAGE} import \2", text)
    return _TYPED.sub(rf"\1{PACKAGE}.\2", _MODULE_NAME.sub(quoted, text))


def moved_imports(text: str) -> list[str]:
    """Returns the imports in a module that name a moved package at the top level."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.partition(".")[0] in (*MOVED, COMMAND)]


def module_names(root: Path) -> set[str]:
    """Returns the dotted names of all modules of the moved packages, and of the main command."""
    paths = (path for name in MOVED for path in (root / name).rglob("*.py"))
    dotted = (".".join(path.relative_to(root).with_suffix("").parts) for path in paths)
    return {COMMAND, *(name.removesuffix(".__init__") for name in dotted)}


def copy_package(root: Path, target: Path) -> None:
    """Writes the package `mote` of the wheel to the folder `target`.

    Raises ValueError if an import of a moved package is left, which would fail after installation.
    """
    ignored = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(root / PACKAGE, target, ignore=ignored)
    for name in (*MOVED, "configs"):
        shutil.copytree(root / name, target / name, ignore=ignored)
    shutil.copy2(root / f"{COMMAND}.py", target)
    modules = module_names(root)
    for path in target.rglob("*.py"):
        text = rewritten(path.read_text(encoding="utf-8"), modules)
        if left := moved_imports(text):
            raise ValueError(f"{path.relative_to(target)} still imports {', '.join(left)}")
        path.write_text(text, encoding="utf-8")


def commit_of(root: Path) -> str | None:
    """Returns the commit of the repository, with "+" if files differ from it; None outside a repository."""
    try:
        text = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            cwd=root,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return text.strip()


class MoteBuildHook(BuildHookInterface):
    """Adds the rewritten package to the wheel; an editable installation is refused."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before the wheel is written."""
        if self.target_name != "wheel":
            return
        if version == "editable":
            raise ValueError("install the wheel, or run the commands in the repository without installation")
        self.folder = tempfile.TemporaryDirectory()
        target, root = Path(self.folder.name, PACKAGE), Path(self.root)
        copy_package(root, target)
        record = {"version": self.metadata.version, "commit": commit_of(root)}
        (target / "pipeline" / "build.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
        build_data["force_include"][str(target)] = PACKAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called by hatchling after the wheel is written."""
        if hasattr(self, "folder"):
            self.folder.cleanup()
