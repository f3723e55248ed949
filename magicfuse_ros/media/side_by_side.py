# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""A video that shows the images of every frame side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from magicfuse_ros.image_codec import Pixels
from magicfuse_ros.media.panels import PANEL_TITLES, Color, PanelPage, panel_height
from magicfuse_ros.media.video_writer import VideoWriter

PANEL_WIDTH = 368  # five panels make a page about 1920 pixels wide


class SideBySideVideo:
    """Writes one row of titled panels per frame, with the class legend underneath."""

    def __init__(
        self,
        path: Path,
        frame_rate: float,
        titles: Sequence[str] = PANEL_TITLES,
        *,
        legend: Sequence[tuple[str, Color]] = (),
    ) -> None:
        """Take the arguments of `VideoWriter` and `PanelPage`.

        Raises:
            MediaError: if the frame rate is not positive.
        """
        self._video = VideoWriter(path, frame_rate)
        self._titles = titles
        self._legend = legend
        self._page: PanelPage | None = None

    def write(self, images: Sequence[Pixels], stamp_ns: int) -> None:
        """Append a frame.

        Args:
            images: one per title: RGB HxWx3 or gray HxW, uint8, of any size. The panels have the
                aspect ratio of the very first image.
            stamp_ns: time of the frame, as for `VideoWriter.write`.

        Raises:
            MediaError: if the file cannot be written.
            ValueError: if the number of images differs from the number of titles.
        """
        if self._page is None:
            size = (PANEL_WIDTH, panel_height(images[0], PANEL_WIDTH))
            self._page = PanelPage(self._titles, size, legend=self._legend)
        self._video.write(self._page.render([images]), stamp_ns)

    def close(self) -> None:
        """Finish the file.

        Raises:
            MediaError: if the file cannot be written.
        """
        self._video.close()

    def __enter__(self) -> SideBySideVideo:
        """Return the writer; leaving the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, also after an error."""
        self.close()
