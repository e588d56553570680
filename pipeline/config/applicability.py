"""Which options apply to a run: those of other sources, detectors and outputs would be without effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from pipeline.config.schema import RunConfig
from pipeline.config.units import frame_or_time
from pipeline.system.errors import UsageError, as_json
from pipeline.system.redaction import redact_location

SourceKind = Literal["address", "input", "zarr", "raw file", "images", "video file", "camera"]
"""Kinds of sources that `pipeline.sources.opening` tells apart by their location."""

NEUTRAL = ("", 0, False, "auto", "none", "native")
"""Values that ask for nothing: they may be given with any source."""


class Situation(NamedTuple):
    """What decides which options apply."""

    config: RunConfig
    location: str
    """A source, as the user gave it."""
    source: SourceKind
    detector: str
    """Kind of the detector: "detector" for multi-frame networks, "segmenter", "mmdet" or "plugin"."""


class Rule(NamedTuple):
    """Keys of the configuration that apply in some situations."""

    keys: tuple[str, ...]
    """Dotted paths; one that ends in "." stands for all keys below it."""
    applies: Callable[[Situation], bool]
    purpose: str
    """What the keys are for, as the end of a sentence."""


def require_applicable(
    typed: Mapping[str, str], config: RunConfig, sources: Mapping[str, SourceKind], *, detector: str
) -> None:
    """Raises UsageError for an option that would have no effect.

    Keys of a configuration file are not checked, because one file may serve many sources.

    Args:
        typed: what the user typed before the value of a key, by its dotted path.
        config: the configuration.
        sources: kinds of the sources by their locations; an option has to apply to one of them.
        detector: kind of the detector, see `Situation`.
    """
    situations = [Situation(config, location, kind, detector) for location, kind in sources.items()]
    if not situations:
        return
    for key, prefix in typed.items():
        value = _value(config, key)
        rule = next((rule for rule in RULES if _is_about(rule, key)), None)
        if value in NEUTRAL or rule is None or any(map(rule.applies, situations)):
            continue
        names = ", ".join(map(redact_location, sources))
        where = f" on {names}" if key.startswith(("source.", "live.")) else ""
        shown = value if isinstance(value, str) else as_json(value).removesuffix(".0")
        raise UsageError(f"{prefix}{shown} has no effect{where}: it is for {rule.purpose}; leave it out")


def _is_about(rule: Rule, key: str) -> bool:
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in rule.keys)


def _value(config: RunConfig, key: str) -> Any:
    """Returns the value at a dotted path, through sections and tables."""
    place: Any = config
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else getattr(place, part, None)
    return place


def _is_raw(situation: Situation) -> bool:
    raw = situation.config.source.format == "raw"
    return raw and situation.source in ("raw file", "input", "address")


def _of_sources(*kinds: SourceKind) -> Callable[[Situation], bool]:
    return lambda situation: situation.source in kinds


def _is_container(situation: Situation) -> bool:
    return situation.source in ("video file", "input", "address") and not _is_raw(situation)


def _fits_frames(situation: Situation) -> bool:
    # some segmenters have an input of fixed size, which frames are fitted to
    return situation.config.detector.size != "native" or situation.detector in ("segmenter", "plugin")


def _is_counted(key: str) -> Callable[[Situation], bool]:
    """Returns the rule of `start` and `end`: cameras have no times, but any source has numbers of frames."""

    def applies(situation: Situation) -> bool:
        value = getattr(situation.config.source, key)
        return situation.source != "camera" or isinstance(frame_or_time(value), int)

    return applies


RULES = (
    Rule(("source.start",), _is_counted("start"), "recordings, a camera has only numbers of frames"),
    Rule(("source.end",), _is_counted("end"), "recordings, a camera has only numbers of frames"),
    Rule(
        ("source.format",),
        _of_sources("video file", "raw file", "input", "address"),
        "files, standard input and addresses",
    ),
    Rule(
        ("source.size", "source.dtype"),
        lambda situation: _is_raw(situation) or situation.source == "camera",
        "raw video (--source-format raw) and cameras",
    ),
    Rule(
        ("source.rate",),
        lambda situation: _is_raw(situation) or situation.source in ("images", "zarr"),
        "images, raw video and zarr arrays, other video states its own",
    ),
    Rule(
        ("source.header",),
        lambda situation: _is_raw(situation) and situation.source != "address",
        "raw files and standard input (--source-format raw)",
    ),
    Rule(("source.array",), _of_sources("zarr"), "zarr stores"),
    Rule(("source.stream",), _is_container, "video of several streams"),
    Rule(("source.hwaccel",), _of_sources("video file"), "video files"),
    Rule(
        ("source.timeout",),
        _of_sources("address", "input", "camera"),
        "streams, standard input and cameras",
    ),
    Rule(
        ("source.transport",),
        lambda situation: situation.location.lower().startswith("rtsp:"),
        "addresses of RTSP",
    ),
    Rule(
        ("live.reconnect", "live.backoff", "live.backoff_cap"),
        _of_sources("address", "camera"),
        "streams and cameras",
    ),
    Rule(
        ("live.on_gap",),
        lambda situation: situation.detector in ("detector", "plugin"),
        "detectors of several frames",
    ),
    Rule(
        ("detector.iou",),
        lambda situation: situation.detector in ("detector", "plugin"),
        "detectors that predict boxes; models of mmdet and segmenters have their own rules",
    ),
    Rule(
        ("live.max_rate",),
        _of_sources("address", "input", "camera"),
        "streams and cameras; --stride is for recordings",
    ),
    Rule(
        ("detector.tile", "detector.tile_overlap", "detector.roi"),
        lambda situation: situation.detector in ("detector", "plugin"),
        "detectors that predict boxes; segmenters and models of mmdet see whole frames",
    ),
    Rule(("detector.fit",), _fits_frames, "a network input of --size WxH"),
    Rule(
        ("detector.components.", "detector.flip_averaging"),
        lambda situation: situation.detector in ("segmenter", "plugin"),
        "a segmenter as --detector",
    ),
    Rule(
        ("detector.cache",),
        lambda situation: (
            situation.detector == "plugin"
            or (situation.detector == "detector" and situation.config.detector.backend != "torch")
        ),
        "networks that run by onnxruntime or openvino",
    ),
    Rule(
        ("segmentation.margin",),
        lambda situation: situation.config.segmentation.fuse != "none",
        "--fuse confirm and --fuse union",
    ),
    # annotate.min_score also decides which detections the summary counts
    Rule(("annotate.min_score",), lambda _: True, ""),
    Rule(
        ("annotate.", "output.quality"),
        lambda situation: situation.config.output.video,
        "the annotated video",
    ),
    Rule(
        ("output.coasting", "output.smooth"),
        lambda situation: situation.config.output.mot,
        "tracks.txt (--save-mot)",
    ),
    Rule(("alarms.",), lambda situation: bool(situation.config.events.active_rules), "runs with events"),
    Rule(
        ("service.health_host", "service.stalled_after"),
        lambda situation: bool(situation.config.service.health_port),
        "the server of --health-port",
    ),
)
"""Rules by key; the first one that names a key decides. Keys without a rule always apply."""
