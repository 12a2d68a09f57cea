"""The client that module-level functions use, connected when it is first needed."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from typing_extensions import ParamSpec, Unpack

    from schedulemesh.actors import ActorHandle
    from schedulemesh.client import Client
    from schedulemesh.future import Future
    from schedulemesh.submitter import Submitter
    from schedulemesh.task_options import Options
    from schedulemesh.views import ClusterView, ExplainView, TaskView

    P = ParamSpec("P")

T = TypeVar("T")

_lock = threading.Lock()
_client: Client | None = None


def client() -> Client:
    """Return the default client; `connect()` without arguments makes it at the first call."""
    global _client  # noqa: PLW0603 - there is one default client in a process
    from schedulemesh.connecting import connect  # noqa: PLC0415 - importing this stays cheap

    with _lock:
        if _client is None or _client.closed:
            _client = connect()
        return _client


def set_client(new: Client | None) -> None:
    """Make a client the default one.

    Args:
        new: The client; `None` has the next call connect anew.
    """
    global _client  # noqa: PLW0603 - there is one default client in a process
    with _lock:
        _client = new


def submit(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Run a function on some cluster: `Client.submit` of the default client.

    Args:
        fn: The function.
        *args: Its arguments.
        **kwargs: Its keyword arguments.
    """
    return client().submit(fn, *args, **kwargs)


def map(  # noqa: A001 - the name that everybody expects
    fn: Callable[..., T], /, *iterables: Iterable[Any], chunksize: int = 1
) -> Iterator[T]:
    """Run a function for each item: `Client.map` of the default client.

    Args:
        fn: The function.
        *iterables: Where the arguments come from.
        chunksize: How many items share a task.
    """
    return client().map(fn, *iterables, chunksize=chunksize)


def actor(cls: type[T], /, *args: Any, **kwargs: Any) -> ActorHandle[T]:
    """Start an actor: `Client.actor` of the default client.

    Args:
        cls: Its class.
        *args: The arguments of its constructor.
        **kwargs: The keyword arguments of its constructor.
    """
    return client().actor(cls, *args, **kwargs)


def options(**changes: Unpack[Options]) -> Submitter:
    """Return the default client with certain options: `Client.options`.

    Args:
        **changes: The options.
    """
    return client().options(**changes)


def submit_job(
    entrypoint: str,
    *,
    runtime_env: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Future[None]:
    """Run a whole Ray job: `Client.submit_job` of the default client.

    Args:
        entrypoint: The shell command.
        runtime_env: Ray's runtime environment.
        metadata: Carried along by Ray.
    """
    return client().submit_job(entrypoint, runtime_env=runtime_env, metadata=metadata)


def clusters() -> list[ClusterView]:
    """Return all clusters: `Client.clusters` of the default client."""
    return client().clusters()


def tasks(**query: Any) -> Iterator[TaskView]:
    """Give out tasks, newest first: `Client.tasks` of the default client.

    Args:
        **query: Which; see `Client.tasks`.
    """
    return client().tasks(**query)


def explain(task: str | Future[Any]) -> ExplainView:
    """Return why a task is where it is: `Client.explain` of the default client.

    Args:
        task: Its id, or its future.
    """
    return client().explain(task) if isinstance(task, str) else task.explain()


def _forget() -> None:
    # A fork has no link; the next use connects anew. The lock may have been held.
    global _client, _lock  # there is one default client in a process
    _client, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
