"""What may be said about a task when it is submitted."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from typing import TYPE_CHECKING, Any, TypedDict

from schedulemesh import environments
from schedulemesh.errors import ConfigurationError
from schedulemesh.units import to_bytes, to_milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The Python that pickles here; work goes only to clusters that run the same."""

CONCURRENCY_MAX = 1000
"""Most calls of one actor that may run at a time."""

_ON_LOST = ("replace", "wait", "fail")


class Options(TypedDict, total=False):
    """The keywords of `options()` and of `@task`.

    Attributes:
        cpus: CPU cores; 1 for a function and 0 for an actor or a job when nothing is said.
        gpus: GPUs; may be a fraction.
        memory: Bytes, or a text such as `"4GiB"`.
        resources: Custom resources by name.
        tags: Tags that the cluster must have.
        prefer_tags: Tags that make a cluster more welcome.
        avoid_tags: Tags that the cluster must not have.
        labels: Rules on the labels of the node: a mapping such as `{"arch": "arm64"}`, or texts
            such as `"zone in (a, b)"`, `"gen > 7"`, `"gpu exists"`.
        cluster: The cluster that is wanted; another one is taken when it is unhealthy.
        cluster_only: Wait for that cluster instead.
        priority: The larger number goes first.
        retries: Tries after its worker, node or cluster was lost; 3 for a function, else 0.
        retry_exceptions: Tries after its own code raised; 0 when nothing is said.
        retry_backoff: Wait before the first new try, in seconds or as text; doubles with each one.
        timeout: The longest that one attempt may run, in seconds or as text.
        on_lost: What happens when its cluster can no longer be heard: `replace`, `wait` or `fail`.
        wait_for_growth: Queue it although no cluster could hold it as they are now.
        runtime_env: Ray's runtime environment; the cluster's own when nothing is said. Folders of
            this machine (`working_dir`, `py_modules`) are packed and shipped.
        max_concurrency: For an actor: how many of its calls may run at a time, side by side in
            threads; 1 when nothing is said, which runs them in their order.
        name: A name for people.
        key: What you call this submission: submitting it twice does it once.
    """

    cpus: float | None
    gpus: float | None
    memory: float | str | None
    resources: Mapping[str, float] | None
    tags: Sequence[str]
    prefer_tags: Sequence[str]
    avoid_tags: Sequence[str]
    labels: Mapping[str, str] | Sequence[str]
    cluster: str | None
    cluster_only: bool
    priority: float | None
    retries: int | None
    retry_exceptions: int | None
    retry_backoff: float | str | None
    timeout: float | str | None
    on_lost: str | None
    wait_for_growth: bool
    runtime_env: Mapping[str, Any] | None
    max_concurrency: int | None
    name: str | None
    key: str | None


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """Options that were checked, ready to be sent.

    Attributes:
        shared: Everything that tasks may have in common, as the JSON body says it.
        name: A name for people.
        key: What the submitter calls the submission.
        given: The keywords as they were given.
    """

    shared: dict[str, Any]
    name: str | None
    key: str | None
    given: Options

    def spec(self, work: Mapping[str, Any] | str, title: str | None = None) -> str:
        """Return the JSON of a specification: these options, and what is run.

        Args:
            work: What is run, as the JSON body says it.
            title: What people call it, such as the function's name.
        """
        body = {"work": work, **self.shared}
        if title:
            body["title"] = title
        if work == "job":
            # A command: nothing in it was pickled by this Python.
            del body["python"]
        resources = self.shared.get("resources")
        if resources and "CPU" not in resources and "function" in work:
            # Who asks for a GPU or for memory still wants the core that every function gets.
            body["resources"] = {"CPU": 1, **resources}
        return json.dumps(body)

    @property
    def for_actor(self) -> dict[str, Any]:
        """What travels with an actor and is read where it runs."""
        most = self.given.get("max_concurrency")
        return {} if most is None else {"max_concurrency": most}

    @property
    def runtime_env(self) -> dict[str, Any] | None:
        """Ray's runtime environment, if one is said."""
        env: dict[str, Any] | None = self.shared.get("runtime_env")
        return env

    def with_runtime_env(self, runtime_env: Mapping[str, Any]) -> TaskOptions:
        """Return these options with another runtime environment.

        Args:
            runtime_env: The environment.
        """
        shared = {**self.shared, "runtime_env": dict(runtime_env)}
        return dataclasses.replace(self, shared=shared)

    def numbered(self, number: int) -> TaskOptions:
        """Return the options of one of many tasks.

        Args:
            number: Which one; it becomes a part of the key, if there is a key.
        """
        if self.key is None:
            return self
        return dataclasses.replace(self, key=f"{self.key}[{number}]")

    def updated(self, changes: Options) -> TaskOptions:
        """Return these options with some of them replaced.

        Args:
            changes: The options to replace.
        """
        if not changes:
            return self
        merged: Options = {**self.given, **changes}
        return parse(merged)


