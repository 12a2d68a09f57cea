"""Published import path. The code is in `schedulemesh.multicluster`."""

from schedulemesh.multicluster import (
    UnifiedScheduler,
    initialize_scheduler_environment,
    list_clusters,
)

__all__ = ["UnifiedScheduler", "initialize_scheduler_environment", "list_clusters"]
