"""Published import path. The code is in `schedulemesh.models`."""

from schedulemesh.models import (
    ClusterMetadata,
    JobDescription,
    ResourceSnapshot,
    SchedulingDecision,
    TaskDescription,
)

__all__ = [
    "ClusterMetadata",
    "JobDescription",
    "ResourceSnapshot",
    "SchedulingDecision",
    "TaskDescription",
]
