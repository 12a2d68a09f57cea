"""Plain descriptions of clusters, tasks and decisions, as dictionaries and back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


class _Model:
    """A dataclass that becomes a dictionary and is made from one."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {field: getattr(self, field) for field in self._fields()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the description that a dictionary holds; what it does not know is left out.

        Args:
            values: The fields by name.
        """
        return cls(**{name: values[name] for name in cls._fields() if name in values})

    @classmethod
    def _fields(cls) -> list[str]:
        return [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]


@dataclasses.dataclass
class ClusterMetadata(_Model):
    """What the owner of a cluster says about it."""

    name: str
    head_address: str = ""
    dashboard: str = ""
    prefer: bool = False
    weight: float = 1.0
    tags: list[str] = dataclasses.field(default_factory=list)
    runtime_env: dict[str, Any] | None = None


@dataclasses.dataclass
class ResourceSnapshot(_Model):
    """What a cluster had at one time."""

    cluster_name: str
    total_resources: dict[str, float] = dataclasses.field(default_factory=dict)
    available_resources: dict[str, float] = dataclasses.field(default_factory=dict)
    node_count: int = 0
    timestamp: float = 0.0


@dataclasses.dataclass
class TaskDescription(_Model):
    """A task as it was submitted."""

    task_id: str = ""
    name: str = ""
    resource_requirements: dict[str, float] = dataclasses.field(default_factory=dict)
    tags: list[str] = dataclasses.field(default_factory=list)
    preferred_cluster: str | None = None
    status: str = "QUEUED"
    cluster: str | None = None


@dataclasses.dataclass
class JobDescription(_Model):
    """A job as it was submitted."""

    submission_id: str = ""
    entrypoint: str = ""
    runtime_env: dict[str, Any] | None = None
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    resource_requirements: dict[str, float] = dataclasses.field(default_factory=dict)
    tags: list[str] = dataclasses.field(default_factory=list)
    preferred_cluster: str | None = None
    status: str = "PENDING"
    cluster: str | None = None


@dataclasses.dataclass
class SchedulingDecision(_Model):
    """Where a task went, and why."""

    task_id: str
    cluster_name: str | None = None
    reason: str = ""
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
