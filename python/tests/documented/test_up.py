"""`schedulemesh up` comes up, works, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from schedulemesh.up import program

READY_S = 90


def processes_of(state_dir: Path) -> list[str]:
    """Commands of the processes that have the state directory in their environment."""
    return [
        command for folder in Path("/proc").glob("[0-9]*") if (command := of(state_dir, folder))
    ]


def of(state_dir: Path, process: Path) -> str | None:
    with contextlib.suppress(OSError):  # it has ended, or is somebody else's
        if str(state_dir).encode() in (process / "environ").read_bytes():
            return (process / "cmdline").read_text().replace("\0", " ")
    return None


@pytest.mark.ray
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_up_leaves_nothing_behind(how: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "SCHEDULEMESH_STATE_DIR": str(tmp_path)}
    command = [program(), "up", "--clusters", "1", "--cpus", "1", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        watchdog = threading.Timer(READY_S, up.kill)
        watchdog.start()
        said = ""
        while "Ctrl-C ends everything." not in said:
            line = up.stderr.readline()
            assert line, f"it ended early: {said}"
            said += line
        submit = [program(), "submit", "--wait", "--tag", "east", "--", "true"]
        assert subprocess.run(submit, env=environment, check=False).returncode == 0
        assert len(processes_of(tmp_path)) > 5, "the search finds the cluster and its parts"
        up.send_signal(how)
        up.send_signal(signal.SIGTERM)  # who is in a hurry does not leave half of it running
        rest = up.stderr.read()
        watchdog.cancel()
    assert up.returncode == 0, rest
    assert "everything has ended" in rest
    assert processes_of(tmp_path) == []


def test_mistakes_are_told_before_anything_starts(tmp_path: Path) -> None:
    command = [program(), "up", "--clusters", "0", "--state-dir", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must be between 1 and 64" in done.stderr
    assert not (tmp_path / "new").exists()
