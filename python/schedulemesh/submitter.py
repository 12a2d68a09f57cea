"""Submitting: what a client, and a client with options, can be asked to run."""

from __future__ import annotations

import collections
import itertools
import json
from typing import TYPE_CHECKING, Any, TypeVar

from schedulemesh import environments, pickling, transfer
from schedulemesh.actors import ActorHandle
from schedulemesh.errors import ConfigurationError
from schedulemesh.titles import title_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typing_extensions import ParamSpec, Unpack

    from schedulemesh._native import Code, Spec
    from schedulemesh.client import Client
    from schedulemesh.future import Future
    from schedulemesh.task_options import Options, TaskOptions

    P = ParamSpec("P")

T = TypeVar("T")

IN_FLIGHT_MAX = 10_000
"""Most tasks of one `map` at once, when nothing is said."""

READY_TIMEOUT_S = 300.0
"""How long an actor may take to be ready, when nothing is said."""


class Submitter:
    """Runs work with certain options. `Client.options()` makes one."""

    def __init__(self, client: Client, options: TaskOptions) -> None:
        self._client = client
        self._options = options

    def options(self, **changes: Unpack[Options]) -> Submitter:
        """Return the same with other options.

        Args:
            **changes: The options to replace; see `schedulemesh.task_options.Options`.

        Example:
            >>> client.options(cpus=2, tags=["linux"]).submit(train, config)
        """
        return Submitter(self._client, self._options.updated(changes))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function on some cluster.

        Returns at once; it waits only while very many submissions are not accepted yet. The
        function and its arguments are pickled now: what they refer to may change afterwards.

        Args:
            fn: The function.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Raises:
            UnpicklableError: When the function or an argument cannot be sent.
        """
        return self._client.send(self._function_spec(fn), self._options, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        chunksize: int = 1,
        max_in_flight: int = IN_FLIGHT_MAX,
    ) -> Iterator[T]:
        """Run a function for each item and give out the values in the order of the items.

        Items are taken as there is room, so that endless and very large inputs work. With the
        option `key`, each task gets a key of its own made from it and its number, so that running
        the same program again does nothing twice.

        Args:
            fn: The function; it takes as many arguments as there are iterables.
            *iterables: Where the arguments come from; the shortest one ends it.
            chunksize: How many items share a task.
            max_in_flight: Most tasks at once.

        Raises:
            ConfigurationError: When `chunksize` or `max_in_flight` is below 1.
        """
        if chunksize < 1 or max_in_flight < 1:
            message = f"chunksize={chunksize} and max_in_flight={max_in_flight} must be at least 1"
            raise ConfigurationError(message, code="INVALID")
        if chunksize == 1:
            return self._map(self._function_spec(fn), zip(*iterables), max_in_flight)  # noqa: B905
        chunks = _chunks(zip(*iterables), chunksize)  # noqa: B905 - the shortest ends it
        lists: Iterator[list[T]] = self._map(
            self._function_spec(_chunked(fn), title_of(fn)),
            ((chunk,) for chunk in chunks),
            max_in_flight,
        )
        return (value for values in lists for value in values)

    def _map(
        self, spec: Spec, calls: Iterator[tuple[Any, ...]], max_in_flight: int
    ) -> Iterator[Any]:
        pending: collections.deque[Future[Any]] = collections.deque()
        send = self._client.send
        numbers = itertools.count()

        def fill() -> None:
            while len(pending) < max_in_flight:
                args = next(calls, None)
                if args is None:
                    return
                pending.append(send(spec, self._options.numbered(next(numbers)), args, {}))

        def values() -> Iterator[Any]:
            try:
                while pending:
                    future = pending.popleft()
                    fill()
                    yield future.result()
            finally:
                for future in pending:
                    future.cancel()

        # The first tasks are under way before the first value is asked for.
        fill()
        return values()

    def actor(
        self,
        cls: type[T],
        /,
        *args: Any,
        ready_timeout: float | None = READY_TIMEOUT_S,
        **kwargs: Any,
    ) -> ActorHandle[T]:
        """Start an actor: an object that lives on one cluster and keeps its state there.

        Args:
            cls: Its class.
            *args: The arguments of its constructor.
            ready_timeout: How long to wait until it is up, in seconds; 0 does not wait, `None`
                waits for ever. When the time is over the actor is stopped.
            **kwargs: The keyword arguments of its constructor.

        Raises:
            TimeoutError: When it is not up in time.
            TaskError: When it could not be started.
        """
        code = self._client.code(cls)
        work = {"actor": {"code": code.digest}}
        spec = self._client.spec(self._options, work, code, title_of(cls))
        payload: tuple[Any, ...] = (args, kwargs, self._options.for_actor)
        future: Future[None] = self._client.send_payload(spec, self._options, payload)
        handle = ActorHandle(self._client, future, cls)
        if ready_timeout != 0:
            handle.wait_ready(ready_timeout)
        return handle

    def submit_job(
        self,
        entrypoint: str,
        *,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Future[None]:
        """Run a whole Ray job.

        Args:
            entrypoint: The shell command, run on the head node of the cluster.
            runtime_env: Ray's runtime environment; that of the options, or else the cluster's own,
                when nothing is said. Folders of this machine are packed and shipped.
            metadata: Carried along by Ray.

        Returns:
            A future that ends with the job; `future.logs()` is what it printed.
        """
        body: dict[str, Any] = {"entrypoint": entrypoint, "metadata": dict(metadata or {})}
        if mistakes := environments.mistakes_in(runtime_env):
            raise ConfigurationError(mistakes[0], code="INVALID", details=mistakes[1:])
        options = self._options
        env = environments.normalized(runtime_env) or options.runtime_env
        if env is not None:
            body["runtime_env"] = env
            if environments.is_local(env):
                body["runtime_env"] = self._client.packages.ship(env)
                # The specification says which packages are in use for as long as the job is.
                options = options.with_runtime_env(body["runtime_env"])
        spec = self._client.spec(options, "job", None, title_of(entrypoint))
        return self._client.send_bytes(spec, options, json.dumps(body).encode())

    def _function_spec(self, fn: Callable[..., Any], title: str | None = None) -> Spec:
        code = self._client.code(fn)
        return self._client.function_spec(self._options, code, title or title_of(fn))


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _chunked(fn: Callable[..., T]) -> Callable[[list[tuple[Any, ...]]], list[T]]:
    # A function inside a function travels by value: the cluster needs no schedulemesh for it.
    def run_chunk(chunk: list[tuple[Any, ...]]) -> list[T]:
        return [fn(*args) for args in chunk]

    return run_chunk


def pack(
    client: Client, args: tuple[Any, ...], kwargs: dict[str, Any], what: str
) -> tuple[bytes | None, tuple[str, int] | None]:
    """Pickle the arguments of a call: into bytes when they are small, else into a blob.

    Args:
        client: Whom they go to.
        args: The positional arguments.
        kwargs: The keyword arguments.
        what: What they are to the user, for the message of an error.
    """
    plain = pickling.dump_arguments(args, kwargs)
    if plain is not None and len(plain) <= client.inline_max:
        return plain, None
    return transfer.upload(client.native, client.inline_max, (args, kwargs), what)


def code_of(cache: pickling.CodeCache, target: Callable[..., Any]) -> Code:
    """Return the pickle of what is to be run.

    Args:
        cache: Where pickles are kept.
        target: A function, a class, or what `@task` made of a function.
    """
    return cache.code(getattr(target, "__schedulemesh_function__", target))
