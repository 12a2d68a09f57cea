"""The SDK on two real Ray clusters, with a control plane that is killed in the middle."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

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

WAIT_S = 90
BIG = 100_000_000
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(
    ray_clusters: list[LocalCluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A control plane with an agent in each of two clusters."""
    folder: Path = tmp_path_factory.mktemp("sdk")
    running = ServerProcess(folder / "state")
    agents = []
    with Client(running.url, running.token) as client:
        for cluster, tag in zip(ray_clusters, ("linux", "arm64"), strict=True):
            client.add_cluster(cluster.name, tags=[tag])
            answer = client.request("POST", f"/v1/clusters/{cluster.name}/token")
            said = ["--server", running.url, "--cluster", cluster.name]
            log = folder / f"{cluster.name}.log"
            agents.append(AgentProcess(said, token=answer["token"], log=log, cluster=cluster))
        for cluster in ray_clusters:
            name = client.options(cluster=cluster.name, cluster_only=True).submit(_where)
            assert name.result(WAIT_S) == cluster.name
    yield running
    for agent in agents:
        agent.stop()
    running.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.url, server.token) as connected:
        yield connected


def _where() -> str:
    return os.environ["SCHEDULEMESH_CLUSTER"]


class Rejected(Exception):  # noqa: N818 - a name of the test's own
    pass


def _reject(reason: str) -> None:
    raise Rejected(reason)


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def where(self) -> str:
        return os.environ["SCHEDULEMESH_CLUSTER"]


def test_work_goes_where_its_tags_labels_and_resources_are(client: Client) -> None:
    assert client.options(tags=["arm64"]).submit(_where).result(WAIT_S) == "west"
    assert client.options(labels={"zone": "east"}).submit(_where).result(WAIT_S) == "east"
    assert client.options(resources={"pool_b": 1}).submit(_where).result(WAIT_S) == "west"
    future = client.options(cluster="east").submit(_where)
    assert future.result(WAIT_S) == future.cluster == "east"


def test_an_exception_comes_back_as_it_was(client: Client) -> None:
    with pytest.raises(Rejected, match="too late") as raised:
        client.submit(_reject, "too late").result(WAIT_S)
    assert "in _reject" in str(raised.value.__cause__)


def test_an_actor_keeps_its_state_and_its_order(client: Client) -> None:
    counter = client.options(tags=["linux"]).actor(Counter, 100)
    assert counter.where() == "east"
    calls = [counter.add.remote(1) for _ in range(50)]
    assert [call.result(WAIT_S) for call in calls] == list(range(101, 151))
    assert counter.kill()
    with pytest.raises(schedulemesh.TaskCancelledError):
        counter.future.result(WAIT_S)


class Meeting:
    """Is over when everybody is there."""

    def __init__(self, seats: int) -> None:
        self.barrier = threading.Barrier(seats, timeout=WAIT_S)

    def attend(self) -> int:
        return self.barrier.wait()


def test_calls_of_an_actor_run_side_by_side_when_it_says_so(client: Client) -> None:
    meeting = client.options(max_concurrency=3).actor(Meeting, 3)
    guests = [meeting.attend.remote() for _ in range(3)]
    assert sorted(guest.result(WAIT_S) for guest in guests) == [0, 1, 2]
    meeting.kill()


def test_a_job_runs_and_its_log_can_be_read(client: Client) -> None:
    future = client.options(cluster="west").submit_job("python -c 'print(6 * 7)'")
    assert future.result(WAIT_S) is None
    assert "42" in future.logs()
    failed = client.submit_job("exit 3")
    assert isinstance(failed.exception(WAIT_S), schedulemesh.TaskError)


def test_a_running_task_is_really_stopped(client: Client, tmp_path: Path) -> None:
    beats = tmp_path / "beats"

    def beat(path: str) -> None:
        while True:
            with open(path, "a") as file:  # noqa: PTH123
                file.write(".")
            time.sleep(0.02)

    future = client.submit(beat, str(beats))
    assert client.wait_started(future, time.monotonic() + WAIT_S)
    assert future.cancel()
    with pytest.raises(schedulemesh.TaskCancelledError):
        future.result(WAIT_S)
    before = beats.stat().st_size if beats.exists() else 0
    threading.Event().wait(0.3)
    assert (beats.stat().st_size if beats.exists() else 0) <= before + 1


def test_large_data_streams_through_bounded_memory(client: Client) -> None:
    def make(size: int) -> bytes:
        return b"x" * size

    assert len(client.submit(make, 1).result(WAIT_S)) == 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = client.submit(make, BIG).result(WAIT_S)
    assert len(value) == BIG
    # The value itself, and no second copy of it.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 130 * MIB // 1024
    assert client.submit(len, value).result(WAIT_S) == BIG
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 130 * MIB // 1024


def test_a_thousand_submissions_at_once(client: Client) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(client.submit(abs, -index) for index in range(1_000)))

    assert asyncio.run(main()) == list(range(1_000))


def test_nothing_is_lost_when_the_control_plane_is_killed(
    client: Client, server: ServerProcess, tmp_path: Path
) -> None:
    log = tmp_path / "ran"

    def note(index: int, path: str) -> int:
        time.sleep(0.005)
        with open(path, "a") as file:  # noqa: PTH123
            file.write(f"{index}\n")
        return index

    counter = client.actor(Counter, 0)
    futures = [client.submit(note, index, str(log)) for index in range(600)]
    schedulemesh.wait(futures, timeout=WAIT_S, return_when="FIRST_COMPLETED")
    server.kill()
    futures += [client.submit(note, index, str(log)) for index in range(600, 700)]
    calls = [counter.add.remote(1) for _ in range(10)]
    server.start()
    assert [future.result(WAIT_S) for future in futures] == list(range(700))
    assert [call.result(WAIT_S) for call in calls] == list(range(1, 11))
    assert sorted(map(int, log.read_text().split())) == list(range(700))
    counter.kill()


def test_what_can_never_run_is_told_with_the_reason_of_each_cluster(client: Client) -> None:
    error = client.options(cpus=1_000).submit(_where).exception(WAIT_S)
    assert isinstance(error, schedulemesh.InfeasibleError)
    assert [detail.partition(":")[0] for detail in error.details] == ["east", "west"]
    wrong: Any = client.options(tags=["nowhere"]).submit(_where).exception(WAIT_S)
    assert "does not have the required tag nowhere" in str(wrong)


def test_a_worker_that_dies_and_a_task_that_is_late_are_told(client: Client) -> None:
    dead = client.options(retries=0).submit(os._exit, 3)
    late = client.options(timeout=0.5).submit(time.sleep, 60)
    assert isinstance(dead.exception(WAIT_S), schedulemesh.WorkerDiedError)
    assert isinstance(late.exception(WAIT_S), schedulemesh.TaskTimeoutError)


def test_the_other_python_is_told(client: Client) -> None:
    digest = client.code(abs).digest
    body = {
        "specs": [{"work": {"function": {"code": digest}}, "python": "3.9"}],
        "tasks": [{"spec": 0}],
    }
    answer = client.request("POST", "/v1/tasks", body)["results"][0]["error"]
    told = schedulemesh.errors.from_problem(  # type: ignore[attr-defined]
        answer["code"], answer["message"], answer["remedy"], answer["details"], None
    )
    assert isinstance(told, schedulemesh.PythonMismatchError)
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in str(told)
