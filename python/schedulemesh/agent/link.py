"""The link to the control plane: who dials, what is said first, signs of life, beginning again."""

from __future__ import annotations

import asyncio
import hmac
import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from aiohttp import web

from schedulemesh.agent import wire
from schedulemesh.agent.settings import FRAME_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schedulemesh.agent.outbox import Outbox

log = logging.getLogger("schedulemesh.agent")

PATH = "/v1/link/agent"
CONNECT_TIMEOUT_S = 10.0
WELCOME_TIMEOUT_S = 10.0
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
REFUSED_WAIT_S = 5.0
SILENT_INTERVALS = 4
END_RETRY_S = 1.0
HEARTBEAT_DEFAULT_MS = 2_000
# Problems that trying again does not solve.
FATAL = frozenset({"UPGRADE_NEEDED", "UNAUTHENTICATED", "FORBIDDEN"})
# Nor this one, when the cluster was known before: it was removed.
REMOVED = "UNKNOWN_CLUSTER"
HTTP_REFUSALS = {401: "UNAUTHENTICATED", 403: "FORBIDDEN", 426: "UPGRADE_NEEDED"}


class Refused(Exception):  # noqa: N818 - the control plane's answer
    """Says that the control plane does not want this agent, and why.

    Attributes:
        code: The stable code of the problem.
        remedy: What to do about it.
    """

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(f"[{code}] {message}" + (f"\n  fix: {remedy}" if remedy else ""))
        self.code = code
        self.remedy = remedy


class LinkClosed(Exception):  # noqa: N818 - everyday
    """Says why a link ended."""


class Owner(Protocol):
    """Is whom the link serves."""

    def hello(self) -> bytes:
        """Make the first frame."""

    def linked(self, welcome: dict[str, Any]) -> None:
        """Hear that a link is up."""

    def unlinked(self) -> None:
        """Hear that it is down."""

    def handle(self, kind: str, body: Any) -> None:
        """Take a frame."""


class Socket(Protocol):
    """Is what both sides of aiohttp have in common."""

    async def send_bytes(self, data: bytes) -> None:
        """Send a message."""

    async def receive(self, timeout: float | None = None) -> Any:
        """Wait for a message."""

    async def close(self) -> bool:
        """Close the connection."""


@dataclass(frozen=True)
class Door:
    """Says where the other side is: `server` to dial to, or `listen` to be dialled at."""

    token: str
    server: str | None
    listen: tuple[str, int] | None


