"""The client for coroutines: the same names, awaitable."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from schedulemesh.connecting import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from types import TracebackType

    from typing_extensions import ParamSpec, Self, Unpack

    from schedulemesh.actors import ActorHandle
    from schedulemesh.client import Client
    from schedulemesh.future import Future
    from schedulemesh.submitter import Submitter
    from schedulemesh.task_options import Options
    from schedulemesh.views import ClusterView, ExplainView, TaskView

    P = ParamSpec("P")

T = TypeVar("T")

_END: Any = object()


async def aconnect(*args: Any, **kwargs: Any) -> AsyncClient:
    """Connect without blocking the loop.

    Args:
        *args: As for `connect`.
        **kwargs: As for `connect`.
    """
    return AsyncClient(await asyncio.to_thread(functools.partial(connect, *args, **kwargs)))


class AsyncClient:
    """A client whose slow methods are coroutines. Futures are the same: await them.

    Example:
        >>> async with await schedulemesh.aconnect() as client:
        ...     await client.submit(pow, 2, 10)
        1024
    """

    def __init__(self, client: Client, submitter: Submitter | None = None) -> None:
        """Wrap a client.

        Args:
            client: The client.
            submitter: The client with options, if it has any.
        """
        self.client = client
        self._submitter = submitter or client

    def options(self, **changes: Unpack[Options]) -> AsyncClient:
        """Return the same with other options.

        Args:
            **changes: The options to replace.
        """
        return AsyncClient(self.client, self._submitter.options(**changes))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function on some cluster; await the future for its value.

        Args:
            fn: The function.
            *args: Its arguments.
            **kwargs: Its keyword arguments.
        """
        return self._submitter.submit(fn, *args, **kwargs)

    async def map(
        self, fn: Callable[..., T], /, *iterables: Iterable[Any], **limits: int
    ) -> AsyncIterator[T]:
        """Run a function for each item and give out the values in the order of the items.

        Args:
            fn: The function.
            *iterables: Where the arguments come from.
            **limits: `chunksize` and `max_in_flight`, as for `Client.map`.
        """
        values: Iterator[T] = await asyncio.to_thread(
            functools.partial(self._submitter.map, fn, *iterables, **limits)
        )
        while (value := await asyncio.to_thread(next, values, _END)) is not _END:
            yield value

    async def actor(self, cls: type[T], /, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Start an actor and wait until it is up; await `handle.method.remote(...)`.

        Args:
            cls: Its class.
            *args: The arguments of its constructor.
            **kwargs: The keyword arguments of its constructor, and `ready_timeout`.
        """
        call = functools.partial(self._submitter.actor, cls, *args, **kwargs)
        return await asyncio.to_thread(call)

    def submit_job(self, entrypoint: str, **more: Any) -> Future[None]:
        """Run a whole Ray job; await the future for its end.

        Args:
            entrypoint: The shell command.
            **more: As for `Client.submit_job`.
        """
        return self._submitter.submit_job(entrypoint, **more)

    async def clusters(self) -> list[ClusterView]:
        """Return all clusters."""
        return await asyncio.to_thread(self.client.clusters)

    async def task(self, task_id: str) -> TaskView:
        """Return what the control plane knows of a task.

        Args:
            task_id: Its id.
        """
        return await asyncio.to_thread(self.client.task, task_id)

    async def explain(self, task_id: str) -> ExplainView:
        """Return why a task is where it is.

        Args:
            task_id: Its id.
        """
        return await asyncio.to_thread(self.client.explain, task_id)

    async def logs(self, task_id: str, tail_bytes: int | None = None) -> str:
        """Return what a task printed.

        Args:
            task_id: Its id.
            tail_bytes: At most so many bytes, from the end.
        """
        return await asyncio.to_thread(self.client.logs, task_id, tail_bytes)

    async def close(self) -> None:
        """Close the client."""
        await asyncio.to_thread(self.client.close)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.close()
