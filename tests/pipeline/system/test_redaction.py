"""No credential of an address is shown or written, however the address is written."""

from __future__ import annotations

import pytest

from pipeline.runner.setup import run_name
from pipeline.sources import open_source
from pipeline.system.errors import SourceError
from pipeline.system.redaction import redact, redact_argument, redact_location, stream_name

SECRET = "sesame"
ADDRESSES = [
    "rtsp://root:my sesame@h/1",
    "rtsp://root:sesame word@h/1",
    "rtsp://root:ses'sesame\"@h/1",
    "rtsp://root:p@sesame@h/1",
    "rtsp://root:a/sesame?b#c@h/1",
    "rtsp://sesame@h/1",
    "rtsp:/root:sesame@h/1",
    "rtsp//root:sesame@h/1",
    "rtsp:root:sesame@h/1",
    "rtsp:/root:my sesame@h/1",
    "root:sesame@h/1",
    "root:my sesame@h/1",
    "rtsp://root:pw\x07sesame@h/1",
    "rtsp://h/1 root:sesame",
    *(f"http://h/v?x=1&{name}=sesame" for name in ("pw", "jwt", "pin", "code", "hmac", "sid", "p", "k")),
    "http://h/v?pw=a'sesame",
    "http://h/v?pw=a;sesame",
    "http://h/v?sesame",
    "http://h/v#token=sesame",
    "http://h/v?pw=a sesame",
    "http:/h/v?pw=sesame",
    "h/v?pw=sesame",
    "rtsp://c/user=admin_pw=sesame_channel=1",
    "rtsp://c/live;pin=sesame/2",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_form_of_an_address_shows_its_password(address):
    shown = [redact_location(address), redact_argument(address), redact_argument(f"--video={address}")]
    for text in (*shown, run_name(address), str(stream_name(address))):
        assert SECRET not in text, text


@pytest.mark.parametrize("address", [text for text in ADDRESSES if " " not in text])
def test_a_message_that_names_an_address_shows_no_password(address):
    for text in (f"{address}: no such file", f"two sources: '{address}' and 'rtsp://h:554/2'"):
        assert SECRET not in redact(text), redact(text)


@pytest.mark.parametrize("address", ADDRESSES)
def test_the_error_of_an_address_that_cannot_be_opened_shows_no_password(address):
    with pytest.raises(SourceError) as caught:
        open_source(address, timeout=0.2)
    assert SECRET not in str(caught.value)


def test_an_address_with_a_blank_is_refused_without_repeating_it():
    with pytest.raises(SourceError, match="rtsp: the address holds a blank or a control character") as caught:
        open_source("rtsp://root:my sesame@camera/1")
    assert "camera" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a clip.mp4: no such file", "clip/*.png", "http://h:80/a", "x@y.mp4: cut off"]
)
def test_what_holds_no_secret_stays_as_it_is(text):
    assert redact(text) == redact_location(text) == redact_argument(text) == text


def test_what_was_redacted_stays_as_it_is():
    text = f"{redact_location('http://h/v?pw=sesame')}: no frame for 3 s; see 'x'"
    assert redact(text) == text == "http://h/v?pw=***: no frame for 3 s; see 'x'"


def test_the_path_of_a_file_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "12:30:05@cam_key=1.mp4"
    (tmp_path / name).write_bytes(b"x")
    assert redact_location(name) == redact_argument(name) == name
