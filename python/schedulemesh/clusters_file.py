"""The clusters file: which Ray clusters there are, in YAML.

Every mistake is found before anything starts, and told with its file, line and field.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from schedulemesh import environments
from schedulemesh.errors import ConfigurationError
from schedulemesh.units import to_milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from schedulemesh.views import ClusterBody

FILE_VARIABLE = "CLUSTER_CONFIG_FILE"
SETTINGS_PREFIX = "SCHEDULER_"

logger = logging.getLogger("schedulemesh")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What holds for all clusters of a file, unless one says otherwise.

    Attributes:
        execution_mode: `parallel`, or `serial` for one task at a time on each cluster.
        submission_wait_time: Least time between the starts of two jobs on a cluster, in seconds.
        resource_threshold: No new work while CPU, GPU or memory are used above this share.
        breaker_failures: Failures in a row to start work after which a cluster gets none for a
            while.
        breaker_recovery: For how long, in seconds.
        lost_after: How long an agent may be silent before its cluster counts as lost, in seconds.
        task_timeout: The longest that one attempt of a task may run, in seconds.
        job_timeout: The same for a job.
        connect_timeout: How long the control plane may take to answer at first, in seconds.
        backoff: The wait before the first new try of a task, in seconds; doubles with each one.
    """

    execution_mode: str = "parallel"
    submission_wait_time: float = 0.0
    resource_threshold: float = 0.7
    breaker_failures: int = 5
    breaker_recovery: float = 60.0
    lost_after: float | None = None
    task_timeout: float | None = None
    job_timeout: float | None = None
    connect_timeout: float | None = None
    backoff: float | None = None


@dataclasses.dataclass(frozen=True)
class ClusterEntry:
    """One cluster of the file.

    Attributes:
        said: What the file says about it, as the control plane takes it.
        head_address: Where its GCS listens; used when it has no dashboard.
    """

    said: ClusterBody
    head_address: str | None

    @property
    def name(self) -> str:
        """Its name."""
        return self.said["name"]

    @property
    def needs_agent(self) -> bool:
        """Whether somebody must start an agent for it: nothing says how to reach one."""
        return "dashboard" not in self.said and "agent" not in self.said

    def body(self) -> ClusterBody:
        """Return what the control plane is told."""
        return self.said


@dataclasses.dataclass(frozen=True)
class ClustersFile:
    """A file that was read and checked.

    Attributes:
        path: Where it is.
        clusters: Its clusters, in order.
    """

    path: Path
    clusters: list[ClusterEntry]


