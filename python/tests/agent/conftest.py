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


@pytest.fixture(scope="module")
def start_agent(
    ray_clusters: list[LocalCluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartAgent]:
    """Return a function that starts an agent in the first cluster."""
    agents: list[AgentProcess] = []
    folder: Path = tmp_path_factory.mktemp("agents")

    def start(*arguments: str, token: str = TOKEN, which: int = 0) -> AgentProcess:
        agent = AgentProcess(
            ["--cluster", "east", *arguments],
            token=token,
            log=folder / f"agent{len(agents)}.log",
            cluster=ray_clusters[which],
        )
        agents.append(agent)
        return agent

    yield start
    for agent in agents:
        if agent.process.poll() is None:
            agent.stop()


@pytest.fixture(scope="module")
def plane(start_agent: StartAgent) -> Iterator[FakeControlPlane]:
    """Give a control plane with a linked agent, shared by a module's tests."""
    with FakeControlPlane() as fake:
        agent = start_agent("--server", fake.url)
        fake.wait_linked()
        yield fake
        assert agent.stop() == 0, agent.said()


@pytest.fixture
def lonely() -> Iterator[FakeControlPlane]:
    """Give a control plane without an agent."""
    with FakeControlPlane() as fake:
        yield fake
