"""Functions: warm workers, one for each lease, kept for the next lease of the same shape."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayError, RuntimeEnvSetupError

from schedulemesh.agent import ray_actors
from schedulemesh.agent.code import Code
from schedulemesh.agent.lane import Lane, each
from schedulemesh.agent.nodes import TINY
from schedulemesh.agent.packages import PackageNotBroughtError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from schedulemesh.agent.lane import Pace
    from schedulemesh.agent.packages import Packages
    from schedulemesh.agent.results import Results
    from schedulemesh.agent.settings import Settings
    from schedulemesh.agent.work import Lease, Ledger, Work

log = logging.getLogger("schedulemesh.agent")

STOP_LOOK_S = 0.02


class Runners:
    """Is the pool of warm workers."""

    def __init__(self, settings: Settings, ledger: Ledger, results: Results, pace: Pace) -> None:
        self.ledger = ledger
        self.pace = pace
        self.code = Code()
        self.packages: Packages
        self._settings = settings
        self._results = results
        self._lanes: set[Lane] = set()
        self._by_lease: dict[int, Lane] = {}
        self._idle: dict[tuple[Any, ...], list[Lane]] = {}
        # What is free on a node, by the account of the whole agent; None for an unknown node.
        self.free: Callable[[str], Mapping[str, float] | None] = lambda _node: None

    # What `Crew` asks for.

    def inline_max(self) -> int:
        """Return how many bytes of a result travel inline."""
        return self._results.inline_max

    def along(self, lane: Lane, items: list[Work]) -> dict[str, bytes]:
        """Return the code that the worker has not seen yet."""
        fresh = {work.code for work in items} - lane.seen_code
        lane.seen_code |= fresh
        return {digest: self.code[digest] for digest in fresh}

    def upload(self, work: Work, run_us: int, size: int, refs: list[Any], lane: Lane) -> None:
        """Upload a large result, then report."""
        self._results.upload(work, run_us, size, refs, lane)

    def drained(self, lane: Lane) -> None:
        """Keep a worker that has nothing left to do for the next lease."""
        if lane.lease is None or lane.dead:
            return
        if self._by_lease.get(lane.lease.number) is lane:
            del self._by_lease[lane.lease.number]
            lane.idle_since = time.monotonic()
            self._idle.setdefault(lane.lease.shape, []).append(lane)

    async def died(self, lane: Lane, error: RayError) -> None:
        """Report what a dead worker had: the one that ran failed, the rest did not start."""
        if lane.dead:
            return
        self._forget(lane)
        box = await ray_actors.read_black_box(lane.lease.node if lane.lease else "", lane.boxes)
        if box is not None:
            lane.settle(box[1])
        message = lane.why_killed or f"the worker died: {ray_actors.said(error)}"
        running = next((batch for batch in lane.batches if batch.left), None)
        if running is not None and (box is None or running.number in box[0]):
            # Without the box nobody knows; that the first one ran is the safe assumption.
            self.ledger.lost(next(iter(running.left.values())), message)
        each(lane.unfinished(), self.ledger.returned)

    def broke(self, lane: Lane, message: str) -> None:
        """Kill a worker that the agent cannot go on with; what was sent to it may have run."""
        lived = lane.actor is not None and not lane.dead
        self._forget(lane)
        if lived:
            lane.spawn(ray_actors.retire(lane.actor))
        sent = [work for batch in lane.batches for work in batch.left.values()]
        each(sent, lambda work: self.ledger.lost(work, message))
        each(list(lane.queue), self.ledger.returned)
        lane.batches.clear()
        lane.queue.clear()

    # What the agent asks for.

    def start(self, lease: Lease, works: list[Work]) -> None:
        """Queue functions on a lease."""
        known = []
        for work in works:
            if work.code in self.code:
                known.append(work)
            else:
                self.ledger.not_started(work, f"the code {work.code} did not arrive here")
        if known:
            self.code.use({work.code for work in known})
            lane = self._by_lease.get(lease.number) or self._bind(lease)
            lane.queue.extend(known)
            lane.pump()

    def lane_of(self, work: Work) -> Lane | None:
        """Find where an attempt is."""
        return next((x for x in self._lanes if x.holds(work.key) or work in x.queue), None)

    def pump(self) -> None:
        """Look whether anything has become ready to be sent."""
        for lane in list(self._by_lease.values()):
            lane.pump()

    def look(self, now: float) -> bool:
        """Look into what takes long; return whether anything runs."""
        for lane in list(self._by_lease.values()):
            lane.look(now)
        return bool(self._by_lease)

    def held_on(self, node: str) -> dict[str, float]:
        """Return what the workers on a node hold, idle ones too."""
        held: dict[str, float] = {}
        for lane in self._lanes:
            if lane.lease is not None and lane.lease.node == node:
                for name, amount in lane.lease.resources.items():
                    held[name] = held.get(name, 0.0) + amount
        return held

    async def stop(self, work: Work) -> None:
        """End a function: softly, and after the grace with its worker."""
        deadline = time.monotonic() + (work.stop or 0) / 1000
        while not work.ended and (lane := self.lane_of(work)) is not None:
            said = await lane.interrupt(work)
            if said == "dropped":
                self.ledger.stopped(work, 0)
                if not lane.busy:
                    self.drained(lane)
            elif said == "interrupted" and time.monotonic() >= deadline:
                lane.why_killed = "its worker was killed to stop another task"
                ray_actors.kill(lane.actor)
                return
            else:
                # It may be on its way to the worker, behind others, or about to end.
                await asyncio.sleep(STOP_LOOK_S)

    def reap(self, now: float) -> None:
        """End workers that were idle for long."""
        for lanes in list(self._idle.values()):
            for lane in list(lanes):
                if now - lane.idle_since > self._settings.idle_s and not lane.pins:
                    self._retire(lane)

    async def close(self) -> None:
        """End all workers."""
        lanes = list(self._lanes)
        for lane in lanes:
            self._forget(lane)
        await asyncio.gather(*(ray_actors.retire(lane.actor) for lane in lanes if lane.actor))

    def _bind(self, lease: Lease) -> Lane:
        """Find a worker for a lease, or create one."""
        warm = self._idle.get(lease.shape)
        lane = warm.pop() if warm else self._create(lease)
        lane.lease = lease
        self._by_lease[lease.number] = lane
        return lane

    def _create(self, lease: Lease) -> Lane:
        self.make_room(lease)
        lane = Lane(actor=None, crew=self, takes_back=True, lease=lease)
        self._lanes.add(lane)
        lane.spawn(self._bring_up(lane, lease))
        return lane

    async def _bring_up(self, lane: Lane, lease: Lease) -> None:
        limit = self._settings.start_limit_s(with_env=bool(lease.runtime_env))
        try:
            known = await self.packages.lease(lease)
            if lane.dead:
                return
            lane.actor = ray_actors.create_runner(known, self._settings.cluster)
            about = await asyncio.wait_for(ray_actors.awaited(lane.actor.about.remote()), limit)
        except asyncio.TimeoutError:
            log.warning("no worker on node %s after %.0f s, tasks handed back", lease.node, limit)
            self._give_up(lane, "")
        except PackageNotBroughtError as error:
            self._give_up(lane, str(error))
        except RuntimeEnvSetupError as error:
            self._give_up(lane, f"the runtime environment failed: {ray_actors.said(error)}")
        except RayError as error:
            self._give_up(lane, f"the worker did not start: {ray_actors.said(error)}")
        except (ValueError, TypeError, json.JSONDecodeError) as error:
            self._give_up(lane, f"Ray refused to create the worker: {ray_actors.said(error)}")
        else:
            lane.boxes = about["boxes"]
            lane.ready = True
            lane.pump()
            if not lane.busy:
                self.drained(lane)

    def _give_up(self, lane: Lane, message: str) -> None:
        self._forget(lane)
        if lane.actor is not None:
            ray_actors.kill(lane.actor)
        if message:
            each(lane.unfinished(), lambda work: self.ledger.not_started(work, message))
        else:
            each(lane.unfinished(), self.ledger.returned)

    def make_room(self, lease: Lease) -> None:
        """End idle workers on a node as far as they are in the way of a new one."""
        idle = [
            lane
            for lanes in self._idle.values()
            for lane in lanes
            if lane.lease is not None and lane.lease.node == lease.node and not lane.pins
        ]
        for lane in sorted(idle, key=lambda lane: lane.idle_since):
            free = self.free(lease.node)
            if free is None:
                return
            wanted = lease.resources.items()
            short = {name for name, amount in wanted if free.get(name, 0.0) + TINY < amount}
            if not short:
                return
            if lane.lease is not None and any(map(lane.lease.resources.get, short)):
                self._retire(lane)

    def _retire(self, lane: Lane) -> None:
        self._forget(lane)
        lane.spawn(ray_actors.retire(lane.actor))

    def _forget(self, lane: Lane) -> None:
        lane.dead = True
        self._lanes.discard(lane)
        if lane.lease is not None:
            if self._by_lease.get(lane.lease.number) is lane:
                del self._by_lease[lane.lease.number]
            warm = self._idle.get(lane.lease.shape, [])
            if lane in warm:
                warm.remove(lane)
            if not warm:
                self._idle.pop(lane.lease.shape, None)
