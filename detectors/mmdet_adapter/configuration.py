"""Reads configurations of mmengine, which are Python programs."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from mmengine.config import Config


def read(path: Path, settings: Iterable[str] = ()) -> Config:
    """Reads the configuration at `path`; `settings` (`a.b=value`) override its keys.

    The file and its `_base_` files are executed as Python programs, with the rights of the user. Raises
    UsageError if the file is missing or cannot be executed, or if a setting has no `=`.
    """
    from mmengine.config import Config

    if not path.is_file():
        raise UsageError(f"configuration {path} does not exist; give the path of an mmdet config file")
    if path.suffix != ".py":
        raise UsageError(f"configuration {path} is not a Python file; give an mmdet config file")
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a program may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        remedy = "; name _base_ files by path, not as mmdet::…" if "pkg_resources" in reason else ""
        raise UsageError(f"configuration {path} cannot be read: {reason[:300]}{remedy}") from error
    config.merge_from_dict(dict(map(_setting, settings)))
    return config


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"setting '{text}', expected KEY=VALUE such as train_cfg.max_iters=10")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):  # a string without quotes
        return key, value
