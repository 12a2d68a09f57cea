"""The `@task` decorator: a function that knows what it needs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from schedulemesh import default
from schedulemesh.submitter import IN_FLIGHT_MAX, Submitter
from schedulemesh.task_options import TaskOptions, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import ParamSpec, Unpack

    from schedulemesh.client import Client
    from schedulemesh.future import Future
    from schedulemesh.task_options import Options

    P = ParamSpec("P")
else:
    P = TypeVar("P")

T = TypeVar("T")
R = TypeVar("R")


class Task(Generic[P, R]):
    """A function with options. Calling it runs it here; `submit` and `map` run it on a cluster."""

    def __init__(
        self, fn: Callable[P, R], options: TaskOptions, client: Client | None = None
    ) -> None:
        functools.update_wrapper(self, fn)
        self.__schedulemesh_function__ = fn
        self._options = options
        self._client = client

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now.

        Args:
            *args: Its arguments.
            **kwargs: Its keyword arguments.
        """
        return self.__schedulemesh_function__(*args, **kwargs)

    def options(self, **changes: Unpack[Options]) -> Task[P, R]:
        """Return the same function with other options.

        Args:
            **changes: The options to replace.
        """
        fn = self.__schedulemesh_function__
        return Task(fn, self._options.updated(changes), self._client)

    def on(self, client: Client) -> Task[P, R]:
        """Return the same function, submitted through this client instead of the default one.

        Args:
            client: The client.
        """
        return Task(self.__schedulemesh_function__, self._options, client)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run the function on some cluster.

        Args:
            *args: Its arguments.
            **kwargs: Its keyword arguments.
        """
        return self._submitter().submit(self.__schedulemesh_function__, *args, **kwargs)

    def map(
        self,
        *iterables: Iterable[Any],
        chunksize: int = 1,
        max_in_flight: int = IN_FLIGHT_MAX,
    ) -> Iterator[R]:
        """Run the function for each item and give out the values in the order of the items.

        Args:
            *iterables: Where the arguments come from; the shortest one ends it.
            chunksize: How many items share a task.
            max_in_flight: Most tasks at once.
        """
        fn = self.__schedulemesh_function__
        submitter = self._submitter()
        return submitter.map(fn, *iterables, chunksize=chunksize, max_in_flight=max_in_flight)

    def _submitter(self) -> Submitter:
        return Submitter(self._client or default.client(), self._options)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the bare function: a cluster needs no schedulemesh for it."""
        return functools.partial, (self.__schedulemesh_function__,)


@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(**options: Unpack[Options]) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(fn: Callable[P, R] | None = None, /, **options: Unpack[Options]) -> Any:
    """Make a function that can be submitted.

    Args:
        fn: The function, when the decorator is used without parentheses.
        **options: What it needs; see `schedulemesh.task_options.Options`.

    Example:
        >>> @schedulemesh.task(cpus=2, memory="4GiB", tags=["linux"])
        ... def train(config): ...
        >>> train.submit({"lr": 1e-3}).result()
    """
    parsed = parse(options)
    if fn is not None:
        return Task(fn, parsed)
    return lambda function: Task(function, parsed)
