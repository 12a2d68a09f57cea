"""Fixtures of the agent's tests: a fake control plane with an agent in a real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from agent.fake_control_plane import TOKEN, FakeControlPlane
from ray_clusters import AgentProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from schedulemesh.local import LocalCluster

    StartAgent = Callable[..., AgentProcess]


@pytest.fixture
def start_agent(ray_clusters: list[LocalCluster], tmp_path: Path) -> Iterator[StartAgent]:
    """Return a function that starts an agent in the first cluster; it ends with the test."""
    agents: list[AgentProcess] = []

    def start(*arguments: str, token: str = TOKEN, which: int = 0) -> AgentProcess:
        agent = AgentProcess(
            ["--cluster", "east", "--idle-seconds", "1", *arguments],
            token=token,
            log=tmp_path / f"agent{len(agents)}.log",
            cluster=ray_clusters[which],
        )
        agents.append(agent)
        return agent

    yield start
    for agent in agents:
        if agent.process.poll() is None:
            agent.stop()


@pytest.fixture(scope="module")
def plane(
    ray_clusters: list[LocalCluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FakeControlPlane]:
    """Give a control plane with a linked agent, shared by a module's tests."""
    log = tmp_path_factory.mktemp("plane") / "agent.log"
    with FakeControlPlane() as fake:
        arguments = ["--cluster", "east", "--idle-seconds", "1", "--server", fake.url]
        agent = AgentProcess(arguments, token=TOKEN, log=log, cluster=ray_clusters[0])
        try:
            fake.wait_linked()
            yield fake
        finally:
            code = agent.stop()
        assert code == 0, agent.said()


@pytest.fixture
def lonely() -> Iterator[FakeControlPlane]:
    """Give a control plane without an agent."""
    with FakeControlPlane() as fake:
        yield fake
