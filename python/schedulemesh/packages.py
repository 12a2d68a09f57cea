"""Folders of this machine, packed so that clusters can be given them.

Equal folders make equal packages, whose name is the digest of their bytes: the control plane keeps
one of them, and each cluster is brought it once.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import tempfile
import threading
import time
import urllib.parse
import zipfile
from typing import IO, TYPE_CHECKING, Any

from pathspec import GitIgnoreSpec

from schedulemesh._native import PACKAGE_MAX, package_id
from schedulemesh.environments import CLAIM_S, shipped
from schedulemesh.errors import NotFoundError, TaskSubmissionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from schedulemesh._native import Client as NativeClient

FILES_MAX = 100_000
"""Most files of one package."""

WORKING_DIR_EXCLUDES = ".git,.venv,venv,__pycache__"
"""What a working directory is packed without, unless `RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES`
says otherwise."""

_MODULE_EXCLUDES = ("/.git", "__pycache__")
_LARGEST = 5
_PIECE = 1 << 20
# The earliest time that an archive can tell: equal files make equal archives, whenever they change.
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Source:
    """What is to be packed.

    Attributes:
        path: A file or a folder.
        excludes: Rules, as in a `.gitignore` in the folder.
        is_module: Whether the package holds the folder itself, so that it can be imported.
    """

    path: Path
    excludes: tuple[str, ...]
    is_module: bool

    def rules(self) -> GitIgnoreSpec:
        """Return what is left out besides what files in the folder say."""
        usual: Sequence[str] = _MODULE_EXCLUDES
        if not self.is_module:
            said = os.environ.get("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", WORKING_DIR_EXCLUDES)
            usual = [rule.strip() for rule in said.split(",") if rule.strip()]
        return GitIgnoreSpec.from_lines([*usual, *self.excludes])


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file of a package, or an empty folder.

    Attributes:
        name: What it is called in the package; of a folder with a slash at its end.
        path: Where it is.
        size: Its bytes.
        changed: When it was changed, in nanoseconds.
        mode: Its permissions.
    """

    name: str
    path: Path
    size: int
    changed: int
    mode: int


class Packages:
    """The packages of one client: what was packed, and when the control plane had it."""

    def __init__(self, native: NativeClient) -> None:
        self._native = native
        self._guard = threading.Lock()
        self._known: dict[Source, tuple[list[Entry], str, float]] = {}

    def ship(self, runtime_env: Mapping[str, Any]) -> dict[str, Any]:
        """Return an environment whose parts on this machine are packages at the control plane.

        Args:
            runtime_env: The environment, normalized.

        Raises:
            TaskSubmissionError: When a folder is too large.
        """
        return shipped(
            runtime_env, lambda *part: self._ship(Source(part[0], part[1], is_module=part[2]))
        )

    def _ship(self, source: Source) -> str:
        # One at a time: threads that submit with one environment would all pack its folder.
        with self._guard:
            entries = list_entries(source)
            before, uri, when = self._known.get(source, (None, "", 0.0))
            now = time.monotonic()
            if before == entries and now - when < CLAIM_S:
                return uri
            if before != entries or not self._has(uri):
                uri = self._upload(source, entries)
            self._known[source] = (entries, uri, now)
            return uri

    def _upload(self, source: Source, entries: list[Entry]) -> str:
        with tempfile.NamedTemporaryFile(suffix=".zip") as file:
            name = pack(source, entries, file)
            file.flush()
            size = file.tell()
            package = package_id(file.name)
            uri = f"schedulemesh://{package}/{size}/{urllib.parse.quote(name, safe='')}"
            if not self._has(uri):
                self._send(package, file)
        return uri

    def _has(self, uri: str) -> bool:
        """Ask whether the control plane has a package, which then keeps it for another hour."""
        package = uri.removeprefix("schedulemesh://").partition("/")[0]
        try:
            self._native.request("GET", f"/v1/packages/{package}")
        except NotFoundError:
            return False
        return True

    def _send(self, package: str, file: IO[bytes]) -> None:
        upload = self._native.package_writer(package)
        try:
            file.seek(0)
            while piece := file.read(_PIECE):
                upload.write(piece)
            upload.finish()
        except BaseException:
            upload.abort()
            raise


