"""Every test that the table of faults names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT

README = Path(__file__).with_name("README.md")
ROWS = re.findall(r"^\| (.+) \| .+ \| (.+) \|$", README.read_text(encoding="utf-8").split("\n## ")[0], re.M)[
    1:
]
"""(fault, test) of each row."""


@cache
def functions_of(path: Path) -> set[str]:
    """Returns the names of the functions of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_table_has_rows():
    assert len(ROWS) > 30


@pytest.mark.parametrize(("fault", "test"), ROWS, ids=[fault for fault, _ in ROWS])
def test_the_test_of_a_fault_exists(fault, test):
    named = re.fullmatch(r"`(tests/[\w/]+\.py)`: `(test_\w+)`", test)
    assert named, f"{test} is not of the form `tests/FILE.py`: `test_NAME`"
    assert named[2] in functions_of(PROJECT_ROOT / named[1])
