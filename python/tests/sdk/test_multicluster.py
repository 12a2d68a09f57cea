"""The function style of `ray_multicluster_scheduler`, over a fake control plane."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray_multicluster_scheduler.app.client_api import (
    UnifiedScheduler,
    get_job_info,
    get_job_logs,
    get_job_status,
    get_task_result,
    get_task_status,
    graceful_shutdown_on_keyboard_interrupt,
    initialize_scheduler_environment,
    list_clusters,
    stop_job,
    submit_actor,
    submit_job,
    submit_task,
    wait_for_all_jobs,
)
from ray_multicluster_scheduler.common.exception import ConfigurationError, SchedulerError
from ray_multicluster_scheduler.common.model import ClusterMetadata, TaskDescription
from schedulemesh.unified import map_home
from sdk.fake_server import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sdk.fake_server import FakeServer

WAIT_S = 20

FILE = """\
clusters:
  - name: east
    dashboard: http://127.0.0.1:8265
    tags: [linux]
  - name: west
    dashboard: http://127.0.0.2:8265
    prefer: true
    weight: 1.2
"""


@pytest.fixture(autouse=True)
def scheduler(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[UnifiedScheduler]:
    """The scheduler of this process, with a clusters file, over the fake control plane."""
    monkeypatch.setenv("SCHEDULEMESH_URL", server.url)
    monkeypatch.setenv("SCHEDULEMESH_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("clusters.yaml").write_text(FILE)
    yield UnifiedScheduler()
    UnifiedScheduler().shutdown()


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


def spec_of(server: FakeServer, number: int) -> dict[str, Any]:
    return server.tasks[number].spec


def test_a_task_returns_its_id_and_its_value(server: FakeServer) -> None:
    task_id, value = submit_task(
        pow, args=(2,), kwargs={"exp": 5}, name="power", tags=["linux"], preferred_cluster="west",
        resource_requirements={"CPU": 2, "memory": 1 << 30, "disk": 1},
    )  # fmt: skip
    assert (task_id, value) == ("t1", 32)
    assert (get_task_status(task_id), get_task_result(task_id)) == ("COMPLETED", 32)
    spec = spec_of(server, 1)
    assert spec["resources"] == {"CPU": 2.0, "memory": float(1 << 30), "disk": 1.0}
    assert spec["affinity"]["required"] == ["linux"]
    assert spec["affinity"]["cluster"] == "west"
    assert set(server.clusters) == {"east", "west"}


def test_a_remote_exception_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        submit_task(divmod, (1, 0))
    assert "ZeroDivisionError" in str(raised.value.__cause__)
    assert get_task_status("t1") == "FAILED"


def test_work_inside_a_job_prefers_the_cluster_of_the_job(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_MULTICLUSTER_CURRENT_CLUSTER", "east")
    submit_task(abs, (1,))
    assert spec_of(server, 1)["affinity"]["cluster"] == "east"
    # One that this control plane does not know is nobody's preference.
    monkeypatch.setenv("RAY_MULTICLUSTER_CURRENT_CLUSTER", "elsewhere")
    UnifiedScheduler()._known_here = None
    submit_task(abs, (2,))
    assert spec_of(server, 2)["affinity"].get("cluster") is None


def test_settings_hold_for_what_is_submitted(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULER_TASK_TIMEOUT", "10m")
    monkeypatch.setenv("SCHEDULER_JOB_TIMEOUT", "1h")
    monkeypatch.setenv("SCHEDULER_BACKOFF", "2")
    submit_task(abs, (1,))
    submit_job("true")
    submit_actor(Counter)
    limits = [spec_of(server, number).get("timeout_ms") for number in (1, 2, 3)]
    assert limits == [600_000, 3_600_000, None]
    waits = [spec_of(server, number)["retries"]["backoff_ms"] for number in (1, 2, 3)]
    assert waits == [2_000, 2_000, 2_000]


def test_a_cluster_may_have_a_slash_in_its_name(server: FakeServer) -> None:
    Path("clusters.yaml").write_text(FILE.replace("name: east", "name: lab/east"))
    initialize_scheduler_environment()
    assert set(server.clusters) == {"lab/east", "west"}


def test_folders_that_are_not_there_are_refused_before_anything_is_sent(server: FakeServer) -> None:
    with pytest.raises(ConfigurationError, match=r"working_dir '/no/folder' is no URI"):
        submit_job("python train.py", runtime_env={"working_dir": "/no/folder"})
    assert server.tasks == {}


def test_a_job_takes_the_folder_of_the_program_along(server: FakeServer) -> None:
    Path("train.py").write_text("")
    submit_job("python train.py", runtime_env={"working_dir": "."})
    assert spec_of(server, 1)["runtime_env"]["working_dir"].startswith("schedulemesh://")


def test_an_actor_is_ready_when_its_handle_is_there() -> None:
    actor_id, counter = submit_actor(Counter, kwargs={"start": 3}, timeout=WAIT_S)
    assert actor_id == "t1"
    assert counter.add.remote(4).result(WAIT_S) == 7
    assert counter.add(1) == 8


def test_jobs_are_followed_by_their_submission_id(server: FakeServer) -> None:
    home = Path.home()
    first = submit_job(f"python {home}/train.py", metadata={"who": "me"}, submission_id="nightly")
    second = submit_job("echo", runtime_env={"pip": []})
    assert first == "nightly"
    assert submit_job("echo", submission_id="other") == "other"
    ended = wait_for_all_jobs([first, second], check_interval=0.1, timeout=WAIT_S)
    assert ended == {first: "SUCCEEDED", second: "SUCCEEDED"}
    assert get_job_status("nightly") == "SUCCEEDED"
    info = get_job_info("nightly")
    assert (info["submission_id"], info["cluster"], info["kind"]) == ("nightly", "fake", "job")
    assert get_job_logs("nightly") == "printed by t1 "
    assert stop_job("nightly") is False
    assert f"${{home_dir:-{home}}}/train.py" in server.tasks[1].payload["inline"].decode()


def test_waiting_for_jobs_ends_in_time(server: FakeServer) -> None:
    server.manual.add(None)  # type: ignore[arg-type] # jobs have no name
    job = submit_job("sleep 1000")
    assert get_job_status(job) == "PENDING"
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        wait_for_all_jobs([job], check_interval=0.05, timeout=0.2)
    assert stop_job(job) is True
    assert wait_for_all_jobs([job], timeout=WAIT_S) == {job: "STOPPED"}


def test_what_is_not_known_is_told() -> None:
    for call in (get_task_status, get_task_result, get_job_status, get_job_logs, stop_job):
        with pytest.raises(SchedulerError, match="UNKNOWN_TASK"):
            call("t99")  # type: ignore[operator]


def test_ctrl_c_stops_the_work_of_this_process(server: FakeServer) -> None:
    server.manual.add("endless")

    @graceful_shutdown_on_keyboard_interrupt
    def main() -> None:
        submit_task(abs, (1,), name="endless")

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        main()
    assert get_task_status("t1") == "CANCELLED"


def test_the_scheduler_is_one_and_knows_its_clusters(
    scheduler: UnifiedScheduler, tmp_path: Path
) -> None:
    assert UnifiedScheduler() is scheduler
    assert initialize_scheduler_environment(tmp_path / "clusters.yaml") is scheduler
    assert [cluster.name for cluster in list_clusters()] == ["east", "west"]
    assert list_clusters()[1].weight == 1.2


def test_a_wrong_file_is_told_before_anything_starts(
    server: FakeServer, scheduler: UnifiedScheduler
) -> None:
    Path("clusters.yaml").write_text("clusters: [{name: east}]\n")
    with pytest.raises(ConfigurationError, match="nothing says how to reach it"):
        submit_task(abs, (1,))
    assert server.hellos == []
    assert scheduler is not None


def test_models_become_dictionaries_and_come_back() -> None:
    task = TaskDescription(name="a", tags=["linux"], resource_requirements={"CPU": 1.0})
    assert TaskDescription.from_dict(task.to_dict()) == task
    assert ClusterMetadata.from_dict({"name": "a", "more": 1}) == ClusterMetadata("a")


def test_paths_of_others_are_left_alone() -> None:
    home = str(Path.home())
    assert map_home("python /opt/x.py") == "python /opt/x.py"
    assert map_home(f"python /mnt{home}/x.py") == f"python /mnt{home}/x.py"
    assert map_home(f"python -c 'open(\"{home}/x\")'") == f"python -c 'open(\"{home}/x\")'"
    assert map_home(f"cd {home} && ls") == f"cd ${{home_dir:-{home}}} && ls"
