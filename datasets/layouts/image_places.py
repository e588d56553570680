"""Places of the images that COCO files of annotation tools name.

The names in such files are often not those below the root of the dataset: CVAT names images of
`images/SUBSET/` without their folder, Roboflow those beside the file, and Label Studio by their path or
address on its server, with characters of its own before the name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

_UPLOAD = re.compile(r"^[0-9a-f]{8,}-(?=.)")
_SUBSET = re.compile(r"^(?:instances|annotations|_annotations)[._]")


class _Rule(NamedTuple):
    """How a name becomes a path below the root."""

    folder: str
    """Put before it."""
    dropped: int
    """Number of leading folders that are left out."""
    uploaded: bool
    """Whether the characters that Label Studio adds are left out."""

    def path(self, name: str) -> str:
        """Returns the path of an image below the root."""
        *folders, last = _parts(name)
        last = _UPLOAD.sub("", last) if self.uploaded else last
        return PurePosixPath(self.folder, *folders[self.dropped :], last).as_posix()


def locate_images(names: list[str], root: Path, place: str) -> list[str]:
    """Returns the paths of images relative to the root, from their names in the COCO file `place` below it.

    Names are searched as they are, then below the folders of usual exports, without leading folders, and
    without the characters that Label Studio adds; all by the one rule that finds one of the first, the middle
    and the last image, and keeps different names different. Without such a rule they are returned unchanged.
    """
    samples = [name for name in (names[:1] + names[len(names) // 2 :][:1] + names[-1:]) if _parts(name)]
    if not samples or any(".." in _parts(name) or not _parts(name) for name in names):
        return list(names)
    if any(os.path.isfile(root / name) for name in samples):
        return list(names)
    for rule in _rules(samples[0], place):
        # os.path.isfile is False for names that no file can have, such as too long ones; Path.is_file raises
        if any(os.path.isfile(root / rule.path(name)) for name in samples):
            paths = {name: rule.path(name) for name in names}
            if len(set(paths.values())) == len(paths):
                return [paths[name] for name in names]
    return list(names)


def _parts(name: str) -> list[str]:
    """Returns the folders and the name of a path or an address."""
    text = name.replace("\\", "/")
    if "://" in text or "/local-files/" in text:
        address = urlsplit(text)
        text = parse_qs(address.query).get("d", [address.path])[0]
    return [part for part in text.split("/") if part not in ("", ".")]


def _rules(name: str, place: str) -> Iterator[_Rule]:
    """Yields the rules to try, the least change first."""
    file = PurePosixPath(place)
    subset = _SUBSET.sub("", file.stem.removesuffix(".coco"))
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    inner = (base / part for part in ("", "images", f"images/{subset}", subset))
    folders = dict.fromkeys(map(str, (PurePosixPath(), file.parent, *inner)))
    for uploaded in (False, True):
        for dropped in range(len(_parts(name))):
            for folder in folders:
                yield _Rule(folder, dropped, uploaded)
