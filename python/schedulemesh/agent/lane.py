"""One worker, as the agent sees it: a queue, batches on their way, and what becomes of them.

Tasks of a lease are sent to its worker as batches, a second one while the first runs, so that the
worker never waits. What runs for long is looked into and, where the rest of the batch could run
elsewhere, the rest is taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ray.exceptions import RayError, RayTaskError

from schedulemesh.agent.work import data_frame
from schedulemesh.agent.worker.parcel import unwrap, wrap

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine, Iterable

    from schedulemesh.agent.wire import Key
    from schedulemesh.agent.work import Lease, Ledger, Work

log = logging.getLogger("schedulemesh.agent")

PIPELINE = 2
BATCH_ITEMS = 256
BATCH_BYTES = 1 << 20
# A batch should take about so long: short enough to be looked at as a whole.
BATCH_US = 30_000
# What a function is thought to take before it was ever seen.
UNKNOWN_US = 1_000
LOOK_AFTER_S = 0.025
LOOK_MAX_S = 1.0
TAKE_BACK_S = 0.25
CONTROL_TIMEOUT_S = 5.0
# Most characters of what is said of an unforeseen exception.
STUMBLED_MAX = 2_000


class Crew(Protocol):
    """Is whom lanes belong to: the runners or the actors."""

    ledger: Ledger
    pace: Pace

    def inline_max(self) -> int:
        """Return how many bytes of a result travel inline."""

    def along(self, lane: Lane, items: list[Work]) -> Any:
        """Return what has to go along with a batch."""

    def upload(self, work: Work, run_us: int, size: int, refs: list[Any], lane: Lane) -> None:
        """Upload a large result, then report."""

    def drained(self, lane: Lane) -> None:
        """Hear that a lane has nothing left to do."""

    def died(self, lane: Lane, error: RayError) -> Coroutine[Any, Any, None]:
        """Hear that a lane's worker is gone, and report what it had."""

    def broke(self, lane: Lane, message: str) -> None:
        """Hear that the agent cannot go on with a lane; end its worker and report all it had."""


class Pace:
    """Remembers how long functions take, by their digest."""

    LIMIT = 10_000

    def __init__(self) -> None:
        self._mean_us: dict[str, float] = {}

    def of(self, code: str) -> float:
        """Return how long it will probably take, in microseconds."""
        return self._mean_us.get(code, UNKNOWN_US)

    def saw(self, code: str, run_us: int) -> None:
        """Learn from a run."""
        before = self._mean_us.get(code)
        if before is None:
            if len(self._mean_us) >= self.LIMIT:
                self._mean_us.clear()
            self._mean_us[code] = float(run_us)
        else:
            self._mean_us[code] = before + (run_us - before) * 0.2


@dataclass
class Batch:
    """Is what was sent to a worker in one message and is not all answered."""

    number: int
    left: dict[Key, Work]
    due: float = 0.0


