"""The folder of an event: the names of its files, its creation, and what a killed run left in it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.sinks.file_names import EVIDENCE
from pipeline.sinks.folders import find_evidence, remove_evidence
from pipeline.system.errors import OutputError
from pipeline.system.files import atomic_write

CLIP, SNAPSHOT, PATH_PICTURE, MESSAGE = "clip.mp4", "snapshot.jpg", "path.png", "event.json"
FRAGMENTS = "fragments.mp4"
"""The clip while it is recorded."""
NAMES = (CLIP, SNAPSHOT, PATH_PICTURE, MESSAGE)
_PARTS = (FRAGMENTS, *(f"{name}.part" for name in NAMES))
_ALL = (*NAMES, *_PARTS)


def is_complete(folder: Path) -> bool:
    """Returns whether a folder has the last message of its event, which is written after all other files."""
    return (folder / MESSAGE).is_file()


def write_account(
    folder: Path,
    message: Mapping[str, Any],
    *,
    clip: Mapping[str, Any] | None,
    missing: Mapping[str, str],
) -> None:
    """Writes event.json.

    Args:
        folder: folder of the event.
        message: its last message.
        clip: what there is about the clip; None without one.
        missing: why files are missing, by their names.

    Raises OutputError.
    """
    present = [name for name in NAMES if name == MESSAGE or (folder / name).exists()]
    table = {**message, "files": present, "clip": clip, "missing": missing}
    with atomic_write(folder / MESSAGE) as partial:
        partial.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def remove_parts(folder: Path) -> None:
    """Removes the files of an event that were not completed. Raises OSError."""
    for name in _PARTS:
        (folder / name).unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Creates the folder of an event, without the files of an earlier run in it.

    Raises OSError if that fails, or if it is a link, through which would be written into another folder.
    """
    for place in (folder.parent, folder):
        if place.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is a link")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _ALL:
        (folder / name).unlink(missing_ok=True)


def remove_unfinished(output: Path) -> None:
    """Removes the folders of events that a killed run did not complete. Raises OutputError."""
    for folder in find_evidence(output):
        if not is_complete(folder):
            remove_evidence(folder)


def size_of(folder: Path) -> int:
    """Returns the bytes of the files of an event; 0 for those that are missing."""
    total = 0
    for name in _ALL:
        with suppress(OSError):
            total += os.stat(folder / name, follow_symlinks=False).st_size
    return total


def place_of(output: Path, evidence: str) -> Path:
    """Returns the folder of an event from its name relative to the output folder.

    Raises OutputError if that would lie elsewhere.
    """
    parts = Path(evidence).parts
    if len(parts) != 2 or parts[0] != EVIDENCE or parts[1] in ("..", "."):
        raise OutputError(f"'{evidence}' is no folder of an event: expected {EVIDENCE}/NAME")
    return output / evidence
