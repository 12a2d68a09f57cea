"""Published import path. The code is in `schedulemesh.unified` and `schedulemesh.multicluster`."""

from schedulemesh.multicluster import initialize_scheduler_environment, list_clusters
from schedulemesh.unified import UnifiedScheduler

__all__ = ["UnifiedScheduler", "initialize_scheduler_environment", "list_clusters"]
