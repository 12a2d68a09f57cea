"""What becomes of accepted work when agents and whole Ray clusters end and come back."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
import schedulemesh
from schedulemesh import Client
from schedulemesh.up import LocalMesh, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.ray

WAIT_S = 90
SITES = [Site("east", tags=["east"], lost_after="3s"), Site("west", tags=["west"], lost_after="3s")]


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    with LocalMesh(SITES) as running:
        yield running


@pytest.fixture
def client(mesh: LocalMesh) -> Iterator[Client]:
    token = (mesh.state_dir / "admin.token").read_text().strip()
    with Client(mesh.url, token) as connected:
        yield connected


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"it never came true that {what}"
        time.sleep(0.05)


def link_of(client: Client, name: str) -> str:
    (link,) = (view["link"] for view in client.clusters() if view["spec"]["name"] == name)
    return link


def note_and_wait(path: str, gate: str) -> tuple[str, str]:
    """Say that it began, and go on when it may."""
    with open(path, "a") as file:  # noqa: PTH123 - runs where this module is not
        file.write(os.environ["SCHEDULEMESH_ATTEMPT"] + "\n")
    while not os.path.exists(gate):  # noqa: PTH110
        time.sleep(0.02)
    return os.environ["SCHEDULEMESH_CLUSTER"], os.environ["SCHEDULEMESH_ATTEMPT"]


def test_work_of_a_killed_agent_runs_again_and_its_actors_live_on(
    mesh: LocalMesh, client: Client, tmp_path: Path
) -> None:
    class Counter:
        def __init__(self) -> None:
            self.value = 0

        def add(self) -> int:
            self.value += 1
            return self.value

    counter = client.options(tags=["west"], cpus=0).actor(Counter)
    assert counter.add() == 1
    began, gate = tmp_path / "began", tmp_path / "gate"
    future = client.options(tags=["west"]).submit(note_and_wait, str(began), str(gate))
    until(began.exists, "the task runs")
    mesh.kill_agent("west")
    until(lambda: link_of(client, "west") != "ready", "the agent is missed")
    gate.touch()
    mesh.start_agent("west")
    assert future.result(WAIT_S) == ("west", "2")
    assert counter.add() == 2, "its state outlived the agent"
    counter.kill()


def test_a_stopped_cluster_comes_back_and_takes_its_waiting_work(
    mesh: LocalMesh, client: Client, tmp_path: Path
) -> None:
    began, gate = tmp_path / "began", tmp_path / "gate"
    # Both may run anywhere; they are sent west by preference.
    moved = client.options(prefer_tags=["west"]).submit(note_and_wait, str(began), str(gate))
    until(began.exists, "the task runs")
    mesh.stop_cluster("west")
    waiting = client.options(tags=["west"]).submit(os.getpid)
    until(lambda: link_of(client, "west") == "lost", "west is lost")
    explained = client.explain(waiting.accepted())
    codes = {verdict["cluster"]: verdict["code"] for verdict in explained["clusters"]}
    assert codes == {"east": "TAG_MISSING", "west": "NOT_READY"}
    gate.touch()
    assert moved.result(WAIT_S) == ("east", "2")
    assert not waiting.done()
    mesh.start_cluster("west")
    assert waiting.result(WAIT_S) > 0
    assert waiting.cluster == "west"
    assert {view["link"] for view in client.clusters()} == {"ready"}
    assert schedulemesh.wait([moved, waiting]).not_done == set()
