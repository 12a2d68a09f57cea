"""Two real Ray clusters for a whole test session, and agents in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from schedulemesh.local import LocalCluster, LocalPlan, local_clusters

if TYPE_CHECKING:
    from collections.abc import Iterator

PLANS = (
    LocalPlan(
        "east", "127.0.0.11", resources={"pool_a": 4}, labels={"zone": "east", "tier": "gold"}
    ),
    LocalPlan(
        "west", "127.0.0.12", resources={"pool_b": 4}, labels={"zone": "west", "tier": "silver"}
    ),
)
STOP_TIMEOUT_S = 20
PYTHON_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def ray_clusters() -> Iterator[list[LocalCluster]]:
    """Start two clusters of two cores each, with different labels and resources."""
    with local_clusters(PLANS) as clusters:
        yield clusters


class AgentProcess:
    """Is an agent that runs in a process of its own, as on a real cluster."""

    def __init__(
        self, arguments: list[str], *, token: str, log: Path, cluster: LocalCluster
    ) -> None:
        env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        env |= {
            "RAY_AUTH_MODE": "disabled",
            "SCHEDULEMESH_TOKEN": token,
            "PYTHONPATH": str(PYTHON_ROOT),
        }
        self.log = log
        command = [sys.executable, "-m", "schedulemesh.agent", "--ray-address", cluster.address]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*command, *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def stop(self) -> int:
        """End it as an operator would, and return the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait until it ends by itself."""
        return self.process.wait(timeout_s)

    def said(self) -> str:
        """Return what it logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")
