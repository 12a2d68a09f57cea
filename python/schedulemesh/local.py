"""Starts and stops Ray clusters on this machine: for trying out, tests and `schedulemesh up`.

Several clusters share one machine by having a loopback address each (127.0.0.11, 127.0.0.12, ...).
They are real: each has its own head, dashboard and workers. Linux only.

Example:
    plans = [LocalPlan("east", "127.0.0.11"), LocalPlan("west", "127.0.0.12")]
    with local_clusters(plans) as clusters:
        print(clusters[0].address, clusters[0].dashboard_url)
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.1
_PORT_BLOCK = 20
# Below the ephemeral ports, and apart from 10002 to 19999, which Ray's workers use, and from 23000
# to 24000, which Ray Client servers use.
_PORT_RANGES = ((20_000, 22_900), (24_100, 32_000))
_PORT_TRIES = 200
_READY_LINE = b"Ray runtime started"

# A shell that starts a program in the background makes it ignore SIGINT, every Ray worker inherits
# that, and `ray.cancel` then silently does nothing. So the signals are reset before Ray starts.
_LAUNCHER = (
    "import os, signal, sys\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "signal.signal(signal.SIGQUIT, signal.SIG_DFL)\n"
    "os.execv(sys.executable, [sys.executable, '-m', 'ray.scripts.scripts', *sys.argv[1:]])\n"
)


class LocalClusterError(RuntimeError):
    """Says why a local cluster could not be started."""


@dataclass(frozen=True)
class LocalPlan:
    """Says what a local cluster should be like.

    Attributes:
        name: What it is called, in messages only.
        address: Its own loopback address, 127.0.0.2 or above (Ray rewrites 127.0.0.1).
        cpus: Cores that it claims to have.
        resources: Custom resources.
        labels: Ray node labels.
        dashboard: Whether it has a dashboard, and with it the Jobs API (200 MiB more memory).
        object_store_bytes: Size of its object store.
    """

    name: str
    address: str
    cpus: int = 2
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    dashboard: bool = True
    object_store_bytes: int = 100_000_000


class LocalCluster:
    """Is one running Ray cluster on this machine. Make it with `LocalCluster.start`."""

    def __init__(
        self, plan: LocalPlan, process: subprocess.Popen[bytes], folder: Path, port: int
    ) -> None:
        self.plan = plan
        self._process = process
        self._folder = folder
        self._port = port

    @classmethod
    def start(cls, plan: LocalPlan, *, env: Mapping[str, str] | None = None) -> LocalCluster:
        """Start a cluster and return at once; `wait_ready` waits for it.

        Args:
            plan: What it should be like.
            env: More environment variables for everything that runs in it.
        """
        if sys.platform != "linux":
            raise LocalClusterError(
                f"local clusters need Linux, this is {sys.platform}: "
                "start Ray yourself with `ray start --head` and register it"
            )
        folder = Path(tempfile.mkdtemp(prefix=f"sm-{plan.name[:8]}-"))
        port = _free_ports(plan.address)
        command = [sys.executable, "-c", _LAUNCHER, *_ray_arguments(plan, port, folder / "t")]
        with (folder / "ray.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_ray_environment(env or {}),
            )
        return cls(plan, process, folder, port)

    @property
    def name(self) -> str:
        """What it is called."""
        return self.plan.name

    @property
    def address(self) -> str:
        """What `ray.init` and `schedulemesh agent --ray-address` take."""
        return f"{self.plan.address}:{self._port}"

    @property
    def client_address(self) -> str:
        """What `ray.init` takes to be a Ray Client of it."""
        return f"ray://{self.plan.address}:{self._port + 3}"

    @property
    def dashboard_url(self) -> str:
        """Where its dashboard and its Jobs API are."""
        return f"http://{self.plan.address}:{self._port + 5}"

    @property
    def pid(self) -> int:
        """The process that holds the cluster: ending it with SIGTERM ends all of it."""
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """What `ray start` printed."""
        return self._folder / "ray.log"

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the cluster accepts drivers, and jobs when it has a dashboard."""
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if self._process.poll() is not None:
                raise LocalClusterError(f"{self._story()} ended with {self._process.returncode}")
            if time.monotonic() > deadline:
                raise LocalClusterError(f"{self._story()} was not ready after {timeout_s:.0f} s")
            time.sleep(_POLL_S)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End everything that belongs to the cluster, and remove its files."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _sweep_session(self._process.pid)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        if _READY_LINE not in self.log_path.read_bytes():
            return False
        return not self.plan.dashboard or _answers(f"{self.dashboard_url}/api/jobs/")

    def _story(self) -> str:
        tail = self.log_path.read_bytes()[-2000:].decode(errors="replace").strip()
        return f"local cluster {self.name} on {self.plan.address} printed:\n{tail}\nand"


