"""run.json and metrics.json: what a run says about itself.

run.json is written when a run starts and again when it ends; both times it is replaced as a whole.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pipeline import BUILD, __version__
from pipeline.config.schema import RunConfig
from pipeline.imaging.image_files import MAX_PIXELS
from pipeline.runner.ground_truth import GroundTruth
from pipeline.sinks.file_names import METRICS, MOT, RUN
from pipeline.sinks.jsonl_codec import is_count
from pipeline.structures.detector_info import DetectorInfo, SegmenterInfo
from pipeline.structures.frame import SourceInfo
from pipeline.system.bounded_reads import MAX_SETTINGS_BYTES, read_bounded
from pipeline.system.errors import MoteError, UsageError, reason_of
from pipeline.system.files import atomic_write, fingerprint, require_regular
from pipeline.system.redaction import redact_argument
from pipeline.system.reserved import ReservedFile, remove_reserved

if TYPE_CHECKING:
    from pipeline.runner.run_record import RunRecord

_RATE = re.compile(r"[1-9]\d{0,24}(/[1-9]\d{0,24})?")
"""Frame rate of a source as `Fraction` writes it."""

PACKAGES = ("torch", "numpy", "av", "opencv-python", "scipy", "pycocotools")
"""Packages whose versions run.json names."""

ACCOUNT_BYTES = 12 << 10
"""Room for what the final run.json has in addition to the one that is written at the start."""


def make_header(
    info: SourceInfo,
    config: RunConfig,
    detector: DetectorInfo,
    segmenters: Sequence[SegmenterInfo],
    annotations: Path | None,
    requested: Mapping[str, str] = MappingProxyType({}),
    *,
    stream: str,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Returns what is known before the first frame: source, networks, configuration, versions and machine.

    `requested` are the times that were given for frame numbers of the configuration. `stream` is the name of
    the source in messages about events, `run_id` the id of the run that is resumed; None for a new run, which
    gets a random one.
    """
    return {
        "mote": __version__,
        "stream": stream,
        "id": run_id or secrets.token_hex(6),
        "commit": commit(),
        "command": [Path(sys.argv[0]).name, *map(redact_argument, sys.argv[1:])],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {**asdict(info), "rate": str(info.rate), "fingerprint": fingerprint(info.name)},
        "detector": detector.record(),
        "segmenters": [segmenter.record() for segmenter in segmenters],
        "config": {**asdict(config), "alarms": config.alarms.public()},
        **({"requested": dict(requested)} if requested else {}),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "cpu": platform.machine()},
        "annotations": annotations and str(annotations),
    }


