"""Agents as children of the program: supervised, and ended with it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import schedulemesh
from schedulemesh import agent_process
from schedulemesh.agent_process import AgentProcess
from sdk.fake_server import TOKEN

if TYPE_CHECKING:
    from schedulemesh.local import LocalCluster
    from sdk.fake_server import FakeServer

WAIT_S = 30
RAY_WAIT_S = 120


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No control plane is named by the environment."""
    for name in ("SCHEDULEMESH_URL", "SCHEDULEMESH_TOKEN", "SCHEDULEMESH_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> Path:
    """Have a script stand for the agent; it notes each start."""
    starts = tmp_path / "starts"
    script = tmp_path / "stand-in"
    script.write_text(f"#!{sys.executable}\nopen({str(starts)!r}, 'a').write('x')\n{body}\n")
    script.chmod(0o700)
    monkeypatch.setattr(agent_process.sys, "executable", str(script))  # type: ignore[attr-defined]
    return starts


def test_an_agent_that_dies_is_started_again_and_that_is_said_once(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(agent_process, "RESTART_FIRST_S", 0.01)
    starts = pretend(monkeypatch, tmp_path, "raise SystemExit('no Ray here')")
    with schedulemesh.Client(server.url, TOKEN) as client, caplog.at_level(logging.WARNING):
        agent = AgentProcess(client.native, "a/b", None, tmp_path)
        deadline = time.monotonic() + WAIT_S
        while not starts.exists() or len(starts.read_text()) < 3:
            assert time.monotonic() < deadline
        agent.stop()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        "the agent of cluster a/b ended with exit code 1: it is started again. Its log is "
        f"{tmp_path}/agents/a%2Fb.log; it ends with: no Ray here"
    )


def test_an_agent_that_was_refused_is_not_started_again(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    starts = pretend(monkeypatch, tmp_path, "raise SystemExit(3)")
    with schedulemesh.Client(server.url, TOKEN) as client, caplog.at_level(logging.WARNING):
        agent = AgentProcess(client.native, "east", None, tmp_path)
        agent._thread.join(WAIT_S)
        assert starts.read_text() == "x"
        agent.stop()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "it was refused, and it is not started again" in said


def test_an_agent_ends_with_its_client_and_nothing_is_said(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    starts = pretend(monkeypatch, tmp_path, "import time; time.sleep(60)")
    with schedulemesh.Client(server.url, TOKEN) as client, caplog.at_level(logging.DEBUG):
        agent = AgentProcess(client.native, "east", None, tmp_path)
        deadline = time.monotonic() + WAIT_S
        while not starts.exists():
            assert time.monotonic() < deadline
        agent.stop()
    assert agent._process.returncode == -signal.SIGTERM
    assert not agent._thread.is_alive()
    assert [record for record in caplog.records if record.name == "schedulemesh"] == []


@pytest.mark.ray
def test_work_goes_on_after_the_agent_was_killed(
    ray_clusters: list[LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_clusters[0].address)
    with schedulemesh.connect(state_dir=tmp_path) as client:
        assert client.submit(abs, -1).result(RAY_WAIT_S) == 1
        (first,) = agents_of(tmp_path)
        os.kill(first, signal.SIGKILL)
        assert client.submit(abs, -2).result(RAY_WAIT_S) == 2
        (second,) = agents_of(tmp_path)
        assert second != first
    assert agents_of(tmp_path) == []


def agents_of(state_dir: Path) -> list[int]:
    """The agents that write their log in this state directory."""
    log = state_dir / "agents" / "local.log"
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (folder / "fd" / "2").readlink() == log:
                command = (folder / "cmdline").read_bytes()
                found += [int(folder.name)] if b"schedulemesh.guarded" in command else []
    return found
