"""Published import path. The code is in `schedulemesh.multicluster`."""

from schedulemesh.multicluster import (
    get_task_result,
    get_task_status,
    initialize_scheduler_environment,
    submit_task,
)

__all__ = ["get_task_result", "get_task_status", "initialize_scheduler_environment", "submit_task"]
