"""Every source yields and announces the frames that `start`, `end`, `stride` and `max_frames` select."""

from __future__ import annotations

import time

import numpy as np
import pytest
import zarr

from pipeline.sources.opening import open_source
from pipeline.sources.reader import Selection
from pipeline.system.errors import SourceError, UsageError
from tests.pipeline.sources.test_images import write_images
from tests.pipeline.sources.test_live import in_turn, raw, refuse, watched
from tests.support import stream_servers
from tests.support.media import grey_frames, write_video

COUNT = 12
KINDS = ("video", "images", "raw", "zarr")
RAW = {"format": "raw", "size": "96x64", "dtype": "uint8"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The same frames as sources of all kinds: locations and options by kind."""
    folder, images = tmp_path_factory.mktemp("sources"), grey_frames(COUNT)
    (folder / "a.bin").write_bytes(raw(images))
    array = zarr.create_array(folder / "a.zarr", shape=(COUNT, 64, 96), chunks=(4, 64, 96), dtype="u1")
    array[:] = np.stack(images)
    return {
        "video": (write_video(folder / "a.mp4", images), {}),
        "images": (
            write_images(folder / "images", {f"{i}.png": image for i, image in enumerate(images)}),
            {},
        ),
        "raw": (folder / "a.bin", RAW),
        "zarr": (folder / "a.zarr", {}),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"stride": 5}, [0, 5, 10]),
        ({"start": 1, "stride": 5}, [1, 6, 11]),
        ({"start": 2, "stride": 3, "max_frames": 2}, [2, 5]),
        ({"start": 2, "end": 5}, [2, 3, 4]),
        ({"end": 6, "stride": 3}, [0, 3]),
        ({"end": 7, "stride": 3}, [0, 3, 6]),
        ({"end": 100, "stride": 50}, [0]),
        ({"start": "0.1s", "end": "0:00.2"}, [3, 4, 5]),
        ({"start": "0.11s", "end": 6}, [4, 5]),
        ({"start": "4", "end": "6"}, [4, 5]),
    ],
)
def test_the_frames_asked_for_come_with_their_numbers_and_times(places, kind, asked, expected):
    location, options = places[kind]
    with open_source(location, **options) as source:
        whole = list(source)
    with open_source(location, **options, **asked) as source:
        frames = list(source)
        assert source.info.frame_count == len(expected)
    assert [frame.index for frame in frames] == expected
    assert [frame.pts for frame in frames] == [whole[index].pts for index in expected]
    for frame in frames:
        np.testing.assert_array_equal(frame.image, whole[frame.index].image)


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_after_the_end_of_the_source_is_refused(places, kind):
    location, options = places[kind]
    with pytest.raises(SourceError, match=r"has 12 frames, none from index 30 \(1s\) on; start earlier"):
        open_source(location, **options, start="1s")


def test_frames_and_times_without_a_frame_between_them_are_refused(places):
    location, _ = places["video"]
    with pytest.raises(UsageError, match=r"--start 8 is frame 8 and --end 0\.2s frame 6"):
        open_source(location, start=8, end="0.2s")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"start": 5, "end": 5}, "end = 5, expected more than start = 5"),
        ({"start": "1:00", "end": "30s"}, "end = 30s, expected more than start = 1:00"),
        ({"end": "0s"}, "end = 0s, expected more than start = 0"),
        ({"stride": 0}, r"stride = 0, expected 1 \(every frame\) or more"),
        ({"end": "soon"}, "end = 'soon', expected a frame number such as 100, or a time such as 12.5s"),
    ],
)
def test_values_that_leave_no_frame_are_refused(places, asked, reason):
    with pytest.raises(UsageError, match=reason):
        open_source(places["video"][0], **asked)


def test_the_numbers_of_selected_frames_are_those_it_holds():
    selection = Selection(start=2, end=11, stride=4)
    assert [index for index in range(20) if index in selection] == list(selection.indices(20)) == [2, 6, 10]


@pytest.mark.slow
def test_a_live_source_keeps_its_stride_and_its_end_over_a_new_connection():
    images = grey_frames(9)
    serve = in_turn(stream_servers.sending(raw(images[:5])), stream_servers.sending(raw(images[5:])), refuse)
    with stream_servers.listener(serve) as port:
        with watched(port, source={"stride": 2, "end": 9}, reconnect="2") as source:
            frames = list(source)
    assert [frame.index for frame in frames] == [0, 2, 4, 6, 8]
    np.testing.assert_array_equal(frames[3].image, images[5])


@pytest.mark.slow
def test_times_of_a_live_source_are_refused():
    serve = stream_servers.sending(raw(grey_frames(9)))
    with stream_servers.listener(serve) as port, pytest.raises(UsageError, match="is live, and its frames"):
        watched(port, source={"start": "1s"})


@pytest.mark.slow
def test_frames_that_are_left_out_do_not_count_as_silence():
    def serve(connection):
        for image in grey_frames(60):
            connection.sendall(image.tobytes())
            time.sleep(0.05)

    with stream_servers.listener(serve) as port:
        with watched(
            port, source={"stride": 50, "timeout": 1.0, "max_frames": 2}, reconnect="none"
        ) as source:
            assert [frame.index for frame in source] == [0, 50]
