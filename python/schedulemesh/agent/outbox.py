"""Numbered reports, kept until the control plane has them durably."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from schedulemesh.agent import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from schedulemesh.agent.wire import Key

FRAME_ITEMS = 500
FRAME_BYTES = 1 << 20


class Outbox:
    """Is a queue with numbers from 1, read twice: once to send, once to forget.

    `wake` is called when there is something to send, `ended` with every attempt whose end has been
    acknowledged.
    """

    def __init__(self, wake: Callable[[], None], ended: Callable[[Key], None]) -> None:
        self._wake = wake
        self._ended = ended
        # The number of the first report that is kept.
        self._first = 1
        self._kept: deque[tuple[Key | None, bytes]] = deque()
        # How many of the kept ones were sent on this link.
        self._sent = 0

    def __len__(self) -> int:
        """Count the reports that are not acknowledged."""
        return len(self._kept)

    def add(self, key: Key, what: object, *, end: bool) -> None:
        """Append a report; with `end`, the last one about its attempt."""
        self._kept.append((key if end else None, wire.item(key, what)))
        self._wake()

    def ack(self, seq: int) -> None:
        """Forget the reports up to a number."""
        while self._kept and self._first <= seq:
            key, _ = self._kept.popleft()
            self._first += 1
            self._sent = max(0, self._sent - 1)
            if key is not None:
                self._ended(key)

    def rewind(self) -> None:
        """Start over after a broken link: everything that is kept is to be sent again."""
        self._sent = 0

    def next_frame(self) -> bytes | None:
        """Encode the next reports to send, as many as fit into a frame."""
        if self._sent >= len(self._kept):
            return None
        seq = self._first + self._sent
        items: list[bytes] = []
        size = 0
        # Near its ends a deque is cheap to index; what is unsent is near the right one.
        for index in range(self._sent, min(len(self._kept), self._sent + FRAME_ITEMS)):
            body = self._kept[index][1]
            if items and size + len(body) > FRAME_BYTES:
                break
            items.append(body)
            size += len(body)
        self._sent += len(items)
        return wire.report(seq, items)