def find(given: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the clusters file that counts, or `None` when there is none.

    Args:
        given: What the user says; then come `CLUSTER_CONFIG_FILE`, `./clusters.yaml`,
            `~/.ray_scheduler/clusters.yaml` and `/etc/ray_scheduler/clusters.yaml`.

    Raises:
        ConfigurationError: When the file that the user names is not there.
    """
    chosen = given or os.environ.get(FILE_VARIABLE)
    if chosen:
        path = Path(chosen).expanduser()
        if not path.is_file():
            said = "config_file_path" if given else FILE_VARIABLE
            message = f"there is no clusters file {path} ({said})"
            raise ConfigurationError(message, remedy="check the path")
        return path
    places = (
        Path("clusters.yaml"),
        Path.home() / ".ray_scheduler" / "clusters.yaml",
        Path("/etc/ray_scheduler/clusters.yaml"),
    )
    return next((place for place in places if place.is_file()), None)


def read(path: Path, settings: Settings | None = None) -> ClustersFile:
    """Read a clusters file.

    Args:
        path: Where it is.
        settings: What holds for all clusters; read from where settings are when nothing is said.

    Raises:
        ConfigurationError: When something is wrong; the details name all of it.
    """
    shared = settings or read_settings()
    document = _Document.load(path)
    clusters = _clusters(document, shared)
    document.finish("a clusters file starts with `clusters:` and a list of entries")
    return ClustersFile(path, clusters)


def read_settings() -> Settings:
    """Return the settings: the environment's, else those of the settings file, else defaults.

    They are `SCHEDULER_<NAME>` in the environment and `~/.ray_scheduler/settings.yaml`.

    Raises:
        ConfigurationError: When something is wrong; the details name all of it.
    """
    path = Path.home() / ".ray_scheduler" / "settings.yaml"
    document = _Document.load(path) if path.is_file() else _Document(path, None)
    values: dict[str, Any] = {}
    for field, node in document.fields(document.root, {**_SETTINGS, **_ELSEWHERE}):
        if field in _ELSEWHERE:
            where = f"{path}:{node.start_mark.line + 1}: {field}"
            logger.warning("%s has no effect here: set %s", where, _ELSEWHERE[field])
        else:
            values[field] = document.value(node, field, _SETTINGS[field])
    _warn_of_variables()
    for name, check in _SETTINGS.items():
        text = os.environ.get(SETTINGS_PREFIX + name.upper())
        if text is not None:
            where = f"environment: {SETTINGS_PREFIX}{name.upper()}"
            values[name] = document.checked(where, yaml.safe_load(text), check)
    document.finish("the settings are " + ", ".join(_SETTINGS))
    return Settings(**values)


def _warn_of_variables() -> None:
    """Tell of variables that look like settings, and are none. Others may have the same prefix."""
    known = [*_SETTINGS, *_ELSEWHERE]
    for variable in sorted(os.environ):
        name = variable.removeprefix(SETTINGS_PREFIX).lower()
        if not variable.startswith(SETTINGS_PREFIX) or name in _SETTINGS:
            continue
        if name in _ELSEWHERE:
            logger.warning("%s has no effect here: set %s", variable, _ELSEWHERE[name])
        elif near := difflib.get_close_matches(name, known, 1):
            meant = SETTINGS_PREFIX + near[0].upper()
            logger.warning("%s is ignored, it is no setting; did you mean %s?", variable, meant)


class _Document:
    """A YAML file with the places of its values, and the mistakes found in it."""

    def __init__(self, path: Path, root: yaml.Node | None) -> None:
        self.path = path
        self.root = root
        self.mistakes: list[str] = []

    @classmethod
    def load(cls, path: Path) -> _Document:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from error
        try:
            return cls(path, yaml.compose(text, Loader=yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = mark.line + 1 if mark else 1
            raise ConfigurationError(f"{path}:{line}: {error.problem}") from error

    def mistake(self, node: yaml.Node | None, field: str, what: str) -> None:
        line = node.start_mark.line + 1 if node else 1
        self.mistakes.append(f"{self.path}:{line}: {field}: {what}")

    def finish(self, remedy: str) -> None:
        """Raise when there were mistakes."""
        if not self.mistakes:
            return
        count = len(self.mistakes)
        message = f"{self.path} has {count} mistake{'s' if count > 1 else ''}"
        raise ConfigurationError(message, details=self.mistakes, remedy=remedy)

    def fields(
        self, node: yaml.Node | None, known: Mapping[str, Any], prefix: str = ""
    ) -> Iterator[tuple[str, yaml.Node]]:
        """Give out the known fields of a mapping; the others are mistakes."""
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            self.mistake(node, prefix or "file", "must be a mapping of names to values")
            return
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                self.mistake(key, prefix + name, "is said twice")
            elif name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.mistake(key, prefix + name, f"is no field{hint}")
            else:
                seen.add(name)
                yield name, value

    def value(self, node: yaml.Node, field: str, check: Callable[[Any], Any]) -> Any:
        """Return the checked value of a node."""
        line = node.start_mark.line + 1
        return self.checked(f"{self.path}:{line}: {field}", _plain(node), check)

    def checked(self, where: str, value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(value)
        except ConfigurationError as error:
            self.mistakes.append(f"{where}: {error.message}")
        except ValueError as error:
            self.mistakes.append(f"{where}: {error}")
        return None


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node, Dumper=yaml.SafeDumper))


def _clusters(document: _Document, settings: Settings) -> list[ClusterEntry]:
    entries: list[ClusterEntry] = []
    top = dict(document.fields(document.root, {"clusters": None}))
    listed = top.get("clusters")
    if not isinstance(listed, yaml.SequenceNode) or not listed.value:
        document.mistake(listed or document.root, "clusters", "must be a list of clusters")
        return entries
    names: dict[str, int] = {}
    for index, node in enumerate(listed.value):
        prefix = f"clusters[{index}]"
        entry = _entry(document, node, prefix, settings)
        if entry is None:
            continue
        first = names.setdefault(entry.name, index)
        if first != index:
            document.mistake(node, f"{prefix}.name", f"{entry.name} is also clusters[{first}]")
        entries.append(entry)
    return entries


def _entry(
    document: _Document, node: yaml.Node, prefix: str, settings: Settings
) -> ClusterEntry | None:
    found = dict(document.fields(node, _FIELDS, f"{prefix}."))
    values = {
        field: document.value(value, f"{prefix}.{field}", _FIELDS[field])
        for field, value in found.items()
    }
    if "name" not in values:
        document.mistake(node, f"{prefix}.name", "is missing")
    head = values.pop("head_address", None)
    if not {"dashboard", "agent"} & values.keys() and "head_address" not in found:
        what = "nothing says how to reach it: give dashboard, agent or head_address"
        document.mistake(node, prefix, what)
    if head and head.startswith("ray://") and not {"dashboard", "agent"} & values.keys():
        what = f"{head} is a Ray Client address, through which no agent can be started"
        document.mistake(found["head_address"], f"{prefix}.head_address", f"{what}; give dashboard")
    if not values.get("name"):
        return None
    return ClusterEntry(_body(values, settings), head)


def _body(values: dict[str, Any], settings: Settings) -> ClusterBody:
    body: dict[str, Any] = {
        "max_utilisation": settings.resource_threshold,
        "breaker_failures": settings.breaker_failures,
        "breaker_recovery_ms": to_milliseconds(settings.breaker_recovery),
    }
    if settings.execution_mode == "serial":
        body["max_tasks"] = 1
    if settings.submission_wait_time:
        body["job_interval_ms"] = to_milliseconds(settings.submission_wait_time)
    if settings.lost_after is not None:
        body["lost_after_ms"] = to_milliseconds(settings.lost_after)
    for field, value in values.items():
        if value is not None:
            body[_MILLISECOND_FIELDS.get(field, field)] = value
    said: ClusterBody = body  # type: ignore[assignment]
    return said


def _wrong(expected: str, value: Any) -> ValueError:
    return ValueError(f"must be {expected}, not {value!r}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _wrong("a text", value)
    return value


def _address(value: Any) -> str:
    text = _text(value)
    port = text.rpartition(":")[2]
    if not port.isdigit():
        raise ValueError(f"{text!r} has no port; an address looks like head.example:6379")
    return text


def _url(*schemes: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        text = _text(value)
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"{text!r} does not start with {schemes[0]}://")
        return text

    return check


def _secret(value: Any) -> str:
    text = _text(value)
    if not text.startswith(("env:", "file:")):
        raise ValueError("holds a secret; write env:NAME or file:PATH, which say where it is")
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong("true or false", value)
    return value


def _number(least: float, most: float = float("inf")) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong("a number", value)
        if not least <= value <= most:
            bounds = f"at least {least:g}" if most == float("inf") else f"{least:g} to {most:g}"
            raise ValueError(f"must be {bounds}, not {value!r}")
        return value

    return check


def _count(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"must be a whole number, at least {least}, not {value!r}")
        return value

    return check


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong("a list of texts", value)
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _wrong("a mapping of names to values", value)
    return value


def _runtime_env(value: Any) -> dict[str, Any]:
    env = _mapping(value)
    if mistakes := environments.mistakes_in(env):
        raise ValueError("; ".join(mistakes).replace("runtime_env: ", ""))
    return environments.normalized(env) or {}


def _labels(value: Any) -> dict[str, str]:
    return {key: str(item) for key, item in _mapping(value).items()}


def _seconds(value: Any) -> float:
    return _milliseconds(value) / 1_000


def _milliseconds(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _wrong("seconds or a text such as 30s", value)
    return to_milliseconds(value, "it")


def _mode(value: Any) -> str:
    if value not in ("serial", "parallel"):
        raise _wrong("serial or parallel", value)
    return str(value)


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "head_address": _address,
    "dashboard": _url("http", "https"),
    "agent": _url("ws", "wss"),
    "token": _secret,
    "prefer": _flag,
    "weight": _number(0),
    "tags": _texts,
    "labels": _labels,
    "runtime_env": _runtime_env,
    "max_utilisation": _number(0, 1),
    "max_tasks": _count(1),
    "job_interval": _milliseconds,
    "lost_after": _milliseconds,
    "breaker_failures": _count(1),
    "breaker_recovery": _milliseconds,
}

_MILLISECOND_FIELDS = {
    "job_interval": "job_interval_ms",
    "lost_after": "lost_after_ms",
    "breaker_recovery": "breaker_recovery_ms",
}

_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "execution_mode": _mode,
    "submission_wait_time": _seconds,
    "resource_threshold": _number(0, 1),
    "breaker_failures": _count(1),
    "breaker_recovery": _seconds,
    "lost_after": _seconds,
    "task_timeout": _seconds,
    "job_timeout": _seconds,
    "connect_timeout": _seconds,
    "backoff": _seconds,
}

_ELSEWHERE = {
    "queue_size": "queue-max of the control plane (SCHEDULEMESH_QUEUE_MAX, or `queue-max` in the "
    "config.toml of its state directory)",
}
"""Settings of the control plane, which may serve others too, and what they are called there."""
