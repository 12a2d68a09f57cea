"""What the agent holds: attempts, the leases that they use, and how their ends are reported."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schedulemesh.agent.wire import Key, one_of

if TYPE_CHECKING:
    from schedulemesh.agent.outbox import Outbox

log = logging.getLogger("schedulemesh.agent")

OUTPUT_TOTAL_MAX = 16 << 20


@dataclass(frozen=True)
class Lease:
    """Is a grant of resources on one node."""

    number: int
    node: str
    resources: dict[str, float]
    runtime_env: str | None

    @property
    def shape(self) -> tuple[Any, ...]:
        """What has to be equal for a worker of one lease to serve another."""
        return self.node, tuple(sorted(self.resources.items())), self.runtime_env

    @classmethod
    def read(cls, frame: dict[str, Any]) -> Lease:
        """Read it from a frame."""
        return cls(frame["lease"], frame["node"], frame["resources"], frame.get("runtime_env"))


class Work:
    """Is one attempt that the agent has not let go of."""

    __slots__ = (
        "code",
        "ended",
        "fetch",
        "key",
        "kind",
        "lease",
        "payload",
        "ready",
        "started",
        "stop",
        "target",
    )

    def __init__(self, frame: dict[str, Any]) -> None:
        self.key: Key = (frame["task"], frame["attempt"])
        self.kind, body = one_of(frame["work"])
        self.lease: int = frame["lease"]
        # The digest of a function or class, or the method of a call.
        self.code: str = ""
        # For a call, the task of its actor.
        self.target: int = 0
        if self.kind == "call":
            self.code = body["method"]
            self.target = body["actor"]
        elif body is not None:
            self.code = body["code"]
        kind, data = one_of(frame["payload"])
        # Inline bytes, pieces in the object store, or the frame of a blob that is to be fetched.
        self.payload: Any = data
        self.ready = kind != "blob"
        # What brings the blob.
        self.fetch: asyncio.Task[None] | None = None
        self.started = False
        self.ended = False
        # The grace in milliseconds, once it was told to stop.
        self.stop: int | None = None

    @classmethod
    def adopted(cls, key: Key, kind: str, target: int = 0) -> Work:
        """Make one up for what an earlier agent has started."""
        work = cls.__new__(cls)
        work.key = key
        work.kind = kind
        work.code = ""
        work.lease = 0
        work.target = target
        work.payload = work.fetch = None
        work.ready = True
        # Whether the control plane was told is not known; to be told twice does no harm.
        work.started = False
        work.ended = False
        work.stop = None
        return work

    async def fetched(self) -> None:
        """Wait until its arguments are here, or cannot be brought, and it has ended."""
        if self.fetch is not None:
            await asyncio.wait([self.fetch])


class Ledger:
    """Knows every attempt that is held, and says what happened to each: its end once."""

    def __init__(self) -> None:
        self.held: dict[Key, Work] = {}
        self.outputs = Outputs()
        self.outbox: Outbox

    def started(self, work: Work) -> None:
        """Say that it runs."""
        if not work.started and not work.ended:
            work.started = True
            self.outbox.add(work.key, "started", end=False)

    def returned(self, work: Work) -> None:
        """Hand it back unstarted."""
        if work.stop is not None:
            self.stopped(work, 0)
        else:
            self._end(work, "returned")

    def finished(self, work: Work, run_us: int, result: object) -> None:
        """Say that it returned; `result` is a data frame."""
        self._end(work, {"finished": {"run_us": run_us, "result": result}})

    def stopped(self, work: Work, run_us: int) -> None:
        """Say that it was stopped as it was told."""
        self._end(work, {"stopped": {"run_us": run_us}})

    def failed(
        self, work: Work, run_us: int, error: dict[str, str], details: bytes | None = None
    ) -> None:
        """Say that it failed; `details` is its pickled exception."""
        frame = {"inline": details} if details else "none"
        self._end(work, {"failed": {"run_us": run_us, "error": error, "details": frame}})

    def lost(self, work: Work, message: str, run_us: int = 0) -> None:
        """Say that the process that ran it died; if it was to stop, that is how it stopped."""
        if work.stop is not None:
            self.stopped(work, run_us)
        else:
            self.failed(work, run_us, {"cause": "worker_died", "message": message})

    def not_started(self, work: Work, message: str) -> None:
        """Say that what it needs could not be started."""
        if work.stop is not None:
            self.stopped(work, 0)
        else:
            self.failed(work, 0, {"cause": "not_started", "message": message})

    def acknowledged(self, key: Key) -> None:
        """Let go of an attempt whose end the control plane has."""
        self.held.pop(key, None)

    def _end(self, work: Work, what: object) -> None:
        if work.ended:
            return
        # First, because it may fail: then it has not ended yet.
        self.outbox.add(work.key, what, end=True)
        work.ended = True
        work.payload = None


class Outputs:
    """Keeps what ended tasks have printed, the latest of it, up to a total."""

    def __init__(self, limit: int = OUTPUT_TOTAL_MAX) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Key, str] = OrderedDict()

    def keep(self, key: Key, text: str) -> None:
        """Keep what a task has printed."""
        self._size += len(text) - len(self._kept.pop(key, ""))
        self._kept[key] = text
        while self._size > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)

    def get(self, key: Key) -> str | None:
        """Return what a task has printed, if that is still known."""
        return self._kept.get(key)


def data_frame(packed: Any) -> object:
    """Return the frame of bytes that travel inline."""
    return "none" if packed is None else {"inline": packed}
