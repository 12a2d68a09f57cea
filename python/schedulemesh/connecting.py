"""Finding the control plane, or starting one in this process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schedulemesh.client import CONNECT_TIMEOUT_S, Client
from schedulemesh.errors import ClusterConnectionError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    started with it, under the cluster name `local`.

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
    directory = find_state_dir(state_dir)
    url = url or os.environ.get(URL_VARIABLE)
    client = (
        Client(url, token or find_token(directory), timeout=timeout)
        if url
        else _running(directory, token) or _embedded(directory, has_clusters=bool(bodies))
    )
    try:
        for body in bodies:
            client.request("PUT", f"/v1/clusters/{body['name']}", body)
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


def _running(state_dir: Path, token: str | None) -> Client | None:
    """Connect to the server that runs with this state directory, if one does."""
    try:
        told: dict[str, Any] = json.loads((state_dir / "server.json").read_text())
        url, pid = str(told["url"]), int(told["pid"])
    except (OSError, ValueError, KeyError):
        return None
    if not _is_alive(pid):
        return None
    try:
        return Client(url, token or find_token(state_dir), timeout=_PROBE_TIMEOUT_S)
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


def _embedded(state_dir: Path, *, has_clusters: bool) -> Client:
    """Start a control plane in this process, unless another process is quicker."""
    from schedulemesh.embedded import start  # noqa: PLC0415 - needed here only

    try:
        return start(state_dir, with_local_cluster=not has_clusters)
    except ConfigurationError as error:
        if error.code != "STATE_DIR_IN_USE":
            raise
        deadline = time.monotonic() + _PROBE_TIMEOUT_S
        while time.monotonic() < deadline:
            client = _running(state_dir, None)
            if client is not None:
                return client
            time.sleep(_PROBE_PAUSE_S)
        raise
