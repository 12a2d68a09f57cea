"""The clusters as a standard `concurrent.futures.Executor`."""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from schedulemesh.future import Future
    from schedulemesh.submitter import Submitter

T = TypeVar("T")


class ClientExecutor(concurrent.futures.Executor):
    """Runs callables on the clusters. `Client.executor()` makes one."""

    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter
        self._futures: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._shut = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a function on some cluster.

        Args:
            fn: The function.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Raises:
            RuntimeError: After `shutdown`.
        """
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            future = self._submitter.submit(fn, *args, **kwargs)
            self._futures.add(future)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **_later: Any,
    ) -> Iterator[T]:
        """Run a function for each item and give out the values in the order of the items.

        Args:
            fn: The function.
            *iterables: Where the arguments come from.
            timeout: The longest wait for each next value, counted from now, in seconds.
            chunksize: How many items share a task.
            **_later: What later versions of Python may pass.
        """
        if chunksize > 1 and timeout is None:
            return self._submitter.map(fn, *iterables, chunksize=chunksize)
        return super().map(fn, *iterables, timeout=timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Accept no more work. The client stays open.

        Args:
            wait: Whether to wait for what was submitted.
            cancel_futures: Whether to cancel what has not ended.
        """
        with self._lock:
            self._shut = True
        if cancel_futures:
            for future in list(self._futures):
                if not future.running():
                    future.cancel()
        if wait:
            concurrent.futures.wait(list(self._futures))
