"""The mesh that documents and examples talk about: what `schedulemesh up` starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from schedulemesh.up import LocalMesh, default_sites

ROOT = Path(__file__).resolve().parents[3]
TIME_S = 120

Run = Callable[..., str]


@pytest.fixture(scope="session")
def up() -> Iterator[LocalMesh]:
    """A control plane and two local clusters."""
    with LocalMesh(default_sites(2)) as mesh:
        yield mesh


@pytest.fixture
def run(up: LocalMesh) -> Run:
    """Run a program in the environment of that mesh, and return what it printed."""

    def run(*command: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**up.environment, "PATH": path, "PYTHONPATH": str(ROOT / "python")},
            capture_output=True,
            text=True,
            timeout=TIME_S,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout

    return run