@dataclass(eq=False)
class Lane:
    """Is one worker with its queue."""

    actor: Any
    crew: Crew
    takes_back: bool
    # How many items run at once. Above one, results do not come with their batch but are collected.
    concurrency: int = 1
    queue: deque[Work] = field(default_factory=deque)
    batches: deque[Batch] = field(default_factory=deque)
    boxes: list[str] = field(default_factory=list)
    ready: bool = False
    dead: bool = False
    why_killed: str = ""
    # Large results that lie in the worker's memory: it must live until they are uploaded.
    pins: int = 0
    seen_code: set[str] = field(default_factory=set)
    _sent: int = 0
    _head_since: float = 0.0
    # What this is set to while it is in use: see `Runners` and `Actors`.
    lease: Lease | None = None
    idle_since: float = 0.0
    _looker: asyncio.Task[None] | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self.queue or self.batches)

    def unfinished(self) -> list[Work]:
        """Return everything that has not ended, in the order in which it runs."""
        sent = [work for batch in self.batches for work in batch.left.values()]
        return sent + list(self.queue)

    def pump(self) -> None:
        """Send what can be sent."""
        while self.ready and not self.dead and (most := self._room()) > 0:
            items = self._cut(most)
            if not items:
                return
            self._send(items)

    def _room(self) -> int:
        """Return how many items may be sent now."""
        if self.concurrency == 1:
            return BATCH_ITEMS if len(self.batches) < PIPELINE else 0
        sent = sum(len(batch.left) for batch in self.batches)
        return min(BATCH_ITEMS, PIPELINE * self.concurrency - sent)

    def _cut(self, most: int) -> list[Work]:
        """Take the next batch off the queue: what is ready, and not too much of it."""
        items: list[Work] = []
        size = 0
        expected = 0.0
        while self.queue and len(items) < most:
            work = self.queue[0]
            if work.ended:
                self.queue.popleft()
                continue
            length = len(work.payload) if isinstance(work.payload, bytes) else 0
            expected += self.crew.pace.of(work.code)
            if not work.ready or (items and (size + length > BATCH_BYTES or expected > BATCH_US)):
                break
            size += length
            items.append(self.queue.popleft())
        return items

    def _send(self, items: list[Work]) -> None:
        self._sent += 1
        batch = Batch(self._sent, {work.key: work for work in items})
        if not self.batches:
            self._head_since = time.monotonic()
        self.batches.append(batch)
        along = self.crew.along(self, items)
        body = [(*work.key, work.code, work.payload) for work in items]
        ref = self.actor.run.remote(wrap((batch.number, self.crew.inline_max(), along, body)))
        self._follow(batch, ref)

    def resume(self, left: dict[Key, Work], ref: Any) -> None:
        """Wait for what the worker was given by an earlier agent."""
        self._sent += 1
        batch = Batch(self._sent, left)
        self.batches.append(batch)
        self._head_since = time.monotonic()
        self._follow(batch, ref)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside, owned by this lane."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stumbled(error)

    def _stumbled(self, error: BaseException) -> None:
        log.error("something failed that should not", exc_info=error)
        # Whoever waited for this waits in vain: what it served must end all the same.
        message = f"the agent stumbled over its worker: {type(error).__name__}: {error}"
        self.crew.broke(self, message[:STUMBLED_MAX])

    def _follow(self, batch: Batch, ref: Any) -> None:
        """Hear of the answer to a batch, with as few steps between Ray's thread and here as can be.

        To await the reference in a task costs two more turns of the loop for each batch.
        """
        loop = asyncio.get_running_loop()

        def tell(answer: concurrent.futures.Future[Any]) -> None:
            # The loop may be closed: then nobody wants to hear of it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._answered, batch, answer)

        ref.future().add_done_callback(tell)

    def _answered(self, batch: Batch, answer: concurrent.futures.Future[Any]) -> None:
        try:
            self._take(batch, answer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the batch must end
            self._stumbled(error)

    def _take(self, batch: Batch, answer: concurrent.futures.Future[Any]) -> None:
        try:
            results = unwrap(answer.result())
        except RayTaskError as error:
            # Not the user's exception, those are results: the worker itself stumbled.
            for work in list(batch.left.values()):
                self.crew.ledger.not_started(work, f"the worker could not run it: {error}")
            results = []
        except RayError as error:
            self.spawn(self.crew.died(self, error))
            return
        if self.concurrency > 1:
            self.collected(results)
            return
        self.settle(results)
        if batch.left and self._looker is not None:
            # The other results went out with a look, whose answer is still on its way.
            self._looker.add_done_callback(lambda _: self._close(batch))
        else:
            self._close(batch)

    def _close(self, batch: Batch) -> None:
        """Be done with a batch whose results are all here."""
        for work in list(batch.left.values()):
            # Taken back while it was on its way.
            if not work.ended:
                self.crew.ledger.returned(work)
        if batch in self.batches:
            self.batches.remove(batch)
        self._head_since = time.monotonic()
        self.pump()
        if not self.busy:
            self.crew.drained(self)

    def collected(self, results: Iterable[tuple[Any, ...]]) -> None:
        """Report results of items that ran side by side, and send what there is room for."""
        self.settle(results)
        self.batches = deque(batch for batch in self.batches if batch.left)
        self.pump()

    def settle(self, results: Iterable[tuple[Any, ...]]) -> None:
        """Report results."""
        for result in results:
            key = (result[0], result[1])
            if output := result[6]:
                self.crew.ledger.outputs.keep(key, output)
            batch = next((batch for batch in self.batches if key in batch.left), None)
            if batch is not None:
                if not (work := batch.left[key]).ended:
                    self._report(work, result)
                # Not before: what cannot be reported must not be forgotten.
                del batch.left[key]

    def _report(self, work: Work, result: tuple[Any, ...]) -> None:
        ledger = self.crew.ledger
        _, _, kind, run_us, packed, error, _ = result
        if kind == "finished":
            self.crew.pace.saw(work.code, run_us)
            if isinstance(packed, tuple):
                self.crew.upload(work, run_us, packed[0], packed[1], self)
            else:
                ledger.finished(work, run_us, data_frame(packed))
        elif kind == "failed":
            details = packed if isinstance(packed, bytes) else None
            ledger.failed(work, run_us, error, details)
        elif kind == "lost":
            ledger.lost(work, "its worker died before its result was handed over", run_us)
        else:
            ledger.stopped(work, run_us)

    def _strike(self, key: Key) -> Work | None:
        for batch in self.batches:
            work = batch.left.pop(key, None)
            if work is not None:
                return work
        return None

    def look(self, now: float) -> None:
        """Look into a batch that takes long. Called every few milliseconds."""
        if not self.batches or self._looker is not None or self.dead:
            return
        age = now - self._head_since
        head = self.batches[0]
        late = self.takes_back and age > TAKE_BACK_S
        if late:
            self._hand_back_queue()
        take = late and sum(len(batch.left) for batch in self.batches) > 1
        alone = len(head.left) == 1 and all(work.started for work in head.left.values())
        if age < LOOK_AFTER_S or now < head.due or (alone and not take):
            return
        head.due = now + min(max(age, LOOK_AFTER_S), LOOK_MAX_S)
        numbers = [batch.number for batch in self.batches] if take else []
        self._looker = self.spawn(self._look(numbers))
        self._looker.add_done_callback(self._looked)

    def _looked(self, _: object) -> None:
        self._looker = None

    async def _look(self, numbers: list[int]) -> None:
        try:
            # Not given up after a time: the answer may hold results.
            seen = await self.actor.progress.remote(numbers)
        except RayError:
            # A death is noticed by the batch itself.
            return
        if self.concurrency > 1:
            self.collected(seen["results"])
        else:
            self.settle(seen["results"])
        for key in seen["returned"]:
            if work := self._strike(tuple(key)):
                self.crew.ledger.returned(work)
        for batch in self.batches:
            if batch.number in seen["refused"]:
                works, batch.left = list(batch.left.values()), {}
                each(works, self.crew.ledger.returned)
        for running in seen["running"]:
            for batch in self.batches:
                if work := batch.left.get(tuple(running)):
                    self.crew.ledger.started(work)

    def _hand_back_queue(self) -> None:
        waiting, self.queue = self.queue, deque()
        for work in waiting:
            if not work.ended:
                self.crew.ledger.returned(work)

    async def interrupt(self, work: Work) -> str:
        """Interrupt what runs, or drop what has not started."""
        if work in self.queue:
            self.queue.remove(work)
            return "dropped"
        try:
            said = await asyncio.wait_for(
                as_future(self.actor.interrupt.remote(*work.key)), CONTROL_TIMEOUT_S
            )
        except (RayError, asyncio.TimeoutError):
            return "unknown"
        if said == "dropped":
            self._strike(work.key)
        return str(said)

    async def output(self, key: Key) -> str | None:
        """Ask for what a running task has printed so far."""
        try:
            said = await asyncio.wait_for(
                as_future(self.actor.output.remote(*key)), CONTROL_TIMEOUT_S
            )
        except (RayError, asyncio.TimeoutError):
            return None
        return None if said is None else str(said)

    def holds(self, key: Key) -> bool:
        """Say whether an attempt is in a batch of this lane."""
        return any(key in batch.left for batch in self.batches)


async def as_future(ref: Any) -> Any:
    """Await a Ray reference as a coroutine, which `asyncio.wait_for` can cancel."""
    return await ref


def each(works: Iterable[Work], do: Callable[[Work], None]) -> None:
    """Do something to every attempt that has not ended."""
    for work in works:
        if not work.ended:
            do(work)
