"""Functions on a real cluster: results, exceptions, deaths, cancellation, output, large data."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent.fake_control_plane import start_task

if TYPE_CHECKING:
    from agent.fake_control_plane import FakeControlPlane, Key

pytestmark = pytest.mark.ray


def add(left: int, right: int) -> int:
    return left + right


def append(path: str, text: str) -> str:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(text)
    return text


def die() -> None:
    import os  # noqa: PLC0415 - runs elsewhere

    os._exit(7)


def wait_for_file(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.005)
    return "seen"


def block(path: str, seconds: float) -> None:
    Path(path).touch()
    time.sleep(seconds)


def ends(plane: FakeControlPlane, keys: list[Key]) -> list[str]:
    plane.wait(lambda: all(key in plane.ended or key in plane.returned for key in keys))
    return [plane.ended[key].kind if key in plane.ended else "returned" for key in keys]


def test_results_come_back_in_order_of_their_lease(plane: FakeControlPlane) -> None:
    keys = plane.functions(add, [(number, 1) for number in range(1_000)])
    assert plane.values(keys) == list(range(1, 1_001))
    order = [key for key, kind, _ in plane.reports if kind == "finished" and key in set(keys)]
    assert order == keys


def test_two_leases_run_side_by_side(plane: FakeControlPlane, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    (waiting,) = plane.functions(wait_for_file, [(str(flag),)], lease=1)
    (touching,) = plane.functions(append, [(str(flag), "x")], lease=2)
    assert plane.values([touching, waiting]) == ["x", "seen"]


def test_exception_tells_class_message_user_frames_and_cause(plane: FakeControlPlane) -> None:
    def fail(text: str) -> None:
        try:
            int(text)
        except ValueError as error:
            raise LookupError("no number here") from error

    (key,) = plane.functions(fail, [("x",)])
    end = plane.end_of(key)
    assert end.kind == "failed"
    error = end.body["error"]
    assert (error["cause"], error["exception"]) == ("raised", "LookupError")
    assert error["message"] == "no number here"
    assert "in fail" in error["traceback"]
    assert "ValueError: invalid literal" in error["traceback"]
    assert "schedulemesh" not in error["traceback"]
    raised = pickle.loads(end.body["details"]["inline"])
    assert isinstance(raised, LookupError)
    assert isinstance(raised.__cause__, ValueError)


def test_system_exit_is_an_exception_and_the_worker_lives(plane: FakeControlPlane) -> None:
    def leave() -> None:
        raise SystemExit(3)

    left, after = plane.functions(leave, [()]) + plane.functions(add, [(1, 1)])
    end = plane.end_of(left)
    assert (end.kind, end.body["error"]["cause"]) == ("failed", "raised")
    assert end.body["error"]["exception"] == "SystemExit"
    assert plane.end_of(after).value() == 2


def test_result_that_cannot_be_pickled(plane: FakeControlPlane) -> None:
    def make() -> object:
        import threading  # noqa: PLC0415 - runs elsewhere

        return threading.Lock()

    (key,) = plane.functions(make, [()])
    error = plane.end_of(key).body["error"]
    assert error["cause"] == "unreadable"
    assert "the result, of type lock, cannot be pickled" in error["message"]


def test_arguments_and_code_that_cannot_be_unpickled(plane: FakeControlPlane) -> None:
    code = plane.code(add)
    broken = {"digest": "broken", "bytes": b"this is no pickle"}
    bad_args, bad_code = (plane.task(), 1), (plane.task(), 1)
    plane.start(
        [
            start_task(bad_args, 1, {"function": {"code": code["digest"]}}, b"no pickle"),
            start_task(bad_code, 1, {"function": {"code": "broken"}}, pickle.dumps(((), {}))),
        ],
        [plane.lease(1)],
        [code, broken],
    )
    messages = []
    for key in (bad_args, bad_code):
        error = plane.end_of(key).body["error"]
        assert error["cause"] == "unreadable"
        messages.append(error["message"])
    assert messages[0].startswith("the arguments cannot be unpickled by Python 3.")
    assert messages[1].startswith("the function cannot be unpickled by Python 3.")


def test_death_fails_only_the_one_that_died(plane: FakeControlPlane, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    code, killer = plane.code(append), plane.code(die)
    keys = [(plane.task(), 1) for _ in range(20)]
    works = [
        ("function", killer["digest"], ((), {}))
        if at == 10
        else ("function", code["digest"], ((log, f"{at} "), {}))
        for at in range(20)
    ]
    plane.start(
        [
            start_task(key, 1, {kind: {"code": digest}}, pickle.dumps(args))
            for key, (kind, digest, args) in zip(keys, works, strict=True)
        ],
        [plane.lease(1)],
        [code, killer],
    )
    expected = ["finished"] * 10 + ["failed"] + ["returned"] * 9
    assert ends(plane, keys) == expected
    error = plane.ended[keys[10]].body["error"]
    assert error["cause"] == "worker_died"
    assert "worker" in error["message"]
    assert Path(log).read_text() == "".join(f"{at} " for at in range(10))
    assert plane.values(plane.functions(add, [(2, 2)])) == [4]


def test_long_task_is_reported_and_what_waits_behind_it_handed_back(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    first = plane.functions(add, [(0, 0)])
    keys = plane.functions(wait_for_file, [(str(flag),)] * 5)
    plane.wait(lambda: all(key in plane.returned for key in keys[1:]))
    plane.wait(lambda: keys[0] in plane.started)
    assert keys[0] not in plane.ended
    flag.touch()
    assert plane.values([*first, keys[0]]) == [0, "seen"]


def test_finished_results_do_not_wait_for_a_long_neighbour(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    code, waiting = plane.code(add), plane.code(wait_for_file)
    short, long = (plane.task(), 1), (plane.task(), 1)
    works = [{"function": {"code": each["digest"]}} for each in (code, waiting)]
    plane.start(
        [
            start_task(short, 1, works[0], pickle.dumps(((1, 2), {}))),
            start_task(long, 1, works[1], pickle.dumps(((str(flag),), {}))),
        ],
        [plane.lease(1)],
        [code, waiting],
    )
    assert plane.end_of(short).value() == 3
    assert long not in plane.ended
    flag.touch()
    assert plane.end_of(long).value() == "seen"


def test_soft_stop_interrupts_python_code(plane: FakeControlPlane, tmp_path: Path) -> None:
    (key,) = plane.functions(wait_for_file, [(str(tmp_path / "never"),)])
    plane.wait(lambda: key in plane.started)
    plane.stop(key, grace_ms=30_000)
    assert plane.end_of(key, 10).kind == "stopped"
    assert plane.values(plane.functions(add, [(1, 1)])) == [2]


def test_interrupted_task_may_save_and_return(plane: FakeControlPlane) -> None:
    def save() -> str:
        try:
            while True:
                time.sleep(0.005)
        except KeyboardInterrupt:
            return "saved"

    (key,) = plane.functions(save, [()])
    plane.wait(lambda: key in plane.started)
    plane.stop(key, grace_ms=30_000)
    assert plane.end_of(key).value() == "saved"


def test_hard_stop_kills_what_does_not_heed(plane: FakeControlPlane, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    (key,) = plane.functions(block, [(str(flag), 1_000.0)])
    plane.wait(lambda: key in plane.started)
    began = time.monotonic()
    plane.stop(key, grace_ms=200)
    assert plane.end_of(key).kind == "stopped"
    assert 0.15 < time.monotonic() - began < 10
    assert plane.values(plane.functions(add, [(1, 1)])) == [2]


def test_stop_of_a_waiting_task_never_runs_it(plane: FakeControlPlane, tmp_path: Path) -> None:
    flag, log = tmp_path / "flag", tmp_path / "log"
    (first,) = plane.functions(wait_for_file, [(str(flag),)])
    (second,) = plane.functions(append, [(str(log), "ran")])
    plane.stop(second)
    assert plane.end_of(second).kind == "stopped"
    flag.touch()
    assert plane.end_of(first).value() == "seen"
    assert not log.exists()


def test_stop_of_what_never_came_is_answered(plane: FakeControlPlane) -> None:
    plane.stop((987_654, 3))
    assert plane.end_of((987_654, 3)).kind == "stopped"


def test_same_attempt_is_not_run_twice(plane: FakeControlPlane, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    code = plane.code(append)
    key = (plane.task(), 1)
    task = start_task(
        key, 1, {"function": {"code": code["digest"]}}, pickle.dumps(((log, "x"), {}))
    )
    plane.start([task, task], [plane.lease(1)], [code])
    plane.start([task], [plane.lease(1)])
    assert plane.end_of(key).value() == "x"
    assert plane.values(plane.functions(add, [(1, 1)])) == [2]
    assert Path(log).read_text() == "x"


def test_output_of_running_and_ended_tasks(plane: FakeControlPlane, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    def talk(path: str) -> None:
        print("hello from the task")  # noqa: T201 - what the test looks for
        wait_for_file(path)
        print("bye")  # noqa: T201 - what the test looks for

    (key,) = plane.functions(talk, [(str(flag),)])
    plane.wait(lambda: key in plane.started)
    question = {"logs": {"task": key[0], "attempt": key[1], "tail_bytes": 1_000}}
    assert plane.ask(question, 1) == {"Ok": "hello from the task\n"}
    flag.touch()
    plane.end_of(key)
    assert plane.ask(question, 2) == {"Ok": "hello from the task\nbye\n"}
    question["logs"]["tail_bytes"] = 4
    assert plane.ask(question, 3) == {"Ok": "bye\n"}
    unknown = {"logs": {"task": 999_999, "attempt": 1, "tail_bytes": 10}}
    assert "not known here" in plane.ask(unknown, 4)["Err"]


def test_health(plane: FakeControlPlane) -> None:
    assert plane.ask("health", 5)["Ok"].endswith("answers, 1 nodes alive")


def test_task_knows_where_and_what_it_is(plane: FakeControlPlane) -> None:
    def who() -> list[str]:
        import os  # noqa: PLC0415 - runs elsewhere

        names = ["CLUSTER", "TASK", "ATTEMPT"]
        return [os.environ[f"SCHEDULEMESH_{name}"] for name in names]

    (key,) = plane.functions(who, [()])
    assert plane.end_of(key).value() == ["east", f"t{key[0]}", "1"]


def test_runtime_env_and_its_failure(plane: FakeControlPlane) -> None:
    def read() -> str:
        import os  # noqa: PLC0415 - runs elsewhere

        return os.environ["FLAVOUR"]

    good = json.dumps({"env_vars": {"FLAVOUR": "vanilla"}})
    (key,) = plane.functions(read, [()], lease=7, runtime_env=good)
    assert plane.end_of(key).value() == "vanilla"
    bad = json.dumps({"working_dir": "/no/such/folder"})
    (key,) = plane.functions(read, [()], lease=8, runtime_env=bad)
    error = plane.end_of(key).body["error"]
    assert error["cause"] == "not_started"
    assert "/no/such/folder" in error["message"]


def test_lambda_and_local_class_come_back(plane: FakeControlPlane) -> None:
    def make() -> Any:
        class Local:
            size = 5

        return Local, lambda number: number * 2

    (key,) = plane.functions(make, [()])
    local, double = plane.end_of(key).value()
    assert local.size == 5
    assert double(4) == 8


def test_coroutine_function(plane: FakeControlPlane) -> None:
    async def later() -> str:
        import asyncio  # noqa: PLC0415 - runs elsewhere

        await asyncio.sleep(0)
        return "done"

    (key,) = plane.functions(later, [()])
    assert plane.end_of(key).value() == "done"


def test_another_shape_takes_the_room_of_idle_workers(plane: FakeControlPlane) -> None:
    assert plane.values(plane.functions(add, [(1, 1)], lease=1)) == [2]
    assert plane.values(plane.functions(add, [(1, 2)], lease=3, cpus=2)) == [3]
    assert plane.values(plane.functions(add, [(1, 1)], lease=4, cpus=1)) == [2]
