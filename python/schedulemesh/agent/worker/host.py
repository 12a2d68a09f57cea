"""The home of one user actor: a detached Ray actor that answers calls in order.

It outlives the agent. What it has answered is kept until the agent says that the control plane has
it, so that the next agent can report it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any

import ray

from schedulemesh.agent.worker.codec import unpack
from schedulemesh.agent.worker.lane import Lane, attempt_to_read

if TYPE_CHECKING:
    from schedulemesh.agent.worker.lane import Item, Key, Result


class ActorHost(Lane):
    """Holds an instance of the user's class."""

    def __init__(self, cluster: str) -> None:
        super().__init__(cluster)
        self._instance: Any = None
        self._identity: Key | None = None
        self._lease: Any = None
        self._kept: dict[Key, Result] = {}
        self._accepted: dict[Key, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def run_batch(self, batch: int, inline_max: int, extra: Any, items: list[Item]) -> list[Result]:
        """Run calls; the first item ever is the construction, with a map in place of a method."""
        with self._lock:
            calls = {(item[0], item[1]): None for item in items if isinstance(item[2], str)}
            self._accepted.update(calls)
        return super().run_batch(batch, inline_max, extra, items)

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def held(self) -> dict[str, Any]:
        """Tell a new agent what it has to know: whether it is up, and which calls it has."""
        with self._lock:
            return {
                "up": self._identity,
                "lease": self._lease,
                "boxes": self._box.paths,
                "calls": list(self._accepted),
            }

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def watch(self) -> None:
        """Return never: whoever waits for this hears at once when the actor dies."""
        threading.Event().wait()

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
                self._identity = self._running()
                self._lease = what["lease"]
            return None
        args, kwargs = attempt_to_read("the arguments", lambda: unpack(payload))
        value = getattr(self._instance, what)(*args, **kwargs)
        if asyncio.iscoroutine(value):
            return self._wait_for(value)
        return value

    def _construct(self, code: Any, payload: Any) -> None:
        cls = attempt_to_read("the class", lambda: unpack(code))
        args, kwargs, *_options = attempt_to_read("the arguments", lambda: unpack(payload))
        # The actor is one task for as long as it lives; its calls are others.
        os.environ["SCHEDULEMESH_ACTOR"] = os.environ["SCHEDULEMESH_TASK"]
        self._instance = cls(*args, **kwargs)

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
