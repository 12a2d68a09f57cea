"""Functions: values, exceptions, options, sizes, order."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
import schedulemesh
from schedulemesh import RemoteTraceback
from schedulemesh.task_options import PYTHON
from schedulemesh.titles import title_of

if TYPE_CHECKING:
    from schedulemesh import Client
    from sdk.fake_server import FakeServer

WAIT_S = 20


def double(value: Any) -> Any:
    return value * 2


class Refusal(Exception):  # noqa: N818 - a name of the test's own
    def __init__(self, amount: int) -> None:
        super().__init__(amount)
        self.amount = amount


def refuse(amount: int) -> None:
    raise Refusal(amount)


def submitted(server: FakeServer) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every task that was sent, with its specification."""
    frames = [frame["submit"] for frame in server.frames if "submit" in frame]
    return [(frame["specs"][task["spec"]], task) for frame in frames for task in frame["tasks"]]


def test_a_function_returns_its_value(client: Client) -> None:
    future = client.submit(double, 21)
    assert future.result(WAIT_S) == 42
    assert (future.task_id, future.cluster, future.done()) == ("t1", "fake", True)
    assert repr(future) == "<Future t1 finished on fake>"


def test_a_remote_exception_is_raised_as_it_was_with_its_traceback_as_the_cause(
    client: Client,
) -> None:
    future = client.submit(refuse, 7)
    with pytest.raises(Refusal) as raised:
        future.result(WAIT_S)
    assert raised.value.amount == 7
    cause = raised.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert "in refuse" in str(cause)
    assert isinstance(future.exception(), Refusal)


def test_an_exception_that_does_not_travel_keeps_its_name_text_and_traceback(
    client: Client, server: FakeServer
) -> None:
    server.manual.add("odd")
    future = client.options(name="odd").submit(double, 1)
    future.accepted(WAIT_S)
    error = {"cause": "raised", "exception": "OddError", "message": "m", "traceback": "in odd"}
    server.finish(server.tasks[1], "failed", {"inline": b"no pickle"}, error)
    with pytest.raises(schedulemesh.RemoteError, match="OddError: m") as raised:
        future.result(WAIT_S)
    assert (raised.value.exception, raised.value.traceback) == ("OddError", "in odd")


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        ("worker_died", schedulemesh.WorkerDiedError),
        ("not_started", schedulemesh.NotStartedError),
        ("cluster_lost", schedulemesh.ClusterLostError),
        ("timed_out", schedulemesh.TaskTimeoutError),
        ("actor_ended", schedulemesh.ActorEndedError),
        ("unreadable", schedulemesh.RemotePickleError),
    ],
)
def test_each_cause_of_failure_has_a_class(
    client: Client, server: FakeServer, cause: str, kind: type[Exception]
) -> None:
    server.manual.add("doomed")
    future = client.options(name="doomed").submit(double, 1)
    future.accepted(WAIT_S)
    error = {"cause": cause, "exception": "", "message": "this is why", "traceback": ""}
    server.finish(server.tasks[1], "failed", "none", error)
    with pytest.raises(kind, match="this is why"):
        future.result(WAIT_S)


def test_what_ends_an_interpreter_remotely_does_not_end_this_one(
    client: Client, server: FakeServer
) -> None:
    server.manual.add("leaves")
    future = client.options(name="leaves").submit(double, 1)
    future.accepted(WAIT_S)
    error = {"cause": "raised", "exception": "SystemExit", "message": "3", "traceback": "in leave"}
    server.finish(server.tasks[1], "failed", {"inline": pickle.dumps(SystemExit(3))}, error)
    with pytest.raises(schedulemesh.RemoteError, match="SystemExit: 3"):
        future.result(WAIT_S)


