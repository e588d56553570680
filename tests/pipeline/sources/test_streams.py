"""Streams from local servers: frames arrive unchanged, silence times out, secrets are not revealed."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from pipeline.sources.opening import open_source
from pipeline.system.errors import SourceError, SourceLost
from pipeline.system.redaction import redact, stream_name
from tests.support import stream_servers
from tests.support.media import LOSSLESS, grey_frames, open_files, write_video

RAW = {"format": "raw", "size": "96x64", "dtype": "uint8"}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """An MPEG transport stream of 60 frames at 30 frames per second."""
    return write_video(tmp_path_factory.mktemp("recording") / "a.ts", grey_frames(60), **LOSSLESS)


@pytest.fixture(scope="module")
def stream(recording):
    return recording.read_bytes()


@pytest.fixture(scope="module")
def images(recording):
    with open_source(recording) as source:
        return [frame.image for frame in source]


@pytest.mark.parametrize("declared", ["auto", "mpegts"])
def test_a_transport_stream_is_read_from_standard_input(stream, images, declared):
    before = open_files()
    with stream_servers.standard_input(stream), open_source("-", format=declared) as source:
        info, frames = source.info, list(source)
    assert (info.name, info.width, info.height, info.rate, info.frame_count) == ("-", 96, 64, 30, None)
    assert not info.live
    np.testing.assert_array_equal([frame.image for frame in frames], images)
    assert {frame.arrival is None for frame in frames} == {True}
    assert open_files() == before


@pytest.mark.parametrize("declared", ["auto", "y4m"])
def test_y4m_is_read_from_standard_input(tmp_path, declared):
    path = write_video(tmp_path / "a.y4m", grey_frames(5), codec="wrapped_avframe", pixel_format="gray")
    with stream_servers.standard_input(path.read_bytes()), open_source("-", format=declared) as source:
        np.testing.assert_array_equal([frame.image for frame in source], grey_frames(5))


def test_raw_frames_are_read_from_standard_input_from_any_start(tmp_path):
    data = b"head" + np.stack(grey_frames(6)).tobytes()
    with stream_servers.standard_input(data), open_source("-", **RAW, header=4, start=2, rate=25) as source:
        frames = list(source)
        assert source.info.frame_count is None
    assert [(frame.index, frame.pts) for frame in frames] == [(n, Fraction(n, 25)) for n in (2, 3, 4, 5)]
    np.testing.assert_array_equal([frame.image for frame in frames], grey_frames(6)[2:])


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (b"", {}, "standard input holds no video"),
        (b"no video at all" * 1000, {}, "standard input holds no video"),
        (b"", RAW, "ends before frame 0 of frames of 96x64 uint8"),
        (bytes(6145), {**RAW, "start": 3}, "ends before frame 3"),
    ],
)
def test_standard_input_without_video_is_refused_in_one_line(data, options, message):
    before = open_files()
    with stream_servers.standard_input(data), pytest.raises(SourceError, match=message) as caught:
        with open_source("-", **options) as source:
            list(source)
    assert "\n" not in str(caught.value)
    assert open_files() == before


@pytest.mark.parametrize("options", [{}, RAW], ids=["video", "raw"])
def test_closing_ends_the_wait_for_a_silent_writer(stream, options):
    sent = stream if not options else grey_frames(1)[0].tobytes()
    with stream_servers.standard_input(None) as writing:
        threading.Thread(target=stream_servers.write, args=(writing, sent)).start()
        source = open_source("-", **options)
        waiting = threading.Thread(target=lambda: [None for _ in source])
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
        source.close()
        waiting.join(2)
        assert not waiting.is_alive()
        others = open_files()
        source.close()
        assert open_files() == others


def test_a_tcp_stream_is_live_and_its_frames_have_arrival_times(stream, images):
    started = time.monotonic()
    with (
        stream_servers.listener(stream_servers.sending(stream)) as port,
        open_source(f"tcp://127.0.0.1:{port}") as source,
    ):
        info, frames = source.info, list(source)
    assert (info.live, info.frame_count, info.rate) == (True, None, 30)
    np.testing.assert_array_equal([frame.image for frame in frames], images)
    arrivals = [frame.arrival for frame in frames]
    assert started < arrivals[0]
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] < time.monotonic()


def test_raw_frames_of_sixteen_bits_come_over_tcp_unchanged():
    ramp = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    data = np.stack([ramp, ramp[::-1], ramp.T]).tobytes()
    options = {"format": "raw", "size": "256x256", "dtype": "uint16le", "rate": 50}
    with stream_servers.listener(stream_servers.sending(data)) as port:
        with open_source(f"tcp://127.0.0.1:{port}", **options) as source:
            first, second, third = source
            assert (source.info.bit_depth, source.info.rate) == (16, 50)
    np.testing.assert_array_equal([first.image, second.image, third.image], [ramp, ramp[::-1], ramp.T])


def test_a_udp_stream_is_read_while_it_is_sent(stream, images):
    with (
        stream_servers.datagrams(stream) as port,
        open_source(f"udp://127.0.0.1:{port}", timeout=5) as source,
    ):
        frames = list(islice(source, 20))
    assert source.info.live
    assert len(frames) == 20
    assert all(any(np.array_equal(frame.image, image) for image in images) for frame in frames[5:])


def test_an_rtsp_camera_is_read(stream, images):
    with stream_servers.listener(stream_servers.rtsp(stream)) as port:
        with open_source(f"rtsp://user:secret@127.0.0.1:{port}/1", timeout=3) as source:
            frames = list(islice(source, 50))
    assert source.info.live
    assert source.info.name == f"rtsp://127.0.0.1:{port}/1"
    np.testing.assert_array_equal([frame.image for frame in frames], images[:50])


def test_a_recording_at_an_address_is_not_live(tmp_path):
    write_video(tmp_path / "a.mp4", grey_frames(12), container_options={"movflags": "faststart"})
    with stream_servers.web_server(tmp_path, login="user:secret") as port:
        with open_source(f"http://user:secret@127.0.0.1:{port}/a.mp4") as source:
            assert (source.info.live, source.info.frame_count, len(list(source))) == (False, 12, 12)
            assert source.info.name == f"http://127.0.0.1:{port}/a.mp4"
        with pytest.raises(SourceError, match="cannot be opened") as caught:
            open_source(f"http://user:wrong@127.0.0.1:{port}/a.mp4?password=hidden1")
    assert_silent_about(caught.value, "wrong", "hidden1")


def assert_silent_about(error: BaseException | None, *secrets: str) -> None:
    """Asserts that a traceback of the error shows none of the secrets."""
    while error is not None:
        assert not any(secret in f"{error!r} {error}" for secret in secrets)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
def test_opening_a_silent_server_times_out(scheme):
    before = open_files()
    with stream_servers.listener(stream_servers.silence) as port:
        started = time.monotonic()
        with pytest.raises(SourceError, match="cannot be opened") as caught:
            open_source(f"{scheme}://user:secret@127.0.0.1:{port}/1", timeout=0.5)
        assert 0.3 < time.monotonic() - started < 3
    assert f"{scheme}://127.0.0.1:{port}/1" in str(caught.value)
    assert_silent_about(caught.value, "secret")
    time.sleep(0.1)  # the server closes its side of the connection in another thread
    assert open_files() <= before + 1


def test_opening_a_silent_port_times_out():
    with pytest.raises(SourceError, match=r"cannot be opened: no data for 0\.5 s"):
        open_source("udp://127.0.0.1:49999", timeout=0.5)


@pytest.mark.parametrize("kind", ["tcp", "rtsp"])
def test_a_stream_that_falls_silent_is_lost_after_its_frames(stream, kind):
    serve = {"tcp": stream_servers.sending, "rtsp": stream_servers.rtsp}[kind](stream, then_silent=True)
    frames = []
    with stream_servers.listener(serve) as port:
        with open_source(f"{kind}://user:secret@127.0.0.1:{port}/", timeout=0.7) as source:
            started = time.monotonic()
            with pytest.raises(SourceLost, match=r"lost after \d+ frames: ") as caught:
                frames.extend(source)
            assert time.monotonic() - started < 4
    assert len(frames) >= 50
    assert_silent_about(caught.value, "secret")


def test_a_stream_without_a_decodable_frame_times_out(tmp_path):
    """Packets arrive, but not the one with the key frame, so nothing can be decoded."""
    options = {"qp": "0", "g": "1000", "sc_threshold": "0"}
    stream = write_video(tmp_path / "a.ts", grey_frames(2) * 30, options=options).read_bytes()
    endless = stream[len(stream) // 376 * 188 :] * 3

    def serve(connection):
        while True:
            for start in range(0, len(endless), stream_servers.DATAGRAM):
                connection.sendall(endless[start : start + stream_servers.DATAGRAM])
                time.sleep(0.001)

    with stream_servers.listener(serve) as port:
        started = time.monotonic()
        with pytest.raises(SourceError):
            open_source(f"tcp://127.0.0.1:{port}", format="mpegts", timeout=1)
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "concat://a|b", "subfile://x", "ftp://host/a", "srt://h:1"]
)
def test_addresses_of_other_schemes_are_refused(location):
    with pytest.raises(SourceError, match=r"addresses of scheme '.*' are not supported; give rtsp, http"):
        open_source(location)


def test_a_playlist_from_the_network_cannot_read_files_of_this_machine(tmp_path, recording):
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{recording}\n#EXT-X-ENDLIST\n"
    (tmp_path / "a.m3u8").write_text(playlist)
    with stream_servers.web_server(tmp_path) as port, pytest.raises(SourceError):
        open_source(f"http://127.0.0.1:{port}/a.m3u8", timeout=2)


def test_a_camera_that_is_not_there_is_named():
    with pytest.raises(SourceError, match="camera 97: "):
        open_source("97")


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_a_stream_sent_by_ffmpeg_is_read(recording, images):
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        recording,
        "-c",
        "copy",
        "-f",
        "mpegts",
        "tcp://127.0.0.1:{}?listen=1",
    ]
    with stream_servers.listener(stream_servers.silence) as port:
        pass  # a port that is free now
    sender = subprocess.Popen([str(word).format(port) for word in command], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                source = open_source(f"tcp://127.0.0.1:{port}", timeout=5)
                break
            except SourceError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        with source:
            np.testing.assert_array_equal([frame.image for frame in source], images)
    finally:
        sender.kill()
        sender.wait()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://h/v?user=a&password=b&x=1", "http://h/v?user=***&password=***&x=***"),
        ("http://h/v?access_token=abc", "http://h/v?access_token=***"),
        ("lost: rtsp://u:p@h/1 and http://v:q@h/2", "lost: rtsp://h/1 and http://h/2"),
        ("http://h:80/a 'rtsp://u:p@h/1'", "http://h:80/a 'rtsp://h/1'"),
        ("no address: a@b, c:d", "no address: a@b, c:d"),
    ],
)
def test_secrets_are_masked_anywhere_in_a_text(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("-", "stdin"),
        ("0", "camera-0"),
        ("rtsp://user:secret@camera:554", "camera-554"),
        ("http://h/live/1.ts?token=x", "h-live-1.ts"),
        ("udp://@:5000", "5000"),
        ("folder/a.mp4", None),
    ],
)
def test_file_names_of_streams_contain_no_secret(location, name):
    assert stream_name(location) == name