def list_entries(source: Source) -> list[Entry]:
    """Return what belongs into a package, in a fixed order.

    Args:
        source: What is to be packed.

    Raises:
        TaskSubmissionError: When there are too many files.
    """
    if source.path.is_file():
        return [_entry(source.path.name, source.path)]
    prefix = f"{source.path.name}/" if source.is_module else ""
    entries = []
    for entry in _walk(source.path, prefix, [(source.path, source.rules())], ()):
        entries.append(entry)
        if len(entries) > FILES_MAX:
            message = f"{source.path} has more than the {FILES_MAX} files that a package may have"
            raise TaskSubmissionError(message, code="TOO_LARGE", remedy=_remedy())
    return entries


def pack(source: Source, entries: list[Entry], file: IO[bytes]) -> str:
    """Write a package and return what it is called.

    Args:
        source: What is packed.
        entries: What belongs into it.
        file: Where to write it.

    Raises:
        TaskSubmissionError: When it is too large; the details name the largest files.
    """
    name = source.path.name
    if source.path.is_file() and not name.endswith(".py"):
        _check(source, entries, source.path.stat().st_size)
        with source.path.open("rb") as archive:
            while piece := archive.read(_PIECE):
                file.write(piece)
        return name if name.endswith(".whl") else f"package{''.join(source.path.suffixes[-2:])}"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, _TIME)
            info.external_attr = entry.mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # whose permissions these are: a Unix's
            if entry.name.endswith("/"):
                archive_file.writestr(info, b"")
                continue
            info.file_size = entry.size
            with entry.path.open("rb") as data, archive_file.open(info, "w") as target:
                while piece := data.read(_PIECE):
                    target.write(piece)
                    _check(source, entries, file.tell())
    _check(source, entries, file.seek(0, os.SEEK_END))
    return "package.zip"


def _walk(
    folder: Path,
    prefix: str,
    rules: list[tuple[Path, GitIgnoreSpec]],
    above: tuple[str, ...],
) -> Iterator[Entry]:
    real = os.path.realpath(folder)
    if real in above:
        # A link to a folder that it is in.
        return
    rules = [*rules, *_rules_in(folder)]
    empty = True
    for child in sorted(folder.iterdir(), key=lambda path: path.name):
        empty = False
        if _is_left_out(child, rules):
            continue
        if child.is_dir():
            yield from _walk(child, f"{prefix}{child.name}/", rules, (*above, real))
        elif child.is_file():
            yield _entry(f"{prefix}{child.name}", child)
    if empty and prefix:
        yield Entry(prefix, folder, 0, 0, stat.S_IFDIR | 0o755)


def _rules_in(folder: Path) -> Iterator[tuple[Path, GitIgnoreSpec]]:
    names = [".rayignore"]
    if os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1":
        names.append(".gitignore")
    for name in names:
        if (folder / name).is_file():
            yield folder, GitIgnoreSpec.from_lines((folder / name).read_text().splitlines())


def _is_left_out(path: Path, rules: list[tuple[Path, GitIgnoreSpec]]) -> bool:
    ending = "/" if path.is_dir() else ""
    return any(
        spec.match_file(f"{path.relative_to(folder).as_posix()}{ending}") for folder, spec in rules
    )


def _entry(name: str, path: Path) -> Entry:
    about = path.stat()
    # What differs between checkouts, such as the rights of a group, is no part of a package.
    mode = 0o755 if about.st_mode & stat.S_IXUSR else 0o644
    return Entry(name, path, about.st_size, about.st_mtime_ns, stat.S_IFREG | mode)


def _check(source: Source, entries: list[Entry], size: int) -> None:
    if size <= PACKAGE_MAX:
        return
    largest = sorted(entries, key=lambda entry: entry.size, reverse=True)[:_LARGEST]
    message = f"{source.path} makes a package of more than the {PACKAGE_MAX >> 20} MiB allowed"
    details = [f"{entry.size / (1 << 20):.1f} MiB {entry.path}" for entry in largest]
    raise TaskSubmissionError(message, code="TOO_LARGE", details=details, remedy=_remedy())


def _remedy() -> str:
    return (
        "leave files out with runtime_env excludes=[...], .gitignore or .rayignore, or give the "
        "URI of an archive (https, s3, gs)"
    )
