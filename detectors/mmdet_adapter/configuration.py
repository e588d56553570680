"""Configurations of mmengine: Python programs, read from the path that the user names and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.system.errors import UsageError

if TYPE_CHECKING:
    from mmengine.config import Config


def read(path: Path, settings: Iterable[str] = ()) -> Config:
    """The configuration at `path`, with `settings` (`a.b=value`) in place of what it says.

    The file and those that it names as `_base_` are run as Python programs: they can do whatever the user
    can. Raises UsageError for a file that is missing or cannot be run, and a setting that has no `=`.
    """
    from mmengine.config import Config

    if not path.is_file():
        raise UsageError(f"configuration {path} does not exist; give the path of an mmdet config file")
    if path.suffix != ".py":
        raise UsageError(f"configuration {path} is no Python file; configs of mmdet are")
    try:
        config = Config.fromfile(path)
    except Exception as error:  # whatever a program can raise
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
    except (ValueError, SyntaxError):  # text without quotes
        return key, value
