"""Many Ray clusters as one, in the function style of `ray_multicluster_scheduler`.

The functions share one scheduler, which is started from the clusters file when it is first needed.
"""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from schedulemesh.unified import UnifiedScheduler

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import ParamSpec

    from schedulemesh.actors import ActorHandle
    from schedulemesh.models import ClusterMetadata
    from schedulemesh.views import TaskView

    P = ParamSpec("P")

T = TypeVar("T")

CHECK_INTERVAL_S = 5.0

_TASK_STATUS = {
    "queued": "QUEUED",
    "delayed": "QUEUED",
    "assigned": "SUBMITTED",
    "running": "RUNNING",
    "stopping": "RUNNING",
    "succeeded": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
}

_JOB_STATUS = {
    "queued": "PENDING",
    "delayed": "PENDING",
    "assigned": "PENDING",
    "running": "RUNNING",
    "stopping": "RUNNING",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "cancelled": "STOPPED",
}

_JOB_ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


def initialize_scheduler_environment(
    config_file_path: str | os.PathLike[str] | None = None,
) -> UnifiedScheduler:
    """Start, or connect to, the control plane of a clusters file. The first submission does it too.

    Args:
        config_file_path: The file; else `CLUSTER_CONFIG_FILE`, `./clusters.yaml`,
            `~/.ray_scheduler/clusters.yaml`, `/etc/ray_scheduler/clusters.yaml`.

    Raises:
        ConfigurationError: When the file is wrong; nothing was started then.
    """
    scheduler = UnifiedScheduler()
    scheduler.initialize(config_file_path)
    return scheduler


def submit_task(  # noqa: PLR0913, PLR0917 - a published signature
    func: Callable[..., T],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    resource_requirements: Mapping[str, float] | None = None,
    tags: Sequence[str] | None = None,
    name: str = "",
    preferred_cluster: str | None = None,
) -> tuple[str, T]:
    """Run a function on one cluster and wait for its value.

    Args:
        func: The function.
        args: Its arguments.
        kwargs: Its keyword arguments.
        resource_requirements: In Ray's names: `{"CPU": 2, "GPU": 1, "memory": bytes, "mine": 1}`.
        tags: Tags that the cluster must have.
        name: A name for people.
        preferred_cluster: The cluster that is taken while it is healthy.

    Returns:
        The id of the task, and its value.

    Raises:
        TaskSubmissionError: When no cluster could ever run it.
        Exception: What the function raised, with the remote traceback as its cause.
    """
    said = {"tags": tags, "name": name, "preferred_cluster": preferred_cluster}
    future = UnifiedScheduler().submit_task(
        func, args, kwargs or {}, resource_requirements=resource_requirements, **said
    )
    value = future.result()
    return future.accepted(), value


def submit_actor(  # noqa: PLR0913, PLR0917 - a published signature
    actor_class: type[T],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    resource_requirements: Mapping[str, float] | None = None,
    tags: Sequence[str] | None = None,
    name: str = "",
    preferred_cluster: str | None = None,
    timeout: float | None = 300,
) -> tuple[str, ActorHandle[T]]:
    """Start an actor on one cluster and wait until it is ready.

    Args:
        actor_class: Its class.
        args: The arguments of its constructor.
        kwargs: The keyword arguments of its constructor.
        resource_requirements: In Ray's names.
        tags: Tags that the cluster must have.
        name: A name for people.
        preferred_cluster: The cluster that is taken while it is healthy.
        timeout: The longest wait, in seconds.

    Returns:
        The id of the actor, and a handle: `handle.method.remote(...)` returns a future,
        `handle.method(...)` waits.

    Raises:
        TimeoutError: When it is not ready in time; it is stopped then.
        Exception: What its constructor raised.
    """
    said = {"tags": tags, "name": name, "preferred_cluster": preferred_cluster}
    handle = UnifiedScheduler().submit_actor(
        actor_class,
        args,
        kwargs or {},
        timeout,
        resource_requirements=resource_requirements,
        **said,
    )
    return handle.actor_id, handle


