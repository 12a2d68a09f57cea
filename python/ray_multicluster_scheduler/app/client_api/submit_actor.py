"""Published import path. The code is in `schedulemesh.multicluster`."""

from schedulemesh.multicluster import submit_actor

__all__ = ["submit_actor"]
