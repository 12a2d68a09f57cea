"""The functions of `ray_multicluster_scheduler` on two real Ray clusters, from a clusters file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from ray_multicluster_scheduler.app.client_api import (
    UnifiedScheduler,
    get_job_logs,
    get_task_status,
    initialize_scheduler_environment,
    submit_actor,
    submit_job,
    submit_task,
    wait_for_all_jobs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from schedulemesh.local import LocalCluster

pytestmark = pytest.mark.ray

WAIT_S = 120


@pytest.fixture(scope="module", autouse=True)
def scheduler(
    ray_clusters: list[LocalCluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[UnifiedScheduler]:
    """A scheduler in this process, with agents that it starts itself."""
    folder = tmp_path_factory.mktemp("multicluster")
    entries = "".join(
        f"  - name: {cluster.name}\n    head_address: {cluster.address}\n    tags: [{tag}]\n"
        for cluster, tag in zip(ray_clusters, ("linux", "arm64"), strict=True)
    )
    path = folder / "clusters.yaml"
    path.write_text(f"clusters:\n{entries}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCHEDULEMESH_STATE_DIR", str(folder / "state"))
        patch.setenv("HOME", str(folder))
        for name in ("SCHEDULEMESH_URL", "SCHEDULEMESH_TOKEN"):
            patch.delenv(name, raising=False)
        yield initialize_scheduler_environment(path)
        UnifiedScheduler().shutdown()


def _where() -> str:
    return os.environ["SCHEDULEMESH_CLUSTER"]


class Store:
    def __init__(self) -> None:
        self.items: dict[str, int] = {}

    def put(self, key: str, value: int) -> int:
        self.items[key] = value
        return len(self.items)


def test_tasks_go_where_they_are_wanted() -> None:
    task_id, where = submit_task(_where, tags=["arm64"])
    assert (where, get_task_status(task_id)) == ("west", "COMPLETED")
    assert submit_task(_where, preferred_cluster="east")[1] == "east"
    assert submit_task(_where, resource_requirements={"CPU": 1, "pool_b": 1})[1] == "west"


def test_an_actor_is_one_object(tmp_path: Path) -> None:
    del tmp_path
    _, store = submit_actor(Store, tags=["linux"], timeout=WAIT_S)
    assert [store.put("a", 1), store.put("b", 2)] == [1, 2]
    assert store.kill()


def test_jobs_end_wherever_they_ran() -> None:
    jobs = [submit_job("echo hello", preferred_cluster=name) for name in ("east", "west")]
    ended = wait_for_all_jobs(jobs, check_interval=0.5, timeout=WAIT_S)
    assert set(ended.values()) == {"SUCCEEDED"}
    assert all("hello" in get_job_logs(job) for job in jobs)
