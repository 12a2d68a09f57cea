"""Ray runtime environments: which of their parts are on this machine, and have to be shipped."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.xz")
"""What a `working_dir` may be instead of a folder."""

CLAIM_S = 1_200.0
"""For how long a package that was uploaded or asked for is taken to be there: less than the hour
for which the control plane keeps what nothing refers to."""


def normalized(runtime_env: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return an environment in which the parts of this machine are absolute paths, as text.

    Args:
        runtime_env: The environment, as Ray takes it.
    """
    if runtime_env is None:
        return None
    env = dict(runtime_env)
    if (folder := env.get("working_dir")) is not None:
        env["working_dir"] = _path_of(folder)
    if isinstance(modules := env.get("py_modules"), list | tuple):
        env["py_modules"] = [_path_of(module) for module in modules]
    return env


def mistakes_in(runtime_env: Mapping[str, Any] | None) -> list[str]:
    """Return a sentence for each part of an environment that is to be shipped and cannot be.

    Args:
        runtime_env: The environment, as Ray takes it.
    """
    env = normalized(runtime_env) or {}
    folder, modules = env.get("working_dir"), env.get("py_modules", [])
    mistakes = []
    if folder is not None and not _can_be(folder, ARCHIVES):
        what = f"no URI, and no folder or archive ({', '.join(ARCHIVES)}) on this machine"
        mistakes.append(f"runtime_env: working_dir {folder!r} is {what}")
    if not isinstance(modules, list):
        mistakes.append(f"runtime_env: py_modules is {modules!r}; a list is needed")
        return mistakes
    what = "no URI, and no folder, .py or .whl file on this machine"
    mistakes += [
        f"runtime_env: py_modules {module!r} is {what}"
        for module in modules
        if not _can_be(module, (".py", ".whl"))
    ]
    excludes = env.get("excludes")
    if excludes is not None and (
        not isinstance(excludes, list) or not all(isinstance(rule, str) for rule in excludes)
    ):
        mistakes.append(f"runtime_env: excludes is {excludes!r}; a list of texts is needed")
    return mistakes


def is_local(runtime_env: Mapping[str, Any] | None) -> bool:
    """Return whether a part of an environment is on this machine.

    Args:
        runtime_env: The environment, normalized.
    """
    env = runtime_env or {}
    parts = [env.get("working_dir"), *env.get("py_modules", [])]
    return any(part is not None and "://" not in part for part in parts)


def shipped(
    runtime_env: Mapping[str, Any], ship: Callable[[Path, tuple[str, ...], bool], str]
) -> dict[str, Any]:
    """Return an environment without parts of this machine.

    Args:
        runtime_env: The environment, normalized.
        ship: Ships a file or folder without what some rules exclude, as a module or else as a
            working directory, and returns what an environment calls it.
    """
    env = dict(runtime_env)
    if not is_local(env):
        return env
    excludes = tuple(env.pop("excludes", None) or ())
    if (folder := env.get("working_dir")) is not None and "://" not in folder:
        env["working_dir"] = ship(Path(folder), excludes, False)  # noqa: FBT003 - a plain function
    if "py_modules" in env:
        env["py_modules"] = [
            module if "://" in module else ship(Path(module), excludes, True)  # noqa: FBT003
            for module in env["py_modules"]
        ]
    return env


def _path_of(part: Any) -> Any:
    if isinstance(part, ModuleType):
        # A package is its folder; a namespace package has no one place.
        places = list(getattr(part, "__path__", ())) or [part.__file__]
        part = places[0] if len(places) == 1 else None
    if not isinstance(part, str | os.PathLike):
        return part
    text = os.fspath(part)
    return text if "://" in text else str(Path(text).expanduser().absolute())


def _can_be(part: Any, endings: tuple[str, ...]) -> bool:
    if not isinstance(part, str):
        return False
    if "://" in part:
        return True
    return Path(part).is_dir() or (part.endswith(endings) and Path(part).is_file())
