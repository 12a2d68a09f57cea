"""What must not happen, and the agent's bookkeeping when it does: without Ray."""

from __future__ import annotations

import asyncio
import concurrent.futures
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from schedulemesh.agent import jobs as jobs_module
from schedulemesh.agent import ray_actors
from schedulemesh.agent.actors import Actors, Hosted
from schedulemesh.agent.blobs import Blobs
from schedulemesh.agent.jobs import Jobs, JobsUnavailable
from schedulemesh.agent.lane import Lane, Pace
from schedulemesh.agent.nodes import Nodes
from schedulemesh.agent.outbox import Outbox
from schedulemesh.agent.packages import Packages
from schedulemesh.agent.runners import Runners
from schedulemesh.agent.settings import Settings
from schedulemesh.agent.work import Lease, Ledger, Work
from schedulemesh.agent.worker.parcel import wrap

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

SETTINGS = Settings(cluster="east", token="secret")  # noqa: S106 - for tests
LEASE = Lease(1, "n1", {"CPU": 1.0}, None)


class Reports(Outbox):
    """Keeps what was said instead of sending it."""

    def __init__(self) -> None:
        super().__init__(lambda: None, lambda _key: None)
        self.said: dict[int, Any] = {}

    def add(self, key: tuple[int, int], what: object, *, end: bool) -> None:
        super().add(key, what, end=end)
        self.said[key[0]] = what

    def error(self, task: int) -> dict[str, str]:
        found = self.said[task]["failed"]["error"]
        assert isinstance(found, dict)
        return found


class Inlining:
    """Stands in for the uploads: nothing is large here."""

    inline_max = 1 << 20


class Method:
    """Is a method of an actor that answers as the test says."""

    def __init__(self, answer: Callable[..., bytes]) -> None:
        self._answer = answer

    def remote(self, *args: Any) -> Reference:
        return Reference(self._answer, args)


class Reference:
    """Is a reference to an answer that is there."""

    def __init__(self, answer: Callable[..., bytes], args: tuple[Any, ...]) -> None:
        self._answer, self._args = answer, args

    def future(self) -> concurrent.futures.Future[bytes]:
        future: concurrent.futures.Future[bytes] = concurrent.futures.Future()
        try:
            future.set_result(self._answer(*self._args))
        except MemoryError as error:
            future.set_exception(error)
        return future


class Actor:
    """Stands in for a worker."""

    def __init__(self, run: Callable[..., bytes]) -> None:
        self.run = Method(run)


