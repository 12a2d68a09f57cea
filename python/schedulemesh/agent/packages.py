"""Packages: folders of users, brought into Ray when an environment names one.

An environment names a package as `schedulemesh://ID/SIZE/NAME`; Ray is told `gcs://...` instead.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from typing import TYPE_CHECKING, Any

from ray._private.runtime_env.packaging import (
    package_exists,
    pin_runtime_env_uri,
    upload_package_to_gcs,
)

from schedulemesh.agent.blobs import BlobRefused

if TYPE_CHECKING:
    from schedulemesh.agent.blobs import Blobs
    from schedulemesh.agent.work import Lease

log = logging.getLogger("schedulemesh.agent")

SCHEME = "schedulemesh://"
# How long Ray keeps a package that nothing refers to yet: a worker may take long to get a node.
PIN_S = 3_600
BRING_LIMIT_S = 900.0
# Ray's own prefix, by which its tools know a package.
PREFIX = "_ray_pkg_"
_NAME = re.compile(rf"{SCHEME}([0-9a-f]{{32}})/(\d+)/([^/]+)")
# What `Path.suffix` does not see as one.
_ENDINGS = (".tar.gz", ".tar.xz", ".tgz", ".jar", ".zip")


class PackageNotBroughtError(Exception):
    """Says why a package is not in Ray, and what to do."""


class Packages:
    """Brings packages into the Ray cluster of this agent, each once at a time."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._coming: dict[str, asyncio.Task[None]] = {}

    async def lease(self, lease: Lease) -> Lease:
        """Return a lease whose environment Ray can be given."""
        if lease.runtime_env is None or SCHEME not in lease.runtime_env:
            return lease
        env = await self.env(json.loads(lease.runtime_env))
        return dataclasses.replace(lease, runtime_env=json.dumps(env))

    async def env(self, env: dict[str, Any]) -> dict[str, Any]:
        """Return an environment that Ray can be given."""
        known = dict(env)
        if isinstance(folder := known.get("working_dir"), str):
            known["working_dir"] = await self._uri(folder)
        if isinstance(modules := known.get("py_modules"), list):
            known["py_modules"] = [await self._uri(module) for module in modules]
        return known

    async def _uri(self, text: Any) -> Any:
        """Return what Ray calls a package, once it has it; anything else as it is."""
        if not isinstance(text, str) or not text.startswith(SCHEME):
            return text
        found = _NAME.fullmatch(text)
        if found is None:
            raise PackageNotBroughtError(f"{text!r} is not the name of a package")
        package, size, name = found[1], int(found[2]), found[3]
        uri = f"gcs://{ray_name(package, name)}"
        if uri not in self._coming:
            coming = asyncio.ensure_future(self._bring(uri, package, size))
            self._coming[uri] = coming
            coming.add_done_callback(lambda _done: self._coming.pop(uri, None))
        try:
            # Others may wait for the same one.
            await asyncio.wait_for(asyncio.shield(self._coming[uri]), BRING_LIMIT_S)
        except asyncio.TimeoutError:
            raise PackageNotBroughtError(
                f"package {package} of {size} bytes was not here after {BRING_LIMIT_S:.0f} s; "
                "look at the link of this cluster (`schedulemesh cluster ls`) and submit again"
            ) from None
        return uri

    async def _bring(self, uri: str, package: str, size: int) -> None:
        try:
            # Ray drops what it has no use for, so it is asked each time.
            if await asyncio.to_thread(is_there, uri):
                return
            parts = [part async for part in self._blobs.pull(package, size)]
            await asyncio.to_thread(upload_package_to_gcs, uri, b"".join(parts))
        except BlobRefused as error:
            raise PackageNotBroughtError(
                f"package {package} of {size} bytes did not arrive: {error}; "
                "submit again from where its folder is, which uploads it"
            ) from error
        except Exception as error:
            # Ray raises all sorts of things when its head is away or full.
            raise PackageNotBroughtError(
                f"Ray did not take package {package} of {size} bytes: {error}; "
                "look at the memory of its head node, or give the URI of an archive"
            ) from error
        log.info("brought package %s of %d bytes", package, size)


def ray_name(package: str, name: str) -> str:
    """Return what Ray is to call a package; a wheel has to keep its name."""
    if name.endswith(".whl"):
        return name
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), ".zip")
    return f"{PREFIX}{package}{ending}"


def is_there(uri: str) -> bool:
    """Look whether Ray has a package; if so, it keeps it for a while."""
    pin_runtime_env_uri(uri, expiration_s=PIN_S)
    return bool(package_exists(uri))
