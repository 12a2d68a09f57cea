"""An agent as a child of this process: started again when it dies, ended when this process does."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from schedulemesh.errors import ConfigurationError, SchedulerError

if TYPE_CHECKING:
    from schedulemesh._native import Client as NativeClient

RESTART_FIRST_S = 0.5
"""How long to wait before an agent that died is started again; doubles with each time."""

RESTART_MAX_S = 30.0
"""The longest wait before an agent is started again."""

HEALTHY_S = 60.0
"""An agent that lived for so long begins with the shortest wait again."""

RETRY_S = 2.0
"""How long to wait when the control plane gives no token for an agent that is to start again."""

LOG_MAX = 8 << 20
"""A log of more bytes is put aside, once, when its agent starts."""

_STOP_TIMEOUT_S = 15.0
_PROBE_TIMEOUT_S = 0.5
_TAIL = 400
# The exit codes of `schedulemesh.agent` after which it would only end again in the same way.
_FOR_GOOD = {0: "it was told to", 2: "its command line is wrong", 3: "it was refused"}

logger = logging.getLogger("schedulemesh")


class AgentProcess:
    """One agent, and the thread that watches it.

    Attributes:
        log_path: What it says.
    """

    def __init__(
        self, native: NativeClient, cluster: str, ray_address: str | None, state_dir: Path
    ) -> None:
        """Start it.

        Args:
            native: The control plane that it serves.
            cluster: The cluster, which must be registered.
            ray_address: Where Ray is; a Ray that runs on this machine, or else a new local one,
                when nothing is said.
            state_dir: Below which its log is.

        Raises:
            ConfigurationError: When Ray is not installed here.
        """
        _need_ray(cluster)
        self._native = native
        self._cluster = cluster
        self._ray_address = ray_address
        name = urllib.parse.quote(cluster, safe="")
        self.log_path = state_dir / "agents" / f"{name}.log"
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self._warned = False
        self._process = self._launch()
        self._thread = threading.Thread(
            target=self._watch, name=f"schedulemesh-agent-{cluster}", daemon=True
        )
        self._thread.start()

    @property
    def pid(self) -> int:
        """Its process, as it is now."""
        return self._process.pid

    def follow(self) -> None:
        """Start it anew when the control plane is at another address than the one it dials."""
        if self._url != self._native.url:
            self._process.terminate()

    def stop(self) -> None:
        """End it, by force if it takes too long."""
        self._ended.set()
        with self._guard:
            process = self._process
            process.terminate()
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOP_TIMEOUT_S)

    def _launch(self) -> subprocess.Popen[bytes]:
        path = f"/v1/clusters/{urllib.parse.quote(self._cluster, safe='')}/token"
        token = json.loads(self._native.request("POST", path))["token"]
        self._url = self._native.url
        command = [sys.executable, "-m", "schedulemesh.guarded", "schedulemesh.agent"]
        command += ["--server", self._url, "--cluster", self._cluster]
        command += ["--ray-address", self._ray_address or find_ray(), "--log-level", "warning"]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_MAX:
            self.log_path.replace(self.log_path.with_suffix(".log.old"))
        with self.log_path.open("ab") as log:
            # Ctrl-C is for this process: it decides when the agent ends.
            return subprocess.Popen(  # noqa: S603 - our own module
                command,
                env={**os.environ, "SCHEDULEMESH_TOKEN": token},
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

    def _watch(self) -> None:
        wait = RESTART_FIRST_S
        while True:
            began = time.monotonic()
            code = self._process.wait()
            if self._ended.is_set():
                return
            moved = self._url != self._native.url
            if code in _FOR_GOOD and not moved:
                self._tell(f"{_FOR_GOOD[code]}, and it is not started again", code)
                return
            if not moved:
                self._tell("it is started again", code)
            if time.monotonic() - began > HEALTHY_S:
                wait = RESTART_FIRST_S
            if self._ended.wait(wait) or not self._relaunch():
                return
            wait = min(wait * 2, RESTART_MAX_S)

    def _relaunch(self) -> bool:
        """Start it again, as soon as the control plane gives it a token; whether it is to run."""
        while not self._replaced():
            if self._ended.wait(RETRY_S):
                return False
        return not self._ended.is_set()

    def _replaced(self) -> bool:
        """Try to start it again; whether that is settled."""
        with self._guard:
            if self._ended.is_set():
                return True
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                self._process = self._launch()
            except (SchedulerError, OSError) as error:
                # The control plane is away, or does not know the cluster any more.
                logger.debug("the agent of cluster %s does not start yet: %s", self._cluster, error)
                return False
        return True

    def _tell(self, what: str, code: int) -> None:
        """Warn at the first end; later ones are in the log."""
        level = logging.DEBUG if self._warned else logging.WARNING
        self._warned = True
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        said = self._last_words()
        logger.log(
            level,
            "the agent of cluster %s ended %s: %s. Its log is %s%s",
            self._cluster,
            how,
            what,
            self.log_path,
            f"; it ends with: {said}" if said else "",
        )

    def _last_words(self) -> str:
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - _TAIL))
                return log.read().decode(errors="replace").strip()
        except OSError:
            return ""


def find_ray() -> str:
    """Return where the agent finds Ray: `auto` when one runs on this machine, else `local`."""
    folder = os.environ.get("RAY_TMPDIR", "/tmp")  # noqa: S108 - where Ray keeps it
    try:
        address = (Path(folder) / "ray" / "ray_current_cluster").read_text().strip()
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), _PROBE_TIMEOUT_S).close()
    except (OSError, ValueError):
        return "local"
    return "auto"


def _need_ray(cluster: str) -> None:
    if importlib.util.find_spec("ray") is None:
        message = f"Ray is not installed here, so no agent can be started for cluster {cluster}"
        remedy = (
            "pip install 'schedulemesh[agent]', or name a control plane with url=... or "
            "SCHEDULEMESH_URL, or name clusters that have a dashboard with clusters=..."
        )
        raise ConfigurationError(message, code="NO_RAY", remedy=remedy)
