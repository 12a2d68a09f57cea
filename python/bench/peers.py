"""A driver program that measures no-op tasks on a Ray cluster, natively or through Ray Client.

Runs in a process of its own, because a process has one Ray driver:
`python peers.py ADDRESS LATENCIES BURST`, with `ray://...` as the address for Ray Client. Prints
one JSON object. Waits first until the cluster's cores are free, so that nothing else is measured.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import ray

READY_TIMEOUT_S = 60.0


@ray.remote
def noop() -> None:
    """Do nothing."""


def wait_for_cores() -> None:
    """Wait until every core of the cluster is free."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        if time.monotonic() > deadline:
            sys.exit("the cluster's cores did not become free")
        time.sleep(0.2)


def main() -> None:
    """Measure, and print what was measured."""
    address, latencies, burst = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ray.init(address=address, log_to_driver=False, logging_level="error")
    wait_for_cores()
    ray.get([noop.remote() for _ in range(50)])
    times = []
    for _ in range(latencies):
        begin = time.perf_counter()
        ray.get(noop.remote())
        times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    ray.get([noop.remote() for _ in range(burst)])
    rate = burst / (time.perf_counter() - begin)
    print(json.dumps({"p50_ms": statistics.median(times) * 1e3, "per_s": rate}))


if __name__ == "__main__":
    main()
