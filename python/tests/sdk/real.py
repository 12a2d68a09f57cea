"""A real control plane in a process of its own, for tests that kill it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from schedulemesh import Client, ClusterConnectionError

START_TIMEOUT_S = 30
ROOT = Path(__file__).parents[3]


class ServerProcess:
    """`schedulemesh serve` on a port of its own, which stays the same over restarts."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    @property
    def token(self) -> str:
        """The token that opens everything."""
        return (self.state_dir / "admin.token").read_text().strip()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        listen = f"127.0.0.1:{self.port}"
        log = (self.state_dir.parent / "server.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [command(), "serve", "--listen", listen, "--state-dir", str(self.state_dir)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self.process.poll() is None, (self.state_dir.parent / "server.log").read_text()
            assert time.monotonic() < deadline, "the control plane does not answer"
            threading.Event().wait(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, ClusterConnectionError):
            Client(self.url, self.token, timeout=1).close()
            return True
        return False

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as an operator would."""
        self.process.terminate()
        self.process.wait(START_TIMEOUT_S)


def command() -> str:
    """Where the `schedulemesh` command is."""
    beside = Path(sys.executable).parent / "schedulemesh"
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "schedulemesh"
    places = [str(beside), str(target), shutil.which("schedulemesh") or ""]
    return next(place for place in places if place and Path(place).exists())
