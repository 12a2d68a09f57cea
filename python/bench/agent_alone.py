"""No-op functions through the agent alone, beside a native Ray driver on the same cluster.

The control plane is the fake one of the tests, so that this measures the agent and its workers and
nothing else. Run it from the repository with the Python that has Ray:

    PYTHONPATH=python:python/tests python python/bench/agent_alone.py [TASKS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent.fake_control_plane import TOKEN, FakeControlPlane
from ray_clusters import AgentProcess
from schedulemesh.local import LocalPlan, local_clusters

FRAME_TASKS = 250
ROUNDS = 3
SINGLES = 200
NATIVE = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
count, singles = int(sys.argv[2]), int(sys.argv[3])
noop = ray.remote(lambda: None)
ray.get([noop.remote() for _ in range(200)])
took = []
for _ in range(singles):
    began = time.perf_counter()
    ray.get(noop.remote())
    took.append(time.perf_counter() - began)
began = time.perf_counter()
ray.get([noop.remote() for _ in range(count)])
print(count / (time.perf_counter() - began), sorted(took)[singles // 2] * 1e3)
"""


def noop() -> None:
    """Do nothing."""


def native(address: str, count: int) -> tuple[float, float]:
    """Return tasks per second and the median of one, in milliseconds, of a native driver."""
    command = [sys.executable, "-c", NATIVE, address, str(count), str(SINGLES)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(said[0]), float(said[1])


def burst(plane: FakeControlPlane, count: int) -> float:
    """Return tasks per second on two leases."""
    before = len(plane.ended)
    began = time.perf_counter()
    for frame in range(count // FRAME_TASKS):
        plane.functions(noop, [()] * FRAME_TASKS, lease=1 + frame % 2)
    plane.wait(lambda: len(plane.ended) + len(plane.returned) >= before + count)
    return count / (time.perf_counter() - began)


def single(plane: FakeControlPlane) -> float:
    """Return the median of one task, in milliseconds."""
    took = []
    for _ in range(SINGLES):
        began = time.perf_counter()
        plane.values(plane.functions(noop, [()]))
        took.append(time.perf_counter() - began)
    return sorted(took)[SINGLES // 2] * 1e3


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    plan = LocalPlan("bench", "127.0.0.51", dashboard=False)
    folder = Path(tempfile.mkdtemp(prefix="sm-bench-"))
    with local_clusters([plan]) as (cluster,), FakeControlPlane() as plane:
        native_rate, native_ms = native(cluster.address, min(count, 3_000))
        arguments = ["--cluster", "bench", "--server", plane.url]
        agent = AgentProcess(arguments, token=TOKEN, log=folder / "agent.log", cluster=cluster)
        try:
            plane.wait_linked()
            burst(plane, FRAME_TASKS * 4)
            before = processor_s(agent.pid)
            rates = sorted(burst(plane, count) for _ in range(ROUNDS))
            each_us = (processor_s(agent.pid) - before) / (count * ROUNDS) * 1e6
            agent_ms = single(plane)
        finally:
            agent.stop()
    rate = rates[ROUNDS // 2]
    print(f"native driver   {native_rate:8.0f} tasks/s   one {native_ms:5.2f} ms")
    print(f"agent           {rate:8.0f} tasks/s   one {agent_ms:5.2f} ms")
    print(f"ratio           {rate / native_rate:8.1f} x")
    print(f"agent's CPU     {each_us:8.1f} us per task")
    print(f"handed back     {len(plane.returned):8d}")


if __name__ == "__main__":
    main()
