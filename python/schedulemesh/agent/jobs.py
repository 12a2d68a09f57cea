"""Whole Ray jobs, through the Jobs REST API of the agent's own cluster."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import ray._private.worker
from ray.exceptions import RayError
from ray.experimental import internal_kv

from schedulemesh.agent.packages import PackageNotBroughtError
from schedulemesh.agent.work import Lease, Work

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from schedulemesh.agent.packages import Packages
    from schedulemesh.agent.settings import Settings
    from schedulemesh.agent.wire import Key
    from schedulemesh.agent.work import Ledger

log = logging.getLogger("schedulemesh.agent")

# What a description that is none, or arguments that Ray has lost, come to.
_NO_JOB = (ValueError, KeyError, TypeError, AttributeError, RayError)
POLL_S = 0.5
TIMEOUT_S = 30.0
# How long ago a job may have ended for its end to be reported by an agent that did not see it.
ADOPT_ENDED_S = 3_600.0
LOG_TAIL = 4_000
STOP_WAIT_DEFAULT_S = 30
KV = b"schedulemesh"
LIVE = frozenset({"PENDING", "RUNNING"})
# How long a job is tried to be submitted while the dashboard is away.
SUBMIT_LIMIT_S = 60.0
# In a job's metadata: what it may use, for the next agent.
LEASE_MARK = "schedulemesh.lease"
ADOPT_LIMIT_S = 60.0
FENCE_LIMIT_S = 60.0


class JobsUnavailable(Exception):  # noqa: N818 - the cluster's state
    """Says why jobs cannot be run here, or that their API does not answer now."""


class JobInDoubt(Exception):  # noqa: N818 - the cluster's state
    """Says that a job may have been submitted, and that nobody can tell."""


class JobRefused(Exception):  # noqa: N818 - Ray's answer
    """Says why Ray does not take a job."""


@dataclass(eq=False)
class Job:
    """Is one job, from its submission until its end is reported."""

    work: Work
    lease: Lease | None
    # Its submission id, from which an unknown outcome is looked up.
    name: str
    began: float
    task: asyncio.Task[None] | None = None

    def run_us(self) -> int:
        """Return how long it has run, roughly: Ray tells whole seconds."""
        return int((time.monotonic() - self.began) * 1e6)


class Jobs:
    """Submits, polls, stops and adopts jobs."""

    def __init__(self, settings: Settings, ledger: Ledger, packages: Packages) -> None:
        self._cluster = settings.cluster
        self._names = settings.names
        self._ledger = ledger
        self._packages = packages
        self._jobs: dict[Key, Job] = {}
        # Jobs whose ends are reported and not acknowledged yet.
        self._reported: set[Key] = set()
        self._settling: set[asyncio.Future[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def start(self, lease: Lease, work: Work) -> None:
        """Run a job."""
        job = Job(work, lease, self._names.of(work.key), time.monotonic())
        self._begin(job, self._run(job))

    def _begin(self, job: Job, doing: Coroutine[Any, Any, None]) -> None:
        self._jobs[job.work.key] = job
        job.task = asyncio.ensure_future(doing)
        job.task.add_done_callback(lambda task: self._over(job, task))

    def _over(self, job: Job, task: asyncio.Task[None]) -> None:
        self._jobs.pop(job.work.key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("following %s failed", job.name, exc_info=error)
            # Unforeseen, but nobody else would ever say that it ended.
            message = f"the agent stumbled over its job: {type(error).__name__}: {error}"
            self._ledger.lost(job.work, message, job.run_us())

    async def stop(self, work: Work) -> None:
        """Stop a job: with SIGTERM, and after its own grace with SIGKILL."""
        job = self._jobs.get(work.key)
        if job is None:
            self._ledger.stopped(work, 0)
            return
        deadline = time.monotonic() + (work.stop or 0) / 1000
        asked = False
        while not work.ended:
            # Not there yet: it may be on its way.
            asked = asked or await self._ask_to_stop(job.name)
            await asyncio.sleep(POLL_S)
            if asked and time.monotonic() > deadline + STOP_WAIT_DEFAULT_S:
                asked = False
                deadline = time.monotonic()

    def held_on(self, node: str) -> dict[str, float]:
        """Return what jobs may use on a node: it is theirs, not a stranger's."""
        held: dict[str, float] = {}
        for job in self._jobs.values():
            if job.lease is not None and job.lease.node == node:
                for name, amount in job.lease.resources.items():
                    held[name] = held.get(name, 0.0) + amount
        return held

    async def output(self, key: Key) -> str | None:
        """Return a job's log."""
        try:
            status, body = await self._call("GET", f"{self._names.of(key)}/logs")
        except JobsUnavailable:
            return None
        return str(body.get("logs", "")) if status == HTTPStatus.OK else None

    async def adopt(self) -> None:
        """Take over the jobs that an earlier agent has submitted."""
        for key, details in (await self._ours(ADOPT_LIMIT_S)).items():
            name = details["submission_id"]
            ended = (details.get("end_time") or 0) / 1000
            recent = details["status"] in LIVE or time.time() - ended < ADOPT_ENDED_S
            if recent and not await asyncio.to_thread(is_settled, name):
                work = Work.adopted(key, "job")
                self._ledger.held[key] = work
                lease = lease_of(details.get("metadata") or {})
                job = Job(work, lease, name, time.monotonic())
                self._begin(job, self._follow(job))

    async def fence(self, keys: set[Key]) -> None:
        """See to it that attempts which are not held do not run as jobs, as far as Ray answers."""
        deadline = time.monotonic() + FENCE_LIMIT_S
        while (left := deadline - time.monotonic()) > 0:
            found = await self._ours(left)
            live = [key for key in keys if key in found and found[key]["status"] in LIVE]
            if not live:
                return
            for key in live:
                await self._ask_to_stop(self._names.of(key))
            await asyncio.sleep(POLL_S)
        log.warning("jobs that this agent does not hold may run on: Ray did not stop them")

    async def _ask_to_stop(self, name: str) -> bool:
        """Have Ray stop a job; return whether it knows the job."""
        try:
            status, _ = await self._call("POST", f"{name}/stop")
        except JobsUnavailable as error:
            log.warning("cannot stop %s now: %s", name, error)
            return False
        return status == HTTPStatus.OK

    async def _ours(self, limit_s: float) -> dict[Key, dict[str, Any]]:
        """List the jobs of our control plane; a dashboard that is away is asked for a while."""
        deadline = time.monotonic() + limit_s
        while dashboard_url() is not None:
            try:
                status, found = await self._call("GET", "")
                trouble = f"it answered {status}"
            except JobsUnavailable as error:
                status, found, trouble = HTTPStatus.SERVICE_UNAVAILABLE, [], str(error)
            if status == HTTPStatus.OK:
                named = ((self._names.read(job.get("submission_id") or ""), job) for job in found)
                return {key: job for key, job in named if key is not None}
            if time.monotonic() > deadline:
                log.warning("the Jobs API does not list the jobs: %s", trouble)
                break
            await asyncio.sleep(POLL_S)
        return {}

    def acknowledged(self, key: Key) -> None:
        """Hear that the control plane has an end: the next agent need not tell it."""
        if key in self._reported:
            self._reported.discard(key)
            task = asyncio.ensure_future(asyncio.to_thread(settle, self._names.of(key)))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Stop following; the jobs go on."""
        for job in self._jobs.values():
            if job.task is not None:
                job.task.cancel()
        if self._session is not None:
            await self._session.close()

    async def _run(self, job: Job) -> None:
        work = job.work
        await work.fetched()
        if work.ended:
            return
        try:
            body = await self._body(job)
            submitted = await self._submit(job, body)
        except (*_NO_JOB, JobsUnavailable, JobRefused, PackageNotBroughtError) as error:
            self._ledger.not_started(work, f"the job was not started: {error}")
        except JobInDoubt as error:
            self._ledger.lost(work, str(error))
            await self._end_in_doubt(job)
        else:
            if submitted:
                await self._follow(job)
            else:
                self._ledger.stopped(work, 0)

    async def _body(self, job: Job) -> dict[str, Any]:
        payload = job.work.payload
        if isinstance(payload, list):
            payload = b"".join([await ref for ref in payload])
        asked = json.loads(payload or b"")
        env = dict(asked.get("runtime_env") or {})
        if not env and job.lease is not None and job.lease.runtime_env:
            env = json.loads(job.lease.runtime_env)
        env = await self._packages.env(env)
        task, attempt = job.work.key
        env["env_vars"] = {
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_DEFAULT_S),
            **env.get("env_vars", {}),
            "RAY_MULTICLUSTER_CURRENT_CLUSTER": self._cluster,
            "SCHEDULEMESH_CLUSTER": self._cluster,
            "SCHEDULEMESH_TASK": f"t{task}",
            "SCHEDULEMESH_ATTEMPT": str(attempt),
        }
        return {
            "entrypoint": asked["entrypoint"],
            "submission_id": job.name,
            "runtime_env": env,
            "metadata": {**(asked.get("metadata") or {}), **lease_mark(job.lease)},
        }

    async def _submit(self, job: Job, body: dict[str, Any]) -> bool:
        """Submit, unless told to stop before; return whether Ray has the job.

        An unknown outcome is looked up by the id, and only an absent job is sent again. What is
        told to stop is not sent any more, but what may have been sent is looked for.
        """
        deadline = time.monotonic() + SUBMIT_LIMIT_S
        in_doubt = False
        while True:
            try:
                known, _ = await self._call("GET", job.name)
                if known == HTTPStatus.OK:
                    return True
                in_doubt = in_doubt and known != HTTPStatus.NOT_FOUND
                if job.work.stop is None:
                    in_doubt = True
                    return await self._post(job, body)
                trouble = f"it answered {known}"
            except JobsUnavailable as error:
                if dashboard_url() is None:
                    raise
                log.warning("cannot submit %s now: %s", job.name, error)
                trouble = str(error)
            if job.work.stop is not None and not in_doubt:
                return False
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_S)
        waited = f"for {SUBMIT_LIMIT_S:.0f} s the Jobs API did not take it: {trouble}"
        if in_doubt:
            raise JobInDoubt(f"whether the job was started is unknown: {waited}")
        raise JobsUnavailable(waited)

    async def _post(self, job: Job, body: dict[str, Any]) -> bool:
        """Send a job once; raise when Ray refuses it."""
        status, answer = await self._call("POST", "", body)
        if status != HTTPStatus.OK:
            known, _ = await self._call("GET", job.name)
            said = f"Ray answered {status}: {str(answer)[-LOG_TAIL:]}"
            if known == HTTPStatus.NOT_FOUND:
                raise JobRefused(said)
            if known != HTTPStatus.OK:
                raise JobsUnavailable(said)
        return True

    async def _end_in_doubt(self, job: Job) -> None:
        """See to it that a job which is given up does not run, as soon as Ray tells."""
        while True:
            with contextlib.suppress(JobsUnavailable):
                status, details = await self._call("GET", job.name)
                if status == HTTPStatus.NOT_FOUND:
                    return
                if status == HTTPStatus.OK and details["status"] not in LIVE:
                    return
                if status == HTTPStatus.OK:
                    await self._ask_to_stop(job.name)
            await asyncio.sleep(POLL_S)

    async def _follow(self, job: Job) -> None:
        """Poll a job until it has ended, and report."""
        missing = 0
        while not job.work.ended:
            try:
                status, details = await self._call("GET", job.name)
            except JobsUnavailable as error:
                log.warning("cannot look at %s now: %s", job.name, error)
                status, details = HTTPStatus.SERVICE_UNAVAILABLE, {}
            if status == HTTPStatus.OK:
                missing = 0
                if await self._ended(job, details):
                    self._reported.add(job.work.key)
                    break
            elif status == HTTPStatus.NOT_FOUND:
                missing += 1
                if missing > 3:  # noqa: PLR2004 - once may be a hiccup of the head
                    self._ledger.lost(job.work, "Ray does not know the job any more")
            await asyncio.sleep(POLL_S)

    async def _ended(self, job: Job, details: dict[str, Any]) -> bool:
        state = details["status"]
        if state == "PENDING":
            return False
        if state == "RUNNING":
            if not job.work.started:
                job.began = time.monotonic()
                self._ledger.started(job.work)
            return False
        started, ended = details.get("start_time"), details.get("end_time")
        run_us = (ended - started) * 1_000 if started and ended else job.run_us()
        message = details.get("message") or ""
        if state == "SUCCEEDED":
            self._ledger.finished(job.work, run_us, "none")
        elif state == "STOPPED":
            if job.work.stop is None:
                message = message or "the job was stopped by somebody else"
                self._failed(job, run_us, "raised", message, "")
            else:
                self._ledger.stopped(job.work, run_us)
        else:
            tail = (await self.output(job.work.key) or "")[-LOG_TAIL:]
            cause = "raised" if details.get("driver_exit_code") is not None else "not_started"
            self._failed(job, run_us, cause, message, tail)
        return True

    def _failed(self, job: Job, run_us: int, cause: str, message: str, tail: str) -> None:
        error = {"cause": cause, "exception": "", "message": message, "traceback": tail}
        self._ledger.failed(job.work, run_us, error)

    async def _call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the Jobs API of this cluster."""
        base = dashboard_url()
        if base is None:
            raise JobsUnavailable(
                "this cluster has no dashboard, and with it no Jobs API: "
                "start Ray with --include-dashboard=true and ray[default]"
            )
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, headers=auth_headers())
        try:
            url = f"{base}/api/jobs/{path}"
            async with self._session.request(method, url, json=body) as answer:
                text = await answer.text()
                status = answer.status
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise JobsUnavailable(f"{base} does not answer: {error!r}") from error
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text


