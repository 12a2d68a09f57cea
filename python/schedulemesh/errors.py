"""Every exception that the SDK raises, and which problem code becomes which of them.

A problem has a stable code, one sentence with names and numbers, and a way out; all three are in
the text of the exception and on it as attributes.
"""

from __future__ import annotations

import concurrent.futures
import sys
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class SchedulerError(Exception):
    """Something that ScheduleMesh could not do, with the reason and the way out.

    Attributes:
        code: A stable word for programs, such as `KEY_CONFLICT`.
        message: One sentence with names and numbers.
        remedy: What to do about it; empty when there is nothing to say.
        details: More of it, such as one line for each cluster or each mistake.
        retry_after: Seconds after which another try makes sense, when one does.
    """

    code = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        remedy: str = "",
        details: Sequence[str] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.message = message
        self.remedy = remedy
        self.details = list(details)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Return code, message, details and remedy, each on a line of its own."""
        lines = [f"[{self.code}] {self.message}", *(f"  {detail}" for detail in self.details)]
        if self.remedy:
            lines.append(f"  fix: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Callable[..., SchedulerError], tuple[object, ...]]:
        """Keep what was said when the exception travels between processes."""
        said = {name: getattr(self, name) for name in ("code", "remedy", "details", "retry_after")}
        return _rebuild, (type(self), self.message, said)


def _rebuild(kind: type[SchedulerError], message: str, said: dict[str, Any]) -> SchedulerError:
    return kind(message, **said)


if sys.version_info >= (3, 11):
    WaitTimeoutError = TimeoutError
else:

    class WaitTimeoutError(concurrent.futures.TimeoutError, TimeoutError):
        """A wait was over. Python 3.10 has two classes for it, and a caller may expect either."""


# Before a task is accepted.


class ConfigurationError(SchedulerError):
    """An option, a setting or a clusters file is wrong."""

    code = "CONFIGURATION"


class PolicyEvaluationError(SchedulerError):
    """A policy could not be evaluated."""

    code = "POLICY_FAILED"


class ClusterConnectionError(SchedulerError, ConnectionError):
    """The control plane, or the agent of a cluster, cannot be reached."""

    code = "UNAVAILABLE"


class AuthenticationError(SchedulerError):
    """The token is missing, wrong, or not allowed to do this."""

    code = "UNAUTHENTICATED"


class ClientClosedError(SchedulerError):
    """The client was closed; what it had submitted goes on."""

    code = "CLIENT_CLOSED"


class ForkedError(SchedulerError):
    """A client was used in a fork of the process that made it."""

    code = "FORKED"


class NotFoundError(SchedulerError, LookupError):
    """There is no such task, cluster or blob."""

    code = "NOT_FOUND"


class TaskSubmissionError(SchedulerError):
    """A task was refused; nothing of it was kept."""

    code = "INVALID"


class UnpicklableError(TaskSubmissionError, TypeError):
    """A function or an argument cannot be sent; the message names the part that cannot."""

    code = "UNPICKLABLE"


class InfeasibleError(TaskSubmissionError):
    """No cluster could ever run this, as they are now; the details say why for each of them."""

    code = "INFEASIBLE"


class NoHealthyClusterError(InfeasibleError):
    """There is no cluster at all."""

    code = "NO_CLUSTER"


class PythonMismatchError(InfeasibleError):
    """Every cluster runs another Python than the one that pickled the task."""

    code = "PYTHON_DIFFERS"


class QueueFullError(TaskSubmissionError):
    """The queue is at its bound; `retry_after` says when to try again."""

    code = "QUEUE_FULL"


class KeyConflictError(TaskSubmissionError):
    """The key was used before for something else."""

    code = "KEY_CONFLICT"


# After it was accepted.


class TaskError(SchedulerError):
    """A task ended without a value."""

    code = "TASK_FAILED"


class RemoteError(TaskError):
    """The task raised an exception that cannot be raised here as it was.

    Attributes:
        exception: The name of its class.
        traceback: The remote traceback, as text.
    """

    code = "RAISED"
    exception = ""
    traceback = ""


class RemotePickleError(TaskError):
    """The function, its arguments or its value could not be read or written on the cluster."""

    code = "UNREADABLE"


class WorkerDiedError(TaskError):
    """The process that ran the task died."""

    code = "WORKER_DIED"


class NotStartedError(TaskError):
    """The task could not be started on its cluster."""

    code = "NOT_STARTED"


class ClusterLostError(TaskError):
    """The cluster that ran the task could not be heard any more."""

    code = "CLUSTER_LOST"


class TaskTimeoutError(TaskError, TimeoutError):
    """The task ran for longer than its timeout allows."""

    code = "TIMED_OUT"


class ActorEndedError(TaskError):
    """The actor that was called is gone."""

    code = "ACTOR_ENDED"


class TaskForgottenError(TaskError):
    """The control plane keeps no record of the task any more."""

    code = "FORGOTTEN"


class TaskCancelledError(TaskError, CancelledError):
    """The task was cancelled."""

    code = "CANCELLED"


class RemoteTraceback(Exception):  # noqa: N818 - it is no error of its own, but the cause of one
    """Where a remote exception was raised: the cause of the exception that is raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """Return the remote traceback, set off from the local one."""
        return f'\n"""\n{self.text.rstrip()}\n"""'


