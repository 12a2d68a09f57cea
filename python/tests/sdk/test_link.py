"""The link: what happens when it breaks, is refused, or is too slow."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import schedulemesh
from schedulemesh import Client
from sdk.fake_server import TOKEN, FakeServer, problem

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 20


def double(value: int) -> int:
    return value * 2


def until(fact: Callable[[], bool]) -> None:
    """Wait for a fact."""
    deadline = time.monotonic() + WAIT_S
    while not fact():
        assert time.monotonic() < deadline, "it did not come true"
        threading.Event().wait(0.005)


def test_nobody_there_is_told_with_a_way_out() -> None:
    with pytest.raises(schedulemesh.ClusterConnectionError, match=r"127\.0\.0\.1:9") as raised:
        Client("http://127.0.0.1:9", timeout=0.3)
    assert "schedulemesh serve" in raised.value.remedy


def test_a_wrong_token_is_told_at_once(server: FakeServer) -> None:
    with pytest.raises(schedulemesh.AuthenticationError, match="wrong token"):
        Client(server.url, "smt_wrong")


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(schedulemesh.TaskSubmissionError, match="ftp://x"):
        Client("ftp://x")


def test_a_frame_lost_on_its_way_is_sent_again(client: Client, server: FakeServer) -> None:
    server.answers = ["drop", "drop"]
    assert client.submit(double, 4).result(WAIT_S) == 8
    assert len(server.tasks) == 1


def test_an_answer_lost_on_its_way_does_nothing_twice(client: Client, server: FakeServer) -> None:
    server.answers = ["lose"]
    assert client.submit(double, 4).result(WAIT_S) == 8
    assert len(server.tasks) == 1


def test_tasks_that_run_when_the_link_breaks_are_watched_again(
    client: Client, server: FakeServer
) -> None:
    server.manual.add("slow")
    futures = [client.options(name="slow").submit(double, index) for index in range(3)]
    for future in futures:
        future.accepted(WAIT_S)
    server.break_links()
    until(lambda: any("watch" in frame for frame in server.frames))
    for task in server.tasks.values():
        server.finish(task, "succeeded", {"inline": b"\x80\x05K\x01."})
    assert [future.result(WAIT_S) for future in futures] == [1, 1, 1]


def test_calls_of_an_actor_keep_their_order_over_a_broken_link(
    client: Client, server: FakeServer
) -> None:
    class Log:
        def __init__(self) -> None:
            self.items: list[int] = []

        def add(self, item: int) -> list[int]:
            self.items.append(item)
            return list(self.items)

    log = client.actor(Log)
    server.answers = ["drop", None, "lose", {**problem("OVERLOADED", "busy"), "retry_after_ms": 5}]
    calls = [log.add.remote(index) for index in range(300)]
    assert calls[-1].result(WAIT_S) == list(range(300))


def test_an_overloaded_server_is_asked_again_later(client: Client, server: FakeServer) -> None:
    server.answers = [problem("OVERLOADED", "busy", retry_after_ms=20)] * 2
    assert client.submit(double, 1).result(WAIT_S) == 2


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (problem("QUEUE_FULL", "full", retry_after_ms=1_000), schedulemesh.QueueFullError),
        (problem("KEY_CONFLICT", "other"), schedulemesh.KeyConflictError),
        (problem("INVALID", "bad"), schedulemesh.TaskSubmissionError),
        (problem("INFEASIBLE", "never"), schedulemesh.NoHealthyClusterError),
        (problem("INFEASIBLE", "never", details=["mac: too big"]), schedulemesh.InfeasibleError),
        (
            problem("INFEASIBLE", "never", details=[
                "mac: runs Python 3.12, the task was pickled under 3.11"]),
            schedulemesh.PythonMismatchError,
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_raised_by_the_future(
    client: Client, server: FakeServer, told: dict[str, Any], kind: type[Exception]
) -> None:
    server.answers = [told]
    future = client.submit(double, 1)
    error = future.exception(WAIT_S)
    assert type(error) is kind
    assert isinstance(error, schedulemesh.SchedulerError)
    assert error.retry_after == (1.0 if told["code"] == "QUEUE_FULL" else None)
    with pytest.raises(kind):
        future.accepted(WAIT_S)


def test_closing_waits_for_acceptance_and_fails_what_is_open(server: FakeServer) -> None:
    server.manual.add("slow")
    client = Client(server.url, TOKEN)
    futures = [client.options(name="slow").submit(double, index) for index in range(500)]
    client.close()
    assert len(server.tasks) == 500
    with pytest.raises(schedulemesh.ClientClosedError, match="goes on"):
        futures[0].result(WAIT_S)
    with pytest.raises(schedulemesh.ClientClosedError):
        client.submit(double, 1)
    client.close()


def test_a_silent_server_is_given_up_and_dialled_again() -> None:
    with FakeServer(heartbeat_ms=50) as server, Client(server.url, TOKEN) as client:
        # The fake server sends no heartbeats: four beats of silence end each link.
        until(lambda: len(server.hellos) >= 2)
        assert client.submit(double, 1).result(WAIT_S) == 2


def test_ctrl_c_ends_a_wait_for_a_value(client: Client, server: FakeServer) -> None:
    server.manual.add("slow")
    future = client.options(name="slow").submit(double, 1)
    future.accepted(WAIT_S)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        future.result(WAIT_S)


def test_ctrl_c_ends_a_wait_in_native_code(client: Client, server: FakeServer) -> None:
    server.answers = [problem("OVERLOADED", "busy", retry_after_ms=1_000)]
    future = client.submit(double, 1)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        future.accepted()
    future.cancel()


def _in_fork(client: Client, answers: Any) -> None:
    try:
        client.submit(double, 1)
    except schedulemesh.ForkedError as error:
        answers.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_told_that_it_has_no_link(client: Client) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_in_fork, args=(client, answers))
    child.start()
    told = answers.get(timeout=WAIT_S)
    child.join(WAIT_S)
    assert told.startswith(f"[FORKED] this client was made in process {os.getpid()};")
    assert child.exitcode == 0
    assert client.submit(double, 1).result(WAIT_S) == 2


def test_submitters_wait_while_too_much_is_not_accepted(client: Client, server: FakeServer) -> None:
    server.answers = [problem("OVERLOADED", "busy", retry_after_ms=60_000)]
    client.submit(double, 1)
    full = threading.Event()

    def flood() -> None:
        try:
            for _ in range(40_000):
                client.submit(double, 1)
        except schedulemesh.ClientClosedError:
            full.set()

    thread = threading.Thread(target=flood)
    thread.start()
    thread.join(1.0)
    assert thread.is_alive()
    client.native.close()
    assert full.wait(WAIT_S)


def test_a_client_that_nobody_holds_is_closed(server: FakeServer) -> None:
    client = Client(server.url, TOKEN)
    future = client.submit(double, 1)
    assert future.result(WAIT_S) == 2
    thread = client._delivery._thread
    del client, future
    gc.collect()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    until(lambda: not server.links)


def test_a_fork_may_end_without_disturbing_the_client(client: Client) -> None:
    child = os.fork()
    if child == 0:
        client.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert client.submit(double, 1).result(WAIT_S) == 2