@cache
def commit() -> str | None:
    """Returns the commit of the program, with "+" if files differ from it; None if it is not known."""
    if BUILD.exists():
        return json.loads(BUILD.read_text(encoding="utf-8"))["commit"]
    root = BUILD.parents[1]
    if not (root / ".git").exists():
        return None
    describe = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(describe, cwd=root, capture_output=True, check=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def write_start(record: RunRecord) -> None:
    """Writes run.json with the state 'running' and reserves room for the final one. Raises OutputError."""
    start = {"state": "running", **record.header}
    record.reserved = ReservedFile(record.folder / RUN, len(_to_json(start)) + ACCOUNT_BYTES)
    try:
        _write_json(record.folder / RUN, start)
    except BaseException:
        record.reserved.discard()
        raise


def write_end(record: RunRecord, truth: GroundTruth | None) -> None:
    """Scores what was written against the ground truth; writes metrics.json and the final run.json.

    Both follow a folder that was renamed meanwhile. A MoteError becomes the failure of the record, any other
    error is raised.
    """
    record.stop_clock()
    if record.reserved:
        record.folder = record.reserved.folder
    record.not_annotated = truth.not_annotated if truth else 0
    try:
        if truth and truth.frames:
            record.report = truth.score(record.config.detector.conf)
            _write_json(record.folder / METRICS, _metrics(record, truth))
    except BaseException as error:
        record.fail(error)
        if not isinstance(error, MoteError):
            raise
    finally:
        try:
            _write_final(record)
        except MoteError as error:
            record.fail(error)


def read_record(folder: Path) -> dict[str, Any]:
    """Returns the contents of run.json in a folder. Raises UsageError if it is missing or damaged."""
    path = folder / RUN
    try:
        require_regular(path)
        table = json.loads(read_bounded(path, limit=MAX_SETTINGS_BYTES))
        if not all(isinstance(table[key], dict) for key in ("source", "config", "detector")):
            raise ValueError("its sections are missing")
        _check_values(table)
        return {"state": table["state"], "segmenters": table["segmenters"], "mote": table["mote"], **table}
    except OSError as error:
        raise UsageError(f"{folder} holds no run: cannot read {RUN}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path} is not the record of a run: {reason_of(error)}") from error


def _check_values(table: dict[str, Any]) -> None:
    """Raises ValueError, which names a key, unless the values that are used later are like those of a run.

    Raises KeyError or TypeError if one is missing.
    """
    source, frames, rotated = table["source"], table.get("frames", {}), table.get("pieces", {})
    classes, segmenters = table["detector"]["classes"], table["segmenters"]
    valid = {
        "state": isinstance(table["state"], str),
        "source.name": isinstance(source["name"], str),
        "source.rate": isinstance(source["rate"], str) and _RATE.fullmatch(source["rate"]) is not None,
        "source.frame_count": source["frame_count"] is None or is_count(source["frame_count"]),
        "source.bit_depth": source["bit_depth"] in range(8, 17),
        "source.channels": source["channels"] in (1, 3),
        "detector.classes": isinstance(classes, list) and all(isinstance(name, str) for name in classes),
        "segmenters": isinstance(segmenters, list)
        and all(isinstance(row["name"], str) for row in segmenters),
        "annotations": isinstance(table.get("annotations"), str | None),
        "frames.written": is_count(frames.get("written", 0)),
        "pieces.deleted_frames": is_count(rotated.get("deleted_frames") or 0),
    }
    sides = [source["width"], source["height"]]
    valid["source.width"] = all(map(is_count, sides)) and 0 < sides[0] * sides[1] <= MAX_PIXELS
    for name, is_valid in valid.items():
        if not is_valid:
            raise ValueError(f"{name} has no valid value")


def _metrics(record: RunRecord, truth: GroundTruth) -> dict[str, Any]:
    """Scores the tracks and returns the contents of metrics.json."""
    assert record.report is not None
    metrics = record.report.as_dict()
    if record.rotated:
        record.tracks_unscored = "their files are rotated"
    elif record.config.output.mot:
        try:
            rate = float(record.source.info.rate)
            record.track_scores = truth.score_tracks(record.folder / MOT, rate or None)
        except UsageError as error:  # annotations that do for detections need not do for tracks
            record.tracks_unscored = str(error)
    if record.tracks_unscored:
        metrics["notes"] = [*metrics["notes"], f"tracks are not scored: {record.tracks_unscored}"]
    tracks = {gate: scores.as_dict() for gate, scores in record.track_scores.items()}
    return {**metrics, "tracks": tracks or None}


def _account(record: RunRecord) -> dict[str, Any]:
    """Returns the part of run.json that is known at the end."""
    frames = {
        "announced": record.source.info.frame_count,
        "decoded": record.decoded,
        "written": record.written,
        "dropped": {"queue full": record.dropped.count} if record.dropped.count else {},
        **({"skipped": skipped} if (skipped := record.limit.skipped.count) else {}),
        "unprocessed": record.decoded - record.written - record.dropped.count,
        "not_annotated": record.not_annotated,
        "corrupt": record.source.corrupt,
        "times_derived": record.source.derived_times,
    }
    segmenters = record.header["segmenters"]
    return {
        "reason": record.reason,
        "seconds": None if record.state == "recovered" else round(record.seconds, 3),
        "resumed_after": record.resumed_after,
        **({"pieces": dict(record.rotated)} if record.rotated else {}),
        "frames": frames,
        "gaps": dict(record.gaps.events) if record.gaps else {},
        "latency_ms": record.latency.summary() if record.latency.count else None,
        "segmenters": [{**row, **record.segmenter_cost(row["name"])} for row in segmenters],
        "detections": record.detections,
        "tracks": record.tracks,
        **({"events": dict(record.events)} if record.events else {}),
        "stages_ms": {name: latency.summary() for name, latency in record.stages.items()},
        "metrics": record.report.scores.as_dict() if record.report else None,
    }


def _write_final(record: RunRecord) -> None:
    """Replaces run.json by the final one. Raises OutputError."""
    table = {"state": record.state, **record.header, **_account(record)}
    if record.reserved:
        record.reserved.complete(_to_json(table))
    else:
        _write_json(record.folder / RUN, table)
        remove_reserved(record.folder / RUN)


def _write_json(path: Path, table: dict[str, Any]) -> None:
    """Replaces a JSON file as a whole. Raises OutputError."""
    with atomic_write(path) as part:
        part.write_bytes(_to_json(table))


def _to_json(table: dict[str, Any]) -> bytes:
    return json.dumps(table, indent=2).encode() + b"\n"


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions
