"""Imports point one way, packages stay small, and every module that a text names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT

LAYERS = (
    "pipeline.system",
    "pipeline.structures",
    "pipeline.imaging",
    "pipeline.config",
    "pipeline.stages",
    "pipeline.sources",
    "pipeline.smoothing",
    "pipeline.drawing",
    "pipeline.sinks",
    "pipeline.events",
    "pipeline.alarms",
    "pipeline.evaluation.truth",
    "pipeline.evaluation.detection",
    "pipeline.evaluation.segmentation",
    "pipeline.evaluation.tracking",
    "pipeline.evaluation.analysis",
    "pipeline.runner",
    "pipeline",
    "datasets.synthesis",
    "datasets.layouts",
    "datasets.sequences",
    "datasets.augmentation",
    "datasets",
    "detectors.networks.layers",
    "detectors.networks.tridos",
    "detectors.networks.tridos.optimised",
    "detectors.networks.plain",
    "detectors.networks.segmenters",
    "detectors.networks",
    "detectors.weights",
    "detectors.backends",
    "detectors.inference",
    "detectors.evaluation",
    "detectors.training.logs",
    "detectors.training",
    "detectors.mmdet_adapter",
    "detectors",
    "trackers",
    "run_pipeline",
    "mote",
)
"""Bottom first. A module belongs to its longest prefix here; it imports its own layer and lower ones."""

MAX_MODULES = 12
TOPS = ("pipeline", "datasets", "detectors", "trackers", "mote")
SOURCES = [
    PROJECT_ROOT / "run_pipeline.py",
    *(path for top in TOPS for path in sorted((PROJECT_ROOT / top).rglob("*.py"))),
]
TEXTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "detectors/**/*.md", "tests/**/*.md", "configs/**/*.toml")
    for path in PROJECT_ROOT.glob(pattern)
)


def module_name(path: Path) -> str:
    """The dotted name of a source file."""
    return ".".join(path.relative_to(PROJECT_ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in SOURCES}


def layer(module: str) -> str:
    """The layer of a module."""
    return max((name for name in LAYERS if f"{module}.".startswith(f"{name}.")), key=len)


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """Line and name of each module of the project that a file imports: lazily and for type checkers, too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name if name in MODULES else str(node.module)) for name in names]
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
    return [(line, name) for line, name in found if name in MODULES and name not in TOPS]


def libraries_at_import(path: Path) -> set[str]:
    """Top-level packages that importing a file loads by its own statements."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    return names


def test_all_packages_are_read():
    packages = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert {
        name for name in LAYERS if name not in ("pipeline.evaluation.tracking", "run_pipeline")
    } <= packages


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path):
    own = LAYERS.index(layer(module_name(path)))
    upward = [
        f"{path.relative_to(PROJECT_ROOT)}:{line} imports {name}"
        for line, name in imported_modules(path)
        if LAYERS.index(layer(name)) > own
    ]
    assert upward == []


def circles(edges: dict[str, set[str]]) -> list[str]:
    """What is left of a graph after nodes without outgoing or incoming edges are removed repeatedly."""
    while True:
        targets = {target for node, ends in edges.items() for target in ends if target != node}
        left = {node: ends & edges.keys() - {node} for node, ends in edges.items() if node in targets}
        left = {node: ends for node, ends in left.items() if ends}
        if left == edges:
            return sorted(edges)
        edges = left


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]


def test_modules_import_each_other_in_no_circle():
    assert circles({name: {end for _, end in imported_modules(path)} for name, path in MODULES.items()}) == []


@pytest.mark.parametrize("top", TOPS)
def test_nothing_inside_a_package_imports_its_commands(top):
    folder = PROJECT_ROOT / top
    files = [path for path in folder.glob("*.py") if "\ndef main(" in path.read_text(encoding="utf-8")]
    commands = {module_name(path) for path in files}
    inside = [path for path in folder.rglob("*.py") if path.parent != folder]
    wrong = [(module_name(path), line, name) for path in inside for line, name in imported_modules(path)]
    assert [row for row in wrong if row[2] in commands] == []


def test_the_pipeline_loads_no_network_library():
    heavy = {"torch", "mmdet", "mmengine", "mmcv"}
    files = (PROJECT_ROOT / "pipeline").rglob("*.py")
    assert [module_name(path) for path in files if libraries_at_import(path) & heavy] == []


def test_nothing_on_the_way_of_a_run_needs_unix():
    unix = {"fcntl", "resource", "termios", "pwd", "grp"}
    assert [module_name(path) for path in SOURCES if libraries_at_import(path) & unix] == []


def test_no_folder_has_more_than_a_dozen_modules():
    counts: dict[Path, int] = {}
    for path in SOURCES[1:]:
        counts[path.parent] = counts.get(path.parent, 0) + (path.name != "__init__.py")
    assert {str(folder): count for folder, count in counts.items() if count > MAX_MODULES} == {}


def test_modules_and_functions_are_short():
    long = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            long.append(module_name(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{module_name(path)}.{node.name}"] if length > 60 else []
    assert long == []


def named_modules(text: str) -> list[str]:
    """Dotted names below the packages that a text sets in backticks."""
    return re.findall(rf"`((?:{'|'.join(TOPS)})(?:\.\w+)+)", text)


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or a name that a module or package defines or re-exports."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = MODULES.get(".".join(parts[:count]))
        if path:
            rest = parts[count:]
            return not rest or re.search(rf"\b{rest[0]}\b", path.read_text(encoding="utf-8")) is not None
    return False


@pytest.mark.parametrize("path", [*SOURCES, *TEXTS], ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_modules_named_in_texts_exist(path):
    named = named_modules(path.read_text(encoding="utf-8"))
    assert [name for name in named if not exists(name)] == []


@pytest.mark.parametrize("path", [*SOURCES, *TEXTS], ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_files_named_in_texts_exist(path):
    named = re.findall(
        rf"(?:{'|'.join(TOPS)}|tests|configs|docs)/[\w/.-]+\.(?:py|toml|md|png)\b", path.read_text()
    )
    assert [name for name in named if not (PROJECT_ROOT / name).exists()] == []
