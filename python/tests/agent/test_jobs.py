"""Ray jobs: success, failure, stop, output, and a new agent that finds them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
from agent.fake_control_plane import TOKEN
from schedulemesh.agent.names import Names

if TYPE_CHECKING:
    from pathlib import Path

    from agent.conftest import StartAgent
    from agent.fake_control_plane import FakeControlPlane
    from schedulemesh.local import LocalCluster

pytestmark = pytest.mark.ray

WAITING = "echo waiting; while [ ! -e {} ]; do sleep 0.1; done; echo over"


def test_job_succeeds_knows_where_it_is_and_leaves_a_log(plane: FakeControlPlane) -> None:
    key = plane.job(
        'echo "$RAY_MULTICLUSTER_CURRENT_CLUSTER $SCHEDULEMESH_TASK $EXTRA"',
        runtime_env={"env_vars": {"EXTRA": "more"}},
    )
    assert plane.end_of(key).kind == "finished"
    question = {"logs": {"task": key[0], "attempt": 1, "tail_bytes": 10_000}}
    assert f"east t{key[0]} more" in plane.ask(question, 1)["Ok"]


def test_job_fails_with_the_tail_of_its_log(plane: FakeControlPlane) -> None:
    key = plane.job("echo all is lost; exit 3")
    end = plane.end_of(key)
    assert (end.kind, end.body["error"]["cause"]) == ("failed", "raised")
    assert "all is lost" in end.body["error"]["traceback"]


def test_job_is_stopped(plane: FakeControlPlane, tmp_path: Path) -> None:
    key = plane.job(WAITING.format(tmp_path / "never"))
    plane.wait(lambda: key in plane.started)
    plane.stop(key, grace_ms=1_000)
    assert plane.end_of(key).kind == "stopped"


def test_job_whose_environment_cannot_be_made(plane: FakeControlPlane) -> None:
    key = plane.job("true", runtime_env={"working_dir": "/no/such/folder"})
    error = plane.end_of(key).body["error"]
    assert error["cause"] == "not_started"
    assert "/no/such/folder" in error["message"]


def test_new_agent_follows_the_job_of_the_old_one(
    lonely: FakeControlPlane, start_agent: StartAgent, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    key = lonely.job(WAITING.format(flag))
    lonely.wait(lambda: key in lonely.started)
    agent.kill()
    start_agent("--server", lonely.url)
    lonely.wait(lambda: len(lonely.hellos) == 2)
    assert {"task": key[0], "attempt": 1} in lonely.hellos[1]["held"]
    flag.touch()
    assert lonely.end_of(key).kind == "finished"


def test_stop_reaches_a_job_that_was_not_adopted(
    plane: FakeControlPlane, ray_clusters: list[LocalCluster], tmp_path: Path
) -> None:
    key = (plane.task(), 1)
    jobs = f"{ray_clusters[0].dashboard_url}/api/jobs/"
    name = Names(TOKEN, "east").of(key)
    body = {"entrypoint": WAITING.format(tmp_path / "never"), "submission_id": name}
    assert requests.post(jobs, json=body, timeout=20).ok
    plane.stop(key)
    assert plane.end_of(key).kind == "stopped"
    assert requests.get(jobs + name, timeout=20).json()["status"] == "STOPPED"