_BY_CODE: dict[str, type[SchedulerError]] = {
    kind.code: kind
    for kind in (
        ConfigurationError,
        PolicyEvaluationError,
        ClusterConnectionError,
        AuthenticationError,
        ClientClosedError,
        ForkedError,
        TaskSubmissionError,
        UnpicklableError,
        NoHealthyClusterError,
        PythonMismatchError,
        QueueFullError,
        KeyConflictError,
        ActorEndedError,
        TaskForgottenError,
    )
} | {
    "CONFIG_INVALID": ConfigurationError,
    "STATE_DIR_IN_USE": ConfigurationError,
    "STATE_DIR_UNUSABLE": ConfigurationError,
    "AGENT_UNREACHABLE": ClusterConnectionError,
    "TIMED_OUT": ClusterConnectionError,
    "UPGRADE_NEEDED": ClusterConnectionError,
    "FORBIDDEN": AuthenticationError,
    "UNKNOWN_TASK": NotFoundError,
    "UNKNOWN_CLUSTER": NotFoundError,
    "UNKNOWN_BLOB": NotFoundError,
    "NO_SUCH_ROUTE": NotFoundError,
    "KEY_EXPIRED": TaskSubmissionError,
    "NOT_AN_ACTOR": TaskSubmissionError,
    "OVERLOADED": TaskSubmissionError,
    "TOO_LARGE": TaskSubmissionError,
    "UNKNOWN_CODE": TaskSubmissionError,
}

_BY_CAUSE: dict[str, type[TaskError]] = {
    "raised": RemoteError,
    "unreadable": RemotePickleError,
    "worker_died": WorkerDiedError,
    "not_started": NotStartedError,
    "cluster_lost": ClusterLostError,
    "timed_out": TaskTimeoutError,
    "actor_ended": ActorEndedError,
}

_PYTHON_DIFFERS = "the task was pickled under"


def from_problem(
    code: str,
    message: str,
    remedy: str,
    details: Sequence[str],
    retry_after_ms: int | None,
) -> SchedulerError:
    """Return the exception for a problem that the control plane told.

    Args:
        code: Its stable code.
        message: What went wrong.
        remedy: What to do about it.
        details: More of it.
        retry_after_ms: How long to wait before another try, in milliseconds.
    """
    kind = _BY_CODE.get(code, SchedulerError)
    if code == "INFEASIBLE":
        kind = _kind_of_infeasible(details)
    retry_after = None if retry_after_ms is None else retry_after_ms / 1_000
    return kind(message, code=code, remedy=remedy, details=details, retry_after=retry_after)


def from_failure(cause: str, message: str, exception: str = "", traceback: str = "") -> TaskError:
    """Return the exception for a task that failed, when its own exception is not to be had.

    Args:
        cause: Why it failed, such as `worker_died`.
        message: One line.
        exception: The class of the exception that was raised, if one was.
        traceback: The remote traceback, as text.
    """
    kind = _BY_CAUSE.get(cause, TaskError)
    text = f"{exception}: {message}" if exception and kind is RemoteError else message
    error = kind(text)
    if isinstance(error, RemoteError):
        error.exception, error.traceback = exception, traceback
    if traceback:
        error.__cause__ = RemoteTraceback(traceback)
    return error


def _kind_of_infeasible(details: Sequence[str]) -> type[InfeasibleError]:
    if not details:
        return NoHealthyClusterError
    if all(_PYTHON_DIFFERS in detail for detail in details):
        return PythonMismatchError
    return InfeasibleError
