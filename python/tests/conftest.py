"""Fixtures for all tests."""

from __future__ import annotations

import signal

from ray_clusters import ray_clusters

__all__ = ["ray_clusters"]

# A shell that starts tests in the background has them, and all that they start, ignore SIGINT: the
# tests of Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
