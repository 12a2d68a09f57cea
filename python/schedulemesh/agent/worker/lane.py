"""Runs items one after the other for the agent: the common part of runners and actor hosts.

An item is `(task, attempt, what, payload)`. A result is
`(task, attempt, kind, run_us, packed, error, output)` with `kind` one of `finished`, `failed`,
`stopped`; `packed` is the pickled value or the pickled exception; `error` says in text what was
raised; `output` is the tail of what was printed.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import os
import platform
import threading
import time
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

import ray

from schedulemesh.agent.worker.blackbox import BlackBox, remove_boxes
from schedulemesh.agent.worker.codec import load_cloudpickle, pack, pack_exception
from schedulemesh.agent.worker.output import Outputs, Tail
from schedulemesh.agent.worker.parcel import unwrap, wrap

if TYPE_CHECKING:
    from collections.abc import Callable

    Key = tuple[int, int]
    Item = tuple[int, int, Any, Any]
    Result = tuple[Any, ...]

OUTPUT_MAX = 64 << 10
TRACEBACK_MAX = 64 << 10
MESSAGE_MAX = 8 << 10
OUR_FOLDER = "/schedulemesh/agent/worker/"


class Unreadable(Exception):  # noqa: N818 - says what is the case with the user's data
    """Says that code, arguments or a result cannot be pickled or unpickled."""


class Slot:
    """Is where one thread runs items, one after the other. Guarded by the lock of its lane."""

    def __init__(self) -> None:
        self.current: Item | None = None
        self.thread = 0
        self.tail = Tail(OUTPUT_MAX)
        self.interrupted = False

    @property
    def key(self) -> Key | None:
        """The attempt that runs here."""
        return (self.current[0], self.current[1]) if self.current else None


class Lane:
    """Is the base of the Ray actors that run tasks.

    `run` runs in a thread of its own, first come first served. The methods of the `control` group
    answer beside it.
    """

    def __init__(self, cluster: str) -> None:
        self._outputs = Outputs()
        self._outputs.install()
        self._box = BlackBox()
        # Guards what `run` and the control methods share: everything below.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Item] = deque()
        self._results: list[Result] = []
        self._slots = [Slot()]
        self._begun = -1
        self._refused: set[int] = set()
        self._inline_max = 0
        # The one that the environment names.
        self._attempt = 0
        os.environ["SCHEDULEMESH_CLUSTER"] = cluster
        # An agent that runs as a Ray job has it in its environment, which its workers inherit.
        os.environ.pop("SCHEDULEMESH_TOKEN", None)
        load_cloudpickle()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def about(self) -> dict[str, Any]:
        """Say where this runs, and so that it is up."""
        return {
            "pid": os.getpid(),
            "python": platform.python_version(),
            "node": ray.get_runtime_context().get_node_id(),
            "boxes": self._box.paths,
        }

    def run(self, parcel: Any) -> Any:
        """Run a batch and return its results, both as parcels."""
        return wrap(self.run_batch(*unwrap(parcel)))

    def run_batch(self, batch: int, inline_max: int, extra: Any, items: list[Item]) -> list[Result]:
        """Run a batch and return the results that `progress` has not handed out before."""
        # Also from a batch that is refused: it is not sent again.
        self.prepare(extra)
        with self._lock:
            self._begun = batch
            if batch in self._refused:
                self._refused.discard(batch)
                return []
            self._waiting.extend(items)
            self._inline_max = inline_max
            slot = self._slots[0]
            slot.thread = threading.get_ident()
        self._box.begin(batch)
        while self._next(slot):
            pass
        with self._lock:
            results, self._results = self._results, []
        return results

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def progress(self, take_back: list[int]) -> dict[str, Any]:
        """Hand out results so far and say what runs.

        Args:
            take_back: When not empty, what has not started is handed back, and those of these
                batches that are still on their way will not be begun.
        """
        with self._lock:
            results, self._results = self._results, []
            returned: list[Key] = []
            refused: list[int] = []
            if take_back:
                returned = [(item[0], item[1]) for item in self._waiting]
                self._waiting.clear()
                refused = [batch for batch in take_back if batch > self._begun]
                self._refused.update(refused)
            return {
                "results": results,
                "returned": returned,
                "refused": refused,
                "running": [slot.key for slot in self._slots if slot.key],
            }

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def interrupt(self, task: int, attempt: int) -> str:
        """Raise KeyboardInterrupt in what runs, or drop what has not started."""
        with self._lock:
            if slot := self._slot_of(task, attempt):
                if not slot.interrupted:
                    slot.interrupted = True
                    self.deliver_interrupt(slot.thread)
                return "interrupted"
            kept = [item for item in self._waiting if (item[0], item[1]) != (task, attempt)]
            if len(kept) < len(self._waiting):
                self._waiting = deque(kept)
                return "dropped"
            return "unknown"

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def output(self, task: int, attempt: int) -> str | None:
        """Return the tail of what the running task has printed so far."""
        with self._lock:
            slot = self._slot_of(task, attempt)
            return slot.tail.text() if slot else None

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def retire(self) -> None:
        """Remove what would be left behind."""
        remove_boxes(self._box.paths)

    def prepare(self, extra: Any) -> None:
        """Take what comes along with a batch."""

    def perform(self, what: Any, payload: Any) -> object:
        """Do the work of one item."""
        raise NotImplementedError

    def keep(self, result: Result) -> None:
        """Remember a result for longer than its batch."""

    def deliver_interrupt(self, thread: int) -> None:
        """Raise KeyboardInterrupt in the running thread, at its next bytecode."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
        )

    def _slot_of(self, task: int, attempt: int) -> Slot | None:
        return next((slot for slot in self._slots if slot.key == (task, attempt)), None)

    def _next(self, slot: Slot) -> bool:
        """Run the next item; an interrupt hits it and nothing else, however late it comes."""
        outcome: tuple[Any, ...] | None = None
        began = time.perf_counter()
        while True:
            try:
                item = slot.current or self._take(slot)
                if item is None:
                    return False
                if outcome is None:
                    outcome = self._execute(slot, item, began)
                self._let_go(slot)
                break
            except KeyboardInterrupt:
                if outcome is None:
                    outcome = ("stopped", micros_since(began), None, None)
        result = (item[0], item[1], *outcome, slot.tail.text())
        self._box.add(result)
        self.keep(result)
        with self._lock:
            self._results.append(result)
            self._changed.notify_all()
        return True

    def _take(self, slot: Slot) -> Item | None:
        with self._lock:
            if not self._waiting:
                return None
            slot.interrupted = False
            slot.tail = Tail(OUTPUT_MAX)
            slot.current = item = self._waiting.popleft()
            return item

    def _let_go(self, slot: Slot) -> None:
        with self._lock:
            # From here on none is sent; one that is under way is called back.
            slot.interrupted = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(slot.thread), None)
            slot.current = None
            self._outputs.end(slot.tail)

    def _execute(self, slot: Slot, item: Item, began: float) -> tuple[Any, ...]:
        task, attempt, what, payload = item
        self._outputs.begin(slot.tail)
        if len(self._slots) == 1:
            # Of several at a time, none could have the environment for itself.
            os.environ["SCHEDULEMESH_TASK"] = f"t{task}"
            if attempt != self._attempt:
                self._attempt = attempt
                os.environ["SCHEDULEMESH_ATTEMPT"] = str(attempt)
        try:
            value = self.perform(what, payload)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
            took = micros_since(began)
            return "finished", took, self._pack(value), None
        except Unreadable as error:
            told = described("unreadable", error.__cause__, error)
            return "failed", micros_since(began), None, told
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like are the user's too
            took = micros_since(began)
            if slot.interrupted:
                return "stopped", took, None, None
            details = pack_exception(error, self._inline_max)
            return "failed", took, details, described("raised", error)

    def _pack(self, value: object) -> Any:
        try:
            return pack(value, self._inline_max)
        except Exception as error:
            kind = type(value).__qualname__
            raise Unreadable(f"the result, of type {kind}, cannot be pickled: {error}") from error