@pytest.fixture
def retired(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the workers that were retired, in place of retiring them."""
    ended: list[Any] = []

    async def retire(actor: Any) -> None:
        ended.append(actor)

    monkeypatch.setattr(ray_actors, "retire", retire)
    return ended


def function(task: int, lease: int = 1) -> Work:
    body = {"lease": lease, "work": {"function": {"code": "c"}}, "payload": {"inline": b""}}
    return Work({"task": task, "attempt": 1, **body})


def call(task: int, actor: int) -> Work:
    work = {"call": {"actor": actor, "method": "m"}}
    return Work({"task": task, "attempt": 1, "lease": 1, "work": work, "payload": "none"})


def job() -> Work:
    body = {"lease": 1, "work": "job", "payload": {"inline": b'{"entrypoint": "true"}'}}
    return Work({"task": 7, "attempt": 1, **body})


def ledger() -> tuple[Ledger, Reports]:
    made, reports = Ledger(), Reports()
    made.outbox = reports
    return made, reports


def runners(books: Ledger) -> Runners:
    made = Runners(SETTINGS, books, Inlining(), Pace())  # type: ignore[arg-type]
    made.code.add("c", b"")
    return made


async def until(condition: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not condition():  # noqa: ASYNC110 - it is no event
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), 10)


def put_to_work(crew: Runners, lane: Lane) -> None:
    """Have a worker that is up serve a lease."""
    lane.ready = True
    crew._lanes.add(lane)
    crew._by_lease[1] = lane


def test_what_a_worker_had_is_lost_when_the_agent_cannot_read_its_answer(
    retired: list[Any],
) -> None:
    def answer(_parcel: object) -> bytes:
        return wrap([(1, 1, "finished")])  # type: ignore[no-any-return]

    async def check() -> None:
        books, reports = ledger()
        crew = runners(books)
        lane = Lane(actor=Actor(answer), crew=crew, takes_back=True, lease=LEASE)
        put_to_work(crew, lane)
        crew.start(LEASE, [function(1), function(2)])
        await until(lambda: len(reports.said) == 2 and bool(retired))
        for task in (1, 2):
            error = reports.error(task)
            assert error["cause"] == "worker_died"
            assert "the agent stumbled over its worker: IndexError" in error["message"]
        assert retired == [lane.actor]
        assert crew.held_on("n1") == {}
        assert not crew.look(0.0)
        assert not lane.busy

    asyncio.run(check())


def test_an_actor_that_the_agent_cannot_go_on_with_ends_with_its_calls(retired: list[Any]) -> None:
    def answer(_parcel: object) -> bytes:
        raise MemoryError("no room")

    async def check() -> None:
        books, reports = ledger()
        crew = Actors(SETTINGS, books, Inlining(), runners(books), "life")  # type: ignore[arg-type]
        lane = Lane(actor=Actor(answer), crew=crew, takes_back=False, lease=LEASE, ready=True)
        work = Work.adopted((5, 1), "actor")
        crew._by_task[5] = crew._by_lane[lane] = Hosted(work, LEASE, lane)
        crew.call(call(6, 5))
        await until(lambda: len(reports.said) == 2 and bool(retired))
        for task in (5, 6):
            assert reports.error(task)["cause"] == "worker_died"
            assert "MemoryError: no room" in reports.error(task)["message"]
        assert retired == [lane.actor]
        assert crew.held_on("n1") == {}

    asyncio.run(check())


def test_idle_workers_make_room_for_what_others_leave_free(retired: list[Any]) -> None:
    async def check() -> None:
        books, _ = ledger()
        crew = runners(books)
        others = {"CPU": 1.0}
        nodes = Nodes(lambda node: sum_of(crew.held_on(node), others))
        crew.free = nodes.free_on
        node = {"NodeID": "n1", "Alive": True, "NodeManagerAddress": "a", "Resources": {"CPU": 4.0}}
        free = {"n1": {"CPU": 1.0}}
        lanes = [idle_worker(crew, Lease(n, "n1", {"CPU": 1.0}, None), n) for n in (1, 2)]
        nodes.update([node], free)
        nodes.update([node], free)
        crew.make_room(Lease(3, "n1", {"CPU": 1.0}, None))
        assert not any(lane.dead for lane in lanes)
        # An actor takes another core: one worker is in the way, the one that was idle for longer.
        others["CPU"] = 2.0
        crew.make_room(Lease(3, "n1", {"CPU": 1.0}, None))
        assert [lane.dead for lane in lanes] == [True, False]
        # A stranger takes the one that became free.
        nodes.update([node], {"n1": {"CPU": 0.0}})
        nodes.update([node], {"n1": {"CPU": 0.0}})
        crew.make_room(Lease(3, "n1", {"CPU": 0.0, "pool": 1.0}, None))
        assert not lanes[1].dead
        crew.make_room(Lease(3, "n1", {"CPU": 1.0}, None))
        assert lanes[1].dead
        await until(lambda: len(retired) == 2)

    asyncio.run(check())


def sum_of(left: dict[str, float], right: dict[str, float]) -> dict[str, float]:
    return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in left | right}


def idle_worker(crew: Runners, lease: Lease, since: float) -> Lane:
    lane = Lane(actor=object(), crew=crew, takes_back=True, lease=lease)
    put_to_work(crew, lane)
    crew._by_lease = {lease.number: lane}
    crew.drained(lane)
    lane.idle_since = since
    return lane


class Dashboard(Jobs):
    """Answers as the test says, in place of the Jobs API."""

    def __init__(self, books: Ledger, answer: Callable[[str, str], tuple[int, Any]]) -> None:
        super().__init__(SETTINGS, books, Packages(Blobs(lambda _frame: None)))
        self._answer = answer
        self.asked: list[str] = []

    async def _call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        del body
        self.asked.append(method if path.endswith("/stop") is False else "STOP")
        await asyncio.sleep(0)
        return self._answer(self.asked[-1], path)


def away(_method: str, _path: str) -> tuple[int, Any]:
    raise JobsUnavailable("it does not answer")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll without waiting, with a dashboard that is said to exist."""
    monkeypatch.setattr(jobs_module, "POLL_S", 0.001)
    monkeypatch.setattr(jobs_module, "SUBMIT_LIMIT_S", 0.05)
    monkeypatch.setattr(jobs_module, "dashboard_url", lambda: "http://nowhere")


def run_job(
    answer: Callable[[str, str], tuple[int, Any]],
    meanwhile: Callable[[Dashboard, Work, Reports], Coroutine[Any, Any, None]],
) -> tuple[Dashboard, Reports]:
    async def check() -> tuple[Dashboard, Reports]:
        books, reports = ledger()
        dashboard = Dashboard(books, answer)
        work = job()
        dashboard.start(LEASE, work)
        await meanwhile(dashboard, work, reports)
        await until(lambda: 7 in reports.said)
        await dashboard.close()
        return dashboard, reports

    return asyncio.run(check())


async def nothing(*_: object) -> None:
    """Let it be."""


@pytest.mark.usefixtures("hasty")
def test_job_is_given_up_while_the_dashboard_is_away() -> None:
    dashboard, reports = run_job(away, nothing)
    error = reports.error(7)
    assert error["cause"] == "not_started"
    assert "the Jobs API did not take it: it does not answer" in error["message"]
    assert "POST" not in dashboard.asked


@pytest.mark.usefixtures("hasty")
def test_job_that_was_stopped_is_not_submitted_when_the_dashboard_comes_back() -> None:
    back = False

    def answer(method: str, path: str) -> tuple[int, Any]:
        return (HTTPStatus.NOT_FOUND, {}) if back else away(method, path)

    async def meanwhile(dashboard: Dashboard, work: Work, _reports: Reports) -> None:
        nonlocal back
        await until(lambda: bool(dashboard.asked))
        work.stop = 0
        back = True

    dashboard, reports = run_job(answer, meanwhile)
    assert "stopped" in reports.said[7]
    assert "POST" not in dashboard.asked


@pytest.mark.usefixtures("hasty")
def test_job_whose_submission_is_in_doubt_is_looked_for_and_stopped() -> None:
    status = "RUNNING"
    back = False

    def answer(method: str, path: str) -> tuple[int, Any]:
        nonlocal status
        if method == "POST" or (not back and "POST" in asked):
            return away(method, path)
        if method == "STOP":
            status = "STOPPED"
        return (HTTPStatus.OK if back else HTTPStatus.NOT_FOUND), {"status": status}

    asked: list[str] = []

    async def meanwhile(dashboard: Dashboard, work: Work, reports: Reports) -> None:
        nonlocal asked, back
        del work
        asked = dashboard.asked
        await until(lambda: 7 in reports.said)
        back = True
        await until(lambda: "STOP" in dashboard.asked)

    dashboard, reports = run_job(answer, meanwhile)
    assert dashboard.asked.count("POST") == 1
    error = reports.error(7)
    assert error["cause"] == "worker_died"
    assert "whether the job was started is unknown" in error["message"]


@pytest.mark.usefixtures("hasty")
def test_job_that_cannot_be_followed_is_lost() -> None:
    _, reports = run_job(lambda _method, _path: (HTTPStatus.OK, {"no": "status"}), nothing)
    assert "the agent stumbled over its job: KeyError" in reports.error(7)["message"]


@pytest.mark.usefixtures("hasty")
def test_adopted_job_holds_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "is_settled", lambda _name: False)

    async def check() -> None:
        books, _ = ledger()
        mark = jobs_module.lease_mark(LEASE)
        name = SETTINGS.names.of((7, 1))
        entry = {"submission_id": name, "status": "RUNNING", "metadata": mark}

        def answer(_method: str, path: str) -> tuple[int, Any]:
            return HTTPStatus.OK, entry if path else [entry]

        dashboard = Dashboard(books, answer)
        await dashboard.adopt()
        assert dashboard.held_on("n1") == {"CPU": 1.0}
        await dashboard.close()

    asyncio.run(check())
