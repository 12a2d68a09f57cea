"""Memory of an idle server, of queued tasks, and of an agent beside a bare Ray driver.

Prints one JSON object, in bytes: PSS for processes (their share of what they share), and what the
server's private memory grew by for each queued task.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from lab import Lab
from schedulemesh import connect

TASKS = 100_000
BARE_DRIVER = (
    "import ray, sys\n"
    "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='error')\n"
    "print('ready', flush=True)\n"
    "sys.stdin.read()\n"
)


def rollup(pid: int, key: str) -> int:
    """Read one line of a process's memory account, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    sys.exit(f"no {key} of process {pid}")


def private(pid: int) -> int:
    """Say what a process has for itself alone."""
    return rollup(pid, "Private_Dirty") + rollup(pid, "Private_Clean")


def bare_driver(address: str) -> int:
    """Measure a Ray driver that does nothing."""
    command = [sys.executable, "-c", BARE_DRIVER, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        if driver.stdout is None or driver.stdin is None:
            sys.exit("the driver has no pipes")
        driver.stdout.readline()
        time.sleep(2)
        size = rollup(driver.pid, "Pss")
        driver.stdin.close()
    return size


def noop() -> None:
    """Do nothing."""


def main() -> None:
    """Measure, and print."""
    result: dict[str, float] = {}
    with Lab(clusters=0) as lab:
        time.sleep(2)
        result["idle_server_pss"] = rollup(lab.server.pid, "Pss")
        with connect(lab.url, token=lab.token) as mesh:
            mesh.flush()
            before = private(lab.server.pid)
            for _ in range(TASKS):
                mesh.submit(noop)
            mesh.flush(120)
            time.sleep(1)
            result["bytes_per_queued_task"] = (private(lab.server.pid) - before) / TASKS
    with Lab(clusters=1) as lab:
        time.sleep(5)
        result["agent_pss"] = rollup(lab.agents[0].pid, "Pss")
        result["bare_driver_pss"] = bare_driver(lab.clusters[0].address)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
