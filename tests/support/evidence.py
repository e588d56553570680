"""A target that moves over a clip, the messages of its event, and what a clip holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from pipeline.config.events_section import EventsConfig
from pipeline.events.evidence.keeper import EvidenceKeeper
from pipeline.sources.source import FrameSource
from pipeline.structures.detections import Detections
from pipeline.structures.events import Event, Phase
from pipeline.structures.frame import Frame
from pipeline.structures.results import Result
from pipeline.structures.tracks import Tracks
from tests.support.media import write_video

ID = "0123456789ab-gate-7"
RATE = 20
TRACK = 7


def place(index: int) -> tuple[float, float]:
    """Returns x and y of the upper left corner of the target in a frame."""
    return 20 + index // 2, 60 - index // 4


def images(count: int, *, height: int = 80, width: int = 128, dtype=np.uint8, full: int = 255) -> list:
    """Returns grey frames (H, W) with a target of three pixels."""
    random = np.random.default_rng(0)
    frames = []
    for index in range(count):
        image = random.integers(full // 5, full // 4, (height, width)).astype(dtype)
        x, y = place(index)
        image[y : y + 3, x : x + 3] = full * 4 // 5
        frames.append(image)
    return frames


def coding(interval: int, *, reordered: int = 0) -> dict[str, str]:
    """Returns fast settings of x264 with a key frame every `interval` frames, and B-frames if `reordered`."""
    return {"preset": "ultrafast", "g": str(interval), "bf": str(reordered), "sc_threshold": "0"}


def write_clip(path: Path, count: int = 100, **settings) -> Path:
    """Writes a video of 20 frames a second with a key frame every second; returns the path."""
    return write_video(path, images(count), rate=RATE, options=coding(20, reordered=2), **settings)


def tracks(index: int, score: float = 0.7, track: int = TRACK) -> Tracks:
    """Returns the track of the target in a frame."""
    x, y = place(index)
    box = np.array([[x, y, x + 3, y + 3]])
    return Tracks(box, [score], [0], [track], [1], np.zeros((1, 2)), [index])


def result(frame: Frame, score: float = 0.7, track: int = TRACK) -> Result:
    """Returns the result of a frame in which the target is followed."""
    return Result(frame, Detections.empty(), False, tracks=tracks(frame.index, score, track))


def message(phase: Phase, frame: Frame, *, event_id: str = ID, track: int = TRACK) -> Event:
    """Returns a message of the event of the target."""
    x, y = place(frame.index)
    return Event(
        id=event_id,
        sequence=0 if phase == "start" else 1,
        phase=phase,
        rule="gate",
        source="camera",
        track=track,
        label="target",
        frame=frame.index,
        pts=float(frame.pts),
        time="2026-11-30T21:58:00.000Z",
        begun=0.0,
        duration=float(frame.pts),
        score=0.7,
        box=(x, y, x + 3, y + 3),
        velocity=(10.0, -5.0),
        zone=None,
        evidence=f"events/{event_id}",
    )


def make_keeper(output: Path, source: FrameSource, **config) -> EvidenceKeeper:
    """Returns the keeper of a source."""
    return EvidenceKeeper(output, EventsConfig(**config), source, ("target",), quality=20)


def keep(output: Path, source: FrameSource, first: int, last: int, **config) -> Path:
    """Keeps the evidence of an event from a frame to another, counted from 0; returns its folder."""
    keeper = make_keeper(output, source, **config)
    for number, frame in enumerate(source):
        found = result(frame)
        keeper.add(found)
        if number == first:
            keeper.begin(message("start", frame), found)
        if number == last:
            keeper.end(message("end", frame))
    keeper.close()
    return output / "events" / ID


def account(folder: Path) -> dict:
    """Reads event.json."""
    return json.loads((folder / "event.json").read_text())


class Clip(NamedTuple):
    """What a player shows."""

    times: list[float]
    pictures: list[np.ndarray]
    """(H, W) uint8 grey."""
    metadata: dict[str, str]
    codec: str
    pixel_format: str


def play(path: Path) -> Clip:
    """Decodes every frame of a clip."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        context = stream.codec_context
        return Clip(
            [float(frame.pts * frame.time_base) for frame in frames],
            [frame.to_ndarray(format="gray") for frame in frames],
            dict(container.metadata),
            context.name,
            context.pix_fmt,
        )


def packets(path: Path) -> list[bytes]:
    """Returns the coded packets of a video, in decoding order."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def units(packet: bytes, *, lengths: bool) -> list[bytes]:
    """Returns the NAL units of a packet of H.264, with `lengths` of four bytes or with start codes before."""
    if not lengths:
        return [unit.rstrip(b"\x00") for unit in packet.split(b"\x00\x00\x01")[1:]]
    found = []
    while packet:
        length = int.from_bytes(packet[:4], "big")
        found.append(packet[4 : 4 + length])
        packet = packet[4 + length :]
    return found


def target_of(picture: np.ndarray) -> tuple[int, int]:
    """Returns x and y of the upper left corner of the brightest 3×3 pixels."""
    sums = np.lib.stride_tricks.sliding_window_view(picture.astype(int), (3, 3)).sum((2, 3))
    y, x = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(x), int(y)
