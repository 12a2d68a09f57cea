"""Keeps the tail of what each task prints, while it still goes where it went before."""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import Any


class Tail:
    """Is the end of what a task printed."""

    __slots__ = ("_held", "_limit", "_parts")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: deque[str] = deque()
        self._held = 0

    def add(self, text: str) -> None:
        """Append what was printed."""
        text = text[-self._limit :]
        self._parts.append(text)
        self._held += len(text)
        while self._held - len(self._parts[0]) >= self._limit:
            self._held -= len(self._parts.popleft())

    def text(self) -> str:
        """Return what is kept."""
        return "".join(self._parts)[-self._limit :]


class Tee:
    """Stands in for `sys.stdout` or `sys.stderr` and lets the current task's tail hear it too.

    Output of threads that a task starts is counted to the task that runs at that moment, of several
    to the one that began last. Output of child processes is not heard: it goes to the worker's log
    file only.
    """

    def __init__(self, stream: Any, outputs: Outputs) -> None:
        self._stream = stream
        self._outputs = outputs

    def write(self, text: str) -> int:
        """Write through and keep."""
        tail = self._outputs.tail()
        if tail is not None:
            tail.add(text)
        return int(self._stream.write(text) or len(text))

    def writelines(self, lines: Any) -> None:
        """Write through and keep, line by line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Be like the stream in everything else."""
        return getattr(self._stream, name)


class Outputs:
    """Puts the tees in place and holds the tails of the tasks that run now."""

    def __init__(self) -> None:
        self._by_thread: dict[int, Tail] = {}
        self._latest: Tail | None = None

    def begin(self, tail: Tail) -> None:
        """Count what this thread prints to a tail from now on."""
        self._by_thread[threading.get_ident()] = self._latest = tail

    def end(self, tail: Tail) -> None:
        """Do so no longer."""
        self._by_thread.pop(threading.get_ident(), None)
        if self._latest is tail:
            self._latest = None

    def tail(self) -> Tail | None:
        """Return where what is printed in this thread belongs."""
        return self._by_thread.get(threading.get_ident(), self._latest)

    def install(self) -> None:
        """Listen to this process from now on."""
        sys.stdout = Tee(sys.stdout, self)
        sys.stderr = Tee(sys.stderr, self)
