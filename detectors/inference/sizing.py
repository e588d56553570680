"""Chooses how a detector computes frames of a size, by the memory that the machine has.

What works is taken in this order: the requested or fastest runtime on whole frames, torch on whole frames,
tiles. Only large frames are a matter for this: others are computed as requested, in silence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from detectors.backends.devices import LARGE, core_count, join_count, pick_device, thread_count
from detectors.backends.runtimes import resolve_backend
from detectors.inference import cost
from detectors.inference.cost import Form, Shape
from detectors.inference.tiling.streams import Views
from detectors.networks import registry
from detectors.weights import restore, zoo
from pipeline.config.schema import DetectorConfig
from pipeline.imaging.geometry import Geometry
from pipeline.structures.frame import SourceInfo
from pipeline.structures.rectangle import Rectangle
from pipeline.system import memory
from pipeline.system.errors import UsageError
from pipeline.system.progress import format_rate

log = logging.getLogger(__name__)

MAX_GRAPH_CELLS = 16_384
"""Cells of an input up to which `--backend auto` takes an exported graph. For larger ones torch needs a fifth
of the memory, and no time for the export."""
SHARE = 0.8
"""Share of the available memory that a run may take."""
TILES = ((640, 512), (320, 256))
"""Sizes of tiles that are tried if whole frames do not fit."""
FASTER = 2.0
"""Ratio of operations from which tiles are recommended."""
WIDTHS = {"tridos": 1.0, "tridos-nano": 0.25, "plain": 0.0}
"""Channel counts of each detector as a share of those of the published Tridos; 0 for the plain network."""


class Estimate(NamedTuple):
    """What a run is going to take."""

    memory: float
    """Bytes of its peak."""
    operations: float
    """Operations of one frame of each source together."""

    def words(self, shape: Shape) -> str:
        """Returns the estimate in words: memory, and frames per second on free cores of this machine."""
        # narrow networks have a thread for each half of the work, or for each window
        cores = min(core_count(), max(shape.threads, shape.joins, 2))
        rate = cores * cost.EFFICIENCY * cost.core_rate() / self.operations
        return f"about {_gigabytes(self.memory)} of memory and {format_rate(rate)} frames/s"


class Sizing:
    """The choice for one detector and its sources; the network computes on the CPU.

    Args:
        config: the detector as configured.
        width: channel counts of a Tridos network as a share of those published; 0 for the plain network.
        enlarge: network pixels per source pixel of native inputs.
        graph: whether the configured runtime takes exported graphs.
        sources: the sources; each has a state of its own.
    """

    def __init__(
        self,
        config: DetectorConfig,
        *,
        width: float,
        enlarge: float,
        graph: bool,
        sources: Sequence[SourceInfo],
    ):
        self._config, self._enlarge, self._sources = config, enlarge, sources
        self._form: Form = "graph" if graph else "torch"
        self._channels = round(128 * width)
        self.threads = config.threads or thread_count(_Width(width or 1.0))

    def shape(self, form: Form) -> Shape:
        """Returns what the cost depends on for a form of the network."""
        joins = join_count() if form == "graph" and self.threads == 1 else 1
        return Shape(self._channels, self.threads, joins)

    def inputs(self, config: DetectorConfig) -> list[list[int]]:
        """Returns the cells of the network inputs of each source, one for each tile or region."""
        return [[self._cells(config, view) for view in views.tiles] for views in self._views(config)]

    def estimate(self, config: DetectorConfig, form: Form) -> Estimate:
        """Returns what a run with this configuration takes."""
        shape, rows = self.shape(form), self.inputs(config)
        largest = max(count for row in rows for count in row)
        whole = all(len(row) == 1 for row in rows)
        states = sum(count for row in rows for count in row) - (largest if whole else 0)
        frames = sum(
            cost.frame_bytes((info.width, info.height), samples=(1 + (info.bit_depth > 8)) * info.channels)
            for info in self._sources
        )
        need = cost.PROCESS + frames + cost.network_bytes(shape, form, largest)
        need += cost.ring_bytes(shape, form, states)
        return Estimate(need, sum(cost.operations(shape, count) for row in rows for count in row))

    def candidates(self) -> Iterator[tuple[DetectorConfig, Form, str]]:
        """Yields configurations with their form and how they are called, in the order of preference."""
        config, form = self._config, self._form
        is_free = form == "graph" and config.backend == "auto"
        by_torch = replace(config, backend="torch")
        if not is_free or max(map(max, self.inputs(config))) <= MAX_GRAPH_CELLS:
            yield config, form, "as requested"
        if is_free:
            yield by_torch, "torch", "torch, which reads the memory of the network in pieces"
        if config.tile != "auto":
            return
        for width, height in TILES:
            words = f"tiles of {width}x{height}"
            overlap = min(config.tile_overlap, height // 2)
            tiled = replace(config, tile=f"{width}x{height}", tile_overlap=overlap)
            yield tiled, form, words
            if is_free:
                yield replace(tiled, backend="torch"), "torch", f"{words} by torch"

    def is_small(self, available: int | None) -> bool:
        """Returns whether the frames are small, and fit `available` bytes of memory in any form."""
        needed = self.estimate(self._config, self._form).memory
        return not self._is_large() and (available is None or needed <= SHARE * available)

    def _is_large(self) -> bool:
        """Returns whether what is computed of a frame, all tiles together, is large."""
        return max(map(sum, self.inputs(self._config))) * cost.STRIDE**2 > LARGE

    def choose(self, available: int | None) -> DetectorConfig:
        """Returns the configuration that fits the memory, in bytes, and tells what it takes.

        Raises UsageError if none does.
        """
        limit = None if available is None else SHARE * available
        config = self._config
        first: Estimate | None = None
        for chosen, form, words in self.candidates():
            estimate = self.estimate(chosen, form)
            first = first or estimate
            # small frames are tried in any memory
            accepted = not self._is_large() and (form == "torch" or config.backend != "auto")
            if limit is not None and estimate.memory > limit and not accepted:
                continue
            self._tell(chosen, form, words if estimate is not first else "", estimate, first, available)
            return chosen
        assert first is not None
        have = _gigabytes(available or 0)
        remedy = "give --tile auto" if config.tile == "none" else "give --roi, or a smaller --tile"
        if config.tile == "auto" and not config.roi:
            remedy = "give --roi for a part of the frame, or end programs that take memory"
        raise UsageError(
            f"{self._named()}: the detector needs about {_gigabytes(first.memory)} of memory, and {have} are "
            f"available; {remedy}"
        )

    def _tell(
        self,
        config: DetectorConfig,
        form: Form,
        instead: str,
        estimate: Estimate,
        first: Estimate,
        available: int | None,
    ) -> None:
        """Logs the estimate in one line, unless the frames are small."""
        if not self._is_large() and not instead:
            return
        text = f"{self._named()}: {estimate.words(self.shape(form))}"
        if instead and available is not None:
            text = (
                f"{self._named()}: whole frames would need about {_gigabytes(first.memory)} of memory, and "
                f"{_gigabytes(available)} are available; using {instead}, which takes "
                f"{estimate.words(self.shape(form))}"
            )
        elif config.tile_size() is None:
            tiled = replace(config, tile="{}x{}".format(*TILES[0]))
            faster = estimate.operations / self.estimate(tiled, form).operations
            if faster >= FASTER:
                text += f"; --tile {tiled.tile} would be about {faster:.0f} times as fast"
        log.warning("%s", text)

    def _named(self) -> str:
        """Returns the sizes of the frames in words."""
        sizes = dict.fromkeys(f"{info.width}x{info.height}" for info in self._sources)
        return f"frames of {', '.join(sizes)}"

    def _views(self, config: DetectorConfig) -> list[Views]:
        return [Views.of(config, (info.width, info.height)) for info in self._sources]

    def _cells(self, config: DetectorConfig, view: Rectangle) -> int:
        source = view.right - view.left, view.bottom - view.top
        fixed = config.network_size()
        return cost.cells(fixed or Geometry.native(source, scale=self._enlarge).network)


class _Width(NamedTuple):
    """Stands for a network of some width."""

    width: float


def fit_to_memory(config: DetectorConfig, sources: Sequence[SourceInfo]) -> DetectorConfig:
    """Returns the configuration with a runtime and tiles that fit the memory of the machine.

    `tile` is not "auto" in the result. It tells in one line what large frames take, and if something else
    than requested is used. Raises UsageError if nothing fits, or if a region lies outside of a frame.
    """
    for info in sources:
        Views.of(config, (info.width, info.height))
    if registry.kind_of(config.name) != "detector" or not sources:
        return _settled(config)
    device, name = pick_device(config.device), registry.canonical(config.name)
    weights = zoo.weights_or_default(name, config.weights)
    if device.type != "cpu" or Path(weights).is_dir():
        return _settled(config)
    enlarge = config.enlarge or restore.trained_enlargement(zoo.locate_weights(weights)[0])
    sizing = Sizing(config, width=WIDTHS[name], enlarge=enlarge, graph=True, sources=sources)
    available = memory.available_memory()
    if available is not None:  # the estimate counts what the process has already
        available += memory.resident_memory()
    if sizing.is_small(available):
        return _settled(config)
    backend = resolve_backend(name, config, device).kind
    if backend == "torch":
        sizing = Sizing(config, width=WIDTHS[name], enlarge=enlarge, graph=False, sources=sources)
    chosen = sizing.choose(available)
    return _settled(replace(chosen, backend=backend) if chosen.backend == "auto" else chosen)


def _settled(config: DetectorConfig) -> DetectorConfig:
    return replace(config, tile="none") if config.tile == "auto" else config


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