class Link:
    """Keeps a link up, for ever."""

    def __init__(self, door: Door, owner: Owner) -> None:
        self.outbox: Outbox
        self._door = door
        self._owner = owner
        self._wake = asyncio.Event()
        self._frames: deque[bytes] = deque()
        self._current: asyncio.Future[None] | None = None
        self._replaced = False
        self._was_linked = False
        # When the other side was last heard, on the monotonic clock.
        self._heard = 0.0
        # One conversation at a time.
        self._turn = asyncio.Lock()

    def wake(self) -> None:
        """Have what is queued sent."""
        self._wake.set()

    def send(self, frame: bytes) -> None:
        """Queue a frame that matters only on this link; without a link it is dropped."""
        if self._current is not None:
            self._frames.append(frame)
            self._wake.set()

    async def run(self) -> None:
        """Link, again and again, until cancelled or refused for good."""
        if self._door.listen is not None:
            await self._listen(*self._door.listen)
        else:
            await self._dial(self._door.server or "")

    async def _dial(self, server: str) -> None:
        url = link_url(server)
        backoff = BACKOFF_FIRST_S
        async with aiohttp.ClientSession() as session:
            while True:
                began = time.monotonic()
                wait = None
                try:
                    await self._dial_once(session, url)
                except Refused as refused:
                    if self._is_final(refused):
                        raise
                    log.warning("the control plane refused the link: %s", refused)
                    wait = REFUSED_WAIT_S
                except (aiohttp.ClientError, OSError, asyncio.TimeoutError, LinkClosed) as error:
                    log.warning("no link to %s: %s", url, str(error) or type(error).__name__)
                if time.monotonic() - began > BACKOFF_MAX_S:
                    backoff = BACKOFF_FIRST_S
                # Many agents lose the same server at the same time: they must not return as one.
                await asyncio.sleep((wait or backoff) * random.uniform(0.5, 1.0))  # noqa: S311
                backoff = min(backoff * 2, BACKOFF_MAX_S)

    async def _dial_once(self, session: aiohttp.ClientSession, url: str) -> None:
        headers = {"Authorization": f"Bearer {self._door.token}"}
        try:
            socket = await asyncio.wait_for(
                session.ws_connect(url, headers=headers, compress=0, max_msg_size=FRAME_MAX + 1024),
                CONNECT_TIMEOUT_S,
            )
        except aiohttp.WSServerHandshakeError as error:
            if code := HTTP_REFUSALS.get(error.status):
                raise Refused(
                    code,
                    f"the control plane at {url} answered {error.status}",
                    "check the token (--token-file or SCHEDULEMESH_TOKEN) and the cluster's name; "
                    "`schedulemesh cluster token NAME` prints the agent's token",
                ) from error
            raise
        async with socket:
            await self._converse(socket)

    async def _listen(self, host: str, port: int) -> None:
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, refused)

        app = web.Application()
        app.router.add_get(PATH, answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            log.info("listening at ws://%s:%s%s", *runner.addresses[0][:2], PATH)
            await refused
        finally:
            await runner.cleanup()

    async def _answer(
        self, request: web.Request, refused: asyncio.Future[None]
    ) -> web.StreamResponse:
        claimed = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(claimed, f"Bearer {self._door.token}".encode()):
            return web.json_response(
                {
                    "code": "UNAUTHENTICATED",
                    "message": "the token is not this agent's",
                    "remedy": "give the agent and the cluster's entry the same token",
                },
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        socket = web.WebSocketResponse(compress=False, max_msg_size=FRAME_MAX + 1024)
        await socket.prepare(request)
        # The control plane dialled again: what it has lost it will not use any more.
        if self._current is not None:
            self._replaced = True
            self._current.cancel()
        try:
            async with self._turn:
                self._replaced = False
                await self._converse(socket)
        except Refused as error:
            if self._is_final(error) and not refused.done():
                refused.set_exception(error)
            log.warning("the control plane refused the link: %s", error)
        except (LinkClosed, OSError, asyncio.TimeoutError) as error:
            log.warning("the link ended: %s", str(error) or type(error).__name__)
        return socket

    async def _converse(self, socket: Socket) -> None:
        """Speak on one connection until it ends."""
        await socket.send_bytes(self._owner.hello())
        welcome = await self._welcome(socket)
        heartbeat_s = welcome.get("heartbeat_ms", HEARTBEAT_DEFAULT_MS) / 1000
        self.outbox.ack(welcome["acked"])
        self.outbox.rewind()
        self._frames.clear()
        self._current = asyncio.ensure_future(self._both_ways(socket, heartbeat_s))
        self._was_linked = True
        self._owner.linked(welcome)
        self._wake.set()
        log.info("linked to the control plane, version %s", welcome.get("version", "?"))
        try:
            await self._current
        except asyncio.CancelledError:
            if self._replaced:
                raise LinkClosed("a newer link replaced it") from None
            raise
        finally:
            self._current = None
            self._frames.clear()
            self._owner.unlinked()
            await socket.close()

    async def _welcome(self, socket: Socket) -> dict[str, Any]:
        try:
            kind, body = self._decode(await socket.receive(WELCOME_TIMEOUT_S))
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise LinkClosed(f"there was no welcome within {WELCOME_TIMEOUT_S:.0f} s") from error
        if kind == "refused":
            raise Refused(body["code"], body["message"], body.get("remedy", ""))
        if kind != "welcome":
            raise LinkClosed(f"the first frame was {kind}, not a welcome")
        if body["protocol"] != wire.PROTOCOL:
            raise Refused(
                "UPGRADE_NEEDED",
                f"the control plane speaks link protocol {body['protocol']}, "
                f"this agent {wire.PROTOCOL}",
                "run the agent of the control plane's version",
            )
        return dict(body)

    async def _both_ways(self, socket: Socket, heartbeat_s: float) -> None:
        sides = [
            asyncio.ensure_future(self._write(socket, heartbeat_s)),
            asyncio.ensure_future(self._read(socket)),
            asyncio.ensure_future(self._notice_silence(heartbeat_s * SILENT_INTERVALS)),
        ]
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        finally:
            await end_all(sides)

    async def _notice_silence(self, limit_s: float) -> None:
        """End the link when nothing was heard for long: cheaper than a timer for each frame."""
        self._heard = time.monotonic()
        while (left := self._heard + limit_s - time.monotonic()) > 0:  # noqa: ASYNC110 - no event
            await asyncio.sleep(left)
        raise LinkClosed(f"nothing was heard for {limit_s:.1f} s")

    async def _read(self, socket: Socket) -> None:
        while True:
            kind, body = self._decode(await socket.receive())
            self._heard = time.monotonic()
            if kind == "refused":
                raise Refused(body["code"], body["message"], body.get("remedy", ""))
            if kind == "ack":
                self.outbox.ack(body["seq"])
            elif kind != "heartbeat":
                self._hand_over(kind, body)

    def _is_final(self, refused: Refused) -> bool:
        """Say whether trying again is of no use."""
        return refused.code in FATAL or (refused.code == REMOVED and self._was_linked)

    def _hand_over(self, kind: str, body: Any) -> None:
        try:
            self._owner.handle(kind, body)
        except (KeyError, TypeError, ValueError, wire.BadFrame) as error:
            log.exception("a frame of kind %r cannot be read", kind)
            raise LinkClosed(f"a frame of kind {kind!r} cannot be read: {error!r}") from error

    def _decode(self, message: Any) -> tuple[str, Any]:
        if message.type is aiohttp.WSMsgType.BINARY:
            try:
                return wire.decode(message.data)
            except wire.BadFrame as error:
                raise LinkClosed(str(error)) from error
        if message.type is aiohttp.WSMsgType.ERROR:
            raise LinkClosed(f"the connection broke: {message.data}")
        raise LinkClosed(f"the other side closed it ({message.extra or message.type.name})")

    async def _write(self, socket: Socket, heartbeat_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            beat = loop.call_later(heartbeat_s, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                beat.cancel()
            # What else happened in this turn of the loop travels along.
            said = False
            self._wake.clear()
            while frame := self._next_frame():
                await socket.send_bytes(frame)
                said = True
            if not said:
                await socket.send_bytes(wire.encode("heartbeat", {"unacked": len(self.outbox)}))

    def _next_frame(self) -> bytes | None:
        if self._frames:
            return self._frames.popleft()
        return self.outbox.next_frame()


async def end_all(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks until they are over: before Python 3.12 `wait_for` may swallow one."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=END_RETRY_S)


def link_url(server: str) -> str:
    """Return the WebSocket address of a control plane's URL."""
    scheme, _, rest = server.partition("://")
    schemes = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
    if scheme not in schemes or not rest:
        raise ValueError(
            f"{server!r} is not the URL of a control plane, such as http://127.0.0.1:8700"
        )
    rest = rest.rstrip("/")
    return f"{schemes[scheme]}://{rest}" + ("" if rest.endswith(PATH) else PATH)
