"""Folders of this machine on two real Ray clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import schedulemesh
from ray_clusters import AgentProcess
from schedulemesh import Client
from sdk.real import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schedulemesh.local import LocalCluster

pytestmark = pytest.mark.ray

WAIT_S = 120
CLUSTERS = ("east", "west")


@pytest.fixture(scope="module")
def server(
    ray_clusters: list[LocalCluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A control plane with an agent in each of two clusters."""
    folder: Path = tmp_path_factory.mktemp("packages")
    running = ServerProcess(folder / "state")
    agents = []
    with Client(running.url, running.token) as client:
        for cluster in ray_clusters:
            client.add_cluster(cluster.name)
            answer = client.request("POST", f"/v1/clusters/{cluster.name}/token")
            said = ["--server", running.url, "--cluster", cluster.name]
            log = folder / f"{cluster.name}.log"
            agents.append(AgentProcess(said, token=answer["token"], log=log, cluster=cluster))
    yield running
    for agent in agents:
        agent.stop()
    running.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.url, server.token) as connected:
        yield connected


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a module, data and a script."""
    folder = tmp_path / "project"
    (folder / "shipped_pkg").mkdir(parents=True)
    (folder / "shipped_pkg" / "__init__.py").write_text("VALUE = 42\n")
    (folder / "data.txt").write_text("from the folder")
    (folder / "main.py").write_text(
        "import os, shipped_pkg\n"
        "print(shipped_pkg.VALUE, open('data.txt').read(), os.environ['SCHEDULEMESH_CLUSTER'])\n"
    )
    return folder


def _use_folder() -> tuple[int, str]:
    import shipped_pkg  # type: ignore[import-not-found]  # noqa: PLC0415

    with open("data.txt", encoding="utf-8") as file:  # noqa: PTH123 - of the working directory
        return shipped_pkg.VALUE, file.read()


def _use_module() -> int:
    import shipped_pkg  # noqa: PLC0415

    value: int = shipped_pkg.VALUE
    return value


class Reader:
    def __init__(self) -> None:
        self.seen = _use_folder()

    def get(self) -> tuple[int, str]:
        return self.seen


def test_functions_actors_and_jobs_find_their_folder_on_both_clusters(
    client: Client, project: Path
) -> None:
    env = {"working_dir": project}
    there = [
        client.options(cluster=name, cluster_only=True, cpus=0.5, runtime_env=env)
        for name in CLUSTERS
    ]
    functions = [submitter.submit(_use_folder) for submitter in there]
    jobs = [submitter.submit_job("python main.py") for submitter in there]
    assert [future.result(WAIT_S) for future in functions] == [(42, "from the folder")] * 2
    for name, job in zip(CLUSTERS, jobs, strict=True):
        job.result(WAIT_S)
        assert f"42 from the folder {name}" in job.logs()
    for submitter in there:
        actor = submitter.actor(Reader, ready_timeout=WAIT_S)
        assert actor.get() == (42, "from the folder")
        actor.kill()


def test_modules_can_be_imported_on_both_clusters(client: Client, project: Path) -> None:
    env = {"py_modules": [str(project / "shipped_pkg")]}
    futures = [
        client.options(cluster=name, cluster_only=True, runtime_env=env).submit(_use_module)
        for name in CLUSTERS
    ]
    assert [future.result(WAIT_S) for future in futures] == [42, 42]


def test_a_package_that_is_gone_is_told_and_a_new_submission_brings_it(
    client: Client, project: Path, server: ServerProcess
) -> None:
    (project / "data.txt").write_text("another folder")
    there = client.options(cluster="east", retries=0, runtime_env={"working_dir": str(project)})
    uri = client.packages.ship({"working_dir": str(project)})["working_dir"]
    blob = server.state_dir / "blobs" / uri.split("/")[2]
    blob.unlink()
    with pytest.raises(schedulemesh.NotStartedError, match="submit again from where its folder"):
        there.submit(_use_folder).result(WAIT_S)
    with pytest.raises(schedulemesh.NotStartedError, match="submit again from where its folder"):
        there.submit_job("python main.py").result(WAIT_S)
    with Client(server.url, server.token) as later:
        again = later.options(cluster="east", runtime_env={"working_dir": str(project)})
        assert again.submit(_use_folder).result(WAIT_S) == (42, "another folder")
    assert blob.exists()


def test_a_queued_job_finds_its_folder_after_the_control_plane_was_killed(
    client: Client, project: Path, server: ServerProcess
) -> None:
    (project / "data.txt").write_text("kept")
    client.drain_cluster("west")
    options = client.options(cluster="west", cluster_only=True)
    job = options.submit_job("python main.py", runtime_env={"working_dir": project})
    job.accepted(WAIT_S)
    server.kill()
    server.start()
    client.drain_cluster("west", draining=False)
    job.result(WAIT_S)
    assert "42 kept west" in job.logs()
