"""Fixtures for all tests."""

from __future__ import annotations

from ray_clusters import ray_clusters

__all__ = ["ray_clusters"]
