# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Derives the order of a camera's images from the stamps of all that arrive."""

from __future__ import annotations

# Images of one sequence may arrive out of order by less than this.
OUT_OF_ORDER_NS = 500_000_000


class Sequence:
    """Detects when the time of a camera starts again. One thread uses it.

    1. A stamp that goes back by `OUT_OF_ORDER_NS` or more starts a new sequence.
    2. So does the first stamp of the current sequence if it comes again: a bag that is played in a
       loop, however short. A loop that was joined in the middle is detected from its second round.
    """

    def __init__(self) -> None:
        self._number = 0
        self._first_ns: int | None = None
        self._newest_ns = 0

    def number(self, stamp_ns: int) -> int:
        """Return the number of the sequence that an image with this stamp belongs to.

        Args:
            stamp_ns: stamp of the image that just arrived; 0 or less means no stamp and no order.
        """
        if stamp_ns <= 0:
            return self._number
        first = self._first_ns
        if first is None or stamp_ns == first or self._newest_ns - stamp_ns >= OUT_OF_ORDER_NS:
            self._number += 1
            self._first_ns = self._newest_ns = stamp_ns
        else:
            self._first_ns = min(first, stamp_ns)
            self._newest_ns = max(self._newest_ns, stamp_ns)
        return self._number
