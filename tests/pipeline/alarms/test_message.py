"""Messages name themselves, and find the picture of their event."""

from __future__ import annotations

import threading
import time

from pipeline.alarms.message import MAX_SNAPSHOT_BYTES, SNAPSHOT, Message
from pipeline.events.evidence import folder
from tests.support.alarms import PICTURE, event


def message(path="", phase="start", **facts):
    return Message(1, event(1, phase).to_dict(), str(path), **facts)


def test_the_picture_is_that_of_the_evidence():
    assert SNAPSHOT == folder.SNAPSHOT


def test_a_picture_that_is_drawn_while_the_message_is_on_its_way_goes_along(tmp_path):
    def draw():
        time.sleep(0.05)
        (tmp_path / "part").write_bytes(PICTURE)
        (tmp_path / "part").rename(tmp_path / SNAPSHOT)

    thread = threading.Thread(target=draw)
    thread.start()
    assert message(tmp_path).snapshot() == PICTURE
    thread.join()


def test_only_new_events_wait_for_a_picture_and_not_for_long(tmp_path):
    started = time.monotonic()
    assert message(tmp_path, "end").snapshot() is None
    assert message(tmp_path, current=False).snapshot() is None
    assert message().snapshot() is None
    assert time.monotonic() - started < 0.1
    assert message(tmp_path).snapshot() is None
    assert time.monotonic() - started < 1.5


def test_links_and_huge_files_are_no_pictures(tmp_path):
    (tmp_path / SNAPSHOT).symlink_to("/etc/hostname")
    assert message(tmp_path).snapshot() is None
    (tmp_path / SNAPSHOT).unlink()
    with (tmp_path / SNAPSHOT).open("wb") as file:
        file.truncate(MAX_SNAPSHOT_BYTES + 1)
    assert message(tmp_path).snapshot() is None


def test_titles_are_for_people():
    assert message().title() == "gate: drone is followed"
    assert message(phase="update").title() == "gate: drone is still followed"
    assert message(phase="end", test=True).title() == "test: gate: drone was followed"
