"""What an agent is told when it starts, and the limits that it keeps."""

from __future__ import annotations

from dataclasses import dataclass

from schedulemesh.agent.names import Names

FRAME_MAX = 16 << 20
"""Most bytes in one link frame, as the control plane has it."""

BLOB_PART_MAX = 1 << 20
"""Most bytes in one part of a blob, as the control plane has it."""

INLINE_MAX = 256 << 10
"""Most bytes of a result inside a frame, until the first welcome says so."""

NAMESPACE = "schedulemesh"
"""The Ray namespace of everything that the agent creates."""


@dataclass(frozen=True)
class Settings:
    """Is everything that can be set.

    Attributes:
        cluster: The name that the control plane has for this cluster.
        token: The secret that both sides of the link share.
        server: The control plane's URL, when the agent dials.
        listen: Where it listens, when the control plane dials.
        ray_address: Which Ray: an address, `auto` for the one on this node, `local` to start one.
        idle_s: How long a warm worker is kept without work.
        start_timeout_s: How long a worker may take to start before its tasks are handed back.
        env_timeout_s: The same for a worker with a runtime environment that has to be built.
        sample_s: How often Ray is asked for its nodes.
    """

    cluster: str
    token: str
    server: str | None = None
    listen: tuple[str, int] | None = None
    ray_address: str = "auto"
    idle_s: float = 10.0
    start_timeout_s: float = 60.0
    env_timeout_s: float = 900.0
    sample_s: float = 0.5

    @property
    def names(self) -> Names:
        """Return how what this agent starts is called."""
        return Names(self.token, self.cluster)

    def start_limit_s(self, *, with_env: bool) -> float:
        """Return how long a worker may take to start."""
        return self.env_timeout_s if with_env else self.start_timeout_s
