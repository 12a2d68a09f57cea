"""Agents, raylets, the GCS and the control plane are killed under load on real Ray clusters.

Whatever is killed: every function ends with its value or with an honest failure within a bound, and
what was told holds against the journal.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults.load import WAIT_S, Load
from schedulemesh import Client
from schedulemesh.local import LocalCluster, _session_members
from schedulemesh.up import LocalMesh, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.ray

SITES = [Site("east", lost_after="3s"), Site("west", lost_after="3s")]

RPC_FAILURES = {
    name: {"num_failures": 3, "req_failure_prob": 10, "resp_failure_prob": 10}
    for name in (
        "CoreWorkerService.grpc_client.PushTask",
        "ray::rpc::ActorInfoGcsService.grpc_client.RegisterActor",
        "ray::rpc::ActorInfoGcsService.grpc_client.CreateActor",
        "ray::rpc::ActorInfoGcsService.grpc_client.GetNamedActorInfo",
        "ray::rpc::ActorInfoGcsService.grpc_client.KillActorViaGcs",
    )
}
"""Of these calls each process loses at most three, half of them after they were done."""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    with LocalMesh(SITES) as running:
        yield running


@pytest.fixture
def load(mesh: LocalMesh, tmp_path: Path) -> Iterator[Load]:
    token = (mesh.state_dir / "admin.token").read_text().strip()
    with Client(mesh.url, token) as client:
        yield Load(mesh, client, tmp_path)


def restart_control_plane(mesh: LocalMesh) -> None:
    mesh.kill_control_plane()
    mesh.start_control_plane()


def kill_part(mesh: LocalMesh, name: str, part: str) -> None:
    """Kill the one process of a cluster that is called so."""
    (cluster,) = (cluster for cluster in mesh.clusters if cluster.name == name)
    named = [
        pid
        for pid in _session_members(cluster.pid)
        if Path(f"/proc/{pid}/comm").read_text().strip() == part
    ]
    assert len(named) == 1, (part, named)
    os.kill(named[0], signal.SIGKILL)


def lost_calls(cluster: LocalCluster) -> int:
    """Count what Ray's own logs say it lost on purpose."""
    logs = cluster._folder.glob("**/logs/*")
    return sum(log.read_bytes().count(b"Inject RPC") for log in logs if log.is_file())


def test_agents_are_killed_again_and_again(mesh: LocalMesh, load: Load) -> None:
    with load:
        for name in ("east", "west", "east"):
            mesh.kill_agent(name)
            mesh.start_agent(name)
        restart_control_plane(mesh)
        mesh.wait_linked()


@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_part_of_a_cluster_is_killed(mesh: LocalMesh, load: Load, part: str) -> None:
    with load:
        kill_part(mesh, "west", part)
        restart_control_plane(mesh)
        mesh.stop_cluster("west")
        mesh.start_cluster("west")
        mesh.wait_linked()


def test_calls_inside_of_ray_get_lost(
    mesh: LocalMesh, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh.stop_cluster("west")
    place = [site.name for site in SITES].index("west")
    failures = {
        "RAY_testing_rpc_failure": json.dumps(RPC_FAILURES),
        # A cluster of one node makes no other calls than those inside of it.
        "RAY_testing_rpc_failure_avoid_intra_node_failures": "0",
    }
    mesh.clusters[place] = LocalCluster.start(SITES[place].plan(place), env=failures)
    mesh.clusters[place].wait_ready(WAIT_S)
    with monkeypatch.context() as patch:
        for name, value in failures.items():
            patch.setenv(name, value)
        mesh.start_agent("west")
    mesh.wait_linked()
    with load:
        restart_control_plane(mesh)
    assert lost_calls(mesh.clusters[place]) > 0, "no call was lost: Ray was not told to lose any"
