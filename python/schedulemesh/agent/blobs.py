"""Large arguments and results, in parts over the link, with a few parts in memory at a time."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from schedulemesh.agent import wire
from schedulemesh.agent.settings import BLOB_PART_MAX

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from ray import ObjectRef

PARTS_AHEAD = 4
"""How many parts of one blob are under way at a time."""

UPLOADS = 2
DOWNLOADS = 2


class Again(Exception):  # noqa: N818 - not a fault
    """Says that a transfer has to begin again, after a while.

    Attributes:
        wait_s: After how long.
    """

    def __init__(self, wait_s: float = 0.0) -> None:
        super().__init__()
        self.wait_s = wait_s


class BlobRefused(Exception):  # noqa: N818 - the control plane's answer
    """Says why the control plane gives or takes no blob."""


def refusal(problem: dict[str, Any]) -> Exception:
    """Return what a problem of the control plane means for a transfer."""
    if wait_ms := problem.get("retry_after_ms"):
        return Again(wait_ms / 1000)
    return BlobRefused(problem["message"])


class Blobs:
    """Moves blobs over whatever link is up. What was under way begins again on a new one."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._up = asyncio.Event()
        self._numbers = itertools.count(1)
        self._pieces: dict[tuple[str, int], asyncio.Future[bytes]] = {}
        self._uploads: dict[int, _Upload] = {}
        self._upload_slots = asyncio.Semaphore(UPLOADS)
        self._download_slots = asyncio.Semaphore(DOWNLOADS)

    def link_up(self) -> None:
        """Let transfers go on."""
        self._up.set()

    def link_down(self) -> None:
        """Make every transfer that is under way begin again on the next link."""
        self._up.clear()
        for waiting in self._pieces.values():
            if not waiting.done():
                waiting.set_exception(Again())
        self._pieces.clear()
        for upload in self._uploads.values():
            upload.fail(Again())
        self._uploads.clear()

    def on_piece(self, frame: dict[str, Any]) -> None:
        """Take a part that was asked for."""
        waiting = self._pieces.pop((frame["id"], frame["offset"]), None)
        if waiting is None or waiting.done():
            return
        if problem := frame.get("problem"):
            waiting.set_exception(refusal(problem))
        else:
            waiting.set_result(frame["bytes"])

    def on_pushed(self, frame: dict[str, Any]) -> None:
        """Take note that a part was written."""
        if upload := self._uploads.get(frame["upload"]):
            upload.on_pushed(frame)

    async def push(
        self, refs: Sequence[ObjectRef[bytes]], fetch: Callable[[Any], Awaitable[bytes]]
    ) -> dict[str, Any]:
        """Upload a blob that lies in pieces in the object store, and return its frame."""
        async with self._upload_slots:
            while True:
                await self._up.wait()
                upload = _Upload(next(self._numbers))
                self._uploads[upload.number] = upload
                try:
                    return await self._push_once(upload, refs, fetch)
                except Again as again:
                    await asyncio.sleep(again.wait_s)
                finally:
                    self._uploads.pop(upload.number, None)

    async def _push_once(
        self,
        upload: _Upload,
        refs: Sequence[ObjectRef[bytes]],
        fetch: Callable[[Any], Awaitable[bytes]],
    ) -> dict[str, Any]:
        offset = 0
        for ref in refs:
            piece = memoryview(await fetch(ref))
            for start in range(0, len(piece), BLOB_PART_MAX):
                part = bytes(piece[start : start + BLOB_PART_MAX])
                await upload.room(offset)
                self._push_part(upload, offset, part, done=False)
                offset += len(part)
        self._push_part(upload, offset, b"", done=True)
        return await upload.blob

    def _push_part(self, upload: _Upload, offset: int, part: bytes, *, done: bool) -> None:
        body = {"upload": upload.number, "offset": offset, "bytes": part, "done": done}
        self._send(wire.encode("push", body))

    async def pull(self, blob: str, size: int) -> AsyncIterator[bytes]:
        """Download a blob, part by part."""
        async with self._download_slots:
            ahead: list[tuple[int, asyncio.Future[bytes]]] = []
            asked = 0
            done = 0
            while done < size:
                await self._up.wait()
                try:
                    while asked < size and len(ahead) < PARTS_AHEAD:
                        ahead.append((asked, self._ask(blob, asked, size)))
                        asked = min(size, asked + BLOB_PART_MAX)
                    part = await ahead[0][1]
                except Again as again:
                    # What has arrived is kept: only the rest is asked for again.
                    for _, waiting in ahead:
                        waiting.cancel()
                    ahead.clear()
                    asked = done
                    await asyncio.sleep(again.wait_s)
                    continue
                ahead.pop(0)
                if not part:
                    raise BlobRefused(f"blob {blob} ends at {done} of {size} bytes")
                done += len(part)
                yield part

    def _ask(self, blob: str, offset: int, size: int) -> asyncio.Future[bytes]:
        waiting = asyncio.get_running_loop().create_future()
        self._pieces[blob, offset] = waiting
        length = min(BLOB_PART_MAX, size - offset)
        self._send(wire.encode("pull", {"id": blob, "offset": offset, "len": length}))
        return waiting


class _Upload:
    """Is the state of one upload on one link."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.blob: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        # An upload that nobody waits for any more must not complain when it fails.
        self.blob.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._written = 0
        self._moved = asyncio.Event()

    async def room(self, offset: int) -> None:
        """Wait until a part at this offset may be sent."""
        while offset - self._written >= PARTS_AHEAD * BLOB_PART_MAX:
            self._moved.clear()
            await self._moved.wait()
            if self.blob.done():
                self.blob.result()
        if self.blob.done():
            self.blob.result()

    def on_pushed(self, frame: dict[str, Any]) -> None:
        """Take note of a confirmation."""
        self._written = frame["offset"]
        if problem := frame.get("problem"):
            self.fail(refusal(problem))
        elif (blob := frame.get("blob")) and not self.blob.done():
            self.blob.set_result(blob)
        self._moved.set()

    def fail(self, error: Exception) -> None:
        """End the upload."""
        if not self.blob.done():
            self.blob.set_exception(error)
        self._moved.set()
