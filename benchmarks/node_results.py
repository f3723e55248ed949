# Copyright 2026 MagicFuse ROS maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
# http://www.apache.org/licenses/LICENSE-2.0 Unless required by applicable law or agreed to in
# writing, software distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
# language governing permissions and limitations under the License.

"""Writes the node section of docs/real_time.md from the newest results of a device.

python benchmarks/node_results.py DEVICE

Reads benchmarks/DEVICE/node/: overhead-DATE.json, rates-DATE.json and soak-DATE.json, as the
benchmarks of these names write them with --json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "real_time.md"
BEGIN = "<!-- node: written by python benchmarks/node_results.py {device} -->"
END = "<!-- /node -->"


def newest(device: str) -> dict[str, Any]:
    """Return the result of the last date of overhead, rates and soak."""
    found = {}
    for kind in ("overhead", "rates", "soak"):
        paths = sorted((HERE / device / "node").glob(f"{kind}-*.json"))  # date strings sort by time
        if not paths:
            sys.exit(f"{HERE / device / 'node'} has no {kind}-DATE.json")
        found[kind] = json.loads(paths[-1].read_text(encoding="utf-8"))
    return found


def section(results: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    overhead, rates, soak = (results[kind] for kind in ("overhead", "rates", "soak"))
    ratio = "ms; node / bare publisher"
    alone = f"bare publisher, new messages: {ratio} | bare publisher, the same messages: {ratio}"
    lines = [f"| median, ms | the node adds | {alone} |", "|---|---|---|---|"]
    for row in overhead["sizes"]:
        adds, new, same = (row[name]["median"] for name in ("overhead_ms", "bare_ms", "same_ms"))
        size = f"{row['width']}x{row['height']}"
        cameras = row.get("cameras", 1)  # older results have only one
        lines.append(
            f"| {size if cameras == 1 else f'{size}, {cameras} cameras in a process'} "
            f"| {adds:.1f} (limit {row['limit_ms']:.0f}) "
            f"| {new:.1f}; {row['times_bare']:.2f} "
            f"| {same:.1f}; {row['times_same']:.2f} |"
        )
    lines += ["", "| camera, images a second | sent | fused | age p50 / p95, ms | |"]
    lines += ["|---|---|---|---|---|"]
    below, above = rates["below"], rates["above"]
    for phase, note in (
        (below, f"{below['lost']} lost"),
        (
            above,
            f"not the newest: {above['not_the_newest']}; "
            f"p95 is {above['age_in_fuser_times']:.2f} fuser times",
        ),
    ):
        age = phase["age_ms"]
        lines.append(
            f"| {phase['rate']} | {phase['sent']:,} | {phase['fused']:,} "
            f"| {age['median']:.0f} / {age['p95']:.0f} | {note} |"
        )
    counts, age = soak["counts"], soak["age_ms"]
    lines += ["", "| soak | |", "|---|---|"]
    lines.append(
        f"| {soak['minutes']:.0f} minutes, {sum(soak['faults'].values()):,} faults "
        f"| {counts['sent']:,} images: {counts['fused']:,} fused, {counts['dropped']:,} dropped, "
        f"{counts['refused']:,} refused, {counts['lost']:,} lost by DDS, "
        f"{len(soak['segments_that_do_not_add_up'])} unaccounted for |"
    )
    lines.append(f"| memory | {soak['rss_mb']['growth']:+.1f} MB (limit +10) |")
    lines.append(f"| age p99 | {age['p99']:.0f} ms (limit {soak['age_limit_ms']:.0f}) |")
    lines.append(f"| twice or out of order | {soak['twice_or_out_of_order']} |")
    return "\n".join(lines) + "\n"


def with_section(page: str, device: str, text: str) -> str:
    """Return a page with the section inserted between its two markers."""
    before, _, rest = page.partition(BEGIN.split("{")[0])
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN.format(device=device)}\n{text}{END}{after}"


def main(device: str) -> None:
    """Write the section."""
    page = PAGE.read_text(encoding="utf-8")
    written = with_section(page, device, section(newest(device)))
    PAGE.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
