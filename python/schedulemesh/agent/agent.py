"""The agent itself: takes frames from the link, has them carried out, and keeps the view of Ray."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from schedulemesh.agent import ray_actors, wire
from schedulemesh.agent.actors import Actors
from schedulemesh.agent.blobs import BlobRefused, Blobs
from schedulemesh.agent.jobs import Jobs
from schedulemesh.agent.lane import Pace, each
from schedulemesh.agent.link import Door, Link, LinkClosed, end_all
from schedulemesh.agent.nodes import Nodes, ask_ray
from schedulemesh.agent.outbox import Outbox
from schedulemesh.agent.packages import Packages
from schedulemesh.agent.results import Results
from schedulemesh.agent.runners import Runners
from schedulemesh.agent.work import Lease, Ledger, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from schedulemesh.agent.settings import Settings

log = logging.getLogger("schedulemesh.agent")

LOOK_S = 0.01
TIDY_S = 1.0
HEALTH_TIMEOUT_S = 5.0
RAY_GONE_S = 60.0
PIECE = 4 << 20
# Kinds of work that name code by its digest.
CODED = frozenset({"function", "actor"})


class RayGoneError(Exception):
    """Says that the Ray cluster does not answer any more."""


class Agent:
    """Ties the parts together, in one event loop; what blocks goes to a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._incarnation = str(uuid.uuid4())
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = asyncio.Event()
        self._link = Link(Door(settings.token, settings.server, settings.listen), self)
        self._blobs = Blobs(self._link.send)
        self._ledger = Ledger()
        self._ledger.outbox = Outbox(self._link.wake, self._acknowledged)
        self._link.outbox = self._ledger.outbox
        results = Results(self._ledger, self._blobs)
        self._results = results
        packages = Packages(self._blobs)
        self._runners = Runners(settings, self._ledger, results, Pace())
        self._runners.packages = packages
        self._actors = Actors(settings, self._ledger, results, self._runners, self._incarnation)
        self._jobs = Jobs(settings, self._ledger, packages)
        self._nodes = Nodes(self._held_on)
        self._runners.free = self._nodes.free_on
        self._handlers: dict[str, Callable[[Any], None]] = {
            "start": self._on_start,
            "stop": self._on_stop,
            "ask": self._on_ask,
            "piece": self._blobs.on_piece,
            "pushed": self._blobs.on_pushed,
        }

    async def run(self) -> None:
        """Serve until cancelled, or refused for good."""
        ray_actors.ship_by_value()
        await self._actors.adopt()
        await self._jobs.adopt()
        await self._sample()
        await self._sample()
        parts = [self._link.run(), self._look_forever(), self._tidy_forever()]
        parts.append(self._sample_forever())
        running = [asyncio.ensure_future(part) for part in parts]
        try:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            await end_all(running)
            await self._runners.close()
            await self._jobs.close()

    # What the link asks for.

    def hello(self) -> bytes:
        """Make the first frame."""
        return wire.hello(
            self._settings.cluster,
            self._incarnation,
            ray.__version__,
            list(self._ledger.held),
            self._nodes.frame,
        )

    def linked(self, welcome: dict[str, Any]) -> None:
        """Hear that a link is up."""
        self._results.inline_max = welcome["inline_max"]
        self._runners.code.linked()
        self._blobs.link_up()
        # What changed between the hello and now.
        self._link.send(wire.encode("nodes", self._nodes.frame))

    def unlinked(self) -> None:
        """Hear that the link is down: work goes on."""
        self._blobs.link_down()

    def handle(self, kind: str, body: Any) -> None:
        """Take a frame; of a kind that a later control plane may send, take no notice."""
        handler = self._handlers.get(kind)
        if handler is None:
            log.warning("ignored a frame of unknown kind %r", kind)
        else:
            handler(body)

    # What the control plane asks for.

    def _on_start(self, body: dict[str, Any]) -> None:
        for code in body["code"]:
            self._runners.code.add(code["digest"], code["bytes"])
        leases = {frame["lease"]: Lease.read(frame) for frame in body["leases"]}
        functions: dict[int, list[Work]] = {}
        held = self._ledger.held
        for work in self._new_works(body["tasks"]):
            held[work.key] = work
            if not work.ready:
                work.fetch = self._spawn(self._fetch(work, work.payload))
            if work.kind == "function":
                functions.setdefault(work.lease, []).append(work)
            else:
                self._start_other(work, leases.get(work.lease))
        for number, works in functions.items():
            if lease := leases.get(number):
                self._runners.start(lease, works)
            else:
                each(works, self._without_lease)
        self._working.set()

    def _new_works(self, frames: list[dict[str, Any]]) -> list[Work]:
        """Read what is not held yet; all of it or, when code has to be brought again, nothing."""
        held, code = self._ledger.held, self._runners.code
        works = {
            key: Work(frame)
            for frame in frames
            if (key := (frame["task"], frame["attempt"])) not in held
        }
        for work in works.values():
            if work.kind in CODED and code.dropped(work.code):
                task = f"t{work.key[0]}"
                raise LinkClosed(f"{task} needs code that was dropped here; a new link brings it")
        return list(works.values())

    def _start_other(self, work: Work, lease: Lease | None) -> None:
        if work.kind == "call":
            self._actors.call(work)
        elif lease is None:
            self._without_lease(work)
        elif work.kind == "actor":
            self._actors.start(lease, work)
        elif work.kind == "job":
            # Not held in Ray, but what the job starts there will want it.
            self._runners.make_room(lease)
            self._jobs.start(lease, work)
        else:
            self._ledger.not_started(work, f"this agent knows no work of kind {work.kind!r}")

    def _without_lease(self, work: Work) -> None:
        self._ledger.not_started(work, "its lease did not come along")

    def _on_stop(self, body: list[dict[str, Any]]) -> None:
        unknown = []
        for frame in body:
            key = (frame["task"], frame["attempt"])
            work = self._ledger.held.get(key)
            if work is None:
                work = self._ledger.held[key] = Work.adopted(key, "unknown")
                work.stop = frame["grace_ms"]
                unknown.append(work)
            elif work.stop is None and not work.ended:
                work.stop = frame["grace_ms"]
                self._spawn(self._stop(work))
        if unknown:
            self._spawn(self._stop_unknown(unknown))

    async def _stop_unknown(self, works: list[Work]) -> None:
        """Answer for what is not held: mostly it never came, but it may run, not adopted."""
        keys = {work.key for work in works}
        while True:
            try:
                await asyncio.gather(self._actors.fence(keys), self._jobs.fence(keys))
                break
            except Exception as error:  # noqa: BLE001 - Ray raises all sorts while it is away
                log.warning("cannot look for %d attempts to stop: %s", len(keys), error)
                await asyncio.sleep(TIDY_S)
        each(works, lambda work: self._ledger.stopped(work, 0))

    async def _stop(self, work: Work) -> None:
        if work.kind == "function":
            await self._runners.stop(work)
        elif work.kind == "job":
            await self._jobs.stop(work)
        else:
            await self._actors.stop(work)

    def _on_ask(self, body: dict[str, Any]) -> None:
        self._spawn(self._answer(body["id"], body["what"]))

    async def _answer(self, number: int, question: Any) -> None:
        kind, what = wire.one_of(question)
        if kind == "health":
            result = await self._health()
        elif kind == "logs":
            result = await self._logs((what["task"], what["attempt"]), what["tail_bytes"])
        else:
            result = {"Err": f"this agent cannot answer {kind!r}"}
        self._link.send(wire.encode("answer", {"id": number, "result": result}))

    async def _health(self) -> dict[str, str]:
        try:
            nodes, _ = await asyncio.wait_for(asyncio.to_thread(ask_ray), HEALTH_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            return {"Err": f"Ray does not answer: {type(error).__name__}: {error}"}
        alive = sum(1 for node in nodes if node["Alive"])
        return {"Ok": f"Ray {ray.__version__} answers, {alive} nodes alive"}

    async def _logs(self, key: wire.Key, tail: int) -> dict[str, str]:
        text = self._ledger.outputs.get(key)
        if text is None:
            text = await self._running_output(key)
        if text is None:
            return {"Err": f"the output of t{key[0]}, attempt {key[1]}, is not known here any more"}
        data = text.encode(errors="replace")
        return {"Ok": data[max(0, len(data) - tail) :].decode(errors="replace")}

    async def _running_output(self, key: wire.Key) -> str | None:
        work = self._ledger.held.get(key)
        if work is not None and work.kind == "function":
            lane = self._runners.lane_of(work)
            text = await lane.output(key) if lane else None
            # It may have ended in between; it may also not have begun.
            return text or self._ledger.outputs.get(key) or ""
        if work is not None and work.kind in {"actor", "call"}:
            return await self._actors.output(work)
        return await self._jobs.output(key)

    # What goes on beside.

    async def _fetch(self, work: Work, blob: dict[str, Any]) -> None:
        """Bring large arguments into the cluster's object store."""
        refs = []
        piece = bytearray()
        try:
            async for part in self._blobs.pull(blob["id"], blob["size"]):
                piece += part
                if len(piece) >= PIECE:
                    refs.append(await asyncio.to_thread(ray.put, bytes(piece)))
                    piece.clear()
            if piece:
                refs.append(await asyncio.to_thread(ray.put, bytes(piece)))
        except (BlobRefused, RayError) as error:
            message = f"its arguments of {blob['size']} bytes did not arrive: {error}"
            self._ledger.not_started(work, message)
        except Exception as error:
            # Unforeseen, but nobody else would ever say that it ended.
            self._ledger.not_started(work, f"the agent stumbled over its arguments: {error!r}")
            raise
        else:
            work.payload = refs
            work.ready = True
        self._runners.pump()
        self._actors.pump()

    def _acknowledged(self, key: wire.Key) -> None:
        self._ledger.acknowledged(key)
        self._actors.acknowledged(key)
        self._jobs.acknowledged(key)

    def _held_on(self, node: str) -> dict[str, float]:
        held = self._runners.held_on(node)
        for part in (self._actors.held_on(node), self._jobs.held_on(node)):
            for name, amount in part.items():
                held[name] = held.get(name, 0.0) + amount
        return held

    async def _sample(self) -> None:
        nodes, available = await asyncio.to_thread(ask_ray)
        if self._nodes.update(nodes, available):
            self._link.send(wire.encode("nodes", self._nodes.frame))

    async def _sample_forever(self) -> None:
        heard = time.monotonic()
        while True:
            await asyncio.sleep(self._settings.sample_s)
            try:
                await self._sample()
                heard = time.monotonic()
            except Exception as error:
                # Ray raises all sorts of things while its head is away.
                log.warning("Ray does not tell its nodes: %s", error)
                if time.monotonic() - heard > RAY_GONE_S:
                    raise RayGoneError(f"Ray was silent for {RAY_GONE_S:.0f} s: {error}") from error

    async def _look_forever(self) -> None:
        while True:
            await self._working.wait()
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            functions, calls = self._runners.look(now), self._actors.look(now)
            if not functions and not calls:
                self._working.clear()

    async def _tidy_forever(self) -> None:
        while True:
            await asyncio.sleep(TIDY_S)
            self._runners.reap(time.monotonic())
            self._actors.tidy()
            if self._runners.code.full:
                held = self._ledger.held.values()
                self._runners.code.trim({work.code for work in held if not work.ended})

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("something failed that should not", exc_info=error)
