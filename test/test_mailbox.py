from __future__ import annotations

import threading

from magicfuse_ros.ros.mailbox import Mailbox


def test_the_newest_item_is_taken_once() -> None:
    box: Mailbox[str] = Mailbox()
    assert [box.put(item) for item in ("old", "older", "new")] == [False, True, True]
    assert box.get() == "new"
    assert box.put("next") is False
    assert box.get() == "next"


def test_get_waits_for_put() -> None:
    box: Mailbox[str] = Mailbox()
    got: list[str | None] = []
    reader = threading.Thread(target=lambda: got.append(box.get()))
    reader.start()
    reader.join(0.05)
    assert reader.is_alive()
    box.put("item")
    reader.join(5)
    assert got == ["item"]


def test_close_wakes_the_reader_and_lasts() -> None:
    box: Mailbox[str] = Mailbox()
    got: list[str | None] = []
    reader = threading.Thread(target=lambda: got.append(box.get()))
    reader.start()
    box.close()
    reader.join(5)
    box.put("late")
    assert got == [None]
    assert box.get() is None
