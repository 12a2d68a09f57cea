"""Pickles and unpickles user data in the worker, in pieces where it is large."""

from __future__ import annotations

import importlib.util
import io
import pickle
import sys
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from ray import ObjectRef

    Payload = bytes | list[ObjectRef[bytes]] | None
    """Arguments on the way to a worker: inline, or in the object store in pieces."""
    Packed = bytes | tuple[int, list[ObjectRef[bytes]]] | None
    """A result on the way back: inline, or its size and its pieces."""


PLAIN = frozenset({type(None), bool, int, float, str, bytes})


def load_cloudpickle() -> ModuleType:
    """Import cloudpickle; where it is not installed, the copy that Ray carries takes its name.

    Clients pickle with cloudpickle, so pickles name its functions. What is pickled here must name
    them in the same way, because clients do not have Ray.
    """
    try:
        import cloudpickle  # noqa: PLC0415 - may be missing, which is the point
    except ModuleNotFoundError:
        name = "cloudpickle.cloudpickle"
        source = ray.cloudpickle.cloudpickle.__file__
        spec = importlib.util.spec_from_file_location(name, source)
        if spec is None or spec.loader is None:
            raise
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.modules["cloudpickle"] = module
        spec.loader.exec_module(module)
        return module
    found: ModuleType = cloudpickle
    return found


class Sink(io.RawIOBase):
    """Takes a pickle as it is made; a large one goes to the object store in pieces."""

    PIECE = 4 << 20

    def __init__(self, inline_max: int) -> None:
        super().__init__()
        self._limit = inline_max
        self._parts: list[Any] = []
        self._held = 0
        self._size = 0
        self._refs: list[ObjectRef[bytes]] = []

    def writable(self) -> bool:
        """Say that this can be written."""
        return True

    def write(self, data: Any) -> int:
        """Take the next bytes of the pickle."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), self.PIECE):
            # The pickler uses its buffer again: what is kept must be copied.
            piece = bytes(view[start : start + self.PIECE])
            self._parts.append(piece)
            self._held += len(piece)
            if self._held >= self.PIECE:
                self._flush()
        self._size += len(view)
        return len(view)

    def packed(self) -> Packed:
        """Return the whole pickle."""
        if not self._refs and self._size <= self._limit:
            return b"".join(self._parts)
        self._flush()
        return self._size, self._refs

    def _flush(self) -> None:
        if self._parts:
            self._refs.append(ray.put(b"".join(self._parts)))
            self._parts = []
            self._held = 0


class Source(io.RawIOBase):
    """Gives a pickle that lies in the object store, holding one piece of it at a time."""

    def __init__(self, refs: Sequence[ObjectRef[bytes]]) -> None:
        super().__init__()
        self._refs = list(reversed(refs))
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the current piece goes."""
        if not self._piece and self._refs:
            self._piece = memoryview(ray.get(self._refs.pop()))
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count


def unpack(payload: Payload) -> Any:
    """Unpickle arguments or code."""
    if payload is None:
        return (), {}
    if isinstance(payload, list):
        return pickle.load(io.BufferedReader(Source(payload), 1 << 20))  # noqa: S301 - the user's own
    return pickle.loads(payload)  # noqa: S301 - the user's own


def pack(value: object, inline_max: int) -> Packed:
    """Pickle a result, with plain pickle where that is enough: it is several times faster."""
    if type(value) in PLAIN:
        # Not worth a pickler of its own; what is long is rare among the plainest kinds.
        data = pickle.dumps(value, protocol=5)
        if len(data) <= inline_max:
            return data
    sink = Sink(inline_max)
    try:
        pickle.Pickler(sink, protocol=5).dump(value)
    except Exception:  # noqa: BLE001 - whatever a user's class raises, cloudpickle is tried next
        sink = Sink(inline_max)
        load_cloudpickle().Pickler(sink, protocol=5).dump(value)
    return sink.packed()


def pack_exception(error: BaseException, limit: int) -> bytes | None:
    """Pickle an exception with its causes, or return None where that fails or is too large."""

    class ExceptionPickler(load_cloudpickle().Pickler):  # type: ignore[misc]
        """Adds what Python leaves out: the chain."""

        def reducer_override(self, value: Any) -> Any:
            """Reduce exceptions with their causes in their state."""
            if isinstance(value, BaseException):
                return reduce_exception(value)
            return super().reducer_override(value)

    buffer = io.BytesIO()
    try:
        ExceptionPickler(buffer, protocol=5).dump(error)
        pickle.loads(buffer.getvalue())  # noqa: S301 - made one line above
    except BaseException:  # noqa: BLE001 - the traceback travels as text in any case
        return None
    return buffer.getvalue() if buffer.tell() <= limit else None


def reduce_exception(error: BaseException) -> Any:
    """Reduce an exception so that `__cause__` and `__context__` come back with it."""
    reduced = error.__reduce_ex__(5)
    if not isinstance(reduced, tuple) or len(reduced) > 3:  # noqa: PLR2004 - the reduce protocol
        return reduced
    state = reduced[2] if len(reduced) == 3 else None  # noqa: PLR2004 - the reduce protocol
    if not (state is None or isinstance(state, dict)):
        return reduced
    if type(error).__setstate__ is not BaseException.__setstate__:
        return reduced
    # `BaseException.__setstate__` sets each entry as an attribute, these too.
    chain = {"__cause__": error.__cause__, "__context__": error.__context__}
    chain = {name: link for name, link in chain.items() if link is not None}
    suppress = {"__suppress_context__": True} if error.__suppress_context__ else {}
    return reduced[0], reduced[1], {**(state or {}), **chain, **suppress}
