"""The control plane inside this process: it starts, keeps what it accepted, and is shared."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import schedulemesh
from schedulemesh._native import EmbeddedServer

WAIT_S = 30


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No control plane is named by the environment."""
    for name in ("SCHEDULEMESH_URL", "SCHEDULEMESH_TOKEN", "SCHEDULEMESH_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_what_was_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    clusters: list[schedulemesh.views.ClusterBody] = [{"name": "later", "tags": ["linux"]}]  # type: ignore[name-defined]
    with schedulemesh.connect(state_dir=tmp_path, clusters=clusters) as client:
        future = client.options(key="exp-1", tags=["linux"]).submit(pow, 2, 10)
        assert future.accepted(WAIT_S) == "t1"
    assert isinstance(future.exception(), schedulemesh.ClientClosedError)
    with schedulemesh.connect(state_dir=tmp_path, clusters=clusters) as client:
        view = client.task("key:exp-1")
        assert (view["id"], view["phase"], view["affinity"]["required"]) == (
            "t1", "queued", ["linux"],
        )  # fmt: skip
        again = client.options(key="exp-1", tags=["linux"]).submit(pow, 2, 10)
        assert again.accepted(WAIT_S) == "t1"
        with pytest.raises(schedulemesh.KeyConflictError, match="exp-1"):
            client.options(key="exp-1", tags=["linux"]).submit(pow, 2, 11).result(WAIT_S)
        assert again.explain()["clusters"][0]["cluster"] == "later"
        assert again.cancel()
        with pytest.raises(schedulemesh.TaskCancelledError):
            again.result(WAIT_S)


def test_without_a_cluster_work_waits_and_that_is_said(tmp_path: Path) -> None:
    server = EmbeddedServer.start(str(tmp_path))
    with schedulemesh.Client(server.url, server.token) as client:
        future = client.submit(abs, 1)
        assert future.explain()["clusters"] == []
        assert future.view()["phase"] == "queued"
    server.shutdown()
    server.shutdown()


def test_a_second_process_uses_the_server_of_the_first(tmp_path: Path) -> None:
    with schedulemesh.connect(state_dir=tmp_path, clusters=[{"name": "later"}]) as client:
        code = (
            "import schedulemesh, sys\n"
            "with schedulemesh.connect(state_dir=sys.argv[1]) as client:\n"
            "    print(client.url, client.submit(abs, 1).accepted())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            check=True, capture_output=True, text=True, timeout=WAIT_S,
            env={**os.environ, "PYTHONPATH": str(Path(schedulemesh.__file__).parents[1])},
        )  # fmt: skip
        assert done.stdout.split() == [client.url, "t1"]


def test_a_state_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(schedulemesh.ConfigurationError, match=str(taken)):
        schedulemesh.connect(state_dir=taken)


def test_arguments_too_large_for_a_frame_travel_as_a_blob(tmp_path: Path) -> None:
    with schedulemesh.connect(state_dir=tmp_path, clusters=[{"name": "later"}]) as client:
        future = client.submit(len, b"x" * 5_000_000)
        future.accepted(WAIT_S)
        assert future.view()["payload_bytes"] > 5_000_000


def test_a_program_that_ends_without_closing_loses_nothing(tmp_path: Path) -> None:
    code = (
        "import schedulemesh, sys\n"
        "client = schedulemesh.connect(state_dir=sys.argv[1], clusters=[{'name': 'later'}])\n"
        "for index in range(1000): client.submit(abs, index)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True, capture_output=True, text=True, timeout=WAIT_S,
        env={**os.environ, "PYTHONPATH": str(Path(schedulemesh.__file__).parents[1])},
    )  # fmt: skip
    assert done.stderr == ""
    with schedulemesh.connect(state_dir=tmp_path, clusters=[{"name": "later"}]) as client:
        assert next(client.tasks(limit=1))["id"] == "t1000"


def test_without_ray_and_without_clusters_there_is_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(
        schedulemesh.ConfigurationError, match="Ray is not installed here"
    ) as raised:
        schedulemesh.connect(state_dir=tmp_path)
    assert "SCHEDULEMESH_URL" in raised.value.remedy
