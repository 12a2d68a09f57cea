"""Hands news of tasks to their futures. One daemon thread for each client."""

from __future__ import annotations

import concurrent.futures
import logging
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from schedulemesh import transfer
from schedulemesh.errors import (
    ClusterConnectionError,
    RemotePickleError,
    RemoteTraceback,
    SchedulerError,
    TaskForgottenError,
    from_failure,
    from_problem,
)

if TYPE_CHECKING:
    from schedulemesh._native import Client as NativeClient
    from schedulemesh.future import Future

Data: TypeAlias = "bytes | tuple[str, int] | None"
"""Bytes, the id and size of the blob that holds them, or nothing."""

Event: TypeAlias = "tuple[int, int, int | None, str | None, Data, tuple[Any, ...] | None]"
"""Kind, ticket, task, cluster, data and error of one piece of news."""

STARTED, SUCCEEDED, FAILED, CANCELLED, REFUSED, UNKNOWN = range(6)

_WAIT_S = 60.0
_DOWNLOADS_MAX = 4
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 5.0

logger = logging.getLogger("schedulemesh")


class Delivery:
    """The futures of one client, and the thread that resolves them."""

    def __init__(self, native: NativeClient) -> None:
        self._native = native
        self.futures: dict[int, Future[Any]] = {}
        self._downloads: concurrent.futures.ThreadPoolExecutor | None = None
        self._progress = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="schedulemesh-news", daemon=True)
        self._thread.start()

    def wait_started(self, future: Future[Any], deadline: float | None) -> bool:
        """Wait until a task runs or has ended.

        Args:
            future: The task.
            deadline: Until when to wait, on the monotonic clock.

        Returns:
            Whether it runs or has ended.
        """

        def announce(_future: object) -> None:
            with self._progress:
                self._progress.notify_all()

        future.add_done_callback(announce)
        with self._progress:
            while not (future.running() or future.done()):
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._progress.wait(left)
        return True

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, once the client is closed.

        Args:
            timeout: The longest wait, in seconds.
        """
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        if self._downloads is not None:
            self._downloads.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        next_events = self._native.next_events
        while True:
            events = next_events(_WAIT_S)
            if events is None:
                return
            self._deliver(events)
            # Waiting must not keep the last futures alive, and through them their client.
            del events

    def _deliver(self, events: list[Event]) -> None:
        futures = self.futures
        loads = pickle.loads
        for event in events:
            kind, ticket, task, cluster, data, _error = event
            if kind != SUCCEEDED or type(data) is not bytes:
                self._take(event)
                continue
            # The common case, without a call more than it needs.
            future = futures.pop(ticket, None)
            if future is None:
                continue
            future._task, future._cluster = task, cluster  # noqa: SLF001
            try:
                value = loads(data)
            except Exception as error:  # noqa: BLE001 - a pickle may raise anything
                future.set_exception(_unreadable(error))
            else:
                future.set_result(value)

    def _take(self, event: Event) -> None:
        kind, ticket, task, cluster, data, _error = event
        if kind == STARTED:
            future = self.futures.get(ticket)
            if future is not None and not future.running() and not future.done():
                future._task = task  # noqa: SLF001
                future.set_running_or_notify_cancel()
                with self._progress:
                    self._progress.notify_all()
            return
        future = self.futures.pop(ticket, None)
        if future is None:
            return
        if task is not None:
            future._task, future._cluster = task, cluster  # noqa: SLF001
        if isinstance(data, tuple):
            self._in_background(future, event)
        else:
            self._resolve(future, event)

    def _in_background(self, future: Future[Any], event: Event) -> None:
        """Resolve a future whose value must be downloaded, without holding up the others."""
        if self._downloads is None:
            self._downloads = concurrent.futures.ThreadPoolExecutor(
                _DOWNLOADS_MAX, thread_name_prefix="schedulemesh-download"
            )
        self._downloads.submit(self._resolve, future, event)

    def _resolve(self, future: Future[Any], event: Event) -> None:
        kind, _ticket, _task, _cluster, data, error = event
        try:
            if kind == SUCCEEDED:
                future.set_result(self._value(data))
            elif kind == CANCELLED:
                future.mark_cancelled()
            elif kind == REFUSED:
                future.set_exception(_refusal(error))
            elif kind == UNKNOWN:
                message = f"the control plane keeps no record of task t{_task}"
                remedy = "ask for the result sooner, or keep ended tasks for longer (`retention`)"
                future.set_exception(TaskForgottenError(message, remedy=remedy))
            else:
                future.set_exception(self._failure(data, error))
        except concurrent.futures.InvalidStateError:
            logger.warning("%r was resolved by somebody else", future)
        except SchedulerError as problem:
            future.set_exception(problem)
        except Exception as problem:  # noqa: BLE001 - the future must end, whatever happens
            future.set_exception(_unreadable(problem))

    def _value(self, data: Data) -> Any:
        if data is None:
            return None
        if isinstance(data, tuple):
            return self._download(data[0])
        return pickle.loads(data)  # noqa: S301 - made by the user's own task

    def _download(self, blob: str) -> Any:
        """Read a large value. It is durable, so a control plane that is away is waited for."""
        wait = _RETRY_FIRST_S
        while True:
            try:
                return transfer.download(self._native, blob)
            except ClusterConnectionError:  # noqa: PERF203 - it waits anyway
                if self._ended.wait(wait):
                    raise
                wait = min(wait * 2, _RETRY_MAX_S)

    def _failure(
        self,
        data: Data,
        error: tuple[str, str, str, str] | None,
    ) -> BaseException:
        cause, exception, message, traceback = error or ("", "", "the task failed", "")
        structured = from_failure(cause, message, exception, traceback)
        if cause != "raised" or data is None:
            return structured
        try:
            raised = self._value(data)
        except Exception:  # noqa: BLE001 - a pickle may raise anything; the text remains
            return structured
        if not isinstance(raised, Exception):
            # To raise what ends an interpreter is not what a remote task may do to this one.
            return structured
        raised.__cause__ = RemoteTraceback(traceback)
        return raised


def _refusal(error: tuple[Any, ...] | None) -> SchedulerError:
    return from_problem(*error) if error else SchedulerError("the task was refused")


def _unreadable(error: BaseException) -> BaseException:
    problem = RemotePickleError(
        f"the value arrived, but cannot be read here: {type(error).__name__}: {error}",
        remedy="install here what the value is made of, or return plain data",
    )
    problem.__cause__ = error
    return problem
