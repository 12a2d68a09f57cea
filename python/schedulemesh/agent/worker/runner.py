"""The warm worker: a Ray actor that runs functions, of any lease of its shape, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schedulemesh.agent.worker.codec import unpack
from schedulemesh.agent.worker.lane import Lane, attempt_to_read

if TYPE_CHECKING:
    from collections.abc import Callable


class Runner(Lane):
    """Runs functions. Code is sent once and unpickled once."""

    def __init__(self, cluster: str) -> None:
        super().__init__(cluster)
        self._code: dict[str, Any] = {}
        self._functions: dict[str, Callable[..., object]] = {}

    def prepare(self, extra: dict[str, Any]) -> None:
        """Take code that this worker has not seen: its pickle by its digest."""
        self._code.update(extra)

    def perform(self, what: str, payload: Any) -> object:
        """Call a function, by the digest of its code."""
        function = self._functions.get(what)
        if function is None:
            function = attempt_to_read("the function", lambda: unpack(self._code[what]))
            self._functions[what] = function
        args, kwargs = attempt_to_read("the arguments", lambda: unpack(payload))
        return function(*args, **kwargs)
