# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

from __future__ import annotations

import threading
from time import monotonic

from magicfuse_ros.ros.mailbox import Mailbox


def test_the_newest_item_is_taken_once() -> None:
    box: Mailbox[str] = Mailbox()
    assert [box.put(item, due) for due, item in enumerate(("old", "older", "new"))] == [None, 0, 0]
    assert box.get() == "new"
    assert box.put("next", 0) is None
    assert box.get() == "next"


def test_an_item_waits_until_it_is_due() -> None:
    box: Mailbox[str] = Mailbox()
    due = monotonic() + 0.2
    box.put("later", due)
    assert box.get() == "later"
    assert monotonic() >= due


def test_a_newer_item_does_not_delay_the_slot() -> None:
    box: Mailbox[str] = Mailbox()
    far = monotonic() + 1000
    box.put("skipped", far)
    assert box.put("due", 0) == far
    assert box.put("newest", far) == 0
    assert box.get() == "newest"


def test_get_waits_for_put() -> None:
    box: Mailbox[str] = Mailbox()
    got: list[str | None] = []
    reader = threading.Thread(target=lambda: got.append(box.get()))
    reader.start()
    reader.join(0.05)
    assert reader.is_alive()
    box.put("item", 0)
    reader.join(60)
    assert got == ["item"]


def test_close_wakes_the_reader_and_lasts() -> None:
    box: Mailbox[str] = Mailbox()
    got: list[str | None] = []
    reader = threading.Thread(target=lambda: got.append(box.get()))
    reader.start()
    box.close()
    reader.join(60)
    box.put("late", 0)
    assert got == [None]
    assert box.get() is None