def parse(given: Options) -> TaskOptions:
    """Return options that were checked.

    Args:
        given: The keywords.

    Raises:
        ConfigurationError: When one or more of them are wrong; the details name all of them.
    """
    mistakes = _mistakes(given)
    if mistakes:
        message = f"{len(mistakes)} of these options cannot be" if mistakes[1:] else mistakes[0]
        details = mistakes if mistakes[1:] else []
        raise ConfigurationError(message, code="INVALID", details=details, remedy=_remedy())
    body: dict[str, Any] = {
        "resources": _resources(given),
        "priority": given.get("priority"),
        "affinity": _affinity(given),
        "retries": _retries(given),
        "timeout_ms": _optional_milliseconds(given.get("timeout"), "timeout"),
        "on_lost": given.get("on_lost"),
        "wait_for_growth": given.get("wait_for_growth", False),
        "python": PYTHON,
        "runtime_env": environments.normalized(given.get("runtime_env")),
    }
    shared = _without_none(body)
    try:
        json.dumps(shared)
    except (TypeError, ValueError) as error:
        message = f"these options have no JSON form: {error}"
        raise ConfigurationError(message, code="INVALID") from error
    return TaskOptions(shared, given.get("name"), given.get("key"), given)


def _mistakes(given: Options) -> list[str]:
    known = Options.__annotations__
    mistakes = [f"{name}= is no option" for name in given if name not in known]
    numbers = ("cpus", "gpus", "priority", "retries", "retry_exceptions")
    for name in numbers:
        value = given.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            mistakes.append(f"{name}={value!r} is no number")
    mistakes += [
        f"{name}={given.get(name)!r} is a text; a list of texts is needed"
        for name in ("tags", "prefer_tags", "avoid_tags")
        if isinstance(given.get(name), str)
    ]
    most = given.get("max_concurrency")
    if most is not None and (type(most) is not int or not 1 <= most <= CONCURRENCY_MAX):
        mistakes.append(f"max_concurrency={most!r} is no whole number from 1 to {CONCURRENCY_MAX}")
    mistakes += environments.mistakes_in(given.get("runtime_env"))
    on_lost = given.get("on_lost")
    if on_lost is not None and on_lost not in _ON_LOST:
        mistakes.append(f"on_lost={on_lost!r} is none of {', '.join(_ON_LOST)}")
    return mistakes


def _remedy() -> str:
    return "the options are " + ", ".join(Options.__annotations__)


def _resources(given: Options) -> dict[str, float] | None:
    resources = dict(given.get("resources") or {})
    cpus, gpus, memory = given.get("cpus"), given.get("gpus"), given.get("memory")
    if cpus is not None:
        resources["CPU"] = cpus
    if gpus is not None:
        resources["GPU"] = gpus
    if memory is not None:
        resources["memory"] = to_bytes(memory)
    return resources or None


def _affinity(given: Options) -> dict[str, Any]:
    labels = given.get("labels") or ()
    rules = (
        [labels]
        if isinstance(labels, str)
        else [f"{key}={value}" for key, value in labels.items()]
        if hasattr(labels, "items")
        else list(labels)
    )
    affinity: dict[str, Any] = {
        "required": list(given.get("tags") or ()),
        "preferred": list(given.get("prefer_tags") or ()),
        "avoided": list(given.get("avoid_tags") or ()),
        "labels": rules,
        "cluster": given.get("cluster"),
    }
    affinity = {name: value for name, value in affinity.items() if value}
    if given.get("cluster_only"):
        affinity["cluster_only"] = True
    return affinity


def _retries(given: Options) -> dict[str, int]:
    retries = {
        "lost": given.get("retries"),
        "raised": given.get("retry_exceptions"),
        "backoff_ms": _optional_milliseconds(given.get("retry_backoff"), "retry_backoff"),
    }
    return _without_none(retries)


def _optional_milliseconds(value: float | str | None, option: str) -> int | None:
    return None if value is None else to_milliseconds(value, option)


def _without_none(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


@functools.cache
def defaults() -> TaskOptions:
    """Return the options of a task about which nothing is said."""
    return parse({})
