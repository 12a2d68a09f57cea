"""A control plane and local Ray clusters with agents, for measuring."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from schedulemesh import connect
from schedulemesh.local import LocalCluster, LocalPlan, local_clusters

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class Lab:
    """Is a control plane with so many clusters. Everything ends with it."""

    def __init__(self, clusters: int, *, ray_client: bool = False) -> None:
        """Prepare; nothing is started before the context is entered."""
        self._plans = [
            LocalPlan(f"bench-{n}", f"127.0.0.{41 + n}", dashboard=ray_client)
            for n in range(clusters)
        ]
        self._stack = contextlib.ExitStack()
        self.clusters: list[LocalCluster] = []
        self.agents: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Lab:
        """Start the control plane, the clusters and their agents."""
        self._dir = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sm-bench-")))
        command = [_schedulemesh(), "serve", "--listen", "127.0.0.1:0"]
        self.server = self._start("server", [*command, "--state-dir", str(self._dir)])
        found = self._dir / "server.json"
        _wait(found.exists, "the control plane")
        self.url = json.loads(found.read_text())["url"]
        self.token = (self._dir / "admin.token").read_text().strip()
        self.clusters = self._stack.enter_context(local_clusters(self._plans))
        for cluster in self.clusters:
            self._add(cluster)
        return self

    def _add(self, cluster: LocalCluster) -> None:
        with connect(self.url, token=self.token) as mesh:
            mesh.add_cluster(cluster.name)
            command = [sys.executable, "-m", "schedulemesh.agent", "--server", self.url]
            command += ["--cluster", cluster.name, "--ray-address", cluster.address]
            command += ["--token-file", str(self._dir / "admin.token")]
            self.agents.append(self._start(f"agent-{cluster.name}", command))
            ready = lambda: all(view["link"] == "ready" for view in mesh.clusters())  # noqa: E731
            _wait(ready, f"the agent of {cluster.name}")

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self._dir / f"{name}.log").open("wb"))
        env = os.environ | {"RAY_AUTH_MODE": "disabled"}
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self._stack.callback(_stop, process)
        return process

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End everything."""
        self._stack.close()


def _schedulemesh() -> str:
    return str(Path(sys.executable).parent / "schedulemesh")


def _wait(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not become ready in {READY_TIMEOUT_S:.0f} s")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
