"""User actors: detached, named after their attempt, found again by the next agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import list_named_actors

from schedulemesh.agent import ray_actors
from schedulemesh.agent.lane import Batch, Lane, Pace, each
from schedulemesh.agent.packages import PackageNotBroughtError
from schedulemesh.agent.settings import NAMESPACE
from schedulemesh.agent.work import Lease, Work
from schedulemesh.agent.worker.parcel import unwrap, wrap

if TYPE_CHECKING:
    from schedulemesh.agent.results import Results
    from schedulemesh.agent.runners import Runners
    from schedulemesh.agent.settings import Settings
    from schedulemesh.agent.wire import Key
    from schedulemesh.agent.work import Ledger

log = logging.getLogger("schedulemesh.agent")

ADOPT_TIMEOUT_S = 30.0
NAME_TRIES = 50
NAME_WAIT_S = 0.1
STOP_LOOK_S = 0.02


@dataclass(eq=False)
class Hosted:
    """Is one actor, from its start until its end is reported."""

    work: Work
    lease: Lease
    lane: Lane
    # Calls whose ends the control plane has, and which the actor may forget.
    forget: list[Key] = field(default_factory=list)
    # Batch 0: the construction.
    construction: Batch | None = None


class Actors:
    """Creates, calls, adopts and ends actors."""

    def __init__(
        self, settings: Settings, ledger: Ledger, results: Results, runners: Runners, agent: str
    ) -> None:
        self.ledger = ledger
        self.pace = Pace()
        # By which actors know whom they serve: this agent, or one that came after it.
        self._agent = agent
        self._settings = settings
        self._names = settings.names
        self._results = results
        self._runners = runners
        self._by_task: dict[int, Hosted] = {}
        self._by_lane: dict[Lane, Hosted] = {}
        self._caller: dict[Key, Hosted] = {}

    # What `Crew` asks for.

    def inline_max(self) -> int:
        """Return how many bytes of a result travel inline."""
        return self._results.inline_max

    def along(self, lane: Lane, items: list[Work]) -> str:  # noqa: ARG002 - as `Crew` has it
        """Have calls say whose they are."""
        return self._agent

    def upload(self, work: Work, run_us: int, size: int, refs: list[Any], lane: Lane) -> None:
        """Upload a large result, then report."""
        self._results.upload(work, run_us, size, refs, lane)

    def drained(self, lane: Lane) -> None:
        """Leave the actor alone: it waits for calls."""

    async def died(self, lane: Lane, error: RayError) -> None:
        """Report the death of an actor and of the calls that it had not answered."""
        if lane.dead:
            return
        lane.dead = True
        hosted = self._by_lane[lane]
        self._drop(hosted)
        box = await ray_actors.read_black_box(hosted.lease.node, lane.boxes)
        if box is not None:
            lane.settle(box[1])
        said = ray_actors.said(error)
        message = lane.why_killed or f"the actor died: {said}"
        name = f"t{hosted.work.key[0]}"
        if lane.ready or lane.boxes:
            self.ledger.lost(hosted.work, message)
        else:
            self.ledger.not_started(hosted.work, f"the actor did not start: {said}")
        gone = f"actor {name} ended before it answered: {message}"
        each(lane.unfinished(), lambda work: self.ledger.lost(work, gone))
        self._by_lane.pop(lane, None)

    def broke(self, lane: Lane, message: str) -> None:
        """End an actor that the agent cannot go on with, and fail its calls."""
        lived, lane.dead = lane.actor is not None and not lane.dead, True
        if lived:
            lane.spawn(ray_actors.retire(lane.actor))
        if hosted := self._by_lane.pop(lane, None):
            self._drop(hosted)
            self.ledger.lost(hosted.work, message)
        each(lane.unfinished(), lambda work: self.ledger.lost(work, message))

    # What the agent asks for.

    def start(self, lease: Lease, work: Work) -> None:
        """Create an actor."""
        if work.code not in self._runners.code:
            self.ledger.not_started(work, f"the code {work.code} did not arrive here")
            return
        self._runners.make_room(lease)
        lane = Lane(actor=None, crew=self, takes_back=False, lease=lease)
        hosted = Hosted(work, lease, lane)
        self._by_task[work.key[0]] = hosted
        self._by_lane[lane] = hosted
        lane.spawn(self._bring_up(hosted))

    def call(self, work: Work) -> None:
        """Queue a call."""
        hosted = self._by_task.get(work.target)
        if hosted is None:
            self.ledger.lost(work, f"actor t{work.target} does not live here any more")
            return
        self._caller[work.key] = hosted
        hosted.lane.queue.append(work)
        hosted.lane.pump()

    async def stop(self, work: Work) -> None:
        """End an actor, or a call as far as that goes without ending its actor."""
        hosted = self._by_task.get(work.key[0] if work.kind == "actor" else work.target)
        if hosted is None:
            self.ledger.stopped(work, 0)
        elif work.kind == "actor":
            hosted.lane.why_killed = "the actor was stopped"
            if hosted.lane.actor is None:
                self._fail(hosted, hosted.lane.why_killed)
            else:
                await ray_actors.retire(hosted.lane.actor)
        else:
            await self._stop_call(hosted.lane, work)

    async def _stop_call(self, lane: Lane, work: Work) -> None:
        while not work.ended and not lane.dead:
            if await lane.interrupt(work) == "dropped":
                self.ledger.stopped(work, 0)
            # A call that does not heed the interrupt goes on: ending it would end the actor.
            await asyncio.sleep(STOP_LOOK_S)

    def pump(self) -> None:
        """Look whether anything has become ready to be sent."""
        for hosted in self._by_task.values():
            hosted.lane.pump()

    def look(self, now: float) -> bool:
        """Look into calls that take long; return whether any runs."""
        busy = False
        for hosted in list(self._by_task.values()):
            hosted.lane.look(now)
            busy = busy or hosted.lane.busy
        return busy

    def held_on(self, node: str) -> dict[str, float]:
        """Return what the actors on a node hold."""
        held: dict[str, float] = {}
        for hosted in self._by_lane.values():
            if hosted.lease.node == node:
                for name, amount in hosted.lease.resources.items():
                    held[name] = held.get(name, 0.0) + amount
        return held

    def acknowledged(self, key: Key) -> None:
        """Hear that the control plane has the end of an attempt."""
        hosted = self._caller.pop(key, None)
        if hosted is not None and not hosted.lane.dead:
            hosted.forget.append(key)

    def tidy(self) -> None:
        """Tell actors what they may forget."""
        for hosted in self._by_task.values():
            if hosted.forget and not hosted.lane.pins:
                calls, hosted.forget = hosted.forget, []
                hosted.lane.actor.forget.remote(calls)

    async def output(self, work: Work) -> str | None:
        """Return what an actor has printed lately, or a running call so far."""
        hosted = self._by_task.get(work.key[0] if work.kind == "actor" else work.target)
        if hosted is None or hosted.lane.actor is None:
            return None
        return await hosted.lane.output(work.key) or self.ledger.outputs.get(work.key) or ""

    async def adopt(self) -> None:
        """Take over the actors that an earlier agent has left."""
        found = await self._ours()
        await asyncio.gather(*(self._adopt_one(key, name) for key, name in found.items()))

    async def fence(self, keys: set[Key]) -> None:
        """See to it that attempts which are not held do not live on as actors."""
        found = await self._ours()
        for key in keys & found.keys():
            await asyncio.to_thread(kill_named, found[key])

    async def _ours(self) -> dict[Key, str]:
        """List the actors of our control plane."""
        names = await asyncio.to_thread(list_named_actors, True)  # noqa: FBT003 - all namespaces
        named = ((self._names.read(x["name"]), x) for x in names if x["namespace"] == NAMESPACE)
        return {key: str(entry["name"]) for key, entry in named if key is not None}

    async def _adopt_one(self, key: Key, name: str) -> None:
        try:
            actor = ray.get_actor(name, namespace=NAMESPACE)
            asked = ray_actors.awaited(actor.held.remote(self._agent))
            held = await asyncio.wait_for(asked, ADOPT_TIMEOUT_S)
        except (ValueError, RayError, asyncio.TimeoutError) as error:
            # Its work will be started again: it must not go on beside that.
            log.warning("did not adopt %s, ended it: %s", name, ray_actors.said(error))
            await asyncio.to_thread(kill_named, name)
            return
        if held["up"] is None:
            # The one that was starting it is gone; it will be started again.
            ray_actors.kill(actor)
            return
        lease = Lease(**held["lease"])
        lane = Lane(actor=actor, crew=self, takes_back=False, lease=lease, ready=True)
        lane.boxes = held["boxes"]
        work = Work.adopted(key, "actor")
        self.ledger.held[key] = work
        hosted = Hosted(work, lease, lane)
        self._by_task[key[0]] = hosted
        self._by_lane[lane] = hosted
        calls = {tuple(call): Work.adopted(tuple(call), "call", key[0]) for call in held["calls"]}
        self.ledger.held.update(calls)
        self._caller.update(dict.fromkeys(calls, hosted))
        lane.concurrency = held["concurrency"]
        lane.resume(calls, actor.resume.remote())
        self.ledger.started(work)
        self._attend(lane)
        log.info("adopted actor %s with %d calls", name, len(calls))

    async def _bring_up(self, hosted: Hosted) -> None:
        lane, lease = hosted.lane, hosted.lease
        limit = self._settings.start_limit_s(with_env=bool(lease.runtime_env))
        name = self._names.of(hosted.work.key)
        try:
            known = await self._runners.packages.lease(lease)
            if lane.dead:
                return
            lane.actor = await self._create(known, name)
            about = await asyncio.wait_for(ray_actors.awaited(lane.actor.about.remote()), limit)
            lane.boxes = about["boxes"]
            await self._construct(hosted)
        except PackageNotBroughtError as error:
            self._fail(hosted, str(error))
        except asyncio.TimeoutError:
            self._fail(hosted, f"the actor had no worker after {limit:.0f} s")
        except RayTaskError as error:
            self._fail(hosted, f"the actor's worker stumbled: {ray_actors.said(error)}")
        except RayError as error:
            await self.died(lane, error)
        except (ValueError, TypeError, json.JSONDecodeError) as error:
            self._fail(hosted, f"Ray refused to create the actor: {ray_actors.said(error)}")

    async def _create(self, lease: Lease, name: str) -> Any:
        for _ in range(NAME_TRIES):
            try:
                return ray_actors.create_host(lease, self._settings.cluster, name, self._agent)
            except ValueError as error:
                if "already" not in str(error):
                    raise
            # An earlier agent began to start this attempt and was gone before it was up.
            kill_named(name)
            await asyncio.sleep(NAME_WAIT_S)
        raise ValueError(f"the name {name} stays taken")

    async def _construct(self, hosted: Hosted) -> None:
        work, lane = hosted.work, hosted.lane
        await work.fetched()
        if work.ended:
            self._fail(hosted, "")
            return
        code = self._runners.code[work.code]
        what = {"code": code, "lease": asdict(hosted.lease)}
        item = (*work.key, what, work.payload)
        parcel = wrap((0, self.inline_max(), self._agent, [item]))
        (result,) = unwrap(await lane.actor.run.remote(parcel))
        _task, _attempt, kind, run_us, packed, error, output = result
        if output:
            self.ledger.outputs.keep(work.key, output)
        if kind == "finished":
            self.ledger.started(work)
            work.payload = None
            held = await ray_actors.awaited(lane.actor.held.remote(self._agent))
            lane.concurrency = held["concurrency"]
            lane.ready = True
            self._attend(lane)
            lane.pump()
            return
        if kind == "failed":
            self.ledger.failed(work, run_us, error, packed)
        self._fail(hosted, "its constructor was stopped")

    def _attend(self, lane: Lane) -> None:
        lane.spawn(self._watch(lane))
        if lane.concurrency > 1:
            lane.spawn(self._collect(lane))

    async def _watch(self, lane: Lane) -> None:
        try:
            await lane.actor.watch.remote(self._agent)
        except RayError as error:
            await self.died(lane, error)

    async def _collect(self, lane: Lane) -> None:
        """Fetch results of calls that run side by side, until the actor dies or changes hands."""
        with contextlib.suppress(RayError):
            while (results := await lane.actor.collect.remote(self._agent)) is not None:
                lane.collected(unwrap(results))
            each(lane.unfinished(), self.ledger.returned)

    def _fail(self, hosted: Hosted, message: str) -> None:
        """Give up an actor that did not come up."""
        lane = hosted.lane
        lane.dead = True
        self._drop(hosted)
        if lane.actor is not None:
            lane.spawn(ray_actors.retire(lane.actor))
        self.ledger.not_started(hosted.work, message)
        gone = f"actor t{hosted.work.key[0]} did not come up"
        each(lane.unfinished(), lambda work: self.ledger.lost(work, gone))
        self._by_lane.pop(lane, None)

    def _drop(self, hosted: Hosted) -> None:
        if self._by_task.get(hosted.work.key[0]) is hosted:
            del self._by_task[hosted.work.key[0]]
        for key in [key for key, owner in self._caller.items() if owner is hosted]:
            del self._caller[key]


def kill_named(name: str) -> None:
    """Kill an actor by its name. Blocks while Ray is asked for it."""
    with contextlib.suppress(ValueError, RayError):
        ray_actors.kill(ray.get_actor(name, namespace=NAMESPACE))
