"""Names of what outlives the agent: jobs and actors, found again by the next agent.

Task numbers are one control plane's own, and another one, or the same one with a new state
directory, counts from 1 again. So names carry a mark of who gave the work.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schedulemesh.agent.wire import Key

MARK_BYTES = 4


class Names:
    """Makes and reads names of the form `sm-MARK-TASK-ATTEMPT`."""

    def __init__(self, token: str, cluster: str) -> None:
        secret = f"{token}\0{cluster}".encode()
        self._head = f"sm-{hashlib.blake2b(secret).hexdigest()[: 2 * MARK_BYTES]}-"
        self._pattern = re.compile(re.escape(self._head) + r"(\d+)-(\d+)")

    def of(self, key: Key) -> str:
        """Return the name of an attempt."""
        return f"{self._head}{key[0]}-{key[1]}"

    def read(self, name: str) -> Key | None:
        """Return the attempt that a name stands for; None when it is not one of ours."""
        match = self._pattern.fullmatch(name)
        return (int(match[1]), int(match[2])) if match else None
