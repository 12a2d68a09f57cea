"""The future of a task: a `concurrent.futures.Future` that can also be awaited."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any, TypeVar

from schedulemesh.errors import TaskCancelledError, TaskForgottenError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Generator

    from schedulemesh.client import Client
    from schedulemesh.views import ExplainView, TaskView

T = TypeVar("T")


class Future(concurrent.futures.Future[T]):
    """What a task will have returned.

    Everything that works on standard futures works on it: `concurrent.futures.wait`,
    `as_completed`, callbacks, `asyncio.wrap_future`. In a coroutine, `await future` waits without
    blocking the loop. It goes on by itself when its client is closed or its process ends.

    Example:
        >>> future = client.submit(pow, 2, 10)
        >>> future.result(timeout=60)
        1024
    """

    _task: int | None = None
    _cluster: str | None = None

    def __init__(self, client: Client, ticket: int, key: str = "") -> None:
        super().__init__()
        self._client = client
        self._ticket = ticket
        self.key = key
        """What this submission is called: submitting it again under this key does nothing new."""

    @property
    def task_id(self) -> str | None:
        """The id of the task, such as `t42`; `None` until the control plane has accepted it."""
        if self._task is None and not self.done():
            self._task = self._client.native.task_of(self._ticket)
        return None if self._task is None else f"t{self._task}"

    @property
    def cluster(self) -> str | None:
        """The cluster where the task ran, once it ended."""
        return self._cluster

    def accepted(self, timeout: float | None = None) -> str:
        """Wait until the task is durably accepted, and return its id.

        Args:
            timeout: The longest wait, in seconds.

        Raises:
            TaskSubmissionError: When it was refused.
            TimeoutError: When the time is over.
        """
        if not self._client.native.wait_accepted(self._ticket, timeout):
            message = f"submission {self.key} was not accepted within {timeout} s"
            raise WaitTimeoutError(message)
        if self.task_id is None:
            # It is over: refused, or ended with its number about to be delivered.
            concurrent.futures.wait([self], timeout)
        task_id = self.task_id
        if task_id is None:
            self.result(0)
            message = f"submission {self.key} ended without a number"
            raise TaskForgottenError(message)
        return task_id

    def cancel(self) -> bool:
        """Stop the task, wherever it is.

        The future is cancelled when the control plane says that the task is: a task may still win
        the race and return its value.

        Returns:
            Whether it could be asked; `False` when the task has already ended.
        """
        if self.done():
            return self.cancelled()
        return self._client.native.cancel(self._ticket) or self.cancelled()

    def result(self, timeout: float | None = None) -> T:
        """Return the value of the task, or raise what it raised.

        Args:
            timeout: The longest wait, in seconds.

        Raises:
            TaskError: When the task ended without a value and without an exception of its own.
            TimeoutError: When the time is over; the task goes on.
        """
        try:
            return super().result(timeout)
        except concurrent.futures.TimeoutError as error:
            if self.done() or isinstance(error, TimeoutError):
                raise
            raise self._late(timeout) from None
        except concurrent.futures.CancelledError:
            if not self.cancelled():
                raise
            raise self._cancelled_error() from None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, or `None`.

        Args:
            timeout: The longest wait, in seconds.

        Raises:
            TaskCancelledError: When the task was cancelled.
            TimeoutError: When the time is over; the task goes on.
        """
        try:
            return super().exception(timeout)
        except concurrent.futures.TimeoutError as error:
            if self.done() or isinstance(error, TimeoutError):
                raise
            raise self._late(timeout) from None
        except concurrent.futures.CancelledError:
            raise self._cancelled_error() from None

    def view(self) -> TaskView:
        """Return what the control plane knows of the task."""
        return self._client.task(self.accepted())

    def explain(self) -> ExplainView:
        """Return, for each cluster, why the task runs there or not."""
        return self._client.explain(self.accepted())

    def logs(self, tail_bytes: int | None = None) -> str:
        """Return what the task printed.

        Args:
            tail_bytes: At most so many bytes, from the end.
        """
        return self._client.logs(self.accepted(), tail_bytes)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the value in a coroutine. Cancelling the coroutine cancels the task."""
        if not self.done():
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()

            def wake(_future: concurrent.futures.Future[T]) -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(_finish, waiter)

            self.add_done_callback(wake)
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result(0)

    def __repr__(self) -> str:
        """Return what can be said without asking anybody."""
        name = self.task_id or self.key
        state = "cancelled" if self.cancelled() else self._state.lower()
        where = f" on {self._cluster}" if self._cluster else ""
        return f"<Future {name} {state}{where}>"

    def _late(self, timeout: float | None) -> TimeoutError:
        return WaitTimeoutError(f"{self!r} has not ended within {timeout} s")

    def _cancelled_error(self) -> TaskCancelledError:
        return TaskCancelledError(f"task {self.task_id or self.key} was cancelled")

    def mark_cancelled(self) -> None:
        """Take in that the task was cancelled. Called by the client."""
        with self._condition:
            # The standard future refuses to be cancelled while it runs; a task of ours can be.
            if self._state == "RUNNING":
                self._state = "PENDING"
        super().cancel()
        self.set_running_or_notify_cancel()


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
