"""Completes the evidence of events that a killed run has left unfinished."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import av

from pipeline.config.events_section import EventsConfig
from pipeline.events.event_file import MISSING, note_missing, scan_events
from pipeline.events.evidence.clips import FileClip, clip_metadata, complete
from pipeline.events.evidence.folder import (
    CLIP,
    FRAGMENTS,
    PATH_PICTURE,
    SNAPSHOT,
    is_complete,
    make_folder,
    place_of,
    remove_parts,
    write_account,
)
from pipeline.sinks.folders import find_evidence
from pipeline.sinks.jsonl_codec import read_records
from pipeline.sinks.video import defragment
from pipeline.sources.packets.coded import CodedFile
from pipeline.system.errors import OutputError
from pipeline.system.files import output_error

KILLED = "the process ended before"
"""Begin of the reasons for which files are missing."""
_FAULTS = (OSError, ValueError, OutputError, av.error.FFmpegError)


class _Told(NamedTuple):
    """The messages about one event."""

    first: dict[str, Any]
    last: dict[str, Any]
    path: Path
    """The file of the last one."""
    line: int
    """Its number in the file, from 0."""


def complete_evidence(
    output: Path,
    paths: Iterable[Path],
    config: EventsConfig,
    coded: Callable[[], CodedFile | None],
    *,
    deletes: bool,
) -> int:
    """Completes the folders of events that have no event.json; returns their number.

    A clip that was being recorded ends with its last complete fragment; of a video file that is still there
    it is cut. What is missing is named, with the reason, in event.json and in the last message about the
    event in events.jsonl.

    Args:
        output: output folder of the run.
        paths: its events.jsonl, or those of its rotated files in order, of complete lines.
        config: its section of events.
        coded: returns the source if its packets can be copied from a file; called at most once.
        deletes: whether the run has deleted evidence, so that a missing folder need not be one that lacks.

    Raises OutputError if a file cannot be written.
    """
    source: list[CodedFile | None] = []
    notes: dict[Path, dict[int, Mapping[str, str]]] = {}
    folders = {folder for folder in find_evidence(output) if not is_complete(folder)}
    for told in _messages(paths).values():
        if told.last.get("evidence") is None:
            continue
        folder = place_of(output, str(told.last["evidence"]))
        if folder not in folders and (deletes or folder.exists() or folder.is_symlink()):
            continue
        if not (source or (folder / FRAGMENTS).exists()):
            source.append(coded())
        missing = _complete(folder, told, config, source[0] if source else None)
        notes.setdefault(told.path, {})[told.line] = missing
    for path, some in notes.items():
        note_missing(path, some)
    return sum(map(len, notes.values()))


def _messages(paths: Iterable[Path]) -> dict[str, _Told]:
    """Returns the messages about each event by its id."""
    told: dict[str, _Told] = {}
    for path in paths:
        for line, message in enumerate(read_records(path, scan_events(path).line_count)):
            first = told[message["id"]].first if message["id"] in told else message
            told[message["id"]] = _Told(first, message, path, line)
    return told


def _complete(folder: Path, told: _Told, config: EventsConfig, coded: CodedFile | None) -> dict[str, str]:
    """Completes one folder; returns why files are missing, by their names. Raises OutputError."""
    missing: dict[str, str] = {}
    try:
        if not folder.exists():
            make_folder(folder)
        clip = _finish_clip(folder, told, config, coded, missing)
        remove_parts(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    if not (folder / SNAPSHOT).exists():
        missing[SNAPSHOT] = f"{KILLED} it was written"
    if not (folder / PATH_PICTURE).exists():
        missing[PATH_PICTURE] = f"{KILLED} it was drawn, and its frames were not kept"
    message = {key: value for key, value in told.last.items() if key != MISSING}
    write_account(folder, message, clip=clip, missing=missing)
    return missing


def _finish_clip(
    folder: Path, told: _Told, config: EventsConfig, coded: CodedFile | None, missing: dict[str, str]
) -> dict[str, Any] | None:
    """Completes the clip; returns what there is about it, or None and why it is missing in `missing`."""
    fragments = folder / FRAGMENTS
    unknown: dict[str, Any] = dict.fromkeys(("begin", "end", "frames", "copied", "lost"))
    if (folder / CLIP).exists():
        return unknown
    with suppress(OSError):
        (folder / f"{CLIP}.part").unlink(missing_ok=True)
    try:
        if fragments.exists():
            frames = defragment(fragments)
            if frames:
                complete(folder, clip_metadata(told.first))
                return {**unknown, "frames": frames}
            missing[CLIP] = f"{KILLED} its first group of pictures was complete"
        elif coded:
            begin = float(told.first["pts"]) - config.pre_roll
            end = min(begin + config.max_clip, float(told.last["pts"]) + config.post_roll)
            clip = FileClip(coded, begin, longest=config.max_clip)
            return clip.finish(folder, end, clip_metadata(told.first)).to_dict()
        else:
            missing[CLIP] = f"{KILLED} its first frame was written"
    except _FAULTS as error:
        missing[CLIP] = f"{KILLED} it was complete, and it cannot be completed: {error}"
    return None
