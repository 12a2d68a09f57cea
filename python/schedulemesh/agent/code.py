"""Pickled code, kept for as long as work may need it and within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BYTES_MAX = 64 << 20
COUNT_MAX = 4_096


class Code:
    """Holds code by its digest; what was not used for longest is dropped first.

    The control plane sends code once on each link. So it is remembered what was dropped: work that
    needs it again has to wait for the next link, which brings it.
    """

    def __init__(self, bytes_max: int = BYTES_MAX, count_max: int = COUNT_MAX) -> None:
        self._bytes_max = bytes_max
        self._count_max = count_max
        self._kept: dict[str, bytes] = {}
        self._size = 0
        self._dropped: set[str] = set()

    def __contains__(self, digest: str) -> bool:
        """Say whether it is here."""
        return digest in self._kept

    def __getitem__(self, digest: str) -> bytes:
        """Return it."""
        return self._kept[digest]

    def add(self, digest: str, data: bytes) -> None:
        """Take code that has come."""
        self._size += len(data) - len(self._kept.pop(digest, b""))
        self._kept[digest] = data
        self._dropped.discard(digest)

    def use(self, digests: Iterable[str]) -> None:
        """Note that it is used now."""
        for digest in digests:
            if (data := self._kept.pop(digest, None)) is not None:
                self._kept[digest] = data

    def dropped(self, digest: str) -> bool:
        """Say whether this link has brought it, and it is here no more."""
        return digest in self._dropped

    def linked(self) -> None:
        """Begin a link, which brings everything that is needed."""
        self._dropped.clear()

    @property
    def full(self) -> bool:
        """Whether there is more than should be kept."""
        return self._size > self._bytes_max or len(self._kept) > self._count_max

    def trim(self, needed: set[str]) -> None:
        """Drop code within the bounds, but none that is needed."""
        for digest in list(self._kept):
            if not self.full:
                return
            if digest not in needed:
                self._size -= len(self._kept.pop(digest))
                self._dropped.add(digest)