def test_options_say_where_and_how(client: Client, server: FakeServer) -> None:
    chosen = client.options(
        cpus=2, memory="4GiB", resources={"disk": 1}, tags=["linux"], avoid_tags=["spot"],
        labels={"arch": "arm64"}, cluster="mac", priority=5, retries=1, retry_exceptions=2,
        timeout="1m 30s", name="train", key="exp-42", runtime_env={"env_vars": {"A": "1"}},
    )  # fmt: skip
    assert chosen.submit(double, 1).result(WAIT_S) == 2
    ((spec, task),) = submitted(server)
    digest = spec.pop("work")["function"]["code"]
    assert len(digest) == 64
    assert spec.pop("python") == PYTHON
    assert (task["name"], task["key"]) == ("train", "exp-42")
    assert spec == {
        "title": "double",
        "resources": {"CPU": 2.0, "memory": 4 * 1024.0**3, "disk": 1.0},
        "priority": 5.0,
        "affinity": {
            "required": ["linux"], "avoided": ["spot"], "labels": ["arch=arm64"],
            "cluster": "mac", "cluster_only": False,
        },
        "retries": {"lost": 1, "raised": 2},
        "timeout_ms": 90_000,
        "wait_for_growth": False,
        "runtime_env": {"env_vars": {"A": "1"}},
    }  # fmt: skip


def test_a_function_that_asks_for_a_gpu_still_gets_its_core(
    client: Client, server: FakeServer
) -> None:
    client.options(gpus=0.5).submit(double, 1).result(WAIT_S)
    assert submitted(server)[0][0]["resources"] == {"CPU": 1.0, "GPU": 0.5}


def test_wrong_options_are_told_all_at_once(client: Client) -> None:
    with pytest.raises(schedulemesh.ConfigurationError) as raised:
        client.options(cpus="two", tags="linux", max_concurrency=0, colour="red")  # type: ignore[arg-type, call-arg]
    assert raised.value.details == [
        "colour= is no option",
        "cpus='two' is no number",
        "tags='linux' is a text; a list of texts is needed",
        "max_concurrency=0 is no whole number from 1 to 1000",
    ]


def test_the_same_key_is_the_same_task(client: Client, server: FakeServer) -> None:
    once = client.options(key="exp-1")
    first, second = once.submit(double, 4), once.submit(double, 4)
    assert (first.result(WAIT_S), second.result(WAIT_S)) == (8, 8)
    assert first.task_id == second.task_id
    assert len(server.tasks) == 1


def test_keys_differ_when_nothing_is_said(client: Client) -> None:
    first, second = client.submit(double, 1), client.submit(double, 1)
    assert first.key < second.key  # version 7: sorted by time
    assert len(first.key) == 36


@pytest.mark.parametrize("size", [0, 30_000, 70_000, 3_000_000])
def test_arguments_and_values_of_any_size(client: Client, server: FakeServer, size: int) -> None:
    data = bytes(range(256)) * (size // 256)
    assert client.submit(double, data).result(WAIT_S) == data * 2
    assert bool(server.blobs) == (size > 30_000)


def test_code_travels_once_and_large_code_by_itself(client: Client, server: FakeServer) -> None:
    ballast = bytes(2 << 20)

    def heavy(index: int) -> int:
        return index + len(ballast)

    futures = [client.submit(double, 1), client.submit(double, 2)]
    futures += [client.submit(heavy, 1), client.submit(heavy, 2)]
    assert [future.result(WAIT_S) for future in futures] == [2, 4, 2**21 + 1, 2**21 + 2]
    sent = [code["digest"] for frame in server.frames for code in frame["submit"]["code"]]
    assert len(sent) == 1
    assert len(server.code) == 2


def test_code_that_the_server_has_dropped_is_sent_again(client: Client, server: FakeServer) -> None:
    assert client.submit(double, 1).result(WAIT_S) == 2
    server.code.clear()
    assert client.submit(double, 2).result(WAIT_S) == 4


def test_map_keeps_the_order_and_takes_items_only_as_there_is_room(client: Client) -> None:
    taken = itertools.count()
    values = client.map(double, (next(taken) for _ in itertools.repeat(0)), max_in_flight=5)
    assert [next(values) for _ in range(20)] == [2 * index for index in range(20)]
    assert next(taken) <= 26
    values.close()  # type: ignore[attr-defined]


def test_map_in_chunks_gives_out_single_values(client: Client, server: FakeServer) -> None:
    assert list(client.map(pow, range(7), itertools.repeat(2), chunksize=3)) == [
        0, 1, 4, 9, 16, 25, 36,
    ]  # fmt: skip
    assert len(server.tasks) == 3


def test_map_raises_what_an_item_raised(client: Client) -> None:
    values = client.map(refuse, [3])
    with pytest.raises(Refusal):
        next(values)


def test_a_future_can_be_awaited(client: Client) -> None:
    async def main() -> list[Any]:
        return await asyncio.gather(*(client.submit(double, index) for index in range(5)))

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]


