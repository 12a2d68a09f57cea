"""Functions and arguments as bytes.

Code is pickled by value when the cluster could not import it: from `__main__`, and from modules of
yours that are not installed. The pickle of a function is kept and used again for as long as nothing
that the function captures has changed.
"""

from __future__ import annotations

import inspect
import pickle
import site
import sys
import sysconfig
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle

from schedulemesh._native import Code
from schedulemesh.errors import TaskSubmissionError, UnpicklableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PROTOCOL = 5
"""The pickle protocol of everything that is sent."""

CODE_MAX = 8 << 20
"""Most bytes of the pickle of a function or a class; no server takes more."""

_CACHE_MAX = 512
_DEPTH_MAX = 12
_PLAIN = frozenset({int, float, complex, str, bytes, bool, type(None)})
_MISSING = object()
_SHORT_MAX = 64 << 10

_installed: tuple[str, ...] | None = None
_ours = ("schedulemesh", "ray_multicluster_scheduler")


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, unused-ignore]
    """Pickles by value whatever the cluster could not import."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | types.FunctionType | types.ModuleType):
            module = obj.__name__ if isinstance(obj, types.ModuleType) else obj.__module__
            _carry(module)
        return super().reducer_override(obj)


def _carry(module_name: str | None) -> None:
    """Have a module of the user's, which is not installed, travel by value."""
    if not module_name:
        return
    top = module_name.partition(".")[0]
    if top in _known or top in _ours:
        return
    module = sys.modules.get(top)
    if module is not None and not _is_installed(module):
        cloudpickle.register_pickle_by_value(module)
    _known.add(top)


_known: set[str] = {"__main__", "builtins"}


def _is_installed(module: types.ModuleType) -> bool:
    """Whether a module came with Python or with a package."""
    global _installed  # noqa: PLW0603 - found once, because finding it costs milliseconds
    if _installed is None:
        names = ("stdlib", "platstdlib", "purelib", "platlib")
        paths = {sysconfig.get_path(name) for name in names}
        paths.update(site.getsitepackages())
        paths.add(site.getusersitepackages())
        _installed = tuple(str(Path(path).resolve()) for path in paths if path)
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    found = [str(Path(place).resolve()) for place in places if place]
    return not found or any(place.startswith(_installed) for place in found)


class CodeCache:
    """Pickles of functions and classes, each kept for as long as it is what pickling would give."""

    def __init__(self) -> None:
        self._entries: dict[types.FunctionType, tuple[list[_Capture], Code]] = {}

    def code(self, target: Callable[..., Any]) -> Code:
        """Return the pickle of a function or a class.

        Args:
            target: The function or class.

        Raises:
            UnpicklableError: When it cannot be pickled.
            TaskSubmissionError: When its pickle is too large.
        """
        if type(target) is not types.FunctionType:
            return _code(target, "the class" if isinstance(target, type) else "the callable")
        entry = self._entries.get(target)
        if entry is not None:
            for capture in entry[0]:
                if not capture.same():
                    break
            else:
                return entry[1]
        code = _code(target, f"function {target.__qualname__}")
        captures: list[_Capture] = []
        if _collect(target, captures, set()):
            if len(self._entries) >= _CACHE_MAX:
                self._entries.clear()
            self._entries[target] = (captures, code)
        return code


def _code(target: Any, what: str) -> Code:
    pickled = dumps(target, what)
    if len(pickled) > CODE_MAX:
        raise TaskSubmissionError(
            f"{what}, with all that it captures, is {len(pickled)} bytes when pickled;"
            f" {CODE_MAX} are allowed",
            code="TOO_LARGE",
            remedy="pass large data as an argument instead of capturing it",
        )
    return Code(pickled)


class _Capture:
    """One thing that a function captures: where it is found, and what was found there."""

    __slots__ = ("name", "place", "value")

    def __init__(self, place: Any, name: str, value: Any) -> None:
        self.place = place
        self.name = name
        self.value = value

    def same(self) -> bool:
        """Whether the same is found there now."""
        place = self.place
        if type(place) is dict:
            return place.get(self.name, _MISSING) is self.value
        return getattr(place, self.name, _MISSING) is self.value


