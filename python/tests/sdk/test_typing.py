"""Types: the stub says what the native module is, and callers get the types that they expect."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

CALLER = """
import concurrent.futures
from typing import assert_type
import schedulemesh

def length(text: str, *, twice: bool = False) -> int:
    return len(text)

class Counter:
    pass

client = schedulemesh.connect()
future = client.submit(length, "a", twice=True)
assert_type(future, schedulemesh.Future[int])
assert_type(future.result(), int)
standard: concurrent.futures.Future[int] = future
for value in client.map(length, ["a"]):
    assert_type(value, int)
assert_type(client.options(cpus=2, memory="4GiB").submit(length, "a").result(), int)
assert_type(client.actor(Counter), schedulemesh.ActorHandle[Counter])

@schedulemesh.task(cpus=2)
def heavy(text: str) -> int:
    return len(text)

assert_type(heavy("a"), int)
assert_type(heavy.submit("a"), schedulemesh.Future[int])

async def main() -> None:
    assert_type(await client.submit(length, "a"), int)

client.submit(length, 1)  # error: arg-type
heavy.submit(1)  # error: arg-type
client.options(colour="red")  # error: call-arg
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        check=False, capture_output=True, text=True, cwd=ROOT / "python", timeout=300,
    )  # fmt: skip


def test_the_stub_is_true() -> None:
    config = str(ROOT / "pyproject.toml")
    done = run("mypy.stubtest", "schedulemesh._native", "--mypy-config-file", config)
    assert done.returncode == 0, done.stdout


def test_callers_get_the_types_that_they_expect(tmp_path: Path) -> None:
    caller = tmp_path / "caller.py"
    caller.write_text(CALLER)
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\npython_version = 3.11\n[mypy-cloudpickle.*]\n")
    done = run("mypy", "--config-file", str(config), str(caller))
    lines = CALLER.splitlines()
    expected = [number for number, line in enumerate(lines, 1) if "# error" in line]
    found = [int(number) for number in re.findall(r"caller\.py:(\d+): error:", done.stdout)]
    assert found == expected, done.stdout
