"""Finds the frame of a source that each annotated image belongs to, by file name or by frame number."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.imaging.image_files import IMAGE_SUFFIXES
from pipeline.structures.coco_tables import repeated_images
from pipeline.structures.frame_paths import frame_number
from pipeline.system.errors import UsageError

SUFFIX = re.compile(r"\.(?=\d*[a-z])[a-z0-9]{1,5}$", re.IGNORECASE)
"""Matches the suffix of a file, which has a letter: a folder called "flight.2024" has none."""

_UPLOAD = re.compile(r"^[0-9a-f]{8,}-")
"""What Label Studio puts before the name of an uploaded file."""
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


@dataclass(frozen=True)
class AnnotatedSource:
    """What a source tells about itself that its annotations must fit."""

    name: str
    """The path or address."""
    width: int
    height: int
    start: int = 0
    """Index of the first frame that the source will give."""
    frame_count: int | None = None
    """Number of frames that the source will give; None if it is unknown."""
    pictures: Sequence[str] = ()
    """Path of the image file of each frame, from frame 0; empty if the frames are no image files."""
    stride: int = 1
    """Difference of the indices of successive frames that the source will give."""

    @property
    def folder(self) -> str:
        """Name of the folder of the pictures; '' if there are none."""
        return PurePosixPath(_slashed(self.pictures[0])).parent.name if self.pictures else ""

    @property
    def is_single_picture(self) -> bool:
        """Whether the source is one image file."""
        return len(self.pictures) == 1 and self.pictures[0] == self.name


class AlignedTruth(NamedTuple):
    """The annotations of one source."""

    table: dict
    """COCO-video dictionary of one video; `frame_id` is the index of the frame in the source."""
    remarks: list[str]
    """What was decided or left out, one line each."""


class PictureIndex:
    """Frames by the names of their image files.

    A name fits a file of the same name, else of the same name in another case, else with another suffix, else
    with other leading zeros or the prefix of an upload. Of several such files it is the one with the most
    folders in common, else the first.
    """

    def __init__(self, pictures: Sequence[str]):
        """Builds the index of image files, one for each frame from 0 on."""
        self._folders = [_folders(path) for path in pictures]
        self._frames: dict[tuple[int, str], list[int]] = defaultdict(list)
        for frame, path in enumerate(pictures):
            for level, form in enumerate(_forms(path)):
                self._frames[level, form].append(frame)

    def frame(self, path: str) -> int | None:
        """Returns the frame whose image file fits the path that annotations name; None if none does."""
        wanted = _folders(path)
        for level, form in enumerate(_forms(path)):
            if frames := self._frames.get((level, form)):
                return max(frames, key=lambda frame: (_in_common(self._folders[frame], wanted), -frame))
        return None


def _slashed(path: str) -> str:
    return path.replace("\\", "/")


def _folders(path: str) -> list[str]:
    return [part.casefold() for part in PurePosixPath(_slashed(path)).parent.parts]


def _in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns the number of the last components that two paths have in common."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def _forms(path: str) -> Iterator[str]:
    """Yields the name of a file in forms that are less and less exact."""
    name = PurePosixPath(_slashed(path)).name
    yield name
    folded = name.casefold()
    yield folded
    stem = PurePosixPath(folded).stem if PurePosixPath(folded).suffix in IMAGE_SUFFIXES else folded
    yield stem
    yield _ZEROS.sub("", _UPLOAD.sub("", stem))


def with_videos(table: dict, *, numbered: bool) -> AlignedTruth:
    """Returns a COCO dictionary without `videos` as one of COCO-video: each folder of images is a video.

    With `numbered`, frames are the numbers in the names of the images, which must count from 0 and lie in one
    folder; otherwise their order, since they will be found by name. Raises UsageError if they do not.
    """
    if not table["images"]:
        raise UsageError("annotations have no 'videos' and no images, so no frame is annotated")
    folders: dict[str, dict] = {}
    images = []
    for place, image in enumerate(table["images"]):
        path = PurePosixPath(_slashed(str(image.get("file_name") or "")))
        folder = folders.setdefault(str(path.parent), {"id": len(folders), "name": str(path.parent)})
        number = frame_number(str(path)) if numbered else place
        images.append({**image, "video_id": folder["id"], "frame_id": number})
    if len(folders) == 1:  # the folder of an export says where it was made
        next(iter(folders.values()))["name"] = "frames"
    if numbered:
        numbers = [image["frame_id"] for image in images]
        if len(folders) != 1 or None in numbers or min(numbers) != 0:
            raise UsageError(
                "annotations have no 'videos', and the names of their images do not count the frames of one "
                "video from 0; python -m datasets.convert coco-video ROOT --split FILE --to coco-video "
                "--output NEW makes COCO-video of them"
            )
    how = "their numbers count the frames of the source" if numbered else "the names of their images decide"
    remark = f"they have no 'videos': {how}"
    return AlignedTruth({**table, "videos": list(folders.values()), "images": images}, [remark])


def align(table: dict, video: dict, source: AnnotatedSource) -> AlignedTruth:
    """Returns the annotations of one video of a COCO-video dictionary with the frame numbers of a source.

    If the frames of the source are image files, `file_name` decides which image is which frame; without it,
    and in videos, `frame_id` does. Of several images of one frame the first one counts. Raises UsageError if
    the names and the source, or `file_name` and `frame_id`, contradict each other.
    """
    repeated = {image["id"] for image in repeated_images(table)}
    own = [image for image in table["images"] if image.get("video_id") == video["id"]]
    images = [image for image in own if image["id"] not in repeated]
    remarks = _remark_on_repeated([image["id"] for image in own if image["id"] in repeated])
    named = [image for image in images if image.get("file_name")]
    if source.pictures and named:
        placed, more = _by_file_name(video, images, source)
        remarks += more
    else:
        placed = images
        remarks += _check_agreement(video, images, source)
    ids = {image["id"] for image in placed}
    aligned = {
        "videos": [{**_sized(video, images, source), "file_name": ""}],
        "images": [{**image, "file_name": ""} for image in placed],
        "annotations": [row for row in table["annotations"] if row["image_id"] in ids],
        "categories": table["categories"],
    }
    return AlignedTruth(aligned, remarks)


def _sized(video: dict, images: Sequence[dict], source: AnnotatedSource) -> dict:
    """Returns the row of a video with a size: its own, else an image's, else that of the source."""
    for row in (video, *images[:1]):
        if row.get("width") and row.get("height"):
            return {**video, "width": row["width"], "height": row["height"]}
    return {**video, "width": source.width, "height": source.height}


