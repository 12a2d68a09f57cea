"""Published import path. The code is in `schedulemesh.errors`."""

from schedulemesh.errors import (
    ClusterConnectionError,
    ConfigurationError,
    NoHealthyClusterError,
    PolicyEvaluationError,
    SchedulerError,
    TaskSubmissionError,
)

__all__ = [
    "ClusterConnectionError",
    "ConfigurationError",
    "NoHealthyClusterError",
    "PolicyEvaluationError",
    "SchedulerError",
    "TaskSubmissionError",
]
