"""A control plane inside this process, the agents that go with it, and who takes its place.

Programs that use the same state directory share one control plane: it lives in one of them, and the
others are told where by `server.json`. When that one ends, another takes its place.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any, TypeAlias

from schedulemesh._native import EmbeddedServer
from schedulemesh.agent_process import AgentProcess
from schedulemesh.errors import ClientClosedError, SchedulerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from schedulemesh._native import Client as NativeClient

LOCAL_CLUSTER = "local"
"""What the cluster of an embedded control plane is called when nobody named another."""

LOOK_S = 2.0
"""How often a program that uses another's control plane looks whether that is elsewhere now."""

RETRY_S = 0.2
"""How long to wait between two tries to take the place of a control plane that is gone."""

_JOIN_TIMEOUT_S = 15.0

logger = logging.getLogger("schedulemesh")


class Household:
    """What one client has in this process, and what ends with it.

    Attributes:
        state_dir: Where a control plane of this process keeps its state.
    """

    def __init__(self, state_dir: Path, start_agents: AgentStarter | None = None) -> None:
        """Begin with nothing.

        Args:
            state_dir: Where a control plane of this process keeps its state.
            start_agents: Starts the agents that it needs when this process takes another's place;
                the one for a local Ray when nothing is said.
        """
        self.state_dir = state_dir
        self._start_agents = start_agents or start_local_agent
        self._server: EmbeddedServer | None = None
        self._agents: dict[str, AgentProcess] = {}
        self._closing = threading.Event()
        self._heir: threading.Thread | None = None
        self._complained = False

    @property
    def serves(self) -> bool:
        """Whether the control plane is in this process."""
        return self._server is not None

    def serve(self, last_url: str | None = None) -> EmbeddedServer:
        """Start a control plane in this process.

        Args:
            last_url: Where the one before was: this one listens there too if that is possible, so
                that agents and programs which know that address find it.

        Raises:
            ConfigurationError: When another process has one on this directory.
        """
        port = urllib.parse.urlsplit(last_url).port if last_url else None
        self._server = EmbeddedServer.start(str(self.state_dir), port or 0)
        return self._server

    def start_agent(
        self, native: NativeClient, cluster: str, ray_address: str | None = None
    ) -> AgentProcess:
        """Start an agent, unless this household has one for the cluster.

        Args:
            native: The control plane that it serves.
            cluster: The cluster, which must be registered.
            ray_address: Where Ray is; found on this machine when nothing is said.

        Raises:
            ConfigurationError: When Ray is not installed here.
        """
        if cluster not in self._agents:
            self._agents[cluster] = AgentProcess(native, cluster, ray_address, self.state_dir)
        return self._agents[cluster]

    def await_succession(self, native: NativeClient) -> None:
        """Take the place of the program whose control plane this one uses, when that ends.

        Args:
            native: The link to it.
        """
        self._heir = threading.Thread(
            target=self._succeed, args=(native,), name="schedulemesh-heir", daemon=True
        )
        self._heir.start()

    def close(self) -> None:
        """End all of it: agents first, so that what they still say is heard."""
        self._closing.set()
        if self._heir is not None and threading.current_thread() is not self._heir:
            self._heir.join(_JOIN_TIMEOUT_S)
        for agent in self._agents.values():
            agent.stop()
        self._agents.clear()
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _succeed(self, native: NativeClient) -> None:
        while not self._closing.is_set():
            orphaned = native.wait_orphaned(LOOK_S)
            if orphaned is None:
                return
            for agent in self._agents.values():
                agent.follow()
            if not orphaned:
                continue
            if self._take_over(native):
                return
            self._closing.wait(RETRY_S)

    def _take_over(self, native: NativeClient) -> bool:
        """Serve the state directory, unless somebody else does; the lock on it has one winner."""
        if self._closing.is_set():
            return False
        try:
            server = self.serve(native.url)
        except SchedulerError as error:
            if error.code != "STATE_DIR_IN_USE":
                self._complain(error)
            return False
        finally:
            native.redial()
        logger.info("took over the control plane of %s, at %s", self.state_dir, server.url)
        try:
            native.wait_up(_JOIN_TIMEOUT_S)
            self._start_agents(self, native)
        except ClientClosedError:
            pass
        except SchedulerError as error:
            logger.warning("no agents were started for the clusters taken over: %s", error)
        return True

    def _complain(self, error: SchedulerError) -> None:
        """Warn once of a state directory that cannot be served here; it is tried again."""
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        logger.log(level, "nobody serves %s, and this program cannot: %s", self.state_dir, error)


AgentStarter: TypeAlias = "Callable[[Household, NativeClient], None]"
"""Starts the agents that a control plane in this process needs."""


def start_local_agent(household: Household, native: NativeClient) -> None:
    """Start an agent for a local Ray when the control plane knows no other cluster.

    Args:
        household: Whom it belongs to.
        native: The link to the control plane.
    """
    names = [view["spec"]["name"] for view in ask(native, "GET", "/v1/clusters")]
    if not names or names == [LOCAL_CLUSTER]:
        ask(native, "PUT", f"/v1/clusters/{LOCAL_CLUSTER}", {"name": LOCAL_CLUSTER})
        household.start_agent(native, LOCAL_CLUSTER, os.environ.get("RAY_ADDRESS"))


def ask(native: NativeClient, method: str, path: str, body: Any = None) -> Any:
    """Call a route of the HTTP API and return the JSON of the answer.

    Args:
        native: The link to the control plane.
        method: Such as `GET`.
        path: The route, with its query.
        body: What to send as JSON.
    """
    answer = native.request(method, path, None if body is None else json.dumps(body).encode())
    return json.loads(answer) if answer else None
