"""A control plane for tests: speaks the agent link, keeps what it hears, does as the test says."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import cloudpickle
import msgpack
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

TOKEN = "sma_test_secret"  # noqa: S105 - for tests
INLINE_MAX = 256 << 10
HEARTBEAT_MS = 500
WAIT_S = 20.0
Key = tuple[int, int]
# Actors and jobs are named after their task: no two tests may use the same numbers.
_numbers = itertools.count(time.time_ns() // 1_000_000)


@dataclass
class Ended:
    """Is how an attempt ended."""

    kind: str
    body: dict[str, Any]
    blobs: dict[str, bytes] = field(repr=False, default_factory=dict)

    def bytes(self) -> bytes:
        """Return the bytes of the result."""
        result = self.body["result"]
        if result == "none":
            return b""
        if "inline" in result:
            return bytes(result["inline"])
        return self.blobs[result["blob"]["id"]]

    def value(self) -> Any:
        """Unpickle the result."""
        assert self.kind == "finished", self
        return cloudpickle.loads(self.bytes())


class FakeControlPlane:
    """Runs in a thread of its own; the methods may be called from the test's thread."""

    def __init__(self, *, token: str = TOKEN, inline_max: int = INLINE_MAX, port: int = 0) -> None:
        self.token = token
        self.inline_max = inline_max
        self.port = port
        self.acking = True
        self.refuse: dict[str, Any] | None = None
        self.hellos: list[dict[str, Any]] = []
        self.nodes: list[dict[str, Any]] = []
        self.reports: list[tuple[Key, str, Any]] = []
        self.repeated: list[int] = []
        self.gaps: list[tuple[int, int]] = []
        self.ended: dict[Key, Ended] = {}
        self.started: dict[Key, float] = {}
        self.returned: list[Key] = []
        self.blobs: dict[str, bytes] = {}
        self.answers: dict[int, Any] = {}
        self.heartbeats = 0
        self.beating = True
        self.hold_pushes = False
        self.pushes = 0
        self.pull_log: list[tuple[int, int]] = []
        self.node_frames = 0
        self._ended_by: dict[Key, str] = {}
        self._last_seq: dict[str, int] = {}
        self._uploads: dict[int, bytearray] = {}
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._sockets: list[Any] = []
        self._runner: web.AppRunner | None = None
        self._sent_code: set[str] = set()
        self._sessions: list[aiohttp.ClientSession] = []
        self._dialled: list[asyncio.Future[None]] = []

    def __enter__(self) -> FakeControlPlane:  # noqa: PYI034 - Python 3.10 has no Self
        """Start listening."""
        self._thread.start()
        self.do(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    # What a test says.

    def task(self) -> int:
        """Return a fresh task number."""
        return next(_numbers)

    def start(
        self, tasks: list[dict[str, Any]], leases: list[dict[str, Any]], code: Any = ()
    ) -> None:
        """Send a start frame."""
        frame = {"start": {"leases": leases, "code": list(code), "tasks": tasks}}
        self.send(frame)

    def send(self, frame: Any) -> None:
        """Send a frame over the newest link."""
        self.do(self._sockets[-1].send_bytes(msgpack.packb(frame)))

    def functions(
        self,
        function: Callable[..., Any],
        arguments: list[tuple[Any, ...]],
        *,
        lease: int = 1,
        cpus: float = 1,
        runtime_env: str | None = None,
    ) -> list[Key]:
        """Start one task for each tuple of arguments, all on one lease."""
        keys = [(self.task(), 1) for _ in arguments]
        code = self.code(function)
        tasks = [
            start_task(key, lease, {"function": {"code": code["digest"]}}, pickled(*args))
            for key, args in zip(keys, arguments, strict=True)
        ]
        self.start(tasks, [self.lease(lease, cpus, runtime_env=runtime_env)], [code])
        return keys

    def actor(
        self,
        cls: type,
        *args: Any,
        lease: int = 100,
        cpus: float = 1,
        options: dict[str, Any] | None = None,
    ) -> Key:
        """Start an actor."""
        key = (self.task(), 1)
        code = self.code(cls)
        payload = cloudpickle.dumps((args, {}, options or {}))
        task = start_task(key, lease, {"actor": {"code": code["digest"]}}, payload)
        self.start([task], [self.lease(lease, cpus)], [code])
        return key

    def calls(self, actor: Key, method: str, arguments: list[tuple[Any, ...]]) -> list[Key]:
        """Call a method, once for each tuple of arguments."""
        keys = [(self.task(), 1) for _ in arguments]
        work = {"call": {"actor": actor[0], "method": method}}
        self.start(
            [
                start_task(key, 100, work, pickled(*args))
                for key, args in zip(keys, arguments, strict=True)
            ],
            [],
        )
        return keys

    def job(self, entrypoint: str, lease: int = 200, **more: Any) -> Key:
        """Start a job."""
        key = (self.task(), 1)
        payload = json.dumps({"entrypoint": entrypoint, **more}).encode()
        self.start([start_task(key, lease, "job", payload)], [self.lease(lease, 0)])
        return key

    def stop(self, key: Key, grace_ms: int = 0) -> None:
        """Stop an attempt."""
        self.send({"stop": [{"task": key[0], "attempt": key[1], "grace_ms": grace_ms}]})

    def ask(self, what: Any, number: int) -> Any:
        """Ask, and wait for the answer."""
        self.answers.pop(number, None)
        self.send({"ask": {"id": number, "what": what}})
        self.wait(lambda: number in self.answers)
        return self.answers[number]

    def lease(
        self, number: int, cpus: float = 1, *, node: int = 0, runtime_env: str | None = None
    ) -> dict[str, Any]:
        """Make a lease on a node."""
        return {
            "lease": number,
            "node": self.nodes[node]["id"],
            "resources": {"CPU": cpus} if cpus else {},
            "runtime_env": runtime_env,
        }

    def code(self, what: Any) -> dict[str, Any]:
        """Pickle code, which the cluster cannot import."""
        cloudpickle.register_pickle_by_value(sys.modules[what.__module__])
        data = cloudpickle.dumps(what)
        return {"digest": hashlib.blake2b(data).hexdigest()[:64], "bytes": data}

    def put_blob(self, data: bytes) -> dict[str, Any]:
        """Keep a blob and return its frame."""
        name = f"b{len(self.blobs)}"
        self.blobs[name] = data
        return {"id": name, "size": len(data)}

    def cut(self) -> None:
        """Break the newest link without a word."""
        self.do(self._cut())

    def dial(self, address: str, token: str | None = None) -> None:
        """Dial an agent that listens; raises when it does not let us in."""
        self.do(self._dial(address, token or self.token))

    # What a test waits for.

    def wait(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait until something is the case."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout_s):
                raise TimeoutError(f"after {timeout_s} s: {self.reports[-10:]}")

    def wait_linked(self, links: int = 1) -> None:
        """Wait for an agent."""
        self.wait(lambda: len(self.hellos) >= links and bool(self.nodes))

    def end_of(self, key: Key, timeout_s: float = WAIT_S) -> Ended:
        """Wait for the end of an attempt."""
        self.wait(lambda: key in self.ended, timeout_s)
        return self.ended[key]

    def values(self, keys: list[Key]) -> list[Any]:
        """Wait for results."""
        return [self.end_of(key).value() for key in keys]

    # Inside.

    def do(self, coroutine: Any) -> Any:
        """Run something in the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_S)

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/link/agent", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        for socket in self._sockets:
            await socket.close()
        await asyncio.gather(*self._dialled, return_exceptions=True)
        for session in self._sessions:
            await session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _cut(self) -> None:
        socket = self._sockets[-1]
        transport = getattr(socket, "_req", None)
        if transport is not None and transport.transport is not None:
            transport.transport.abort()
        else:
            await socket.close()

    async def _dial(self, address: str, token: str) -> None:
        session = aiohttp.ClientSession()
        self._sessions.append(session)
        headers = {"Authorization": f"Bearer {token}"}
        url = f"ws://{address}/v1/link/agent"
        socket = await session.ws_connect(url, headers=headers, max_msg_size=0)
        self._dialled.append(asyncio.ensure_future(self._converse(socket)))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=401)
        socket = web.WebSocketResponse(compress=False, max_msg_size=0)
        await socket.prepare(request)
        await self._converse(socket)
        return socket

    async def _converse(self, socket: Any) -> None:
        beating = asyncio.ensure_future(self._beat(socket))
        try:
            async for message in socket:
                frame = msgpack.unpackb(message.data, raw=False)
                ((kind, body),) = frame.items()
                await getattr(self, f"_on_{kind}")(socket, body)
                with self._changed:
                    self._changed.notify_all()
        finally:
            beating.cancel()

    async def _beat(self, socket: Any) -> None:
        while not socket.closed:
            await asyncio.sleep(HEARTBEAT_MS / 1000)
            if socket in self._sockets and self.beating:
                await socket.send_bytes(msgpack.packb({"heartbeat": {"unacked": 0}}))

    async def _on_hello(self, socket: Any, body: dict[str, Any]) -> None:
        self._uploads.clear()
        if self.refuse is not None:
            self.hellos.append(body)
            await socket.send_bytes(msgpack.packb({"refused": self.refuse}))
            await socket.close()
            return
        acked = self._last_seq.get(body["incarnation"], 0) if self.acking else 0
        welcome = {
            "protocol": 1,
            "version": "test",
            "acked": acked,
            "heartbeat_ms": HEARTBEAT_MS,
            "inline_max": self.inline_max,
        }
        await socket.send_bytes(msgpack.packb({"welcome": welcome}))
        self._sockets.append(socket)
        self.nodes = body["nodes"]
        self.hellos.append(body)

    async def _on_report(self, socket: Any, body: dict[str, Any]) -> None:
        incarnation = self.hellos[-1]["incarnation"]
        last = self._last_seq.get(incarnation, 0)
        if body["seq"] > last + 1:
            self.gaps.append((last, body["seq"]))
        for seq, item in enumerate(body["items"], body["seq"]):
            if seq <= last:
                self.repeated.append(seq)
            else:
                self._apply((item["task"], item["attempt"]), item["what"])
                last = seq
        self._last_seq[incarnation] = last
        if self.acking:
            await socket.send_bytes(msgpack.packb({"ack": {"seq": last}}))

    def _apply(self, key: Key, what: Any) -> None:
        kind, body = (what, None) if isinstance(what, str) else next(iter(what.items()))
        self.reports.append((key, kind, body))
        if kind == "started":
            self.started[key] = time.monotonic()
        elif kind == "returned":
            self.returned.append(key)
        else:
            incarnation = self.hellos[-1]["incarnation"]
            # An agent that adopts may repeat what an earlier one said, never what it said itself.
            assert self._ended_by.get(key) != incarnation, f"{key} ended twice"
            self._ended_by[key] = incarnation
            self.ended.setdefault(key, Ended(kind, body, self.blobs))

    async def _on_nodes(self, socket: Any, body: list[dict[str, Any]]) -> None:
        del socket
        self.nodes = body
        self.node_frames += 1

    async def _on_heartbeat(self, socket: Any, body: dict[str, Any]) -> None:
        del socket, body
        self.heartbeats += 1

    async def _on_answer(self, socket: Any, body: dict[str, Any]) -> None:
        del socket
        self.answers[body["id"]] = body["result"]

    async def _on_pull(self, socket: Any, body: dict[str, Any]) -> None:
        data = self.blobs.get(body["id"])
        piece: dict[str, Any] = {"id": body["id"], "offset": body["offset"], "bytes": b""}
        if data is None:
            message = f"there is no blob {body['id']}"
            piece["problem"] = {"code": "UNKNOWN_BLOB", "message": message, "remedy": ""}
        else:
            piece["bytes"] = data[body["offset"] : body["offset"] + body["len"]]
            self.pull_log.append((body["offset"], body["len"]))
        await socket.send_bytes(msgpack.packb({"piece": piece}))

    async def _on_push(self, socket: Any, body: dict[str, Any]) -> None:
        self.pushes += 1
        if self.hold_pushes:
            return
        if body["offset"] == 0 and not (body["done"] and body["upload"] in self._uploads):
            self._uploads[body["upload"]] = bytearray()
        data = self._uploads[body["upload"]]
        assert len(data) == body["offset"]
        data += body["bytes"]
        pushed: dict[str, Any] = {"upload": body["upload"], "offset": len(data), "blob": None}
        if body["done"]:
            pushed["blob"] = self.put_blob(bytes(data))
        await socket.send_bytes(msgpack.packb({"pushed": pushed}))


def start_task(key: Key, lease: int, work: Any, payload: bytes | dict[str, Any]) -> dict[str, Any]:
    """Make the entry of a start frame."""
    data = {"inline": payload} if isinstance(payload, bytes) else {"blob": payload}
    return {"task": key[0], "attempt": key[1], "lease": lease, "work": work, "payload": data}


def pickled(*args: Any, **kwargs: Any) -> bytes:
    """Pickle arguments."""
    return cloudpickle.dumps((args, kwargs))
