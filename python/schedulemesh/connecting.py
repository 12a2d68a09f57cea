"""Finding the control plane, or starting one in this process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedulemesh.client import CONNECT_TIMEOUT_S, Client
from schedulemesh.embedded import Household, start_local_agent
from schedulemesh.errors import ClusterConnectionError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schedulemesh.embedded import AgentStarter
    from schedulemesh.views import ClusterBody

URL_VARIABLE = "SCHEDULEMESH_URL"
TOKEN_VARIABLE = "SCHEDULEMESH_TOKEN"  # noqa: S105 - the name of a variable
STATE_DIR_VARIABLE = "SCHEDULEMESH_STATE_DIR"

_PROBE_TIMEOUT_S = 2.0
_PROBE_PAUSE_S = 0.05


def connect(
    url: str | None = None,
    *,
    token: str | None = None,
    state_dir: str | os.PathLike[str] | None = None,
    clusters: str | os.PathLike[str] | Sequence[ClusterBody] | None = None,
    timeout: float = CONNECT_TIMEOUT_S,
) -> Client:
    """Connect to a control plane.

    It is looked for at `url`, at `SCHEDULEMESH_URL`, and where a server that runs on this machine
    has written its address in the state directory. When there is none, one is started in this
    process, with its store in the state directory; when that knows no cluster, a local Ray agent is
    started with it, under the cluster name `local`. When the control plane that was found lives in
    another program and that ends, one is started here in its place.

    Args:
        url: The address of the control plane, such as `http://127.0.0.1:7420`.
        token: The secret that it asks for; else `SCHEDULEMESH_TOKEN`, else the file `admin.token`
            in the state directory.
        state_dir: Where a control plane on this machine keeps its state; else
            `SCHEDULEMESH_STATE_DIR`, else `~/.local/state/schedulemesh`.
        clusters: Clusters to register: a clusters file, or a list of what is said about each.
        timeout: How long the control plane may take to answer, in seconds.

    Raises:
        ClusterConnectionError: When nobody answers.
        AuthenticationError: When the token is refused.
        ConfigurationError: When the clusters file is wrong; nothing was started then.

    Example:
        >>> with schedulemesh.connect() as client:
        ...     client.submit(pow, 2, 10).result()
        1024
    """
    bodies = _bodies(clusters)
    household = Household(find_state_dir(state_dir))
    client = _found(household, url, token, timeout)
    try:
        for body in bodies:
            client.put_cluster(body)
        if household.serves and not bodies:
            start_local_agent(household, client.native)
    except BaseException:
        client.close()
        raise
    return client


def connect_with_agents(
    clusters: Sequence[ClusterBody],
    start_agents: AgentStarter,
    timeout: float = CONNECT_TIMEOUT_S,
) -> Client:
    """Connect as `connect()` does, with agents in this process.

    Args:
        clusters: Clusters to register.
        start_agents: Starts the agents, now and when this program takes another's place.
        timeout: How long the control plane may take to answer, in seconds.
    """
    household = Household(find_state_dir(), start_agents)
    client = _found(household, None, None, timeout)
    try:
        for body in clusters:
            client.put_cluster(body)
        start_agents(household, client.native)
    except BaseException:
        client.close()
        raise
    return client


def find_state_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """Return where a control plane on this machine keeps its state.

    Args:
        given: What the user says; it goes before the environment.
    """
    chosen = given or os.environ.get(STATE_DIR_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "schedulemesh"


def find_token(state_dir: Path) -> str | None:
    """Return the token of the environment, or else that of the state directory.

    Args:
        state_dir: Where a control plane on this machine keeps its state.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token:
        return token
    try:
        return (state_dir / "admin.token").read_text().strip()
    except OSError:
        return None


def _bodies(
    clusters: str | os.PathLike[str] | Sequence[ClusterBody] | None,
) -> Sequence[ClusterBody]:
    if clusters is None:
        return ()
    if isinstance(clusters, str | os.PathLike):
        from schedulemesh.clusters_file import read  # noqa: PLC0415 - needs PyYAML

        return [entry.body() for entry in read(Path(clusters)).clusters]
    return clusters


def _found(household: Household, url: str | None, token: str | None, timeout: float) -> Client:
    url = url or os.environ.get(URL_VARIABLE)
    if not url:
        return _here(household, token)
    secret = token or find_token(household.state_dir)
    return Client(url, secret, timeout=timeout, on_close=household.close)


def _here(household: Household, token: str | None) -> Client:
    """Connect to the control plane of this machine; start it unless another process is quicker."""
    deadline = time.monotonic() + _PROBE_TIMEOUT_S
    while True:
        client = _running(household, token)
        if client is not None:
            household.await_succession(client.native)
            return client
        try:
            server = household.serve()
            break
        except ConfigurationError as error:
            if error.code != "STATE_DIR_IN_USE" or time.monotonic() > deadline:
                raise
        time.sleep(_PROBE_PAUSE_S)
    try:
        return Client(server.url, server.token, on_close=household.close)
    except BaseException:
        household.close()
        raise


def _running(household: Household, token: str | None) -> Client | None:
    """Connect to the server that runs with the state directory, if one does."""
    state_dir = household.state_dir
    try:
        told: dict[str, Any] = json.loads((state_dir / "server.json").read_text())
        url, pid = str(told["url"]), int(told["pid"])
    except (OSError, ValueError, KeyError):
        return None
    if not _is_alive(pid):
        return None
    secret = token or find_token(state_dir)
    try:
        return Client(
            url, secret, timeout=_PROBE_TIMEOUT_S, state_dir=state_dir, on_close=household.close
        )
    except ClusterConnectionError:
        # The file of a server that died, and its number was given to another process.
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
