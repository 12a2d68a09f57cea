"""What the cluster's nodes have, and what of it strangers use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import ray
import ray._private.state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Amounts = dict[str, float]

_INTERNAL = re.compile(
    r"node:|object_store_memory$|bundle_group_|"
    r"[^:]+_group_(\d+_)?[0-9a-f]{20,}$"
)
NODE_ID_LABEL = "ray.io/node-id"
# Ray counts in ten-thousandths; below half of one is nothing.
TINY = 0.00005


def is_public(name: str) -> bool:
    """Say whether a resource is one that people ask for, and not one of Ray's internal ones."""
    return _INTERNAL.match(name) is None


def ask_ray() -> tuple[list[dict[str, Any]], dict[str, Amounts]]:
    """Ask Ray for its nodes and for what is free on each. Blocks for about a millisecond."""
    available = ray._private.state.available_resources_per_node()  # noqa: SLF001 - no public one
    return ray.nodes(), available


class Nodes:
    """Holds the latest view of the nodes."""

    def __init__(self, held_on: Callable[[str], Mapping[str, float]]) -> None:
        self._held_on = held_on
        self._seen: dict[str, Amounts] = {}
        self.frame: list[dict[str, Any]] = []

    def update(self, nodes: list[dict[str, Any]], available: Mapping[str, Amounts]) -> bool:
        """Take a sample; return whether the view has changed."""
        frame = []
        seen: dict[str, Amounts] = {}
        for node in sorted(nodes, key=lambda node: str(node["NodeID"])):
            if not node["Alive"]:
                continue
            node_id = node["NodeID"]
            total = {name: amount for name, amount in node["Resources"].items() if is_public(name)}
            strange = self._strange(node_id, total, available.get(node_id))
            seen[node_id] = strange
            frame.append(
                {
                    "id": node_id,
                    "address": node["NodeManagerAddress"],
                    "labels": {
                        name: value
                        for name, value in (node.get("Labels") or {}).items()
                        if name != NODE_ID_LABEL
                    },
                    "total": total,
                    "foreign": seen_twice(self._seen.get(node_id, {}), strange),
                }
            )
        self._seen = seen
        changed = frame != self.frame
        self.frame = frame
        return changed

    def free_on(self, node: str) -> Amounts | None:
        """Return what neither we nor strangers use on a node; None when it is not known."""
        entry = next((entry for entry in self.frame if entry["id"] == node), None)
        if entry is None:
            return None
        held, foreign = self._held_on(node), entry["foreign"]
        return {
            name: amount - held.get(name, 0.0) - foreign.get(name, 0.0)
            for name, amount in entry["total"].items()
        }

    def _strange(self, node: str, total: Amounts, available: Amounts | None) -> Amounts:
        """Return what is in use on a node and not by us, in this sample."""
        if available is None:
            # A node that has just come or is about to go: nothing is known.
            return {}
        held = self._held_on(node)
        strange = {}
        for name, amount in total.items():
            rest = amount - available.get(name, 0.0) - held.get(name, 0.0)
            if rest > TINY:
                strange[name] = round(rest, 4)
        return strange


def seen_twice(before: Amounts, now: Amounts) -> Amounts:
    """Return what was in use in both samples."""
    both = {name: min(before.get(name, 0.0), amount) for name, amount in now.items()}
    return {name: amount for name, amount in both.items() if amount > TINY}