def _remark_on_repeated(ids: Sequence[object]) -> list[str]:
    if not ids:
        return []
    return [
        f"frames listed again, of which the first image counts: {len(ids)} (first left out: image {ids[0]})"
    ]


def _by_file_name(
    video: dict, images: Sequence[dict], source: AnnotatedSource
) -> tuple[list[dict], list[str]]:
    """Returns the images with the frame of the picture that each names, and what is to be remarked."""
    index = PictureIndex(source.pictures)
    placed: dict[int, dict] = {}
    absent, repeated = [], []
    for image in images:
        frame = index.frame(str(image.get("file_name") or ""))
        if frame is None:
            absent.append(image)
        elif frame in placed:
            repeated.append(image["id"])
        else:
            placed[frame] = {**image, "frame_id": frame}
    if not placed:
        return _by_number(video, images, source)
    remarks = _remark_on_repeated(repeated)
    if absent:
        first = absent[0].get("file_name") or f"image {absent[0]['id']}"
        remarks.append(
            f"{len(absent)} of {len(images)} annotated pictures are not in the source (first: {first})"
        )
    return [placed[frame] for frame in sorted(placed)], remarks


def _by_number(video: dict, images: Sequence[dict], source: AnnotatedSource) -> tuple[list[dict], list[str]]:
    """Returns the images as they are, if their names are only labels for the frames of a video file.

    Raises UsageError if they are names of pictures, none of which is in the source.
    """
    name = next(str(image["file_name"]) for image in images if image.get("file_name"))
    is_file = SUFFIX.search(str(video.get("file_name") or ""))
    if PurePosixPath(_slashed(name)).suffix.casefold() in IMAGE_SUFFIXES and not is_file:
        first = PurePosixPath(_slashed(source.pictures[0])).name
        raise UsageError(
            f"none of the {len(images)} annotated pictures of '{video['name']}' (first: {name}) is among the "
            f"{len(source.pictures)} of the source (first: {first})"
        )
    return list(images), [
        f"they name no picture of the source ('{name}'): frame_id says which frame is meant"
    ]


def _check_agreement(video: dict, images: Sequence[dict], source: AnnotatedSource) -> list[str]:
    """Compares `frame_id` with the numbers in file names, if there are both; returns what is to be remarked.

    They may differ by a constant. Raises UsageError if the numbers count frames of the source otherwise, such
    as every fifth one; numbers beyond its end, such as times, are none of frames.
    """
    rows = []
    for image in images:
        number = frame_number(_slashed(str(image.get("file_name") or "")))
        if number is not None and image.get("frame_id") is not None:
            rows.append((image, int(image["frame_id"]), number))
    offsets = {number - frame for _, frame, number in rows}
    if len(rows) < len(images) or len(offsets) < 2:
        return []
    usual = rows[0][2] - rows[0][1]
    image, frame, number = next(row for row in rows if row[2] - row[1] != usual)
    both = f"image {image['id']} of '{video['name']}' is frame {frame} by its frame_id"
    length = video.get("length")
    given = source.start + (source.frame_count or 0) * source.stride
    last = max(given, length if isinstance(length, int) else 0)
    if max(number for _, _, number in rows) <= last:
        raise UsageError(
            f"{both} and {number} by its file_name '{image['file_name']}'; "
            "correct the one or remove the other"
        )
    return [f"{both}, which counts, and its file_name is '{image['file_name']}'"]
