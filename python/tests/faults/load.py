"""A steady load of short functions, and everything that was told about them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from schedulemesh.errors import ClusterLostError, NotStartedError, WorkerDiedError

if TYPE_CHECKING:
    from concurrent.futures import Future as AnyFuture

    from schedulemesh import Client, Future
    from schedulemesh.up import LocalMesh
    from typing_extensions import Self

WAIT_S = 60
"""Within this time after the last fault everything has ended."""

MOST = 120
EVERY_S = 0.05
ROOT = Path(__file__).parents[3]
HONEST = (ClusterLostError, NotStartedError, WorkerDiedError)
ENDS = {"succeeded", "failed", "cancelled"}


def note(path: str, number: int) -> int:
    """Run for a moment, and say so in a file that all runs share."""
    time.sleep(0.02)
    line = f"{number} {os.environ['SCHEDULEMESH_ATTEMPT']}\n"
    with open(path, "a") as file:  # noqa: PTH123 - runs where this module is not
        file.write(line)
    return number * number


class Load:
    """Submits functions while its `with` block runs, and judges what became of them afterwards."""

    def __init__(self, mesh: LocalMesh, client: Client, folder: Path) -> None:
        self._mesh = mesh
        self._client = client
        self._name = folder.name
        self._ran = folder / "ran"
        self._told = folder / "told"
        self._lines: list[str] = []
        self._futures: list[Future[int]] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def __enter__(self) -> Self:
        """Begin to submit, and return when the first function has returned."""
        self._thread.start()
        while not self._futures:
            self._enough.wait(EVERY_S)
        self._futures[0].result(WAIT_S)
        return self

    def __exit__(self, error: type[BaseException] | None, *_more: object) -> None:
        """Submit no more, and judge, unless the faults themselves went wrong."""
        self._enough.set()
        self._thread.join(WAIT_S)
        if error is None:
            self._judge()

    def _key(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _submit(self) -> None:
        for number in range(MOST):
            options = self._client.options(key=self._key(number), cpus=0.5)
            future = options.submit(note, str(self._ran), number)
            future.add_done_callback(self._hear)
            self._futures.append(future)
            if self._enough.wait(EVERY_S):
                break

    def _hear(self, future: AnyFuture[int]) -> None:
        task = future.task_id  # type: ignore[attr-defined]
        self._tell_end(task, "failed" if future.exception() else "succeeded")

    def _tell_end(self, task: str, outcome: str) -> None:
        told = {"ended": {"task": int(task.removeprefix("t")), "outcome": outcome}}
        self._lines.append(json.dumps(told))

    def _judge(self) -> None:
        deadline = time.monotonic() + WAIT_S
        failures = []
        for number, future in enumerate(self._futures):
            error = future.exception(deadline - time.monotonic())
            if error is None:
                assert future.result() == number * number
            else:
                assert isinstance(error, HONEST), repr(error)
                failures.append(number)
        self._ask_again()
        self._look_at_runs(set(failures))
        self._told.write_text("\n".join(self._lines))
        check(self._mesh.state_dir, self._told)

    def _ask_again(self) -> None:
        """Submit everything once more under its key, and read how it ended."""
        for number, future in enumerate(self._futures):
            options = self._client.options(key=self._key(number), cpus=0.5)
            again = options.submit(note, str(self._ran), number)
            task = again.accepted(WAIT_S)
            assert task == future.task_id
            told = {"submitted": {"key": self._key(number), "task": int(task.removeprefix("t"))}}
            self._lines.append(json.dumps(told))
            view = self._client.task(task)
            assert view["phase"] in ENDS, view
            self._tell_end(task, view["phase"])

    def _look_at_runs(self, failures: set[int]) -> None:
        """No attempt ran to completion twice, and what returned a value ran to completion."""
        runs = Counter(self._ran.read_text().splitlines())
        assert max(runs.values()) == 1, runs.most_common(3)
        completed = {int(line.split()[0]) for line in runs}
        assert set(range(len(self._futures))) - failures <= completed


def check(state_dir: Path, told: Path) -> None:
    """Hold what was told against the journal, by the laws that the simulator knows."""
    command = [_judge(), "check", "--state-dir", str(state_dir), "--told", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no law is broken" in done.stdout


def _judge() -> str:
    """Where `schedulemesh-sim` is; cargo sees to it that it is there and up to date."""
    build = ["cargo", "build", "--quiet", "-p", "mesh-sim"]
    subprocess.run(build, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str(target / "debug" / "schedulemesh-sim")
