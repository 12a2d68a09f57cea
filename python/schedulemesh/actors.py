"""Actors: objects that live on a cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from schedulemesh.errors import ActorEndedError, ConfigurationError, WaitTimeoutError
from schedulemesh.titles import title_of

if TYPE_CHECKING:
    from schedulemesh._native import Spec
    from schedulemesh.client import Client
    from schedulemesh.future import Future

T = TypeVar("T")


class ActorMethod:
    """One method of an actor: call it to wait for the value, `remote` to get a future."""

    def __init__(self, handle: ActorHandle[Any], name: str) -> None:
        self._handle = handle
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method and wait for its value.

        Args:
            *args: Its arguments.
            **kwargs: Its keyword arguments.
        """
        return self.remote(*args, **kwargs).result()

    def remote(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the method and return a future. Calls run in the order in which they were made.

        Args:
            *args: Its arguments.
            **kwargs: Its keyword arguments.
        """
        return self._handle.call(self._name, args, kwargs)

    submit = remote


class ActorHandle(Generic[T]):
    """An actor on some cluster. Every public method of its class is a method here.

    Example:
        >>> counter = client.actor(Counter, start=10)
        >>> counter.add(5)
        15
        >>> counter.add.remote(1).result()
        16
    """

    def __init__(self, client: Client, future: Future[None], cls: type[T] | None) -> None:
        self._client = client
        self._future = future
        self._cls = cls
        self._specs: dict[str, Spec] = {}

    @property
    def future(self) -> Future[None]:
        """The life of the actor: running while it is up, done when it is gone."""
        return self._future

    @property
    def actor_id(self) -> str:
        """The id of the actor, such as `t42`."""
        return self._future.accepted()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until the actor is up.

        Args:
            timeout: The longest wait, in seconds; the actor is stopped when it is over.

        Raises:
            TimeoutError: When it is not up in time.
            TaskError: When it could not be started.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._client.wait_started(self._future, deadline):
            why = self._why_not_ready()
            self._future.cancel()
            message = f"the actor was not up within {timeout} s and was stopped: {why}"
            raise WaitTimeoutError(message)
        if self._future.done():
            self._future.result()
            raise ActorEndedError(f"actor {self._future.task_id} ended before it was up")

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        """Call a method by its name and return a future.

        Args:
            method: The name.
            args: Its arguments.
            kwargs: Its keyword arguments.
        """
        spec = self._specs.get(method)
        if spec is None:
            work = {"call": {"actor": self.actor_id, "method": method}}
            spec = self._client.spec(self._client.defaults, work, None, title_of(method))
            self._specs[method] = spec
        return self._client.send(spec, self._client.defaults, args, kwargs)

    def kill(self) -> bool:
        """End the actor. Calls that have not ended fail.

        Returns:
            Whether it could be asked; `False` when it was gone already.
        """
        return not self._future.done() and self._future.cancel()

    def __getattr__(self, name: str) -> ActorMethod:
        """Return a method of the actor.

        Args:
            name: Its name.

        Raises:
            AttributeError: When its class has no such method.
        """
        private = name.startswith("_")
        if private or (self._cls is not None and not callable(getattr(self._cls, name, None))):
            owner = "an actor" if self._cls is None else self._cls.__name__
            raise AttributeError(f"{owner} has no public method {name!r}")
        method = ActorMethod(self, name)
        self.__dict__[name] = method
        return method

    def __reduce__(self) -> tuple[Any, ...]:
        """Refuse to be pickled: a handle works only in the process that has the client."""
        raise ConfigurationError(
            f"the handle of actor {self._future.task_id} cannot be sent to a cluster",
            code="UNPICKLABLE",
            remedy="pass its actor_id, and call client.get_actor(actor_id) where there is a client",
        )

    def __repr__(self) -> str:
        """Return what can be said without asking anybody."""
        name = self._cls.__name__ if self._cls else "actor"
        return f"<ActorHandle {name} {self._future.task_id or self._future.key}>"

    def _why_not_ready(self) -> str:
        if self._future.task_id is None:
            return "it is not accepted yet"
        return self._client.explain(self._future.task_id)["message"]
