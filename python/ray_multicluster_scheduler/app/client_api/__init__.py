"""Published import path. The code is in `schedulemesh.multicluster`.

Each function hides the module of its name in this package; the module stays importable by its path.
"""

from ray_multicluster_scheduler.app.client_api.submit_actor import submit_actor
from ray_multicluster_scheduler.app.client_api.submit_job import (
    get_job_info,
    get_job_logs,
    get_job_status,
    graceful_shutdown_on_keyboard_interrupt,
    stop_job,
    submit_job,
    wait_for_all_jobs,
)
from ray_multicluster_scheduler.app.client_api.submit_task import (
    get_task_result,
    get_task_status,
    initialize_scheduler_environment,
    submit_task,
)
from ray_multicluster_scheduler.app.client_api.unified_scheduler import (
    UnifiedScheduler,
    list_clusters,
)

__all__ = [
    "UnifiedScheduler",
    "get_job_info",
    "get_job_logs",
    "get_job_status",
    "get_task_result",
    "get_task_status",
    "graceful_shutdown_on_keyboard_interrupt",
    "initialize_scheduler_environment",
    "list_clusters",
    "stop_job",
    "submit_actor",
    "submit_job",
    "submit_task",
    "wait_for_all_jobs",
]
