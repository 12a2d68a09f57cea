"""Ray runtime environments: what of them makes sense away from this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_REMEDY = (
    "a cluster cannot see it: give the URI of an archive (https, s3, gs), or leave it out, since "
    "modules of your own travel with the functions that use them"
)


def local_parts(runtime_env: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence for each folder of this machine that an environment names.

    Args:
        runtime_env: The environment.
    """
    if not runtime_env:
        return []
    named = [("working_dir", runtime_env.get("working_dir"))]
    modules = runtime_env.get("py_modules")
    named += [("py_modules", part) for part in modules] if isinstance(modules, list) else []
    return [
        f"runtime_env: {key} {part!r} is on this machine, and {_REMEDY}"
        for key, part in named
        if part is not None and "://" not in str(part)
    ]


def without_local_parts(runtime_env: dict[str, Any]) -> dict[str, Any]:
    """Return an environment without the folders of this machine.

    Args:
        runtime_env: The environment.
    """
    kept = dict(runtime_env)
    if "://" not in str(kept.get("working_dir", "://")):
        del kept["working_dir"]
    modules = kept.get("py_modules")
    if isinstance(modules, list):
        kept["py_modules"] = [part for part in modules if "://" in str(part)]
    return kept
