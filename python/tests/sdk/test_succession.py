"""Programs that share a control plane which lives in one of them, when that one ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import schedulemesh
from schedulemesh.unified import UnifiedScheduler
from sdk.real import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schedulemesh.local import LocalCluster

WAIT_S = 30
RAY_WAIT_S = 120

OWNER = """\
import schedulemesh, sys
clusters = [{"name": "later"}] if sys.argv[2] == "later" else None
client = schedulemesh.connect(state_dir=sys.argv[1], clusters=clusters)
print(client.url, flush=True)
sys.stdin.read()
client.close()
"""

FOLLOWER = """\
import schedulemesh, sys
with schedulemesh.connect(state_dir=sys.argv[1]) as client:
    future = client.submit(abs, 1)
    print(future.accepted(), flush=True)
    sys.stdin.readline()
    second = client.submit(abs, 2)
    print(second.accepted(60), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No control plane is named by the environment."""
    for name in ("SCHEDULEMESH_URL", "SCHEDULEMESH_TOKEN", "SCHEDULEMESH_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def program(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Another program, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(schedulemesh.__file__).parents[1])},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def owner_of(state_dir: Path) -> int:
    """The process that serves a state directory."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads((state_dir / "server.json").read_text())["pid"])
    raise AssertionError("nobody serves the state directory")


def test_a_killed_owner_is_succeeded_where_it_was(tmp_path: Path) -> None:
    with program(OWNER, tmp_path, "later") as owner:
        url = line(owner)
        with schedulemesh.connect(state_dir=tmp_path) as client:
            future = client.options(key="before").submit(abs, 1)
            assert future.accepted(WAIT_S) == "t1"
            owner.kill()
            owner.wait()
            # What was accepted is there, what is new is accepted, and its end is heard of.
            assert client.submit(abs, 2).accepted(WAIT_S) == "t2"
            assert client.task("key:before")["phase"] == "queued"
            assert future.cancel()
            with pytest.raises(schedulemesh.TaskCancelledError):
                future.result(WAIT_S)
            assert owner_of(tmp_path) == os.getpid()
            assert client.url == url
    # Leaving the client ended the control plane, in peace.
    assert not (tmp_path / "server.json").exists()


def test_an_owner_that_closes_is_succeeded_too(tmp_path: Path) -> None:
    with program(OWNER, tmp_path, "later") as owner:
        line(owner)
        with schedulemesh.connect(state_dir=tmp_path) as client:
            assert client.submit(abs, 1).accepted(WAIT_S) == "t1"
            owner.communicate("", timeout=WAIT_S)
            assert client.submit(abs, 2).accepted(WAIT_S) == "t2"
            assert owner_of(tmp_path) == os.getpid()


def test_of_many_heirs_one_serves_and_the_others_find_it(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(program(OWNER, tmp_path, "later"))
        line(owner)
        heirs = [stack.enter_context(program(FOLLOWER, tmp_path)) for _ in range(3)]
        assert {line(heir) for heir in heirs} == {"t1", "t2", "t3"}
        owner.kill()
        owner.wait()
        for heir in heirs:
            assert heir.stdin is not None
            heir.stdin.write("\n")
            heir.stdin.flush()
        assert {line(heir) for heir in heirs} == {"t4", "t5", "t6"}
        assert owner_of(tmp_path) in {heir.pid for heir in heirs}


def test_a_client_finds_a_control_plane_that_moved(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    server = ServerProcess(state_dir)
    try:
        with schedulemesh.connect(state_dir=state_dir) as client:
            assert client.submit(abs, 1).accepted(WAIT_S) == "t1"
            server.kill()
            moved = ServerProcess(state_dir)
            try:
                assert moved.url != server.url
                assert client.submit(abs, 2).accepted(WAIT_S) == "t2"
                assert client.url == moved.url
                assert owner_of(state_dir) == moved.process.pid
            finally:
                moved.stop()
    finally:
        server.kill()


def test_the_place_of_a_server_of_its_own_is_not_taken(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "state")
    try:
        with schedulemesh.connect(state_dir=server.state_dir) as client:
            client.submit(abs, 1).accepted(WAIT_S)
            server.kill()
            assert client.native.wait_orphaned(1.0) is False
            # Its operator can start it again: nobody holds the lock.
            server.start()
            assert client.submit(abs, 2).accepted(WAIT_S) == "t2"
    finally:
        server.kill()


def _slow(path: str) -> int:
    with Path(path).open("a") as file:
        file.write("x")
    deadline = time.monotonic() + WAIT_S
    while not Path(f"{path}.go").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return 42


@pytest.mark.ray
def test_futures_resolve_though_the_program_with_the_control_plane_was_killed(
    ray_clusters: list[LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_clusters[0].address)
    state_dir, mark = tmp_path / "state", tmp_path / "mark"
    with program(OWNER, state_dir, "local") as owner:
        line(owner)
        with schedulemesh.connect(state_dir=state_dir) as client:
            future = client.submit(_slow, str(mark))
            assert client.wait_started(future, time.monotonic() + RAY_WAIT_S)
            owner.kill()
            owner.wait()
            Path(f"{mark}.go").touch()
            assert future.result(RAY_WAIT_S) == 42
            assert client.submit(abs, -3).result(RAY_WAIT_S) == 3
            assert owner_of(state_dir) == os.getpid()


SCHEDULER_OWNER = """\
import sys
from ray_multicluster_scheduler.app.client_api import initialize_scheduler_environment
initialize_scheduler_environment()
print("up", flush=True)
sys.stdin.read()
"""


def _where() -> str:
    return os.environ["SCHEDULEMESH_CLUSTER"]


@pytest.mark.ray
def test_the_agents_of_a_clusters_file_are_started_by_the_heir(
    ray_clusters: list[LocalCluster], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = "".join(
        f"  - name: {cluster.name}\n    head_address: {cluster.address}\n"
        for cluster in ray_clusters
    )
    (tmp_path / "clusters.yaml").write_text(f"clusters:\n{entries}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLUSTER_CONFIG_FILE", str(tmp_path / "clusters.yaml"))
    monkeypatch.setenv("SCHEDULEMESH_STATE_DIR", str(tmp_path / "state"))
    scheduler = UnifiedScheduler()
    with program(SCHEDULER_OWNER) as owner:
        assert line(owner) == "up"
        options = {"resource_requirements": {"CPU": 1}}
        anywhere = scheduler.submit_task(_where, (), {}, **options)
        assert anywhere.result(RAY_WAIT_S) in {"east", "west"}
        for name in ("east", "west"):
            # Only there: while its agent still starts, one that is preferred would be passed over.
            there = scheduler.client.options(cluster=name, cluster_only=True)
            assert there.submit(_where).result(RAY_WAIT_S) == name
        owner.kill()
        owner.wait()
        deadline = time.monotonic() + WAIT_S
        while owner_of(tmp_path / "state") != os.getpid():
            assert time.monotonic() < deadline
        for name in ("east", "west"):
            there = scheduler.client.options(cluster=name, cluster_only=True)
            assert there.submit(_where).result(RAY_WAIT_S) == name
    scheduler.shutdown()
