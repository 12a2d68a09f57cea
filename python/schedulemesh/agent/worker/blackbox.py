"""Remembers what a worker has done, in a file that outlives it.

The results of a batch are lost when the process dies before it has handed them over. The file says
what was finished, so that only the one that killed the worker fails, and nothing runs twice.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

LENGTH_BYTES = 4
NAME = re.compile(r"schedulemesh-(\d+)-[0-9a-f]+\.[01]")


def box_folder() -> Path:
    """Return where boxes are: in memory where that is possible."""
    shared = Path("/dev/shm")  # noqa: S108 - names are random, files private
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


class BlackBox:
    """Is the writer: two files in turn, because two batches may be on their way back at once."""

    RECORD_MAX = 64 << 10

    def __init__(self) -> None:
        folder = box_folder()
        sweep(folder)
        stem = f"schedulemesh-{os.getpid()}-{os.urandom(8).hex()}"
        self.paths = [str(folder / f"{stem}.{turn}") for turn in (0, 1)]
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        self._files = [os.open(path, flags, 0o600) for path in self.paths]
        self._file = self._files[0]
        self.silent = False

    def begin(self, batch: int) -> None:
        """Start a batch, over the one before the last."""
        self._file = self._files[batch % 2]
        os.ftruncate(self._file, 0)
        self._write(("begun", batch))

    def add(self, result: tuple[Any, ...]) -> None:
        """Write down a result; of one that lies in the object store, only that it is lost."""
        try:
            self._write(result)
        except ValueError:
            self._write((result[0], result[1], "lost", result[3], None, None, ""))

    def _write(self, record: tuple[Any, ...]) -> None:
        if self.silent:
            return
        body = marshal.dumps(record)
        if len(body) > self.RECORD_MAX:
            raise ValueError
        # A full disk costs exactness after a death, nothing else.
        with contextlib.suppress(OSError):
            os.write(self._file, len(body).to_bytes(LENGTH_BYTES, "little") + body)


def read_boxes(paths: list[str], *, remove: bool) -> tuple[list[int], list[tuple[Any, ...]]] | None:
    """Return which batches were begun and which results they had; None when nothing is there."""
    begun: list[int] = []
    results: list[tuple[Any, ...]] = []
    found = False
    for path in paths:
        try:
            data = Path(path).read_bytes()
        except OSError:
            continue
        found = True
        for record in read_records(data):
            if record[0] == "begun":
                begun.append(record[1])
            else:
                results.append(record)
    if remove:
        remove_boxes(paths)
    return (begun, results) if found else None


def read_records(data: bytes) -> list[tuple[Any, ...]]:
    """Return the whole records of a box; the last one may be torn."""
    records = []
    at = 0
    while at + LENGTH_BYTES <= len(data):
        length = int.from_bytes(data[at : at + LENGTH_BYTES], "little")
        at += LENGTH_BYTES
        if at + length > len(data):
            break
        records.append(marshal.loads(data[at : at + length]))  # noqa: S302 - our own file
        at += length
    return records


def remove_boxes(paths: list[str]) -> None:
    """Remove the files."""
    for path in paths:
        with contextlib.suppress(OSError):
            Path(path).unlink()


def sweep(folder: Path) -> None:
    """Remove boxes whose worker is gone and which no agent came to read."""
    for path in folder.glob("schedulemesh-*.[01]"):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        try:
            os.kill(int(match[1]), 0)
        except ProcessLookupError:
            # A fresh one may still be read: its agent comes within seconds.
            remove_if_old(path)
        except OSError:
            continue


def remove_if_old(path: Path) -> None:
    """Remove a box that nobody has written to for ten minutes."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > 600:  # noqa: PLR2004 - ten minutes
            path.unlink()
