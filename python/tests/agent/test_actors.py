"""Actors on a real cluster: order, state, death, stop, output, and a new agent that adopts them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agent.fake_control_plane import FakeControlPlane, start_task

if TYPE_CHECKING:
    from agent.conftest import StartAgent

pytestmark = pytest.mark.ray


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start
        self.seen: list[int] = []

    def add(self, amount: int) -> int:
        self.value += amount
        self.seen.append(amount)
        return self.value

    def history(self) -> list[int]:
        return self.seen

    def fail(self) -> None:
        raise ArithmeticError("no more numbers")

    def wait_for(self, path: str) -> str:
        print("waiting")  # noqa: T201 - what the test looks for
        while not Path(path).exists():
            time.sleep(0.005)
        return "seen"

    async def later(self) -> str:
        import asyncio  # noqa: PLC0415 - runs elsewhere

        await asyncio.sleep(0.01)
        return "done"

    def die(self) -> None:
        import os  # noqa: PLC0415 - runs elsewhere

        os._exit(9)


class Broken:
    def __init__(self) -> None:
        raise ValueError("not today")


def test_calls_run_in_order_and_state_stays(plane: FakeControlPlane) -> None:
    actor = plane.actor(Counter, 10)
    keys = plane.calls(actor, "add", [(number,) for number in range(500)])
    assert plane.values(keys)[-1] == 10 + sum(range(500))
    (history,) = plane.calls(actor, "history", [()])
    assert plane.end_of(history).value() == list(range(500))
    assert actor in plane.started
    assert actor not in plane.ended
    plane.stop(actor)
    assert plane.end_of(actor).kind == "stopped"


def test_exception_in_a_call_leaves_the_actor_alive(plane: FakeControlPlane) -> None:
    actor = plane.actor(Counter)
    (bad,) = plane.calls(actor, "fail", [()])
    (missing,) = plane.calls(actor, "no_such_method", [()])
    (good,) = plane.calls(actor, "add", [(1,)])
    assert plane.end_of(bad).body["error"]["exception"] == "ArithmeticError"
    assert plane.end_of(missing).body["error"]["exception"] == "AttributeError"
    assert plane.end_of(good).value() == 1
    plane.stop(actor)
    plane.end_of(actor)


def test_async_method(plane: FakeControlPlane) -> None:
    actor = plane.actor(Counter)
    assert plane.values(plane.calls(actor, "later", [(), ()])) == ["done", "done"]
    plane.stop(actor)
    plane.end_of(actor)


def test_constructor_that_raises(plane: FakeControlPlane) -> None:
    actor = plane.actor(Broken)
    (call,) = plane.calls(actor, "anything", [()])
    error = plane.end_of(actor).body["error"]
    assert (error["cause"], error["exception"]) == ("raised", "ValueError")
    assert plane.end_of(call).body["error"]["cause"] == "worker_died"


def test_death_is_told_for_the_actor_and_its_calls(plane: FakeControlPlane) -> None:
    actor = plane.actor(Counter)
    before = plane.calls(actor, "add", [(1,)])
    (killing,) = plane.calls(actor, "die", [()])
    after = plane.calls(actor, "add", [(1,)])
    assert plane.values(before) == [1]
    for key in (killing, *after, actor):
        assert plane.end_of(key).body["error"]["cause"] == "worker_died"
    late = plane.calls(actor, "add", [(1,)])
    assert "does not live here" in plane.end_of(late[0]).body["error"]["message"]


def test_death_of_an_idle_actor_is_noticed(plane: FakeControlPlane) -> None:
    class Bomb:
        def light(self) -> None:
            import os  # noqa: PLC0415 - runs elsewhere
            import threading  # noqa: PLC0415 - runs elsewhere

            threading.Timer(0.3, os._exit, [1]).start()

    actor = plane.actor(Bomb)
    (lit,) = plane.calls(actor, "light", [()])
    assert plane.end_of(lit).kind == "finished"
    assert plane.end_of(actor).body["error"]["cause"] == "worker_died"


def test_stop_of_a_call_interrupts_it_and_not_the_actor(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    actor = plane.actor(Counter)
    (waiting,) = plane.calls(actor, "wait_for", [(str(tmp_path / "never"),)])
    (behind,) = plane.calls(actor, "add", [(5,)])
    plane.wait(lambda: waiting in plane.started)
    question = {"logs": {"task": waiting[0], "attempt": 1, "tail_bytes": 100}}
    assert plane.ask(question, 1) == {"Ok": "waiting\n"}
    plane.stop(waiting, grace_ms=0)
    assert plane.end_of(waiting).kind == "stopped"
    assert plane.end_of(behind).value() == 5
    plane.stop(actor)
    plane.end_of(actor)


def test_stop_ends_an_actor_whatever_it_does(plane: FakeControlPlane, tmp_path: Path) -> None:
    actor = plane.actor(Counter)
    (waiting,) = plane.calls(actor, "wait_for", [(str(tmp_path / "never"),)])
    plane.wait(lambda: waiting in plane.started)
    plane.stop(actor)
    assert plane.end_of(actor).kind == "stopped"
    assert "was stopped" in plane.end_of(waiting).body["error"]["message"]


def test_new_agent_adopts_actors_and_their_calls(
    lonely: FakeControlPlane, start_agent: StartAgent, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    actor = lonely.actor(Counter, 1)
    assert lonely.values(lonely.calls(actor, "add", [(1,)])) == [2]
    calls = lonely.calls(actor, "wait_for", [(str(flag),)]) + lonely.calls(actor, "add", [(1,)])
    lonely.wait(lambda: calls[0] in lonely.started)
    agent.kill()
    second = start_agent("--server", lonely.url)
    lonely.wait(lambda: len(lonely.hellos) == 2)
    held = {(entry["task"], entry["attempt"]) for entry in lonely.hellos[1]["held"]}
    assert held >= {actor, calls[0]}
    # What the first one said of them may never have been committed.
    lonely.wait(lambda: sum(said[:2] == (actor, "started") for said in lonely.reports) == 2)
    # The control plane sends everything again; what is held is not started twice.
    code = lonely.code(Counter)
    lonely.start(
        [start_task(actor, 100, {"actor": {"code": code["digest"]}}, b"")],
        [lonely.lease(100)],
        [code],
    )
    flag.touch()
    assert lonely.values([calls[0]]) == ["seen"]
    (more,) = lonely.calls(actor, "add", [(5,)])
    assert lonely.end_of(more).value() in {7, 8}
    lonely.stop(actor)
    assert lonely.end_of(actor).kind == "stopped"
    assert second.stop() == 0


def test_actors_of_another_control_plane_are_let_be(
    lonely: FakeControlPlane, start_agent: StartAgent
) -> None:
    start_agent("--server", lonely.url)
    lonely.wait_linked()
    actor = lonely.actor(Counter, 1)
    lonely.wait(lambda: actor in lonely.started)
    with FakeControlPlane(token="sma_other") as other:  # noqa: S106 - for tests
        start_agent("--server", other.url, token=other.token)
        other.wait_linked()
        assert other.hellos[0]["held"] == []
        other.stop(actor)
        assert other.end_of(actor).kind == "stopped"
    assert lonely.values(lonely.calls(actor, "add", [(1,)])) == [2]
    lonely.stop(actor)
    lonely.end_of(actor)


class Meeting:
    """Needs more than one call at a time: everybody waits for the last one."""

    def __init__(self, size: int) -> None:
        import threading  # noqa: PLC0415 - runs elsewhere

        self.barrier = threading.Barrier(size)
        self.lock = threading.Lock()
        self.ran = 0

    def meet(self) -> int:
        return self.barrier.wait(20)

    def count(self) -> int:
        with self.lock:
            self.ran += 1
        return self.ran

    def talk(self, path: str) -> None:
        print("at", path)  # noqa: T201 - what the test looks for
        while not Path(path).exists():
            time.sleep(0.005)

    def die(self) -> None:
        import os  # noqa: PLC0415 - runs elsewhere

        os._exit(9)


def test_calls_run_side_by_side_when_the_actor_allows_it(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    actor = plane.actor(Meeting, 4, options={"max_concurrency": 4})
    assert sorted(plane.values(plane.calls(actor, "meet", [()] * 4))) == [0, 1, 2, 3]
    counts = plane.values(plane.calls(actor, "count", [()] * 500))
    assert max(counts) == 500
    # Each is heard and interrupted on its own.
    ways = [str(tmp_path / name) for name in ("left", "right")]
    talks = plane.calls(actor, "talk", [(way,) for way in ways])
    plane.wait(lambda: set(talks) <= set(plane.started))
    for number, (key, way) in enumerate(zip(talks, ways, strict=True)):
        question = {"logs": {"task": key[0], "attempt": 1, "tail_bytes": 1_000}}
        assert plane.ask(question, number) == {"Ok": f"at {way}\n"}
    plane.stop(talks[0])
    assert plane.end_of(talks[0]).kind == "stopped"
    Path(ways[1]).touch()
    assert plane.end_of(talks[1]).kind == "finished"
    (killing,) = plane.calls(actor, "die", [()])
    for key in (killing, actor):
        assert plane.end_of(key).body["error"]["cause"] == "worker_died"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_concurrency": 0}, "max_concurrency is 0, not a number from 1 to 1000"),
        ({"max_restarts": 1}, "the agent knows no actor option 'max_restarts'"),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(
    plane: FakeControlPlane, options: dict[str, int], message: str
) -> None:
    end = plane.end_of(plane.actor(Counter, options=options))
    assert (end.kind, end.body["error"]["cause"]) == ("failed", "unreadable")
    assert message in end.body["error"]["message"]


def test_new_agent_adopts_calls_that_run_side_by_side(
    lonely: FakeControlPlane, start_agent: StartAgent, tmp_path: Path
) -> None:
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    actor = lonely.actor(Meeting, 3, options={"max_concurrency": 3})
    ways = [str(tmp_path / name) for name in ("left", "right")]
    talks = lonely.calls(actor, "talk", [(way,) for way in ways])
    lonely.wait(lambda: set(talks) <= set(lonely.started))
    agent.kill()
    start_agent("--server", lonely.url)
    lonely.wait(lambda: len(lonely.hellos) == 2)
    for way in ways:
        Path(way).touch()
    assert lonely.values(talks) == [None, None]
    assert sorted(lonely.values(lonely.calls(actor, "meet", [()] * 3))) == [0, 1, 2]
    lonely.stop(actor)
    lonely.end_of(actor)


def test_calls_that_had_not_begun_when_the_agent_died_are_not_run_for_it(
    lonely: FakeControlPlane, start_agent: StartAgent, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    agent = start_agent("--server", lonely.url)
    lonely.wait_linked()
    actor = lonely.actor(Counter)
    (waiting,) = lonely.calls(actor, "wait_for", [(str(flag),)])
    lonely.wait(lambda: waiting in lonely.started)
    # In Ray's hands, behind the one that runs.
    behind = lonely.calls(actor, "add", [(1,)])
    question = {"logs": {"task": waiting[0], "attempt": 1, "tail_bytes": 100}}
    assert "Ok" in lonely.ask(question, 1)
    agent.kill()
    start_agent("--server", lonely.url)
    lonely.wait(lambda: len(lonely.hellos) == 2)
    held = {(entry["task"], entry["attempt"]) for entry in lonely.hellos[1]["held"]}
    assert waiting in held
    flag.touch()
    assert lonely.values([waiting]) == ["seen"]
    # The new agent does not know of it, so that it was not run is what makes that true.
    assert behind[0] not in held
    (history,) = lonely.calls(actor, "history", [()])
    assert lonely.end_of(history).value() == []
    lonely.stop(actor)
    lonely.end_of(actor)
