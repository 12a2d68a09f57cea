"""Large results: uploaded from the object store, then reported."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayError

from schedulemesh.agent.blobs import BlobRefused
from schedulemesh.agent.ray_actors import awaited, said
from schedulemesh.agent.settings import INLINE_MAX

if TYPE_CHECKING:
    from schedulemesh.agent.blobs import Blobs
    from schedulemesh.agent.lane import Lane
    from schedulemesh.agent.work import Ledger, Work


log = logging.getLogger("schedulemesh.agent")


class Results:
    """Uploads what is too large for a frame. Until then it stays in the cluster's object store."""

    def __init__(self, ledger: Ledger, blobs: Blobs) -> None:
        self.inline_max = INLINE_MAX
        self._ledger = ledger
        self._blobs = blobs
        self._tasks: set[asyncio.Task[None]] = set()

    def upload(self, work: Work, run_us: int, size: int, refs: list[Any], lane: Lane) -> None:
        """Begin an upload; the worker that owns the pieces must live until it is over."""
        lane.pins += 1
        task = asyncio.ensure_future(self._upload(work, run_us, size, refs, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _upload(
        self, work: Work, run_us: int, size: int, refs: list[Any], lane: Lane
    ) -> None:
        try:
            frame = await self._blobs.push(refs, awaited)
        except RayError as error:
            self._ledger.lost(work, f"its result of {size} bytes was lost: {said(error)}", run_us)
        except BlobRefused as error:
            message = f"the control plane did not take its result of {size} bytes: {error}"
            self._ledger.failed(work, run_us, {"cause": "unreadable", "message": message})
        except Exception as error:
            # Unforeseen, but nobody else would ever say that it ended.
            log.exception("the upload of a result of %d bytes failed", size)
            message = f"the agent stumbled over its result of {size} bytes: {error!r}"
            self._ledger.lost(work, message, run_us)
        else:
            self._ledger.finished(work, run_us, {"blob": frame})
        finally:
            lane.pins -= 1
