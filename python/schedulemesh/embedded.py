"""A control plane inside this process, and the local Ray agent that goes with it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

from schedulemesh._native import EmbeddedServer
from schedulemesh.client import Client
from schedulemesh.errors import ConfigurationError

LOCAL_CLUSTER = "local"
"""What the cluster of an embedded control plane is called when nobody named another."""

_STOP_TIMEOUT_S = 15.0
_PROBE_TIMEOUT_S = 0.5


def start(state_dir: Path, *, with_local_cluster: bool) -> Client:
    """Start a control plane in this process and connect to it. Closing the client ends it.

    Args:
        state_dir: Where it keeps its state.
        with_local_cluster: Whether to start an agent for a local Ray cluster when it knows none.
    """
    server = EmbeddedServer.start(str(state_dir))
    cleanup = contextlib.ExitStack()
    cleanup.callback(server.shutdown)
    try:
        client = Client(server.url, server.token, on_close=cleanup.close)
    except BaseException:
        cleanup.close()
        raise
    try:
        names = [view["spec"]["name"] for view in client.clusters()]
        if with_local_cluster and (not names or names == [LOCAL_CLUSTER]):
            client.add_cluster(LOCAL_CLUSTER)
            agent = start_agent(client, LOCAL_CLUSTER, os.environ.get("RAY_ADDRESS"))
            cleanup.callback(stop_agent, agent)
    except BaseException:
        client.close()
        raise
    return client


def start_agent(
    client: Client, cluster: str, ray_address: str | None = None
) -> subprocess.Popen[bytes]:
    """Start an agent as a child of this process, which ends when this process does.

    Args:
        client: The control plane that it serves.
        cluster: The cluster, which must be registered.
        ray_address: Where Ray is; a Ray that runs on this machine, or else a new local one, when
            nothing is said.

    Raises:
        ConfigurationError: When Ray is not installed here.
    """
    if importlib.util.find_spec("ray") is None:
        message = f"Ray is not installed here, so no agent can be started for cluster {cluster}"
        remedy = (
            "pip install 'schedulemesh[agent]', or name a control plane with url=... or "
            "SCHEDULEMESH_URL, or name clusters that have a dashboard with clusters=..."
        )
        raise ConfigurationError(message, code="NO_RAY", remedy=remedy)
    answer = client.request("POST", f"/v1/clusters/{cluster}/token")
    command = [sys.executable, "-m", "schedulemesh.guarded", "schedulemesh.agent"]
    command += ["--server", client.url]
    command += ["--cluster", cluster, "--ray-address", ray_address or find_ray()]
    command += ["--log-level", "warning"]
    environment = {**os.environ, "SCHEDULEMESH_TOKEN": answer["token"]}
    # Ctrl-C is for this process: it decides when the agent ends.
    return subprocess.Popen(  # noqa: S603 - our own module
        command, env=environment, start_new_session=True, stdin=subprocess.PIPE
    )


def find_ray() -> str:
    """Return where the agent finds Ray: `auto` when one runs on this machine, else `local`."""
    folder = os.environ.get("RAY_TMPDIR", "/tmp")  # noqa: S108 - where Ray keeps it
    try:
        address = (Path(folder) / "ray" / "ray_current_cluster").read_text().strip()
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), _PROBE_TIMEOUT_S).close()
    except (OSError, ValueError):
        return "local"
    return "auto"


def stop_agent(agent: subprocess.Popen[bytes]) -> None:
    """End an agent, by force if it takes too long.

    Args:
        agent: The child.
    """
    agent.terminate()
    if agent.stdin is not None:
        agent.stdin.close()
    try:
        agent.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()
