"""Seeds of valid files and mutations of their bytes or of their structure."""

from __future__ import annotations

import copy
import json
import struct
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from hypothesis import strategies

from pipeline.config.parsing import dump_toml

SIZE = 32, 24
"""Width and height of the pictures."""
COUNT = 4
"""Number of frames."""
NUMBERS = (0, 1, -1, 2, 127, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 10**30)
VALUES = (
    None,
    True,
    *NUMBERS,
    *(0.5, -0.0, 1e-300, 1e18, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", " ", "a", "nan", "1", "-1", "\0", "é\n", "../../x", "/", "a" * 5000, "0" * 400),
    [],
    [[]],
    [1, 2, 3, 4],
    [1e308] * 4,
    {},
    {"a": {"b": None}},
)
"""Values that a program may not expect."""
TEXTS = (
    b"9" * 5000,
    b"\0",
    b"\xff" * 8,
    b"[" * 2000,
    b'"',
    b"\n",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x98\x80",
    b"-",
    b"1e999",
)
DEPTH = 3000
"""Number of nested lists."""
SPAN = 64
"""Maximum length of removed or doubled bytes."""


class Edit(NamedTuple):
    """One mutation; the numbers determine kind, file, position and value for any files."""

    kind: int
    file: int
    place: int
    value: int


class Seed(NamedTuple):
    """Valid files, how they are written and how they are read."""

    files: dict[str, bytes]
    write: Callable[[dict[str, bytes], Path], Path]
    """Writes the files to an empty folder; returns the path to read."""
    read: Callable[[Path], str]
    """Reads the path; returns the outcome in a few words. Raises MoteError."""


def whole(files: dict[str, bytes], folder: Path) -> Path:
    """Writes files unchanged; returns the path of the first one."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / next(iter(files))


def contents(folder: Path) -> dict[str, bytes]:
    """Reads all files below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def made(make: Callable[[Path], object]) -> dict[str, bytes]:
    """Returns the files that a function writes to the folder it is given."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        return contents(Path(folder))


def mutants(count: int, most: int = 5) -> strategies.SearchStrategy[tuple[int, bool, list[Edit]]]:
    """Strategy of (index of one of `count` seeds, whether its bytes are mutated, one or more edits)."""
    number = strategies.integers(0, 65535)
    edits = strategies.lists(
        strategies.builds(Edit, number, number, number, number), min_size=1, max_size=most
    )
    return strategies.tuples(strategies.integers(0, count - 1), strategies.booleans(), edits)


def mutated(files: dict[str, bytes], in_bytes: bool, edits: Sequence[Edit]) -> dict[str, bytes]:
    """Applies edits in turn, to the bytes or, for known formats, to the structure of the files.

    Few files with mutated bytes pass the parser, so that both are needed.
    """
    files = dict(files)
    known = [] if in_bytes else [name for name in files if form_of(name)]
    for edit in edits:
        names = known or list(files)
        name = names[edit.file % len(names)]
        if known:
            files[name] = _structure(files[name], edit, form_of(name))
        else:
            files[name] = BYTES[edit.kind % len(BYTES)](files[name], edit)
    return files


def form_of(name: str) -> Form | None:
    """Returns the format of a file by its name; None if only its bytes can be mutated."""
    path = PurePosixPath(name)
    return FORMS.get(path.suffix or path.name)


# Bytes


def _flip(data: bytes, edit: Edit) -> bytes:
    mutated_bytes = bytearray(data or b"\0")
    mutated_bytes[_at(edit.place, len(mutated_bytes))] ^= 1 << edit.value % 8
    return bytes(mutated_bytes)


def _number(data: bytes, edit: Edit) -> bytes:
    """Replaces one, two, four or eight bytes by a number."""
    layout = "BHIQ"[edit.value % 4]
    order = "<>"[edit.value // 4 % 2]
    size = struct.calcsize(layout)
    value = NUMBERS[edit.value // 8 % len(NUMBERS)] % (1 << 8 * size)
    place = _at(edit.place, max(1, len(data) - size + 1))
    return data[:place] + struct.pack(order + layout, value) + data[place + size :]


def _cut(data: bytes, edit: Edit) -> bytes:
    return data[: _at(edit.place, len(data) + 1)]


def _remove(data: bytes, edit: Edit) -> bytes:
    place = _at(edit.place, len(data) + 1)
    return data[:place] + data[place + 1 + edit.value % SPAN :]


def _double(data: bytes, edit: Edit) -> bytes:
    place, length = _at(edit.place, len(data) + 1), 1 + edit.value % SPAN
    return data[:place] + data[place : place + length] * 2 + data[place + length :]


def _insert(data: bytes, edit: Edit) -> bytes:
    place = _at(edit.place, len(data) + 1)
    return data[:place] + TEXTS[edit.value % len(TEXTS)] + data[place:]


BYTES = (_flip, _number, _cut, _remove, _double, _insert)


def _at(place: int, length: int) -> int:
    """Maps a number to a position; small ones count from the start, so that headers are often hit."""
    return place % length if place < 256 else place * length >> 16


# Structure


def _structure(data: bytes, edit: Edit, form: Form) -> bytes:
    """Replaces, removes, duplicates, renames, nests or copies one value of the tree."""
    try:
        tree, rest = form.parse(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        return _number(data, edit)  # an earlier edit has destroyed the structure
    nodes = list(_nodes(tree))
    if not nodes:
        return data
    holder, key = nodes[_at(edit.place, len(nodes))]
    kind, value = edit.value % 8, edit.value // 8
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == 1:
        holder[f"{key}_"] = holder.pop(key)
    elif kind == 2:
        other, name = nodes[value % len(nodes)]
        holder[key] = copy.deepcopy(other[name])
    elif kind == 3:
        for _ in range(DEPTH if value % 2 else 2):
            holder[key] = [holder[key]]
    else:
        holder[key] = VALUES[value % len(VALUES)]
    try:
        return form.dump(tree, rest)
    except (RecursionError, UnicodeEncodeError):
        return b"[" * DEPTH


def _nodes(tree: Any) -> Any:
    """Yields (container, key) of every value."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from _nodes(value)


class Form(NamedTuple):
    """Conversion between files of a format and trees of lists and dictionaries."""

    parse: Callable[[bytes], tuple[Any, bytes]]
    """Returns the tree and the remaining bytes of the file."""
    dump: Callable[[Any, bytes], bytes]


def _rows(separator: str) -> Form:
    def parse(data: bytes) -> tuple[list, bytes]:
        return [line.split(separator) for line in data.decode().splitlines()], b""

    def text(row: Any) -> str:
        return separator.join(map(str, row)) if isinstance(row, list) else str(row)

    return Form(parse, lambda tree, _: "\n".join(map(text, tree)).encode())


def _parse_safetensors(data: bytes) -> tuple[dict, bytes]:
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.get("__metadata__", {})
    header["__metadata__"] = {name: json.loads(text) for name, text in metadata.items()}
    return header, data[8 + length :]


def _dump_safetensors(header: Any, tensors: bytes) -> bytes:
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict):  # metadata values are strings, here of JSON
        header = {**header, "__metadata__": {name: json.dumps(value) for name, value in metadata.items()}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def _parse_json(data: bytes) -> tuple[Any, bytes]:
    return json.loads(data), json.detect_encoding(data).encode()


def _dump_json(tree: Any, encoding: bytes) -> bytes:
    return json.dumps(tree).encode(encoding.decode())


def _parse_tiff(data: bytes) -> tuple[list, bytes]:
    """Returns the entries (tag, type, count, value or offset) of each directory of a classic TIFF file."""
    order = {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    pages = []
    while place and len(pages) < 100:
        (count,) = struct.unpack_from(f"{order}H", data, place)
        entries = (struct.unpack_from(f"{order}HHII", data, place + 2 + 12 * n) for n in range(count))
        pages.append([list(entry) for entry in entries])
        (place,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * count)
    return pages, data


def _dump_tiff(pages: Any, data: bytes) -> bytes:
    """Writes the directories behind the data, where offsets in them still hold."""
    order = {b"II*\0": "<", b"MM\0*": ">"}[data[:4]]
    place = len(data)
    data = data[:4] + struct.pack(f"{order}I", place) + data[8:]
    rows = [
        [row for row in page if isinstance(row, list)] if isinstance(page, list) else [] for page in pages
    ]
    for number, page in enumerate(rows):
        directory = struct.pack(f"{order}H", len(page) % 65536)
        for row in page:
            numbers = [_whole(value) for value in (*row, 0, 0, 0, 0)[:4]]
            tag, kind, count, value = (
                n % (1 << size) for n, size in zip(numbers, (16, 16, 32, 32), strict=True)
            )
            directory += struct.pack(f"{order}HHII", tag, kind, count, value)
        following = place + len(directory) + 4 if number + 1 < len(rows) else 0
        data += directory + struct.pack(f"{order}I", following % (1 << 32))
        place += len(directory) + 4
    return data


def _whole(value: Any) -> int:
    """Returns a value as an integer; 0 for other types."""
    return (
        value
        if isinstance(value, int)
        else int(value)
        if isinstance(value, float) and abs(value) < 1e9
        else 0
    )


_JSON = Form(_parse_json, _dump_json)
_TIFF = Form(_parse_tiff, _dump_tiff)
FORMS = {
    ".json": _JSON,
    ".zarray": _JSON,
    ".zattrs": _JSON,
    ".toml": Form(lambda data: (tomllib.loads(data.decode()), b""), lambda tree, _: dump_toml(tree).encode()),
    ".txt": _rows(","),
    ".ini": _rows("="),
    ".safetensors": Form(_parse_safetensors, _dump_safetensors),
    ".tif": _TIFF,
    ".tiff": _TIFF,
}
"""Formats by the suffix of the file name, or by the name if it has no suffix."""
