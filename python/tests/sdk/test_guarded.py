"""A guarded module ends with its parent, however that ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import schedulemesh

WAIT_S = 30
PYTHON = str(Path(schedulemesh.__file__).parents[1])

CHILD = "import signal, sys; print(*sys.argv[1:], flush=True); signal.pause()"

PARENT = """
import subprocess, sys, signal
command = [sys.executable, "-m", "schedulemesh.guarded", "guarded_child", "one", "two"]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), end="", flush=True)
signal.pause()
"""


def test_it_gets_its_arguments_and_ends_with_its_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "guarded_child.py").write_text(CHILD)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{PYTHON}{os.pathsep}{tmp_path}"},
    )  # fmt: skip
    assert parent.stdout
    child, *arguments = parent.stdout.readline().split()
    assert arguments == ["one", "two"]
    ended = os.pidfd_open(int(child))
    parent.send_signal(signal.SIGKILL)
    parent.wait(WAIT_S)
    assert select.select([ended], [], [], WAIT_S)[0] == [ended]
    os.close(ended)
    parent.stdout.close()
