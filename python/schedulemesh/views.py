"""What the control plane answers, typed. Times are Unix seconds, durations milliseconds."""

from __future__ import annotations

from typing import Any, TypedDict


class FailureView(TypedDict):
    """Why an attempt failed."""

    cause: str
    message: str


class CallView(TypedDict):
    """The target of a call."""

    actor: str
    method: str


class TaskView(TypedDict):
    """A task."""

    id: str
    key: str
    name: str | None
    kind: str
    phase: str
    cluster: str | None
    node: str | None
    attempt: int
    lost: int
    raised: int
    priority: float
    resources: dict[str, float]
    affinity: dict[str, Any]
    call: CallView | None
    submitted_at: float
    started_at: float | None
    ended_at: float | None
    run_ms: float | None
    error: FailureView | None
    payload_bytes: int
    result_bytes: int | None


class VerdictView(TypedDict):
    """What one cluster says about one task."""

    cluster: str
    fits: bool
    code: str
    message: str
    score: float | None
    parts: dict[str, float]


class ExplainView(TypedDict):
    """Why a task is where it is."""

    task: TaskView | None
    because: str
    message: str
    ahead: int | None
    clusters: list[VerdictView]


class NodeView(TypedDict):
    """A node of a cluster."""

    id: str
    address: str
    alive: bool
    labels: dict[str, str]
    total: dict[str, float]
    free: dict[str, float]


class ClusterBody(TypedDict, total=False):
    """What the owner of a cluster says about it."""

    name: str
    dashboard: str
    agent: str
    token: str
    weight: float
    prefer: bool
    tags: list[str]
    labels: dict[str, str]
    runtime_env: dict[str, Any]
    max_utilisation: float
    max_tasks: int
    job_interval_ms: int
    lost_after_ms: int
    breaker_failures: int
    breaker_recovery_ms: int


class ClusterView(TypedDict):
    """A cluster."""

    spec: ClusterBody
    link: str
    since: float
    draining: bool
    breaker: str
    python: str | None
    ray: str | None
    agent_version: str | None
    total: dict[str, float]
    free: dict[str, float]
    foreign: dict[str, float]
    nodes: list[NodeView]
    tasks: int
    trouble: str | None
