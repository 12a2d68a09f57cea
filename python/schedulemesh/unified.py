"""All clusters behind one object, started from the clusters file when it is first needed."""

from __future__ import annotations

import functools
import os
import re
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from schedulemesh import clusters_file
from schedulemesh.client import CONNECT_TIMEOUT_S
from schedulemesh.clusters_file import Settings
from schedulemesh.connecting import connect, connect_with_agents
from schedulemesh.embedded import ask
from schedulemesh.models import ClusterMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from schedulemesh._native import Client as NativeClient
    from schedulemesh.actors import ActorHandle
    from schedulemesh.client import Client
    from schedulemesh.clusters_file import ClustersFile
    from schedulemesh.embedded import Household
    from schedulemesh.future import Future
    from schedulemesh.submitter import Submitter
    from schedulemesh.task_options import Options

T = TypeVar("T")

CURRENT_CLUSTER_VARIABLE = "RAY_MULTICLUSTER_CURRENT_CLUSTER"
"""Where a job finds the cluster that it runs on; what it submits prefers that cluster."""


class UnifiedScheduler:
    """All clusters behind one object; there is one in a process, and the class returns it."""

    _instance: Self | None = None
    _guard = threading.RLock()
    _client: Client | None
    _config: str | os.PathLike[str] | None
    _known_here: tuple[Client, bool] | None
    _settings: Settings

    def __new__(cls) -> Self:
        """Return the scheduler of this process."""
        with cls._guard:
            if cls._instance is None:
                instance = super().__new__(cls)
                instance._client = None
                instance._config = None
                instance._known_here = None
                instance._settings = Settings()
                instance._mine = weakref.WeakSet()
                cls._instance = instance
            return cls._instance

    _mine: weakref.WeakSet[Future[Any]]

    @property
    def client(self) -> Client:
        """The client below, connected when it is first needed."""
        with self._guard:
            if self._client is None or self._client.closed:
                self._client = self._connect()
            return self._client

    def initialize(self, config_file_path: str | os.PathLike[str] | None = None) -> None:
        """Connect now, with this clusters file.

        Args:
            config_file_path: The file; searched where such files are when nothing is said.

        Raises:
            ConfigurationError: When the file is wrong; nothing was started then.
        """
        with self._guard:
            if config_file_path is not None and self._client is not None:
                self.shutdown()
            self._config = config_file_path
            _ = self.client

    def shutdown(self, *, cancel: bool = False) -> None:
        """Disconnect, and end the control plane if it runs in this process.

        Args:
            cancel: Whether to stop the work that this process has submitted.
        """
        with self._guard:
            self._config = None
            if self._client is None:
                return
            if cancel:
                self.cancel_all()
            self._client.close()
            self._client = None

    def cancel_all(self) -> int:
        """Stop the work that this process has submitted. Returns how much of it there was."""
        open_futures = [future for future in list(self._mine) if not future.done()]
        for future in open_futures:
            future.cancel()
        return len(open_futures)

    def submit_task(
        self, func: Callable[..., T], args: Sequence[Any], kwargs: Mapping[str, Any], **said: Any
    ) -> Future[T]:
        """Run a function and return its future.

        Args:
            func: The function.
            args: Its arguments.
            kwargs: Its keyword arguments.
            **said: `resource_requirements`, `tags`, `name` and `preferred_cluster`.
        """
        submitter = self._submitter("task", **said)
        future: Future[T] = submitter.submit(func, *args, **dict(kwargs))
        self._mine.add(future)
        return future

    def submit_actor(
        self,
        actor_class: type[T],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        timeout: float | None,
        **said: Any,
    ) -> ActorHandle[T]:
        """Start an actor and wait until it is ready.

        Args:
            actor_class: Its class.
            args: The arguments of its constructor.
            kwargs: The keyword arguments of its constructor.
            timeout: The longest wait, in seconds.
            **said: `resource_requirements`, `tags`, `name` and `preferred_cluster`.
        """
        submitter = self._submitter("actor", **said)
        handle = submitter.actor(actor_class, *args, ready_timeout=0, **dict(kwargs))
        self._mine.add(handle.future)
        handle.wait_ready(timeout)
        return handle

    def submit_job(self, entrypoint: str, body: Mapping[str, Any], key: str, **said: Any) -> None:
        """Run a whole Ray job.

        Args:
            entrypoint: The shell command.
            body: `runtime_env` and `metadata`.
            key: What it is called.
            **said: `resource_requirements`, `tags` and `preferred_cluster`.
        """
        submitter = self._submitter("job", key=key, **said)
        future = submitter.submit_job(map_home(entrypoint), **body)
        self._mine.add(future)
        future.accepted()

    def list_clusters(self) -> list[ClusterMetadata]:
        """Return the clusters that are registered."""
        return [ClusterMetadata.from_dict(view["spec"]) for view in self.client.clusters()]

    def _submitter(self, kind: str, **said: Any) -> Submitter:
        client = self.client
        options = _options(**said)
        settings = self._settings
        options["retry_backoff"] = settings.backoff
        if kind != "actor":
            options["timeout"] = settings.job_timeout if kind == "job" else settings.task_timeout
        if options.get("cluster") is None:
            options["cluster"] = self._inherited_cluster()
        return client.options(**options)

    def _inherited_cluster(self) -> str | None:
        """Return the cluster of the job that this process is part of, if it is known here."""
        name = os.environ.get(CURRENT_CLUSTER_VARIABLE)
        if name is None:
            return None
        client = self.client
        if self._known_here is None or self._known_here[0] is not client:
            names = {view["spec"]["name"] for view in client.clusters()}
            self._known_here = (client, name in names)
        return name if self._known_here[1] else None

    def _connect(self) -> Client:
        self._settings = settings = clusters_file.read_settings()
        timeout = settings.connect_timeout or CONNECT_TIMEOUT_S
        path = clusters_file.find(self._config)
        if path is None:
            return connect(timeout=timeout)
        found = clusters_file.read(path, settings)
        agents = functools.partial(_start_agents, found)
        return connect_with_agents([entry.body() for entry in found.clusters], agents, timeout)


