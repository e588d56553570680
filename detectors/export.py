"""Exports a network as graphs: `python -m detectors.export tridos-nano-drone-ir --size 320x256`.

Writes a folder with three graphs of variable batch size, `frame` (features of one image), `pair` (of two
consecutive frames) and `join` (output of a window of five), and `export.json`. Each frame passes the first
two once; a program keeps their last five results. The tensors are documented in detectors/backends/graphs.py.

`--list-cache` shows the graphs that runs have exported and kept, `--clear-cache` removes them.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.schema import parse_size
from pipeline.system import cli
from pipeline.system.errors import OutputError, UsageError
from pipeline.system.files import output_error

if TYPE_CHECKING:
    from detectors.backends.graph_cache import CacheEntry

FORMATS = ("onnx", "torch-export")
DEFAULT_SIZE = "320x256"


def parser() -> cli.Parser:
    """Returns the parser of the command line."""
    parser = cli.Parser(
        prog="python -m detectors.export",
        description="Export a network as three graphs: features of a frame, features of a pair of frames, "
        "output of a window of five frames. run_pipeline.py runs them with --weights DIR and --backend "
        "onnxruntime or openvino.",
    )
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", help="tridos, tridos-nano, or weights of --list")
    add("--weights", metavar="FILE", help="weights of a detector (default: the supplied ones)")
    add("--format", choices=FORMATS, default=FORMATS[0], help="file format (default: onnx)")
    add("--size", metavar="WxH", default=DEFAULT_SIZE, help=f"size of the input (default: {DEFAULT_SIZE})")
    add("--output", metavar="DIR", type=Path, help="folder (default: runs/exported/NAME-WxH-FORMAT)")
    add("--overwrite", action="store_true", help="replace an earlier export in the folder")
    cache = parser.add_argument_group("graphs that runs have exported and kept")
    cache.add_argument("--list-cache", action="store_true", help="show them, the last used first")
    cache.add_argument("--clear-cache", action="store_true", help="remove those that no run is reading")
    folder = "folder of the cache, detector.cache of the runs (default: that of the configuration)"
    cache.add_argument("--cache", metavar="DIR", default="", help=folder)
    return parser


def work(options: argparse.Namespace) -> None:
    """Exports the network and prints the files, or lists or clears the cache. Raises MoteError."""
    if options.list_cache or options.clear_cache:
        if options.name:
            raise UsageError(f"a cache holds the graphs of all networks; leave '{options.name}' out")
        show_cache(options.cache, clear=options.clear_cache)
        return
    if not options.name:
        raise UsageError("a network is required: tridos, tridos-nano, or weights of --list; see --help")
    if options.cache:
        raise UsageError("--cache is for --list-cache and --clear-cache; --output is the folder of an export")
    try:
        size = parse_size(options.size, multiple=32)
    except ValueError as error:
        raise UsageError(f"--{error}".replace("size = ", "size ")) from error
    if size is None:
        raise UsageError("--size native: an export has one size; give WxH such as 320x256")
    from detectors.backends import export_folder
    from detectors.networks.registry import canonical
    from detectors.networks.tridos import Tridos
    from detectors.weights import restore, zoo

    entry = zoo.ZOO_TABLE.get(options.name)
    name = entry.detector if entry else canonical(options.name)
    export_folder.require_exportable(name, "export")
    if entry and options.weights:
        raise UsageError(f"'{options.name}' names weights already; leave --weights out, or give '{name}'")
    folder = options.output or Path("runs", "exported", f"{options.name}-{options.size}-{options.format}")
    if (folder / export_folder.MANIFEST).exists() and not options.overwrite:
        raise OutputError(f"{folder} holds an earlier export; use --overwrite or another --output")
    chosen = options.name if entry else zoo.weights_or_default(name, options.weights)
    model, path, entry = restore.restore_network(name, chosen)
    assert isinstance(model, Tridos)  # no others are exportable
    classes = entry.classes if entry else tuple(f"class {n}" for n in range(model.num_classes))
    origin = export_folder.describe_origin(name, chosen, path, model, classes)
    export = export_folder.export_network(model, origin, folder, size=size, kind=options.format)
    for part in ("frame", "pair", "join"):
        print(f"{export.file(part)}  {export.file(part).stat().st_size / 1e6:.1f} MB")


def show_cache(folder: str, *, clear: bool) -> None:
    """Prints what the cache in `folder` holds, or what was removed from it with `clear`.

    Raises OutputError if it cannot be cleared.
    """
    from detectors.backends.graph_cache import GraphCache

    cache = GraphCache.at(folder, "")
    if clear:
        try:
            print(_total(cache.clear(), f"removed from {cache.folder}"))
        except OSError as error:
            raise output_error(cache.folder, error) from error
    left = cache.entries()
    if not clear or left:
        for entry in reversed(left):
            used = datetime.fromtimestamp(entry.last_used).astimezone().isoformat(" ", "minutes")
            print(f"{entry.size / 1e6:9.1f} MB  {used}  {os.path.basename(entry.folder)}")
        print(_total(left, f"in {cache.folder}"))


def _total(entries: list[CacheEntry], where: str) -> str:
    count = f"{len(entries)} export{'' if len(entries) == 1 else 's'}"
    return f"{count}, {sum(entry.size for entry in entries) / 1e6:.1f} MB, {where}"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(parser(), work, arguments)


if __name__ == "__main__":
    sys.exit(main())