def _collect(function: types.FunctionType, captures: list[_Capture], seen: set[int]) -> bool:
    """Collect what a function captures; `False` when some of it may change in place."""
    if id(function) in seen:
        return True
    seen.add(id(function))
    if function.__dict__:
        return False
    own = ("__code__", "__defaults__", "__kwdefaults__")
    captures.extend(_Capture(function, name, getattr(function, name)) for name in own)
    if not _is_stable(function.__defaults__, captures, seen) or function.__kwdefaults__:
        return False
    for name in _global_names(function.__code__):
        value = function.__globals__.get(name, _MISSING)
        captures.append(_Capture(function.__globals__, name, value))
        if value is not _MISSING and not _is_stable(value, captures, seen):
            return False
    for cell in function.__closure__ or ():
        value = getattr(cell, "cell_contents", _MISSING)
        captures.append(_Capture(cell, "cell_contents", value))
        if value is not _MISSING and not _is_stable(value, captures, seen):
            return False
    return True


def _is_stable(value: Any, captures: list[_Capture], seen: set[int]) -> bool:
    """Whether a value stays what it is while it is the same object."""
    kind = type(value)
    if kind in _PLAIN or kind is types.BuiltinFunctionType:
        return True
    if kind is tuple:
        return all(_is_stable(item, captures, seen) for item in value)
    if kind is types.ModuleType or isinstance(value, type):
        module = sys.modules.get(value.__name__ if kind is types.ModuleType else value.__module__)
        return module is not None and module.__name__ != "__main__" and _is_installed(module)
    if kind is types.FunctionType:
        module = sys.modules.get(value.__module__ or "")
        if module is not None and module.__name__ != "__main__" and _is_installed(module):
            return True
        return _collect(value, captures, seen)
    return False


def _global_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def dumps(value: Any, what: str) -> bytes:
    """Return the pickle of something small enough to be held in memory twice.

    Args:
        value: What to pickle.
        what: What it is to the user, for the message of an error.

    Raises:
        UnpicklableError: When it cannot be pickled.
    """
    sink = _Sink()
    dump(value, sink, what)
    return b"".join(sink.parts)


class _Sink:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        return len(data)


def dump(value: Any, file: Any, what: str) -> None:
    """Write the pickle of something of any size.

    Args:
        value: What to pickle.
        file: Where to write.
        what: What it is to the user, for the message of an error.

    Raises:
        UnpicklableError: When it cannot be pickled.
    """
    try:
        _Pickler(file, PROTOCOL).dump(value)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise unpicklable(value, what, error) from error


def dump_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes | None:
    """Return the pickle of arguments of the plainest kinds; `None` for all others.

    Args:
        args: The positional arguments.
        kwargs: The keyword arguments.
    """
    for value in args:
        if not _is_plain(value):
            return None
    for value in kwargs.values():
        if not _is_plain(value):
            return None
    return pickle.dumps((args, kwargs), PROTOCOL)


def _is_plain(value: Any) -> bool:
    kind = type(value)
    # What is long is streamed, so that it is not in memory twice.
    return kind in _PLAIN and ((kind is not bytes and kind is not str) or len(value) <= _SHORT_MAX)


def unpicklable(value: Any, what: str, error: BaseException) -> UnpicklableError:
    """Return the error for something that cannot be pickled, with the path to the culprit.

    Args:
        value: What was to be pickled.
        what: What it is to the user.
        error: What the pickler said.
    """
    path, culprit = _culprit(value, "", 0)
    place = f"{what}{path}" if path.startswith("[") or not path else f"{what}: {path.lstrip('.')}"
    kind = f"{type(culprit).__module__}.{type(culprit).__qualname__}"
    return UnpicklableError(
        f"{place} ({kind}) cannot be pickled: {error}",
        remedy="pass what it is made from, and make it inside the function",
    )


def _culprit(value: Any, path: str, depth: int) -> tuple[str, Any]:
    """Find the innermost part that cannot be pickled."""
    if depth < _DEPTH_MAX:
        for name, part in _parts(value):
            if not _picklable(part):
                return _culprit(part, path + name, depth + 1)
    return path, value


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    """Return the parts of a value, each with how one gets to it."""
    if isinstance(value, dict):
        return [(f"[{key!r}]", item) for key, item in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    if isinstance(value, types.FunctionType):
        names = [name for name in _global_names(value.__code__) if name in value.__globals__]
        captured = dict(inspect.getclosurevars(value).nonlocals)
        captured |= {name: value.__globals__[name] for name in names}
        return [(f".{name}", item) for name, item in captured.items()]
    if isinstance(value, type | types.ModuleType):
        return []
    return [(f".{name}", item) for name, item in getattr(value, "__dict__", {}).items()]


def _picklable(value: Any) -> bool:
    try:
        _Pickler(_Sink(), PROTOCOL).dump(value)
    except Exception:  # noqa: BLE001 - whatever a pickler may raise means no
        return False
    return True
