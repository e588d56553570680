"""Small files that are right, and edits that spoil them: in their bytes, and in what they say."""

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
"""Width and height of pictures."""
COUNT = 4
"""Frames."""
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
"""What a program may not have been written for."""
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
"""Lists within each other, where something is nested."""
SPAN = 64
"""Longest piece that is taken away or doubled, in bytes."""


class Edit(NamedTuple):
    """One change; which, where and with what follows from the numbers, whatever it is applied to."""

    kind: int
    file: int
    place: int
    value: int


class Seed(NamedTuple):
    """Files that are right, how they are laid down, and what reads them."""

    files: dict[str, bytes]
    write: Callable[[dict[str, bytes], Path], Path]
    """Lays the files down in an empty folder, and gives what is to be read."""
    read: Callable[[Path], str]
    """Reads it; gives in a few words what it found. May raise MoteError alone."""


def whole(files: dict[str, bytes], folder: Path) -> Path:
    """Lays files down as they are; gives the first one."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / next(iter(files))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def made(make: Callable[[Path], object]) -> dict[str, bytes]:
    """The files that a function writes into the folder it is given."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        return contents(Path(folder))


def mutants(count: int, most: int = 5) -> strategies.SearchStrategy[tuple[int, bool, list[Edit]]]:
    """(number of one of `count` seeds, whether its bytes are spoilt, edits), at least one edit."""
    number = strategies.integers(0, 65535)
    edits = strategies.lists(
        strategies.builds(Edit, number, number, number, number), min_size=1, max_size=most
    )
    return strategies.tuples(strategies.integers(0, count - 1), strategies.booleans(), edits)


def mutated(files: dict[str, bytes], in_bytes: bool, edits: Sequence[Edit]) -> dict[str, bytes]:
    """The files with the edits applied one after the other, in their bytes or, where it is known how, in what
    they say: few of those with wrong bytes get as far as that."""
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
    """How what a file of this name says can be changed; None where only its bytes can."""
    path = PurePosixPath(name)
    return FORMS.get(path.suffix or path.name)


# In the bytes


def _flip(data: bytes, edit: Edit) -> bytes:
    spoilt = bytearray(data or b"\0")
    spoilt[_at(edit.place, len(spoilt))] ^= 1 << edit.value % 8
    return bytes(spoilt)


def _number(data: bytes, edit: Edit) -> bytes:
    """One, two, four or eight bytes become a number."""
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
    """A place in so many: small numbers name one from the start on, so that heads are hit often."""
    return place % length if place < 256 else place * length >> 16


# In what they say


def _structure(data: bytes, edit: Edit, form: Form) -> bytes:
    """One value in the tree is replaced, removed, doubled, renamed, nested or put in another's place."""
    try:
        tree, rest = form.parse(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error):
        return _number(data, edit)  # spoilt before: there is no structure left
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
    """(holder, key) of every value within."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from _nodes(value)


class Form(NamedTuple):
    """How files of a kind become a tree of lists and dictionaries, and are made of one."""

    parse: Callable[[bytes], tuple[Any, bytes]]
    """Tree, and what of the file is not in it."""
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
    told = header.get("__metadata__", {})
    header["__metadata__"] = {name: json.loads(text) for name, text in told.items()}
    return header, data[8 + length :]


def _dump_safetensors(header: Any, tensors: bytes) -> bytes:
    told = header.get("__metadata__")
    if isinstance(told, dict):  # the metadata are texts, ours are JSON
        header = {**header, "__metadata__": {name: json.dumps(value) for name, value in told.items()}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


_JSON = Form(lambda data: (json.loads(data), b""), lambda tree, _: json.dumps(tree).encode())
FORMS = {
    ".json": _JSON,
    ".zarray": _JSON,
    ".zattrs": _JSON,
    ".toml": Form(lambda data: (tomllib.loads(data.decode()), b""), lambda tree, _: dump_toml(tree).encode()),
    ".txt": _rows(","),
    ".ini": _rows("="),
    ".safetensors": Form(_parse_safetensors, _dump_safetensors),
}
"""By the suffix of the file's name, or the name of one that has none."""