def test_cancelling_the_coroutine_cancels_the_task(client: Client, server: FakeServer) -> None:
    server.manual.add("endless")

    async def main() -> schedulemesh.Future[Any]:
        future = client.options(name="endless").submit(double, 1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.1)
        return future

    future = asyncio.run(main())
    with pytest.raises(schedulemesh.TaskCancelledError):
        future.result(WAIT_S)
    assert server.tasks[1].cancelled


def test_cancel_is_true_to_what_happened(client: Client, server: FakeServer) -> None:
    server.manual.add("endless")
    future = client.options(name="endless").submit(double, 1)
    future.accepted(WAIT_S)
    server.start(server.tasks[1])
    assert client.wait_started(future, None)
    assert future.running()
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError) as raised:
        future.result(WAIT_S)
    assert isinstance(raised.value, schedulemesh.TaskCancelledError)
    assert future.cancelled()
    done = client.submit(double, 1)
    done.result(WAIT_S)
    assert not done.cancel()


def test_standard_tools_work_on_our_futures(client: Client) -> None:
    futures = [client.submit(double, index) for index in range(10)]
    seen = {future.result() for future in schedulemesh.as_completed(futures, timeout=WAIT_S)}
    assert seen == set(range(0, 20, 2))
    done, pending = schedulemesh.wait(futures, timeout=WAIT_S)
    assert (len(done), len(pending)) == (10, 0)
    called = threading.Event()
    futures[0].add_done_callback(lambda _future: called.set())
    assert called.is_set()


def test_the_executor_is_a_standard_one(client: Client) -> None:
    with client.executor(cpus=1) as executor:
        assert isinstance(executor, concurrent.futures.Executor)
        assert list(executor.map(double, [1, 2, 3])) == [2, 4, 6]
        assert list(executor.map(double, [1, 2, 3], chunksize=2)) == [2, 4, 6]
        future = executor.submit(double, 5)
    assert future.result() == 10
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(double, 1)


def test_many_threads_may_submit(client: Client) -> None:
    def work(start: int) -> list[int]:
        return list(client.map(double, range(start, start + 50)))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(0, 400, 50)))
    assert [value for values in results for value in values] == list(range(0, 800, 2))


@pytest.mark.parametrize(
    ("argument", "where"),
    [
        (threading.Lock(), r"the arguments\[0\]\[0\] \(_thread.lock\)"),
        ({"a": [1, threading.Lock()]}, r"the arguments\[0\]\[0\]\['a'\]\[1\] \(_thread.lock\)"),
    ],
)
def test_what_cannot_be_pickled_is_named(client: Client, argument: Any, where: str) -> None:
    with pytest.raises(schedulemesh.UnpicklableError, match=where):
        client.submit(double, argument)


def test_a_function_that_captures_what_cannot_be_pickled_names_it(client: Client) -> None:
    lock = threading.Lock()

    def locked() -> None:
        with lock:
            pass

    with pytest.raises(schedulemesh.UnpicklableError, match=r"function .*locked: lock \(_thread"):
        client.submit(locked)


def test_a_map_with_a_key_does_nothing_twice(client: Client, server: FakeServer) -> None:
    squares = client.options(key="squares")
    assert list(squares.map(double, range(5))) == [0, 2, 4, 6, 8]
    assert list(squares.map(double, range(5))) == [0, 2, 4, 6, 8]
    assert set(server.by_key) == {f"squares[{index}]" for index in range(5)}


def test_a_job_runs_under_any_python(client: Client, server: FakeServer) -> None:
    client.submit_job("echo").result(WAIT_S)
    assert "python" not in submitted(server)[0][0]


def test_titles_are_what_people_recognise() -> None:
    def local() -> None: ...

    assert title_of(local) == "local"
    assert title_of(dict) == "dict"
    assert title_of("python  train.py\n --fast") == "python train.py --fast"
    assert title_of("\x1b[2J") is None
    assert len((title_of("é" * 200) or "").encode()) <= 128
