"""Makes docs/benchmarks.md from what the benchmarks printed: `report.py FOLDER`."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
KIB = 1024


def read(folder: Path, name: str) -> dict[str, Any]:
    """Read the one JSON object of a benchmark."""
    text = (folder / f"{name}.json").read_text()
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


def core(folder: Path) -> list[str]:
    """Make the table of the core."""
    lines = [
        "| nodes | queued tasks | shapes | turns/s | end and place, p50 | p99 |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    rows = [json.loads(line) for line in (folder / "core.json").read_text().splitlines()]
    for row in rows:
        p50, p99 = row["end_and_place_p50_ns"] / 1e3, row["end_and_place_p99_ns"] / 1e3
        lines.append(
            f"| {row['nodes']:,} | {row['queued']:,} | {row['shapes']:,} "
            f"| {row['turns_per_s']:,.0f} | {p50:.1f} µs | {p99:.1f} µs |"
        )
    few = [row for row in rows if row["shapes"] == rows[0]["shapes"]]
    growth = max(row["turns_per_s"] for row in few) / min(row["turns_per_s"] for row in few)
    lines += [
        "",
        "A turn is: a running task ends, its room is given to the next task in the queue, and a "
        "new task is submitted. From the smallest to the largest, with equal shapes, a turn costs "
        f"{growth:.1f} times as much. "
        f"A queued task takes {few[1]['bytes_per_queued_task']:.0f} bytes of memory in the core.",
    ]
    return lines


def end_to_end(folder: Path) -> list[str]:
    """Make the table of no-op functions."""
    measured = read(folder, "end_to_end")
    names = {"schedulemesh": "ScheduleMesh SDK", "native": "native driver", "client": "Ray Client"}
    lines = ["| | tasks/s, many in flight | one task, p50 |", "|---|---:|---:|"]
    for key, name in names.items():
        row = measured[key]
        lines.append(f"| {name} | {row['per_s']:,.0f} | {row['p50_ms']:.2f} ms |")
    lines += [
        "",
        f"Throughput is {measured['throughput_to_native']:.1f} times that of the native driver and "
        f"{measured['throughput_to_client']:.1f} times that of Ray Client; one task takes "
        f"{measured['latency_above_native_ms']:+.2f} ms compared with the native driver, with two "
        "durable commits in between.",
    ]
    return lines


def recovery(folder: Path) -> list[str]:
    """Make the table of starts after a kill."""
    lines = [
        "| queued tasks in the snapshot | events after it | file | ready after |",
        "|---:|---:|---:|---:|",
    ]
    rows = [json.loads(line) for line in (folder / "recovery.json").read_text().splitlines()]
    lines += [
        f"| {row['queued']:,} | {row['tail']:,} | {row['file_mib']:,} MiB "
        f"| {row['ready_s']:.2f} s |"
        for row in rows
    ]
    lines += [
        "",
        "From the start of the program until it listens with everything read back and checked "
        "against its checksums; 256 bytes of arguments for each task. The median of three kills.",
    ]
    return lines


def memory(folder: Path) -> list[str]:
    """Make the table of memory."""
    measured = read(folder, "memory")
    above = (measured["agent_pss"] - measured["bare_driver_pss"]) / MIB
    return [
        "| | |",
        "|---|---:|",
        f"| idle server | {measured['idle_server_pss'] / MIB:.1f} MiB |",
        f"| each queued task | {measured['bytes_per_queued_task'] / KIB:.2f} KiB |",
        f"| agent | {measured['agent_pss'] / MIB:.0f} MiB |",
        f"| bare Ray driver | {measured['bare_driver_pss'] / MIB:.0f} MiB |",
        "",
        f"An agent takes {above:+.0f} MiB compared with a Ray driver that does nothing.",
    ]


def block(folder: Path, name: str) -> list[str]:
    """Quote what a benchmark printed."""
    return ["```text", *(folder / f"{name}.txt").read_text().splitlines(), "```"]


def main() -> None:
    """Print the page."""
    folder = Path(sys.argv[1])
    day = time.strftime("%Y-%m-%d")
    sections = [
        "# Benchmarks",
        "",
        f"Measured by `make bench` on {day}: {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, optimised build. The machine is shared and its "
        "disk noisy, so peers are measured in the same run: read the ratios.",
        "",
        "## No-op functions, through the SDK, the server and an agent",
        "",
        *end_to_end(folder),
        "",
        "## Durable submissions over HTTP, beside SQLite alone",
        "",
        *block(folder, "http_submit"),
        "",
        "## The store, beside SQLite alone",
        "",
        *block(folder, "append"),
        "",
        "## Ready again after a kill",
        "",
        *recovery(folder),
        "",
        "## The core alone",
        "",
        *core(folder),
        "",
        "## Memory",
        "",
        *memory(folder),
    ]
    print("\n".join(sections))


if __name__ == "__main__":
    main()