def _start_agents(found: ClustersFile, household: Household, native: NativeClient) -> None:
    """Start agents for clusters that nobody else can start one for."""
    views = ask(native, "GET", "/v1/clusters")
    linked = {view["spec"]["name"] for view in views if view["link"] == "ready"}
    for entry in found.clusters:
        if entry.needs_agent and entry.name not in linked:
            household.start_agent(native, entry.name, entry.head_address)


def map_home(entrypoint: str) -> str:
    """Return a command in which paths under this user's home are under the target's `home_dir`.

    Args:
        entrypoint: The command, for a shell.
    """
    home = str(Path.home())
    quoted = entrypoint.count("'")
    if home == "/" or quoted % 2 == 1:
        return entrypoint
    # The cluster is not chosen yet: its shell puts in what its runtime environment says. Inside
    # single quotes it would not.
    parts = entrypoint.split("'")
    path = re.compile(rf"(?<![^\s=:\"]){re.escape(home)}(?=[/\s\"]|$)")
    parts[::2] = [path.sub(f"${{home_dir:-{home}}}", part) for part in parts[::2]]
    return "'".join(parts)


def _options(
    resource_requirements: Mapping[str, float] | None = None,
    tags: Sequence[str] | None = None,
    name: str = "",
    preferred_cluster: str | None = None,
    key: str | None = None,
) -> Options:
    asked = dict(resource_requirements or {})
    options: Options = {
        "cpus": asked.pop("CPU", None),
        "gpus": asked.pop("GPU", None),
        "memory": asked.pop("memory", None),
        "resources": asked,
        "tags": tags or (),
        "name": name or None,
        "cluster": preferred_cluster,
        "key": key,
    }
    return options
