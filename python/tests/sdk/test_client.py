"""Everything of the client that is not submitting functions."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import schedulemesh
from schedulemesh import default
from sdk.fake_server import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    from schedulemesh import Client
    from sdk.fake_server import FakeServer

WAIT_S = 20


class Counter:
    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise ValueError("below zero")
        self.value = start

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value


def test_an_actor_keeps_its_state(client: Client) -> None:
    counter = client.actor(Counter, start=10)
    assert counter.add(5) == 15
    assert [counter.add.remote().result(WAIT_S) for _ in range(3)] == [16, 17, 18]
    assert counter.future.running()
    assert repr(counter) == "<ActorHandle Counter t1>"


def test_an_actor_that_cannot_be_made_raises_what_its_constructor_raised(client: Client) -> None:
    with pytest.raises(ValueError, match="below zero"):
        client.actor(Counter, -1)


def test_an_actor_that_is_not_up_in_time_is_stopped(client: Client, server: FakeServer) -> None:
    server.manual.add("late")
    with pytest.raises(TimeoutError, match="nothing has room"):
        client.options(name="late").actor(Counter, ready_timeout=0.2)
    with schedulemesh.Client(server.url, TOKEN) as other:
        assert isinstance(_error(other.get_task("t1")), schedulemesh.TaskCancelledError)


def _error(future: schedulemesh.Future[Any]) -> BaseException | None:
    try:
        return future.exception(WAIT_S)
    except schedulemesh.TaskCancelledError as error:
        return error


def test_a_killed_actor_is_gone(client: Client) -> None:
    counter = client.actor(Counter)
    assert counter.kill()
    assert isinstance(_error(counter.future), schedulemesh.TaskCancelledError)
    assert not counter.kill()


def test_a_handle_has_the_methods_of_its_class_only(client: Client) -> None:
    counter = client.actor(Counter)
    with pytest.raises(AttributeError, match="Counter has no public method 'sub'"):
        _ = counter.sub
    with pytest.raises(schedulemesh.ConfigurationError, match="actor_id"):
        client.submit(print, counter)


def test_an_actor_is_found_again_by_its_id(client: Client, server: FakeServer) -> None:
    counter = client.actor(Counter, 1)
    with schedulemesh.Client(server.url, TOKEN) as other:
        assert other.get_actor(counter.actor_id).add(1) == 2
        with pytest.raises(schedulemesh.NotFoundError, match="t99"):
            other.get_actor("t99")


def test_a_job_is_sent_as_its_body(client: Client, server: FakeServer) -> None:
    future = client.options(name="nightly").submit_job(
        "python train.py", runtime_env={"working_dir": "s3://code/a.zip"}, metadata={"who": "me"}
    )
    assert future.result(WAIT_S) is None
    (task,) = server.tasks.values()
    assert task.kind == "job"
    assert json.loads(task.payload["inline"]) == {
        "entrypoint": "python train.py",
        "metadata": {"who": "me"},
        "runtime_env": {"working_dir": "s3://code/a.zip"},
    }
    assert future.logs(100) == "printed by t1 tail_bytes=100"


def test_a_task_of_another_client_can_be_waited_for(client: Client, server: FakeServer) -> None:
    future = client.options(key="mine").submit(pow, 2, 5)
    future.accepted(WAIT_S)
    with schedulemesh.Client(server.url, TOKEN) as other:
        assert other.get_task("key:mine").result(WAIT_S) == 32
        assert other.get_task("t1").result(WAIT_S) == 32


def test_tasks_are_listed_page_by_page(client: Client) -> None:
    for index in range(5):
        client.submit(pow, index, 2).result(WAIT_S)
    assert [view["id"] for view in client.tasks()] == ["t5", "t4", "t3", "t2", "t1"]
    assert [view["id"] for view in client.tasks(limit=3)] == ["t5", "t4", "t3"]
    assert client.task("t1")["phase"] == "succeeded"
    assert client.explain("t1")["message"] == "nothing has room"


def test_clusters_are_added_and_removed(client: Client, server: FakeServer) -> None:
    client.add_cluster("mac", tags=["macos"], weight=1.2)
    assert server.clusters == {"mac": {"name": "mac", "tags": ["macos"], "weight": 1.2}}
    assert [view["spec"]["name"] for view in client.clusters()] == ["mac"]
    client.remove_cluster("mac")
    with pytest.raises(schedulemesh.NotFoundError, match="mac"):
        client.remove_cluster("mac")


def test_connect_finds_address_and_token_in_the_environment(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULEMESH_URL", server.url)
    monkeypatch.setenv("SCHEDULEMESH_TOKEN", TOKEN)
    with schedulemesh.connect() as client:
        assert client.url == server.url


def test_connect_finds_a_running_server_by_its_state_directory(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SCHEDULEMESH_URL", "SCHEDULEMESH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "server.json").write_text(json.dumps({"url": server.url, "pid": os.getpid()}))
    (tmp_path / "admin.token").write_text(TOKEN + "\n")
    with schedulemesh.connect(state_dir=tmp_path) as client:
        assert client.submit(pow, 2, 3).result(WAIT_S) == 8


def test_the_decorator_and_the_module_use_the_default_client(client: Client) -> None:
    @schedulemesh.task(cpus=2, name="power")
    def power(base: int, exponent: int = 2) -> int:
        return base**exponent

    default.set_client(client)
    try:
        assert power(3) == 9
        assert power.submit(3, exponent=3).result(WAIT_S) == 27
        assert list(power.map([1, 2, 3])) == [1, 4, 9]
        assert power.on(client).options(cpus=1).submit(4).result(WAIT_S) == 16
        assert schedulemesh.submit(pow, 2, 4).result(WAIT_S) == 16
        assert list(schedulemesh.map(abs, [-1, -2])) == [1, 2]
        assert schedulemesh.actor(Counter, 4).add(1) == 5
        # A function that uses a decorated one takes it along as the bare function.
        assert schedulemesh.submit(lambda: power(5)).result(WAIT_S) == 25
    finally:
        default.set_client(None)


def test_the_asynchronous_client_has_the_same_names(
    server: FakeServer,
) -> None:
    async def main() -> None:
        async with await schedulemesh.aconnect(server.url, token=TOKEN) as client:
            assert await client.submit(pow, 2, 10) == 1024
            assert [value async for value in client.map(abs, [-1, 2])] == [1, 2]
            counter = await client.options(name="counter").actor(Counter, 1)
            assert await counter.add.remote(2) == 3
            assert (await client.task("t1"))["phase"] == "succeeded"
            assert await client.clusters() == []

    asyncio.run(main())
