"""Finds the video of the annotations that belongs to a source, by its name."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.evaluation.truth.frame_match import SUFFIX, AnnotatedSource, PictureIndex
from pipeline.structures.frame_paths import is_absolute
from pipeline.system.errors import UsageError, unknown_name

GENERIC_NAMES = frozenset(
    (
        *("default", "in", "input", "none", "out", "output", "unknown", "unnamed", "untitled"),
        *("frame", "frames", "image", "images", "img", "imgs", "picture", "pictures"),
        *("seq", "sequence", "video", "videos"),
    )
)
"""Names that say nothing about which video is meant."""

_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]*://")


class _Rank(NamedTuple):
    """How well two paths agree, best last; (0, …) if their names differ."""

    components: int
    """Number of the last components that are equal, in any case; of the very last one without its suffix."""
    same_name: bool
    """Whether the last components are equal with their suffix."""
    same_case: bool


def choose_video(table: dict, source: AnnotatedSource, *, named: str = "") -> dict:
    """Returns the row of `videos` that belongs to a source.

    It is the one whose file or name has the most folders and the name, without suffix and in any case, in
    common with the source; if there is none and the source is a folder of pictures, the one that names them.
    A single video without a telling name fits every source, and a source without a name, such as a camera,
    fits every single video. `named` is a name that overrules all this. Raises UsageError if no video fits or
    several do.
    """
    if named:
        return _video_named(table, named)
    found = _fitting(table["videos"], table, source, alone=True)
    if len(found) == 1:
        return found[0]
    names = sorted({str(video["name"] or video.get("file_name")) for video in found or table["videos"]})
    name = (source_components(source.name) or [source.name])[-1]
    if found:
        raise UsageError(
            f"the annotations have {len(found)} videos that fit '{name}' ({', '.join(names[:5])}); "
            "choose one with --annotated-as NAME"
        )
    overrule = f"; --annotated-as '{names[0]}' scores the source with them all the same"
    if len(table["videos"]) == 1:
        only = table["videos"][0]
        raise UsageError(
            f"the annotations are those of '{only.get('file_name') or only['name']}', the source is "
            f"'{name}'{overrule}"
        )
    stem = _stem(name)
    close = difflib.get_close_matches(stem, names, n=1, cutoff=0)
    raise UsageError(
        f"the annotations have no video named '{stem}' (closest of {len(names)}: {', '.join(close)}); "
        "choose one with --annotated-as NAME"
    )


def choose_videos(
    table: dict, sources: Sequence[AnnotatedSource], *, complete: bool = True
) -> list[dict | None]:
    """Returns the row of `videos` that belongs to each of several sources; None for one that has none.

    Names decide: a single video without a telling name fits none. Raises UsageError if several videos fit a
    source, if sources in different folders have the same video, and if the sources are `complete` and none
    has a video.
    """
    chosen: list[dict | None] = []
    for source in sources:
        fits = _fitting(table["videos"], table, source, alone=False)
        chosen.append(choose_video(table, source) if len(fits) > 1 else fits[0] if fits else None)
    if complete and not any(chosen):
        choose_video(table, sources[0])  # says what is wrong with the first
        raise UsageError(
            f"the annotations do not say which of {len(sources)} sources they belong to; run it alone"
        )
    owners: dict[str, AnnotatedSource] = {}
    for source, video in zip(sources, chosen, strict=True):
        if video is None:
            continue
        owner = owners.setdefault(repr(video["id"]), source)
        if os.path.dirname(os.path.abspath(owner.name)) != os.path.dirname(os.path.abspath(source.name)):
            raise UsageError(
                f"'{owner.name}' and '{source.name}' both fit the video '{video['name']}' of the "
                "annotations; give its folder in 'file_name', or run them one by one"
            )
    return chosen


def is_named_like(video: dict, source: AnnotatedSource) -> bool:
    """Returns whether a video has the name of a source, or either has no telling name."""
    return _rank_of(video, source).components > 0 or _is_untold(video, source)


def source_components(name: str) -> list[str]:
    """Returns the components of the path of a source, absolute; empty if the source has no telling name.

    Those of a pattern are those of the folder above its first wildcard. An address has a name if its path
    ends with that of a file; standard input and cameras have none.
    """
    if _ADDRESS.match(name):
        last = re.split(r"[?#]", name)[0].rpartition("/")[2]
        return [last] if SUFFIX.search(last) and name.count("/") > 2 else []
    if not os.path.exists(name) and (name == "-" or name.isdecimal()):
        return []
    path = os.path.abspath(name)
    while glob.has_magic(path) and not os.path.exists(path):
        path = os.path.dirname(path)
    return _components(path)


def _fitting(videos: Sequence[dict], table: dict, source: AnnotatedSource, *, alone: bool) -> list[dict]:
    """Returns the videos that fit a source best. `alone`: whether it is the only source."""
    ranks = [_rank_of(video, source) for video in videos]
    best = max(ranks)
    if best.components:
        return [video for video, rank in zip(videos, ranks, strict=True) if rank == best]
    if source.pictures and (naming := _naming_pictures(videos, table, source)):
        return naming
    if alone and len(videos) == 1 and _is_untold(videos[0], source):
        return list(videos)
    return []


def _naming_pictures(videos: Sequence[dict], table: dict, source: AnnotatedSource) -> list[dict]:
    """Returns the videos whose images name pictures of the source, in no other folder."""
    index = PictureIndex(source.pictures)
    folder = source.folder.casefold()
    naming = set()
    for image in table["images"]:
        path = str(image.get("file_name") or "")
        above = [] if is_absolute(path) or _ADDRESS.match(path) else _components(path)[-2:-1]
        elsewhere = above and above[0].casefold() not in {folder, *GENERIC_NAMES}
        if path and not elsewhere and index.frame(path) is not None:
            naming.add(image.get("video_id"))
    return [video for video in videos if video["id"] in naming]


def _video_named(table: dict, named: str) -> dict:
    wanted = _components(named)
    videos = [video for video in table["videos"] if wanted in _names(video)]
    if not videos:
        videos = [
            video
            for video in table["videos"]
            if any(_rank(names, wanted).components >= max(len(wanted), 1) for names in _names(video))
        ]
    if len(videos) > 1:
        files = ", ".join(str(video.get("file_name") or video["id"]) for video in videos)
        raise UsageError(f"the annotations have {len(videos)} videos named '{named}'; name the file: {files}")
    if not videos:
        raise unknown_name("annotated video", named, {str(video["name"]) for video in table["videos"]})
    return videos[0]


def _names(video: dict) -> list[list[str]]:
    return [_components(str(video[key])) for key in ("file_name", "name") if video.get(key)]


def _components(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]


def _rank_of(video: dict, source: AnnotatedSource) -> _Rank:
    """Returns how well the name of a video, or its file's, agrees with that of a source."""
    components = source_components(source.name)
    places = [components, components[:-1]] if source.is_single_picture else [components]
    ranks = (_rank(names, place) for names in _names(video) for place in places)
    return max(ranks, default=_Rank(0, False, False))


def _rank(one: Sequence[str], other: Sequence[str]) -> _Rank:
    if not one or not other or _stem(one[-1]).casefold() != _stem(other[-1]).casefold():
        return _Rank(0, False, False)
    folders = 0
    for a, b in zip(one[-2::-1], other[-2::-1], strict=False):
        if a.casefold() != b.casefold():
            break
        folders += 1
    return _Rank(1 + folders, one[-1].casefold() == other[-1].casefold(), _stem(one[-1]) == _stem(other[-1]))


def _stem(name: str) -> str:
    """Returns the name of a file without its suffix."""
    return SUFFIX.sub("", name) or name


def _is_untold(video: dict, source: AnnotatedSource) -> bool:
    """Returns whether a video or a source has no telling name, so that names cannot contradict each other."""
    generic = all(_stem(names[-1]).casefold() in GENERIC_NAMES for names in _names(video) if names)
    return generic or not source_components(source.name)
