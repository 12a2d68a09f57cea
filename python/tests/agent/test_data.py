"""Large arguments and results: in parts over the link, with the agent's memory bounded."""

from __future__ import annotations

import hashlib
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


def peak_memory(pid: int) -> int:
    """Return the most resident memory that a process has had, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError(pid)


def test_hundred_megabytes_come_back_through_bounded_memory(
    lonely: FakeControlPlane, start_agent: StartAgent
) -> None:
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    assert len(lonely.values(lonely.functions(make, [(10,)]))[0]) == 10
    before = peak_memory(agent.pid)
    (key,) = lonely.functions(make, [(SIZE,)])
    assert digest(lonely.end_of(key).value()) == digest(make(SIZE))
    assert peak_memory(agent.pid) - before < 64 * MIB


def test_hundred_megabytes_of_arguments(
    lonely: FakeControlPlane, start_agent: StartAgent
) -> None:
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    assert len(lonely.values(lonely.functions(make, [(10,)]))[0]) == 10
    before = peak_memory(agent.pid)
    blob = lonely.put_blob(cloudpickle.dumps(((make(SIZE),), {})))
    code = lonely.code(digest)
    key = (lonely.task(), 1)
    work = {"function": {"code": code["digest"]}}
    lonely.start([start_task(key, 1, work, blob)], [lonely.lease(1)], [code])
    assert lonely.end_of(key).value() == digest(make(SIZE))
    assert peak_memory(agent.pid) - before < 64 * MIB
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
