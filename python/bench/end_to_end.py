"""No-op functions through the SDK and an agent, beside a native Ray driver and Ray Client.

All three use the same local cluster in the same run, in turns, because the machine is shared: read
the ratios. Prints one JSON object.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab import Lab
from schedulemesh import connect

ROUNDS = 3
LATENCIES = 300
PEER_BURST = 2_000
OUR_BURST = 20_000
HERE = Path(__file__).resolve().parent


def noop() -> None:
    """Do nothing."""


def ours(lab: Lab) -> dict[str, float]:
    """Measure through the SDK."""
    with connect(lab.url, token=lab.token) as mesh:
        for future in [mesh.submit(noop) for _ in range(200)]:
            future.result(120)
        times = []
        for _ in range(LATENCIES):
            begin = time.perf_counter()
            mesh.submit(noop).result(60)
            times.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for future in [mesh.submit(noop) for _ in range(OUR_BURST)]:
            future.result(120)
        rate = OUR_BURST / (time.perf_counter() - begin)
    return {"p50_ms": statistics.median(times) * 1e3, "per_s": rate}


def peer(address: str) -> dict[str, float]:
    """Measure with a driver of Ray's own."""
    command = [sys.executable, str(HERE / "peers.py"), address, str(LATENCIES), str(PEER_BURST)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        sys.exit(f"the peer failed:\n{done.stderr[-2000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    """Measure in turns, and print medians and ratios."""
    rounds: dict[str, list[dict[str, float]]] = {"schedulemesh": [], "native": [], "client": []}
    with Lab(clusters=1, ray_client=True) as lab:
        for _ in range(ROUNDS):
            rounds["schedulemesh"].append(ours(lab))
            rounds["native"].append(peer(lab.clusters[0].address))
            rounds["client"].append(peer(lab.clusters[0].client_address))
    result: dict[str, Any] = {
        who: {key: statistics.median(round_[key] for round_ in each) for key in each[0]}
        for who, each in rounds.items()
    }
    result["throughput_to_native"] = result["schedulemesh"]["per_s"] / result["native"]["per_s"]
    result["throughput_to_client"] = result["schedulemesh"]["per_s"] / result["client"]["per_s"]
    result["latency_above_native_ms"] = (
        result["schedulemesh"]["p50_ms"] - result["native"]["p50_ms"]
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
