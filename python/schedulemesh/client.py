"""The client: one control plane, and everything that can be asked of it."""

from __future__ import annotations

import functools
import itertools
import json
import os
import time
import urllib.parse
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from schedulemesh import environments, transfer
from schedulemesh._native import Client as NativeClient
from schedulemesh._native import Code, Spec
from schedulemesh.actors import ActorHandle
from schedulemesh.delivery import Delivery
from schedulemesh.environments import CLAIM_S, is_local
from schedulemesh.errors import ConfigurationError
from schedulemesh.executor import ClientExecutor
from schedulemesh.future import Future
from schedulemesh.pickling import CodeCache
from schedulemesh.submitter import Submitter, code_of, pack
from schedulemesh.task_options import TaskOptions, defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from schedulemesh.packages import Packages
    from schedulemesh.task_options import Options
    from schedulemesh.views import ClusterBody, ClusterView, ExplainView, TaskView

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
"""How long a control plane may take to answer at first."""

FLUSH_TIMEOUT_S = 10.0
"""How long closing waits until what was submitted is accepted."""

_SPECS_MAX = 4_096
_FOR_EVER = float("inf")
_JOIN_TIMEOUT_S = 5.0


class Client(Submitter):
    """One control plane. Use `schedulemesh.connect()` to get one.

    All methods may be called from any thread. A client is a context manager: leaving it closes it,
    while what it submitted goes on.

    Example:
        >>> with schedulemesh.connect() as client:
        ...     client.submit(pow, 2, 10).result()
        1024
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = CONNECT_TIMEOUT_S,
        state_dir: Path | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """Connect.

        Args:
            url: The address of the control plane, such as `http://127.0.0.1:7420`.
            token: The secret that it asks for.
            timeout: How long it may take to answer, in seconds.
            state_dir: Where its address was found, and is looked for again before each dial.
            on_close: Called after the link was closed.

        Raises:
            ClusterConnectionError: When nobody answers.
            AuthenticationError: When the token is refused.
        """
        super().__init__(self, defaults())
        self.native = NativeClient(url, token, state_dir)
        self.defaults = defaults()
        try:
            self.inline_max = self.native.wait_up(timeout)
        except BaseException:
            self.native.close()
            raise
        self._delivery = Delivery(self.native)
        self._tickets = itertools.count(1)
        self._codes = CodeCache()
        self._specs: dict[tuple[int, str, str | None], tuple[TaskOptions, Spec, float]] = {}
        # Also at the end of the interpreter, and when nobody holds the client any more.
        self._end = weakref.finalize(self, _end, os.getpid(), self.native, self._delivery, on_close)

    @property
    def url(self) -> str:
        """The address of the control plane."""
        return self.native.url

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._end.alive

    @functools.cached_property
    def packages(self) -> Packages:
        """The folders of this machine that travel with runtime environments."""
        from schedulemesh.packages import Packages  # noqa: PLC0415 - few programs need it

        return Packages(self.native)

    # Submitting. The methods of `Submitter` end here.

    def code(self, target: Callable[..., Any]) -> Code:
        """Return the pickle of a function or a class, uploaded if it is large.

        Args:
            target: The function or class.
        """
        code = code_of(self._codes, target)
        self.native.put_code(code)
        return code

    def function_spec(self, options: TaskOptions, code: Code, title: str | None) -> Spec:
        """Return the specification of a function with certain options.

        Args:
            options: The options.
            code: The pickle of the function.
            title: What people call it.
        """
        key = (id(options), code.digest, title)
        known = self._specs.get(key)
        # A package has to be asked for again now and then, or it is given up.
        if known is not None and (known[2] == _FOR_EVER or time.monotonic() < known[2]):
            return known[1]
        until = time.monotonic() + CLAIM_S if is_local(options.runtime_env) else _FOR_EVER
        spec = self.spec(options, {"function": {"code": code.digest}}, code, title)
        if len(self._specs) >= _SPECS_MAX:
            self._specs.clear()
        # The options are kept with it, so that their id is not given to others.
        self._specs[key] = (options, spec, until)
        return spec

    def spec(
        self,
        options: TaskOptions,
        work: Mapping[str, Any] | str,
        code: Code | None,
        title: str | None,
    ) -> Spec:
        """Return a specification.

        Args:
            options: The options.
            work: What is run, as the JSON body says it.
            code: The pickled code of it, if it has any.
            title: What people call it.
        """
        env = options.runtime_env
        if env is not None and is_local(env):
            options = options.with_runtime_env(self.packages.ship(env))
        return Spec(options.spec(work, title), code)

    def send(
        self, spec: Spec, options: TaskOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Submit one call.

        Args:
            spec: What it has in common with others.
            options: Where its name and key are.
            args: The positional arguments.
            kwargs: The keyword arguments.
        """
        payload, blob = pack(self, args, kwargs, "the arguments")
        return self._send(spec, options, payload, blob)

    def send_payload(self, spec: Spec, options: TaskOptions, payload: Any) -> Future[Any]:
        """Submit a task whose payload is the pickle of something.

        Args:
            spec: What it has in common with others.
            options: Where its name and key are.
            payload: What to pickle.
        """
        data, blob = transfer.upload(self.native, self.inline_max, payload, "the arguments")
        return self._send(spec, options, data, blob)

    def send_bytes(self, spec: Spec, options: TaskOptions, payload: bytes) -> Future[Any]:
        """Submit a task whose payload is bytes.

        Args:
            spec: What it has in common with others.
            options: Where its name and key are.
            payload: The bytes.
        """
        return self._send(spec, options, payload, None)

    def _send(
        self,
        spec: Spec,
        options: TaskOptions,
        payload: bytes | None,
        blob: tuple[str, int] | None,
    ) -> Future[Any]:
        ticket = next(self._tickets)
        future: Future[Any] = Future(self, ticket)
        futures = self._delivery.futures
        futures[ticket] = future
        try:
            future.key = self.native.submit(ticket, spec, payload, blob, options.key, options.name)
        except BaseException:
            futures.pop(ticket, None)
            raise
        return future

    def wait_started(self, future: Future[Any], deadline: float | None) -> bool:
        """Wait until a task runs or has ended.

        Args:
            future: The task.
            deadline: Until when to wait, on the monotonic clock.

        Returns:
            Whether it runs or has ended.
        """
        return self._delivery.wait_started(future, deadline)

    def executor(self, **options: Unpack[Options]) -> ClientExecutor:
        """Return a standard `concurrent.futures.Executor` that runs its work on the clusters.

        Args:
            **options: Options of everything that it runs.
        """
        return ClientExecutor(self.options(**options) if options else self)

    # Tasks that exist.

    def get_task(self, task_id: str) -> Future[Any]:
        """Return a future for a task that was submitted before, here or elsewhere.

        Args:
            task_id: Its id such as `t42`, or `key:` and its key.

        Raises:
            NotFoundError: When there is no such task.
        """
        view = self.task(task_id)
        ticket = next(self._tickets)
        future: Future[Any] = Future(self, ticket, view["key"])
        self._delivery.futures[ticket] = future
        self.native.watch(ticket, int(view["id"].removeprefix("t")))
        return future

    def get_actor(self, actor_id: str) -> ActorHandle[Any]:
        """Return a handle for an actor that was started before, here or elsewhere.

        Args:
            actor_id: Its id, such as `t42`.

        Raises:
            NotFoundError: When there is no such task.
            ConfigurationError: When the task is no actor.
        """
        kind = self.task(actor_id)["kind"]
        if kind != "actor":
            raise ConfigurationError(f"{actor_id} is a {kind}, not an actor", code="NOT_AN_ACTOR")
        return ActorHandle(self, self.get_task(actor_id), None)

    def task(self, task_id: str) -> TaskView:
        """Return what the control plane knows of a task.

        Args:
            task_id: Its id such as `t42`, or `key:` and its key.
        """
        view: TaskView = self.request("GET", _path("v1", "tasks", task_id))
        return view

    def tasks(
        self,
        *,
        phase: str | Sequence[str] | None = None,
        cluster: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        limit: int | None = None,
    ) -> Iterator[TaskView]:
        """Give out tasks, newest first, page by page as they are asked for.

        Args:
            phase: Only those in this phase, or in one of these; `active` are those not ended.
            cluster: Only those on this cluster.
            kind: Only those of this kind: `function`, `actor`, `call` or `job`.
            name: Only those of this name.
            limit: At most so many.
        """
        phases = [phase] if isinstance(phase, str) else list(phase or ())
        query: list[tuple[str, Any]] = [("phase", each) for each in phases]
        query += [("cluster", cluster), ("kind", kind), ("name", name)]
        query = [(key, value) for key, value in query if value is not None]
        return itertools.islice(self._pages(query), limit)

    def _pages(self, query: list[tuple[str, Any]]) -> Iterator[TaskView]:
        before: list[tuple[str, Any]] = []
        while True:
            page = self.request("GET", _path("v1", "tasks", query=query + before))
            yield from page["tasks"]
            if page["next"] is None:
                return
            before = [("before", page["next"])]

    def explain(self, task_id: str) -> ExplainView:
        """Return why a task is where it is: what each cluster says about it.

        Args:
            task_id: Its id.
        """
        view: ExplainView = self.request("GET", _path("v1", "tasks", task_id, "explain"))
        return view

    def logs(self, task_id: str, tail_bytes: int | None = None) -> str:
        """Return what a task printed.

        Args:
            task_id: Its id.
            tail_bytes: At most so many bytes, from the end.
        """
        query = [] if tail_bytes is None else [("tail_bytes", tail_bytes)]
        path = _path("v1", "tasks", task_id, "logs", query=query)
        return self.native.request("GET", path).decode(errors="replace")

    def cancel(self, task_id: str) -> TaskView:
        """Stop a task, wherever it is.

        Args:
            task_id: Its id.
        """
        view: TaskView = self.request("POST", _path("v1", "tasks", task_id, "cancel"))
        return view

    # Clusters.

    def clusters(self) -> list[ClusterView]:
        """Return all clusters, with what they have and what is free."""
        views: list[ClusterView] = self.request("GET", "/v1/clusters")
        return views

    def add_cluster(self, name: str, /, **said: Unpack[ClusterBody]) -> ClusterView:
        """Register a cluster, or change what is said about it.

        Args:
            name: Its name.
            **said: What its owner says about it, such as `dashboard`, `tags` or `weight`.
        """
        body: ClusterBody = {**said, "name": name}
        return self.put_cluster(body)

    def put_cluster(self, body: ClusterBody) -> ClusterView:
        """Register a cluster, or change what is said about it.

        Args:
            body: What its owner says about it. Folders of this machine in its runtime environment
                are packed and shipped.
        """
        env = environments.normalized(body.get("runtime_env"))
        if env is not None:
            if mistakes := environments.mistakes_in(env):
                raise ConfigurationError(mistakes[0], code="INVALID", details=mistakes[1:])
            body = {**body, "runtime_env": self.packages.ship(env) if is_local(env) else env}
        view: ClusterView = self.request("PUT", _path("v1", "clusters", body["name"]), body)
        return view

    def remove_cluster(self, name: str, *, force: bool = False) -> None:
        """Remove a cluster.

        Args:
            name: Its name.
            force: Even while work runs there, which then counts as lost.
        """
        query = [("force", "true" if force else "false")]
        self.native.request("DELETE", _path("v1", "clusters", name, query=query))

    def drain_cluster(self, name: str, *, draining: bool = True) -> ClusterView:
        """Send no new work to a cluster, or send work there again.

        Args:
            name: Its name.
            draining: Whether it is to get no new work.
        """
        path = _path("v1", "clusters", name, "drain")
        view: ClusterView = self.request("POST", path, {"draining": draining})
        return view

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Call a route of the HTTP API that has no method here.

        Args:
            method: Such as `GET`.
            path: The route, with its query.
            body: What to send as JSON.

        Returns:
            The JSON of the answer.
        """
        data = None if body is None else json.dumps(body).encode()
        answer = self.native.request(method, path, data)
        return json.loads(answer) if answer else None

    # The end.

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything submitted so far is accepted or refused, and cancellations are too.

        Args:
            timeout: The longest wait, in seconds.

        Returns:
            Whether it is.
        """
        return self.native.flush(timeout)

    def close(self) -> None:
        """Close the link, once what was submitted is accepted. Tasks go on; futures fail."""
        self._end()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        self.close()

    def __repr__(self) -> str:
        """Return where the control plane is."""
        return f"<Client {self.native.url}{' closed' if self.closed else ''}>"


def _path(*parts: str, query: Sequence[tuple[str, Any]] = ()) -> str:
    path = "".join(f"/{urllib.parse.quote(part, safe='')}" for part in parts)
    return f"{path}?{urllib.parse.urlencode(query)}" if query else path


def _end(
    process: int, native: NativeClient, delivery: Delivery, on_close: Callable[[], None] | None
) -> None:
    if process != os.getpid():
        # A fork has neither link nor threads, and what the process has is not its to close.
        return
    try:
        native.flush(FLUSH_TIMEOUT_S)
    finally:
        native.close()
        delivery.join(_JOIN_TIMEOUT_S)
        if on_close is not None:
            on_close()