@contextlib.contextmanager
def local_clusters(
    plans: Sequence[LocalPlan], *, timeout_s: float = START_TIMEOUT_S
) -> Iterator[list[LocalCluster]]:
    """Run clusters while the `with` block runs, started side by side."""
    with contextlib.ExitStack() as stack:
        clusters = []
        for plan in plans:
            cluster = LocalCluster.start(plan)
            stack.callback(cluster.stop)
            clusters.append(cluster)
        for cluster in clusters:
            cluster.wait_ready(timeout_s)
        yield clusters


def _ray_arguments(plan: LocalPlan, port: int, temp: Path) -> list[str]:
    arguments = [
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        f"--node-ip-address={plan.address}",
        f"--port={port}",
        f"--object-manager-port={port + 1}",
        f"--node-manager-port={port + 2}",
        f"--ray-client-server-port={port + 3}",
        f"--dashboard-agent-listen-port={port + 6}",
        f"--dashboard-agent-grpc-port={port + 7}",
        f"--runtime-env-agent-port={port + 8}",
        f"--metrics-export-port={port + 9}",
        f"--temp-dir={temp}",
        f"--object-store-memory={plan.object_store_bytes}",
        f"--num-cpus={plan.cpus}",
        f"--resources={json.dumps(dict(plan.resources))}",
    ]
    if plan.labels:
        labels = ",".join(f"{key}={value}" for key, value in sorted(plan.labels.items()))
        arguments.append(f"--labels={labels}")
    if plan.dashboard:
        arguments += [f"--dashboard-host={plan.address}", f"--dashboard-port={port + 5}"]
    else:
        arguments += ["--include-dashboard=false", "--include-log-monitor=false"]
    return arguments


def _ray_environment(more: Mapping[str, str]) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    # Every fresh worker would compile its modules again.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    # Jobs say `python`: it has to be the one that has Ray.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE", "disabled")
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        env["RAY_AUTH_TOKEN"] = token
    env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
    env["RAY_gcs_pull_resource_loads_period_milliseconds"] = "100"
    env.update(more)
    return env


def _free_ports(address: str) -> int:
    for _ in range(_PORT_TRIES):
        low, high = random.choice(_PORT_RANGES)  # noqa: S311 - not a secret
        port = random.randrange(low, high, _PORT_BLOCK)  # noqa: S311 - not a secret
        if all(_is_free(address, port + offset) for offset in range(_PORT_BLOCK)):
            return port
    raise LocalClusterError(f"found no {_PORT_BLOCK} free ports in a row on {address}")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def _answers(url: str) -> bool:
    headers = {}
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own http address
    try:
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 - as above
            return bool(answer.status == 200)  # noqa: PLR2004 - the one HTTP status
    except (urllib.error.URLError, OSError):
        return False


def _sweep_session(session: int) -> None:
    """End what is left of a cluster: its processes have the session id of the one we started."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while left := _session_members(session):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise LocalClusterError(f"processes {left} of session {session} do not end")
        time.sleep(_POLL_S)


def _session_members(session: int) -> list[int]:
    members = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text(errors="replace")
        except OSError:
            continue
        # The name in parentheses may hold anything; behind it: state, ppid, pgrp, session.
        state, _ppid, _pgrp, member_session = stat.rpartition(")")[2].split()[:4]
        if int(member_session) == session and state != "Z":
            members.append(int(folder.name))
    return members
