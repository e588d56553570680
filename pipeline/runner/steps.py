"""Steps that the loops over one source and over several have in common."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path

from pipeline.config.schema import RunConfig, ServiceConfig
from pipeline.runner.parts import Networks
from pipeline.runner.run_record import RunRecord
from pipeline.runner.summary import Summary
from pipeline.sources.source import FrameSource
from pipeline.stages.classes import keep_classes
from pipeline.stages.fusion import fuse
from pipeline.structures.frame import Frame
from pipeline.structures.protocols import Detector
from pipeline.structures.results import FrameDetections, Result
from pipeline.system.errors import UsageError, out_of_memory
from pipeline.system.packages import require_package
from pipeline.system.signals import StopRequest

RESULTS_AHEAD = 8
"""Size of the queue before the sinks, in results: it evens out their work and bounds the memory."""


def count_frames(source: FrameSource, record: RunRecord, stop: StopRequest) -> Iterator[Frame]:
    """Yields the frames of a source until a signal asks to stop; counts them and times their decoding.

    Those that the limit of the rate leaves out are counted as skipped.
    """
    while stop.signal is None:
        with record.timed("decode"):
            frame = next(source, None)
        if frame is None:
            return
        if record.limit(frame):
            record.decoded += 1
            yield frame


def detect(detector: Detector, groups: Iterable[tuple[Frame, ...]]) -> Generator[FrameDetections]:
    """Yields what a detector finds; one of another package may return any iterable, such as a list.

    Raises UsageError if it returns something else.
    """
    found = detector.detect(groups)
    if not isinstance(found, Iterable):
        raise UsageError(
            f"the detector '{type(detector).__name__}' returned {type(found).__name__} from detect, "
            "expected the results of each frame"
        )
    with closing(found) if isinstance(found, Generator) else nullcontext(), memory_shortage_told():
        for item in found:
            if not isinstance(item, FrameDetections):
                raise UsageError(
                    f"the detector '{type(detector).__name__}' returned {type(item).__name__} for a frame, "
                    "expected mote.FrameDetections"
                )
            yield item


@contextmanager
def memory_shortage_told() -> Iterator[None]:
    """Raises UsageError, with a remedy, in place of an error within the block that is a lack of memory."""
    try:
        yield
    except Exception as error:
        if short := out_of_memory(error):
            raise short from error
        raise


def select_and_fuse(
    found: Iterable[FrameDetections], config: RunConfig, networks: Networks
) -> Iterable[FrameDetections]:
    """Keeps the classes that are asked for, then combines detections with the masks of the segmenters."""
    if networks.kept_labels is not None:
        found = keep_classes(found, networks.kept_labels)
    if config.segmentation.fuse == "none":
        return found
    return fuse(found, config.segmentation, names=networks.segmenter_names, conf=config.detector.conf)


def health_server(summary: Summary, config: ServiceConfig) -> AbstractContextManager[None]:
    """Returns a context that serves health and metrics, if the configuration names a port."""
    if not config.health_port:
        return nullcontext()
    require_package("prometheus_client", "--health-port")
    from pipeline.runner.health import serve_health  # loads prometheus_client

    return serve_health(summary, config)


@contextmanager
def alarms_delivered(config: RunConfig, folder: Path, summary: Summary) -> Iterator[None]:
    """Delivers alarms during the block, if there are receivers; the summary gets what delivers them.

    What earlier runs left in the queue is delivered first; its place is the output folder `folder`, unless
    the configuration names another. Raises MoteError if the queue, a secret or a package is missing.
    """
    from pipeline.alarms.opening import QUEUE, open_deliveries
    from pipeline.alarms.queue import remove_if_done

    if config.output.overwrite:
        remove_if_done(folder / QUEUE)
    summary.alarms = open_deliveries(config.alarms, folder)
    if summary.alarms is None:
        yield
        return
    summary.alarms.start()
    try:
        yield
    finally:
        summary.alarms.close()


@contextmanager
def closing_results(results: Generator[Result]) -> Iterator[Generator[Result]]:
    """Closes the stages at the end of the block; an error of theirs is noted on one that is being raised."""
    try:
        yield results
    except BaseException as error:
        try:
            results.close()
        except Exception as later:
            error.add_note(f"then: {later}")
        raise
    results.close()