def submit_job(  # noqa: PLR0913, PLR0917 - a published signature
    entrypoint: str,
    runtime_env: Mapping[str, Any] | None = None,
    job_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    submission_id: str | None = None,
    preferred_cluster: str | None = None,
    resource_requirements: Mapping[str, float] | None = None,
    tags: Sequence[str] | None = None,
) -> str:
    """Run a whole Ray job on one cluster. Returns as soon as it is accepted.

    Args:
        entrypoint: The shell command. Paths under your home become paths under the `home_dir` that
            the cluster's runtime environment names.
        runtime_env: Ray's runtime environment; the cluster's own when nothing is said.
        job_id: The same as `submission_id`, which goes before it.
        metadata: Carried along by Ray.
        submission_id: What you call it: submitting it twice does it once.
        preferred_cluster: The cluster that is taken while it is healthy.
        resource_requirements: In Ray's names.
        tags: Tags that the cluster must have.

    Returns:
        The submission id, which the other job functions take.

    Raises:
        TaskSubmissionError: When it is refused.
    """
    key = submission_id or job_id or f"job-{uuid.uuid4().hex}"
    body = {"runtime_env": runtime_env, "metadata": metadata}
    said = {"tags": tags, "preferred_cluster": preferred_cluster}
    UnifiedScheduler().submit_job(
        entrypoint, body, key, resource_requirements=resource_requirements, **said
    )
    return key


def get_task_status(task_id: str) -> str:
    """Return QUEUED, SUBMITTED, RUNNING, COMPLETED, FAILED or CANCELLED.

    Args:
        task_id: The id of the task.

    Raises:
        NotFoundError: When there is no such task.
    """
    return _TASK_STATUS[UnifiedScheduler().client.task(task_id)["phase"]]


def get_task_result(task_id: str, timeout: float | None = None) -> Any:
    """Return the value of a task, or raise what it raised; wait until it has ended.

    Args:
        task_id: The id of the task.
        timeout: The longest wait, in seconds.

    Raises:
        NotFoundError: When there is no such task.
        TimeoutError: When the time is over.
    """
    return UnifiedScheduler().client.get_task(task_id).result(timeout)


def get_job_status(submission_id: str) -> str:
    """Return PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.

    Args:
        submission_id: What `submit_job` returned.

    Raises:
        NotFoundError: When there is no such job.
    """
    return _JOB_STATUS[_job(submission_id)["phase"]]


def get_job_info(submission_id: str) -> dict[str, Any]:
    """Return what is known of a job: its status, cluster, times and error.

    Args:
        submission_id: What `submit_job` returned.

    Raises:
        NotFoundError: When there is no such job.
    """
    view = _job(submission_id)
    status = _JOB_STATUS[view["phase"]]
    return {"submission_id": submission_id, "status": status, **view}


def get_job_logs(submission_id: str) -> str:
    """Return what a job printed.

    Args:
        submission_id: What `submit_job` returned.

    Raises:
        NotFoundError: When there is no such job.
    """
    return UnifiedScheduler().client.logs(_job(submission_id)["id"])


def stop_job(submission_id: str) -> bool:
    """Stop a job, wherever it runs.

    Args:
        submission_id: What `submit_job` returned.

    Returns:
        Whether it was still to be stopped.

    Raises:
        NotFoundError: When there is no such job.
    """
    view = _job(submission_id)
    if _JOB_STATUS[view["phase"]] in _JOB_ENDED:
        return False
    UnifiedScheduler().client.cancel(view["id"])
    return True


def wait_for_all_jobs(
    ids: Iterable[str], check_interval: float = CHECK_INTERVAL_S, timeout: float | None = None
) -> dict[str, str]:
    """Wait until all of some jobs have ended.

    Args:
        ids: What `submit_job` returned for each.
        check_interval: The longest time between two looks, in seconds.
        timeout: The longest wait, in seconds.

    Returns:
        How each of them ended.

    Raises:
        TimeoutError: When the time is over.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    ended: dict[str, str] = {}
    for submission_id in ids:
        future = UnifiedScheduler().client.get_task(_name(submission_id))
        while not future.done():
            left = check_interval
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"job {submission_id} has not ended within {timeout} s")
            with contextlib.suppress(Exception):
                future.result(left)
        ended[submission_id] = get_job_status(submission_id)
    return ended


def list_clusters() -> list[ClusterMetadata]:
    """Return the clusters that are registered."""
    return UnifiedScheduler().list_clusters()


def graceful_shutdown_on_keyboard_interrupt(function: Callable[P, T]) -> Callable[P, T]:
    """Have Ctrl-C stop the remote work that this process has submitted.

    Args:
        function: The function during which Ctrl-C does so; the interrupt goes on afterwards.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            UnifiedScheduler().shutdown(cancel=True)
            raise

    return wrapped


def _job(submission_id: str) -> TaskView:
    return UnifiedScheduler().client.task(_name(submission_id))


def _name(submission_id: str) -> str:
    is_number = submission_id[:1] == "t" and submission_id[1:].isdigit()
    return submission_id if is_number else f"key:{submission_id}"
