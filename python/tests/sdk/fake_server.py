"""A control plane that runs everything at once, in this process, and can be told to misbehave.

It speaks the client link and the few routes that the SDK calls, with nothing behind them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import pickle
import threading
import traceback
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cloudpickle
import msgpack
from aiohttp import WSMsgType, web

if TYPE_CHECKING:
    from typing_extensions import Self

TOKEN = "smt_test"  # noqa: S105 - a test's
INLINE_MAX = 64 << 10


def problem(code: str, message: str, **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "remedy": "", "details": [], **more}


@dataclass
class Task:
    number: int
    key: str
    spec: dict[str, Any]
    payload: Any
    name: str | None = None
    started: bool = False
    cancelled: bool = False
    end: dict[str, Any] | None = None
    watchers: list[web.WebSocketResponse] = field(default_factory=list)

    @property
    def kind(self) -> str:
        work = self.spec["work"]
        return work if isinstance(work, str) else next(iter(work))

    def view(self) -> dict[str, Any]:
        phase = self.end["outcome"] if self.end else "running" if self.started else "queued"
        return {"id": f"t{self.number}", "key": self.key, "kind": self.kind, "phase": phase,
                "name": self.name, "cluster": "fake"}  # fmt: skip


class FakeServer:
    """`with FakeServer() as server:` listens at `server.url`."""

    def __init__(self, *, heartbeat_ms: int = 1_000) -> None:
        self.heartbeat_ms = heartbeat_ms
        self.tasks: dict[int, Task] = {}
        self.by_key: dict[str, Task] = {}
        self.code: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.packages: dict[str, bytes] = {}
        self.uploads = 0
        self.actors: dict[int, Any] = {}
        self.clusters: dict[str, dict[str, Any]] = {}
        self.frames: list[dict[str, Any]] = []
        self.links: list[web.WebSocketResponse] = []
        self.hellos: list[dict[str, Any]] = []
        # What the next submissions are answered with, one entry for each frame: `drop` breaks the
        # link before the frame is read, `lose` after it was accepted; a problem refuses all of it.
        self.answers: list[Any] = []
        # Names of tasks that neither start nor end by themselves.
        self.manual: set[str] = set()
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_error: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 30, middlewares=[self._authenticate])
        app.add_routes([
            web.get("/v1/link/client", self._link),
            web.put("/v1/blobs", self._put_blob),
            web.get("/v1/blobs/{id}", self._get_blob),
            web.put("/v1/code/{digest}", self._put_code),
            web.put("/v1/packages/{id}", self._put_package),
            web.get("/v1/packages/{id}", self._get_package),
            web.get("/v1/tasks", self._list),
            web.get("/v1/tasks/{id}", self._task),
            web.get("/v1/tasks/{id}/explain", self._explain),
            web.get("/v1/tasks/{id}/logs", self._logs),
            web.post("/v1/tasks/{id}/cancel", self._cancel),
            web.get("/v1/clusters", self._clusters),
            web.put("/v1/clusters/{name}", self._put_cluster),
            web.delete("/v1/clusters/{name}", self._remove_cluster),
            web.post("/v1/clusters/{name}/token", self._cluster_token),
        ])  # fmt: skip
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set()
        await self._stop.wait()
        for link in self.links:
            await link.close()
        await runner.cleanup()

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response(problem("UNAUTHENTICATED", "wrong token"), status=401)
        response: web.StreamResponse = await handler(request)
        return response

    # The link.

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        link = web.WebSocketResponse(max_msg_size=0)
        await link.prepare(request)
        hello = msgpack.unpackb((await link.receive()).data)
        assert hello["hello"]["protocol"] == 1
        self.hellos.append(hello["hello"])
        self.links.append(link)
        await self._say(link, "welcome", {
            "protocol": 1, "version": "0", "heartbeat_ms": self.heartbeat_ms,
            "inline_max": INLINE_MAX,
        })  # fmt: skip
        async for message in link:
            if message.type != WSMsgType.BINARY:
                break
            frame = msgpack.unpackb(message.data)
            self.frames.append(frame)
            ((kind, body),) = frame.items()
            if kind == "submit":
                if await self._submit(link, body):
                    break
            elif kind == "watch":
                for number in body["tasks"]:
                    await self._watch(link, number)
            elif kind == "cancel":
                await self._say(
                    link, "cancelled", {"id": body["id"], "errors": [None for _ in body["tasks"]]}
                )
                for number in body["tasks"]:
                    await self.stop(number)
        self.links.remove(link)
        await link.close()
        return link

    async def _say(self, link: web.WebSocketResponse, kind: str, body: Any) -> None:
        if not link.closed:
            await link.send_bytes(msgpack.packb({kind: body}))

    async def _submit(self, link: web.WebSocketResponse, body: dict[str, Any]) -> bool:
        answer = self.answers.pop(0) if self.answers else None
        if answer == "drop":
            return True
        if isinstance(answer, dict):
            refusals = [{"error": answer} for _ in body["tasks"]]
            await self._say(link, "accepted", {"id": body["id"], "results": refusals})
            return False
        for code in body["code"]:
            self.code[code["digest"]] = code["bytes"]
        results, fresh = [], []
        for item in body["tasks"]:
            spec = body["specs"][item["spec"]]
            digest = isinstance(spec["work"], dict) and next(iter(spec["work"].values())).get(
                "code"
            )
            if digest and digest not in self.code:
                results.append({"error": problem("UNKNOWN_CODE", "no such code")})
                continue
            task = self.by_key.get(item["key"])
            replayed = task is not None
            if task is None:
                task = Task(len(self.tasks) + 1, item["key"], spec, item["payload"], item["name"])
                self.tasks[task.number] = self.by_key[task.key] = task
                fresh.append(task)
            if answer != "lose":
                task.watchers.append(link)
            results.append({"task": {"task": task.number, "replayed": replayed}})
        if answer != "lose":
            await self._say(link, "accepted", {"id": body["id"], "results": results})
        for item in results:
            if "task" in item and item["task"]["replayed"]:
                await self._watch(link, item["task"]["task"])
        for task in fresh:
            if task.name not in self.manual:
                self.loop.run_in_executor(self.pool, self._run, task)
        return answer == "lose"

    async def _watch(self, link: web.WebSocketResponse, number: int) -> None:
        task = self.tasks.get(number)
        if task is None:
            end = {"task": number, "outcome": "unknown", "result": "none"}
            await self._say(link, "ended", {"tasks": [end]})
        elif task.end is not None:
            await self._say(link, "ended", {"tasks": [task.end]})
        else:
            task.watchers.append(link)
            if task.started:
                await self._say(link, "started", {"tasks": [number]})

    def start(self, task: Task) -> None:
        """Tell that a task runs."""
        task.started = True
        self._tell(task, "started", {"tasks": [task.number]})

    async def stop(self, number: int) -> None:
        task = self.tasks[number]
        if task.end is None:
            task.cancelled = True
            self.finish(task, "cancelled", "none")

    def finish(self, task: Task, outcome: str, result: Any, error: Any = None) -> None:
        """Tell that a task ended."""
        if task.end is None:
            task.end = {"task": task.number, "outcome": outcome, "cluster": "fake",
                        "result": result, "error": error}  # fmt: skip
            self._tell(task, "ended", {"tasks": [task.end]})

    def _tell(self, task: Task, kind: str, body: Any) -> None:
        watchers = list(task.watchers)

        def send() -> None:
            for link in watchers:
                self._sends = asyncio.ensure_future(self._say(link, kind, body))

        self.loop.call_soon_threadsafe(send)

    def break_links(self) -> None:
        """Break all links, without a word."""

        def cut() -> None:
            for link in self.links:
                transport = link._req.transport if link._req else None
                if transport is not None:
                    transport.abort()

        self.loop.call_soon_threadsafe(cut)

    # Running.

    def _data(self, payload: Any) -> bytes:
        if payload == "none":
            return b""
        if "inline" in payload:
            return payload["inline"]
        return self.blobs[payload["blob"]["id"]]

    def _frame(self, data: bytes) -> Any:
        if len(data) <= INLINE_MAX:
            return {"inline": data}
        blob = uuid.uuid4().hex
        self.blobs[blob] = data
        return {"blob": {"id": blob, "size": len(data)}}

    def _run(self, task: Task) -> None:
        try:
            self._do(task)
        except Exception as error:  # noqa: BLE001
            lines = traceback.format_exc()
            told = {
                "cause": "raised",
                "exception": type(error).__name__,
                "message": str(error),
                "traceback": lines,
            }
            try:
                pickled = self._frame(cloudpickle.dumps(error))
            except Exception:  # noqa: BLE001
                pickled = "none"
            self.finish(task, "failed", pickled, told)

    def _do(self, task: Task) -> None:
        data = self._data(task.payload)
        if task.kind == "job":
            json.loads(data)
            self.finish(task, "succeeded", "none")
            return
        body = task.spec["work"][task.kind]
        if task.kind == "actor":
            args, kwargs, _options = pickle.loads(data)
            self.actors[task.number] = pickle.loads(self.code[body["code"]])(*args, **kwargs)
            self.start(task)
            return
        args, kwargs = pickle.loads(data)
        if task.kind == "call":
            target = getattr(self.actors[int(body["actor"][1:])], body["method"])
        else:
            target = pickle.loads(self.code[body["code"]])
        value = target(*args, **kwargs)
        self.finish(task, "succeeded", self._frame(cloudpickle.dumps(value, 5)))

    # Routes.

    async def _put_blob(self, request: web.Request) -> web.Response:
        data = await request.read()
        blob = uuid.uuid4().hex
        self.blobs[blob] = data
        return web.json_response({"id": blob, "size": len(data)})

    async def _get_blob(self, request: web.Request) -> web.Response:
        data = self.blobs.get(request.match_info["id"])
        if data is None:
            return web.json_response(problem("UNKNOWN_BLOB", "no such blob"), status=404)
        return web.Response(body=data)

    async def _put_package(self, request: web.Request) -> web.Response:
        self.uploads += 1
        self.packages[request.match_info["id"]] = await request.read()
        return await self._get_package(request)

    async def _get_package(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in self.packages:
            return web.json_response(problem("UNKNOWN_BLOB", "no such blob"), status=404)
        return web.json_response({"id": name, "size": len(self.packages[name])})

    async def _put_code(self, request: web.Request) -> web.Response:
        self.code[request.match_info["digest"]] = await request.read()
        return web.Response(status=204)

    def _find(self, request: web.Request) -> Task | None:
        name = request.match_info["id"]
        if name.startswith("key:"):
            return self.by_key.get(name[4:])
        return self.tasks.get(int(name[1:]))

    async def _task(self, request: web.Request) -> web.Response:
        task = self._find(request)
        if task is None:
            message = f"there is no task {request.match_info['id']}"
            return web.json_response(problem("UNKNOWN_TASK", message), status=404)
        return web.json_response(task.view())

    async def _list(self, request: web.Request) -> web.Response:
        before = int(request.query.get("before", f"t{len(self.tasks) + 1}")[1:])
        numbers = [number for number in sorted(self.tasks, reverse=True) if number < before]
        page = numbers[:2]
        following = f"t{page[-1]}" if len(numbers) > len(page) else None
        views = [self.tasks[number].view() for number in page]
        return web.json_response({"tasks": views, "next": following, "counts": {}})

    async def _explain(self, request: web.Request) -> web.Response:
        task = self._find(request)
        assert task
        return web.json_response({"task": task.view(), "because": "QUEUED",
                                  "message": "nothing has room",
                                  "ahead": 0, "clusters": []})  # fmt: skip

    async def _logs(self, request: web.Request) -> web.Response:
        return web.Response(text=f"printed by {request.match_info['id']} {request.query_string}")

    async def _cancel(self, request: web.Request) -> web.Response:
        task = self._find(request)
        assert task
        await self.stop(task.number)
        return web.json_response(task.view())

    async def _clusters(self, _request: web.Request) -> web.Response:
        return web.json_response(
            [{"spec": spec, "link": "ready"} for spec in self.clusters.values()]
        )

    async def _put_cluster(self, request: web.Request) -> web.Response:
        spec = await request.json()
        self.clusters[request.match_info["name"]] = spec
        return web.json_response({"spec": spec, "link": "connecting"})

    async def _cluster_token(self, request: web.Request) -> web.Response:
        return web.json_response({"token": f"of {request.match_info['name']}"})

    async def _remove_cluster(self, request: web.Request) -> web.Response:
        if self.clusters.pop(request.match_info["name"], None) is None:
            message = f"there is no cluster {request.match_info['name']}"
            return web.json_response(problem("UNKNOWN_CLUSTER", message), status=404)
        return web.Response(status=204)
