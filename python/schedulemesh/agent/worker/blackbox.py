"""Remembers what a worker has done, in a file that outlives it.

The results of a batch are lost when the process dies before it has handed them over. The file says
what was finished, so that only the one that killed the worker fails, and nothing runs twice.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import re
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

# Before each record: its length, 0 for the end, and its checksum.
HEAD = "<II"
HEAD_BYTES = 8
END = bytes(HEAD_BYTES)
NAME = re.compile(r"schedulemesh-(\d+)-[0-9a-f]+\.[01]")


def box_folder() -> Path:
    """Return where boxes are: in memory where that is possible."""
    shared = Path("/dev/shm")  # noqa: S108 - names are random, files private
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


class BlackBox:
    """Is the writer: two files in turn, because two batches may be on their way back at once.

    A batch is written over an older one, which is several times faster than to empty the file
    first. So a checksum, which begins with the batch's number, tells its records from what is left
    of others, and from one during whose writing the process was killed.
    """

    RECORD_MAX = 64 << 10
    # What a file may keep of the memory that it has had.
    KEPT_MAX = 1 << 20

    def __init__(self) -> None:
        folder = box_folder()
        sweep(folder)
        stem = f"schedulemesh-{os.getpid()}-{os.urandom(8).hex()}"
        self.paths = [str(folder / f"{stem}.{turn}") for turn in (0, 1)]
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        self._files = [os.open(path, flags, 0o600) for path in self.paths]
        self._file = self._files[0]
        self._at = self._batch = 0
        self.silent = False

    def begin(self, batch: int) -> None:
        """Start a batch, over the one before the last."""
        self._file = self._files[batch % 2]
        if os.fstat(self._file).st_size > self.KEPT_MAX:
            os.ftruncate(self._file, 0)
        self._at = self._batch = 0
        self._write(("begun", batch))
        self._batch = batch

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
            packed = struct.pack(HEAD, len(body), zlib.crc32(body, self._batch)) + body
            if os.pwrite(self._file, packed + END, self._at) == len(packed) + len(END):
                self._at += len(packed)


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
    records: list[tuple[Any, ...]] = []
    at = batch = 0
    while at + HEAD_BYTES <= len(data):
        length, checksum = struct.unpack_from(HEAD, data, at)
        at += HEAD_BYTES
        body = data[at : at + length]
        if not length or len(body) < length or zlib.crc32(body, batch) != checksum:
            break
        records.append(marshal.loads(body))  # noqa: S302 - our own file
        batch = records[0][1]
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