def micros_since(began: float) -> int:
    """Return how long ago something began."""
    return int((time.perf_counter() - began) * 1e6)


def attempt_to_read(what: str, read: Callable[[], Any]) -> Any:
    """Unpickle something, or say what could not be unpickled and by which Python."""
    try:
        return read()
    except Exception as error:
        raise Unreadable(
            f"{what} cannot be unpickled by Python {platform.python_version()} on this cluster: "
            f"{type(error).__name__}: {error}"
        ) from error


def described(
    cause: str, error: BaseException | None, said: BaseException | None = None
) -> dict[str, str]:
    """Tell an exception as text."""
    message = str(said if said is not None else error)
    return {
        "cause": cause,
        "exception": type(error).__qualname__ if error is not None else "",
        "message": bounded(message, MESSAGE_MAX),
        "traceback": bounded(user_traceback(error), TRACEBACK_MAX) if error is not None else "",
    }


def user_traceback(error: BaseException) -> str:
    """Format a traceback, with its causes, without the frames that are ours."""
    try:
        told = traceback.TracebackException.from_exception(error)
        links: list[traceback.TracebackException | None] = [told]
        while links:
            link = links.pop()
            if link is not None:
                ours = [frame for frame in link.stack if OUR_FOLDER in frame.filename]
                for frame in ours:
                    link.stack.remove(frame)
                links += [link.__cause__, link.__context__]
        return "".join(told.format())
    except Exception as failed:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"{type(error).__qualname__} (its traceback cannot be printed: {failed!r})"


def bounded(text: str, limit: int) -> str:
    """Cut out the middle of a text that is too long."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n... {len(text) - limit} characters left out ...\n{text[-half:]}"
