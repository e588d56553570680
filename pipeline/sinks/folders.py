"""Output folders: what an earlier run left in them, whether it may be replaced, and its removal."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pipeline.sinks.file_names import EVIDENCE, OUTPUTS, UNFINISHED
from pipeline.sinks.rotating import delete_output, find_rotated_files
from pipeline.sinks.zarr_store import is_store
from pipeline.system.errors import OutputError
from pipeline.system.files import lock_folder, output_error

EVENT_ID = re.compile(r"[0-9a-f]{12}-[A-Za-z0-9_-]{1,64}-\d+")
"""Id of an event, which is the name of the folder of its evidence."""


def prepare_folders(
    folders: Sequence[Path], locks: ExitStack, *, overwrite: bool, sources: Sequence[str]
) -> None:
    """Creates the output folders, locks them until `locks` is closed, and removes the files of earlier runs.

    Nothing is removed before all folders are locked and checked. Raises OutputError if another run writes to
    a folder, if it holds a run and `overwrite` is False, if it cannot be written, or if one of the `sources`
    would be removed.
    """
    for folder in folders:
        _create(folder)
        locks.enter_context(lock_folder(folder))
    require_free(folders, overwrite=overwrite, sources=sources)
    for folder in folders:
        for path in [folder / output for output in (*OUTPUTS, *UNFINISHED)]:
            delete_output(path)
        for files in find_rotated_files(folder):
            files.delete()
        for path in find_evidence(folder):
            remove_evidence(path)


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error


def require_free(folders: Sequence[Path], *, overwrite: bool, sources: Sequence[str]) -> None:
    """Raises OutputError if one of the folders, as far as they exist, holds what must not be removed."""
    for folder in folders:
        if folder.exists():
            _require_free(folder, overwrite, sources)


def _require_free(folder: Path, overwrite: bool, sources: Sequence[str]) -> None:
    try:
        present = [folder / output for output in OUTPUTS if (folder / output).exists()]
        present += [path for files in find_rotated_files(folder) for path in files.files()]
        present += (evidence := find_evidence(folder))
        if present and not overwrite:
            found = f"{folder} holds an earlier run ({present[0].name})"
            raise OutputError(f"{found}; use --overwrite or another --output")
        others = [path for path in present if path not in evidence]
        strange = next((path for path in others if path.is_dir() and not is_store(path)), None)
        if strange:
            raise OutputError(f"{strange} is a folder where a file is to be written; use another --output")
        for location in filter(os.path.exists, sources):
            inside = [path.resolve() in Path(location).resolve().parents for path in evidence]
            if any(inside) or any(path.samefile(location) for path in present):
                raise OutputError(f"{location} is to be read and would be overwritten; use another --output")
    except OSError as error:
        raise output_error(folder, error) from error


def find_evidence(folder: Path) -> list[Path]:
    """Returns the folders of the evidence of events in an output folder, sorted.

    Raises OutputError if they cannot be listed, or if their common folder is a link.
    """
    parent = folder / EVIDENCE
    try:
        if parent.is_symlink():
            raise OutputError(f"{parent} is a link and is not followed; remove it, or use another --output")
        if not parent.is_dir():
            return []
        found = [path for path in parent.iterdir() if EVENT_ID.fullmatch(path.name)]
        return sorted(path for path in found if path.is_dir() and not path.is_symlink())
    except OSError as error:
        raise output_error(parent, error) from error


def remove_evidence(path: Path) -> None:
    """Removes the folder of the evidence of an event, and the one of all events if it is empty then.

    Raises OutputError if that fails.
    """
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise output_error(path, error) from error
    with suppress(OSError):  # it holds other evidence, or files of others
        path.parent.rmdir()
