"""Creates and ends the Ray actors that carry the work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import schedulemesh.agent.worker
from schedulemesh.agent.settings import NAMESPACE
from schedulemesh.agent.worker.blackbox import read_boxes
from schedulemesh.agent.worker.host import ActorHost
from schedulemesh.agent.worker.runner import Runner

if TYPE_CHECKING:
    from schedulemesh.agent.work import Lease

BOX_TIMEOUT_S = 15.0
RETIRE_TIMEOUT_S = 2.0
SAID_MAX = 2_000


def ship_by_value() -> None:
    """Have the worker's classes travel with their code, so that nodes need no installation."""
    ray.cloudpickle.register_pickle_by_value(schedulemesh.agent.worker)


def options(lease: Lease) -> dict[str, Any]:
    """Return Ray's options for a worker that holds a lease."""
    custom = {
        name: amount
        for name, amount in lease.resources.items()
        if name not in {"CPU", "GPU", "memory"} and amount > 0
    }
    found: dict[str, Any] = {
        "num_cpus": lease.resources.get("CPU", 0),
        "num_gpus": lease.resources.get("GPU", 0),
        "resources": custom,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(lease.node, soft=False),
        "max_restarts": 0,
        "max_task_retries": 0,
        # Ray would keep a record of every batch, which says nothing of the tasks in it.
        "enable_task_events": False,
    }
    if memory := lease.resources.get("memory", 0):
        found["memory"] = math.ceil(memory)
    if lease.runtime_env:
        found["runtime_env"] = json.loads(lease.runtime_env)
    return found


def create_runner(lease: Lease, cluster: str) -> Any:
    """Create a warm worker; it ends with the agent."""
    cls = ray.remote(concurrency_groups={"control": 2})(Runner)
    return cls.options(**options(lease)).remote(cluster)


def create_host(lease: Lease, cluster: str, name: str, agent: str) -> Any:
    """Create the home of a user actor; it outlives the agent and is found by its name."""
    cls = ray.remote(concurrency_groups={"control": 2, "watch": 2})(ActorHost)
    return cls.options(
        **options(lease), name=name, namespace=NAMESPACE, lifetime="detached"
    ).remote(cluster, agent)


def kill(actor: Any) -> None:
    """Kill an actor, whatever it does."""
    with contextlib.suppress(RayError, ValueError):
        ray.kill(actor, no_restart=True)


async def retire(actor: Any) -> None:
    """Have an actor tidy up, then kill it."""
    try:
        with contextlib.suppress(RayError, asyncio.TimeoutError):
            await asyncio.wait_for(awaited(actor.retire.remote()), RETIRE_TIMEOUT_S)
    finally:
        kill(actor)


async def awaited(ref: Any) -> Any:
    """Await a Ray reference as a coroutine, which `asyncio.wait_for` can cancel."""
    return await ref


async def read_black_box(node: str, paths: list[str]) -> tuple[list[int], list[Any]] | None:
    """Read what a dead worker has done: which batches it began, and their results."""
    if not paths:
        return None
    if node == ray.get_runtime_context().get_node_id():
        return read_boxes(paths, remove=True)
    reader = ray.remote(num_cpus=0, max_retries=0)(read_boxes)
    pinned = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        ref = reader.options(scheduling_strategy=pinned).remote(paths, remove=True)
        found = await asyncio.wait_for(awaited(ref), BOX_TIMEOUT_S)
    except (RayError, asyncio.TimeoutError):
        # The node is gone too.
        return None
    return None if found is None else (found[0], found[1])


def said(error: BaseException) -> str:
    """Return what Ray says, in a bounded length."""
    return " ".join(str(error).split())[:SAID_MAX]
