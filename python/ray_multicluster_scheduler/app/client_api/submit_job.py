"""Published import path. The code is in `schedulemesh.multicluster`."""

from schedulemesh.multicluster import (
    get_job_info,
    get_job_logs,
    get_job_status,
    graceful_shutdown_on_keyboard_interrupt,
    stop_job,
    submit_job,
    wait_for_all_jobs,
)

__all__ = [
    "get_job_info",
    "get_job_logs",
    "get_job_status",
    "graceful_shutdown_on_keyboard_interrupt",
    "stop_job",
    "submit_job",
    "wait_for_all_jobs",
]
