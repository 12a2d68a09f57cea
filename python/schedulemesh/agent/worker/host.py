"""The home of one user actor: a detached Ray actor that answers calls, in order unless asked.

It outlives the agent. What it has answered is kept until the agent says that the control plane has
it, so that the next agent can report it. It serves one agent at a time: calls that an earlier agent
had handed to Ray, and which had not begun when the next one came, are not run any more, because
that one does not know of them and the control plane counts them as lost.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any

import ray

from schedulemesh.agent.worker.codec import unpack
from schedulemesh.agent.worker.lane import Lane, Slot, Unreadable, attempt_to_read
from schedulemesh.agent.worker.parcel import wrap

if TYPE_CHECKING:
    from schedulemesh.agent.worker.lane import Item, Key, Result


CONCURRENCY = "max_concurrency"
CONCURRENCY_MAX = 1_000


class ActorHost(Lane):
    """Holds an instance of the user's class."""

    def __init__(self, cluster: str, agent: str) -> None:
        super().__init__(cluster)
        # The agent that it serves, guarded by the lock as all below.
        self._agent = agent
        # Threads that wait for calls, and how many there are; none of either when calls run in
        # order, in the thread of `run`.
        self._idle = self._threads = 0
        self._instance: Any = None
        self._identity: Key | None = None
        self._lease: Any = None
        self._kept: dict[Key, Result] = {}
        self._accepted: dict[Key, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def run_batch(self, batch: int, inline_max: int, extra: Any, items: list[Item]) -> list[Result]:
        """Run calls; the first item ever is the construction, with a map in place of a method."""
        with self._lock:
            if extra != self._agent:
                return []
            calls = {(item[0], item[1]): None for item in items if isinstance(item[2], str)}
            self._accepted.update(calls)
            if len(self._slots) > 1:
                self._inline_max = inline_max
                self._spread(items)
                return []
        return super().run_batch(batch, inline_max, None, items)

    def _spread(self, items: list[Item]) -> None:
        """Have calls run side by side; their results are fetched with `collect`."""
        self._waiting.extend(items)
        short = min(len(self._waiting) - self._idle, len(self._slots) - 1 - self._threads)
        for slot in self._slots[1 + self._threads :][: max(0, short)]:
            self._threads += 1
            threading.Thread(target=self._serve, args=(slot,), daemon=True).start()
        self._changed.notify_all()

    def _serve(self, slot: Slot) -> None:
        slot.thread = threading.get_ident()
        while True:
            with self._lock:
                self._idle += 1
                self._changed.wait_for(lambda: self._waiting)
                self._idle -= 1
            self._next(slot)

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def held(self, agent: str) -> dict[str, Any]:
        """Serve this agent from now on, and tell what it has to know."""
        with self._lock:
            self._agent = agent
            self._changed.notify_all()
            return {
                "up": self._identity,
                "concurrency": max(1, len(self._slots) - 1),
                "lease": self._lease,
                "boxes": self._box.paths,
                "calls": list(self._accepted),
            }

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def watch(self, agent: str) -> None:
        """Return when another agent comes: who waits for this hears at once when the actor dies."""
        with self._lock:
            self._changed.wait_for(lambda: self._agent != agent)

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def collect(self, agent: str) -> Any:
        """Wait for results of calls that run side by side; None when another agent has come."""
        with self._lock:
            self._changed.wait_for(lambda: self._results or self._agent != agent)
            if self._agent != agent:
                return None
            results, self._results = self._results, []
        return wrap(results)

    def resume(self) -> list[Result]:
        """Return all that is kept; being in line behind the calls, it waits for them."""
        with self._lock:
            self._results = []
            return list(self._kept.values())

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def forget(self, calls: list[Key]) -> None:
        """Forget calls whose ends the control plane has."""
        with self._lock:
            for call in calls:
                self._kept.pop(call, None)
                self._accepted.pop(call, None)

    def keep(self, result: Result) -> None:
        """Remember a result until the control plane has it."""
        key = (result[0], result[1])
        with self._lock:
            if key in self._accepted:
                self._kept[key] = result

    def perform(self, what: Any, payload: Any) -> object:
        """Construct the instance, or call a method of it."""
        if isinstance(what, dict):
            self._construct(what["code"], payload)
            with self._lock:
                self._identity = self._slots[0].key
                self._lease = what["lease"]
            return None
        args, kwargs = attempt_to_read("the arguments", lambda: unpack(payload))
        value = getattr(self._instance, what)(*args, **kwargs)
        if asyncio.iscoroutine(value):
            return self._wait_for(value)
        return value

    def _construct(self, code: Any, payload: Any) -> None:
        cls = attempt_to_read("the class", lambda: unpack(code))
        args, kwargs, options = attempt_to_read("the arguments", lambda: unpack(payload))
        concurrency = read_options(options)
        # The actor is one task for as long as it lives; its calls are others.
        os.environ["SCHEDULEMESH_ACTOR"] = os.environ["SCHEDULEMESH_TASK"]
        self._instance = cls(*args, **kwargs)
        if concurrency > 1:
            # It knows of two batches in turn, not of as many as there will be at once.
            self._box.silent = True
            with self._lock:
                self._slots += [Slot() for _ in range(concurrency)]

    def _wait_for(self, coroutine: Any) -> object:
        """Run a coroutine in the one loop that all async methods of this actor share."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            # An interrupt reaches this thread between two waits.
            while not concurrent.futures.wait([future], timeout=0.05).done:
                pass
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


def read_options(options: dict[str, Any]) -> int:
    """Return how many calls may run at once; refuse options that are not carried out."""
    unknown = sorted(options.keys() - {CONCURRENCY})
    if unknown:
        raise Unreadable(f"the agent knows no actor option {unknown[0]!r}, only {CONCURRENCY}")
    asked = options.get(CONCURRENCY, 1)
    if type(asked) is not int or not 1 <= asked <= CONCURRENCY_MAX:
        raise Unreadable(f"{CONCURRENCY} is {asked!r}, not a number from 1 to {CONCURRENCY_MAX}")
    return asked