def lease_mark(lease: Lease | None) -> dict[str, str]:
    """Return the metadata that says what a job may use."""
    return {} if lease is None else {LEASE_MARK: json.dumps(dataclasses.asdict(lease))}


def lease_of(metadata: dict[str, str]) -> Lease | None:
    """Read what a job may use from its metadata; None when that does not say it."""
    try:
        return Lease(**json.loads(metadata[LEASE_MARK]))
    except (KeyError, TypeError, ValueError):
        return None


def settle(name: str) -> None:
    """Note in the cluster that the control plane has the end of a job."""
    internal_kv._internal_kv_put(name.encode(), b"settled", namespace=KV)  # noqa: SLF001


def is_settled(name: str) -> bool:
    """Look whether the control plane has the end of a job."""
    return internal_kv._internal_kv_get(name.encode(), namespace=KV) is not None  # noqa: SLF001


def dashboard_url() -> str | None:
    """Return where the dashboard of the agent's own cluster is."""
    node = ray._private.worker.global_worker.node  # noqa: SLF001 - there is no public way
    address = node.address_info.get("webui_url") if node is not None else None
    return f"http://{address}" if address else None


def auth_headers() -> dict[str, str]:
    """Return what the dashboard wants to see when Ray's token authentication is on."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    if not token:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
        try:
            token = Path(path).expanduser().read_text().strip()
        except OSError as error:
            log.warning("RAY_AUTH_MODE is token, but there is none: %s", error)
            return {}
    return {"Authorization": f"Bearer {token}"}
