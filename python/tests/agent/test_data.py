"""Large arguments and results: in parts over the link, with the agent's memory bounded."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import cloudpickle
import pytest
from agent.fake_control_plane import start_task

if TYPE_CHECKING:
    from agent.conftest import StartAgent
    from agent.fake_control_plane import FakeControlPlane

pytestmark = pytest.mark.ray

SIZE = 100_000_000
MIB = 1 << 20


def make(size: int) -> bytes:
    return b"0123456789" * (size // 10)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Memory:
    """Watches how much memory of its own a process has, apart from Ray's shared object store."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._first = self._peak = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:  # noqa: PYI034 - Python 3.10 has no Self
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def growth(self) -> int:
        """Return by how many bytes it has grown at most."""
        return self._peak - self._first

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self._peak = max(self._peak, self._now())

    def _now(self) -> int:
        for line in self._status.read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        raise AssertionError(self._status)


def test_hundred_megabytes_come_back_through_bounded_memory(
    lonely: FakeControlPlane, start_agent: StartAgent
) -> None:
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    assert len(lonely.values(lonely.functions(make, [(10,)]))[0]) == 10
    with Memory(agent.pid) as memory:
        (key,) = lonely.functions(make, [(SIZE,)])
        assert digest(lonely.end_of(key).value()) == digest(make(SIZE))
    assert memory.growth() < 48 * MIB


def test_hundred_megabytes_of_arguments(lonely: FakeControlPlane, start_agent: StartAgent) -> None:
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    assert len(lonely.values(lonely.functions(make, [(10,)]))[0]) == 10
    blob = lonely.put_blob(cloudpickle.dumps(((make(SIZE),), {})))
    code = lonely.code(digest)
    key = (lonely.task(), 1)
    work = {"function": {"code": code["digest"]}}
    with Memory(agent.pid) as memory:
        lonely.start([start_task(key, 1, work, blob)], [lonely.lease(1)], [code])
        assert lonely.end_of(key).value() == digest(make(SIZE))
    assert memory.growth() < 48 * MIB
    assert max(length for _, length in lonely.pull_log) <= MIB


def test_upload_begins_again_on_a_new_link(
    lonely: FakeControlPlane, start_agent: StartAgent
) -> None:
    start_agent("--server", lonely.url)
    lonely.wait_linked()
    lonely.hold_pushes = True
    (key,) = lonely.functions(make, [(10_000_000,)])
    lonely.wait(lambda: lonely.pushes > 0)
    lonely.cut()
    lonely.hold_pushes = False
    lonely.wait(lambda: len(lonely.hellos) == 2)
    assert lonely.end_of(key).value() == make(10_000_000)


def test_missing_blob_is_told(plane: FakeControlPlane) -> None:
    code = plane.code(digest)
    key = (plane.task(), 1)
    work = {"function": {"code": code["digest"]}}
    blob = {"id": "gone", "size": 10}
    plane.start([start_task(key, 1, work, blob)], [plane.lease(1)], [code])
    error = plane.end_of(key).body["error"]
    assert error["cause"] == "not_started"
    assert error["message"] == "its arguments of 10 bytes did not arrive: there is no blob gone"


def test_large_result_of_an_actor(plane: FakeControlPlane) -> None:
    class Maker:
        def make(self, size: int) -> bytes:
            return b"x" * size

    actor = plane.actor(Maker)
    (key,) = plane.calls(actor, "make", [(5_000_000,)])
    assert plane.end_of(key).value() == b"x" * 5_000_000
    plane.stop(actor)
    plane.end_of(actor)
