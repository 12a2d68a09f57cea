"""ScheduleMesh: one scheduler above every Ray cluster you own.

Submit functions, actors and jobs from a program that never imports Ray; they run on whichever
cluster fits, and results or exceptions come back.

Example:
    >>> import schedulemesh
    >>> with schedulemesh.connect() as client:
    ...     future = client.submit(pow, 2, 10)
    ...     print(future.result(), future.cluster)
    1024 mac

Names are loaded when they are first used: importing this module is cheap, and never imports Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import as_completed, wait

    from schedulemesh._native import __version__
    from schedulemesh.actors import ActorHandle
    from schedulemesh.aio import AsyncClient, aconnect
    from schedulemesh.client import Client
    from schedulemesh.connecting import connect
    from schedulemesh.decorator import Task, task
    from schedulemesh.default import (
        actor,
        clusters,
        explain,
        map,  # noqa: A004 - the name that everybody expects
        options,
        set_client,
        submit,
        submit_job,
        tasks,
    )
    from schedulemesh.errors import (
        ActorEndedError,
        AuthenticationError,
        ClientClosedError,
        ClusterConnectionError,
        ClusterLostError,
        ConfigurationError,
        ForkedError,
        InfeasibleError,
        KeyConflictError,
        NoHealthyClusterError,
        NotFoundError,
        NotStartedError,
        PolicyEvaluationError,
        PythonMismatchError,
        QueueFullError,
        RemoteError,
        RemotePickleError,
        RemoteTraceback,
        SchedulerError,
        TaskCancelledError,
        TaskError,
        TaskForgottenError,
        TaskSubmissionError,
        TaskTimeoutError,
        UnpicklableError,
        WorkerDiedError,
    )
    from schedulemesh.future import Future

_HOMES = {
    "actors": ("ActorHandle",),
    "aio": ("AsyncClient", "aconnect"),
    "client": ("Client",),
    "connecting": ("connect",),
    "default": (
        "actor",
        "clusters",
        "explain",
        "map",
        "options",
        "set_client",
        "submit",
        "submit_job",
        "tasks",
    ),
    "errors": (
        "ActorEndedError",
        "AuthenticationError",
        "ClientClosedError",
        "ClusterConnectionError",
        "ClusterLostError",
        "ConfigurationError",
        "ForkedError",
        "InfeasibleError",
        "KeyConflictError",
        "NoHealthyClusterError",
        "NotFoundError",
        "NotStartedError",
        "PolicyEvaluationError",
        "PythonMismatchError",
        "QueueFullError",
        "RemoteError",
        "RemotePickleError",
        "RemoteTraceback",
        "SchedulerError",
        "TaskCancelledError",
        "TaskError",
        "TaskForgottenError",
        "TaskSubmissionError",
        "TaskTimeoutError",
        "UnpicklableError",
        "WorkerDiedError",
    ),
    "future": ("Future",),
    "decorator": ("Task", "task"),
    "_native": ("__version__",),
}

# No module may have the name of a public function: importing it would hide the function.
_HOME_OF = {name: f"schedulemesh.{home}" for home, names in _HOMES.items() for name in names}
_HOME_OF |= dict.fromkeys(("as_completed", "wait"), "concurrent.futures")

__all__ = [
    "ActorEndedError",
    "ActorHandle",
    "AsyncClient",
    "AuthenticationError",
    "Client",
    "ClientClosedError",
    "ClusterConnectionError",
    "ClusterLostError",
    "ConfigurationError",
    "ForkedError",
    "Future",
    "InfeasibleError",
    "KeyConflictError",
    "NoHealthyClusterError",
    "NotFoundError",
    "NotStartedError",
    "PolicyEvaluationError",
    "PythonMismatchError",
    "QueueFullError",
    "RemoteError",
    "RemotePickleError",
    "RemoteTraceback",
    "SchedulerError",
    "Task",
    "TaskCancelledError",
    "TaskError",
    "TaskForgottenError",
    "TaskSubmissionError",
    "TaskTimeoutError",
    "UnpicklableError",
    "WorkerDiedError",
    "__version__",
    "aconnect",
    "actor",
    "as_completed",
    "clusters",
    "connect",
    "explain",
    "map",
    "options",
    "set_client",
    "submit",
    "submit_job",
    "task",
    "tasks",
    "wait",
]


def __getattr__(name: str) -> Any:
    """Load a public name.

    Args:
        name: The name.

    Raises:
        AttributeError: When there is no such name.
    """
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'schedulemesh' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
