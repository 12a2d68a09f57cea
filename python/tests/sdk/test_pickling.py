"""Pickling: code is kept while it is what pickling would give, and no longer."""

from __future__ import annotations

import pickle
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from schedulemesh.errors import TaskSubmissionError, UnpicklableError
from schedulemesh.pickling import CODE_MAX, CodeCache, dump_arguments, dumps

if TYPE_CHECKING:
    from pathlib import Path

factor = 2
shared: list[int] = []


def scaled(value: int) -> int:
    return value * factor


def outer(value: int) -> int:
    return scaled(value) + 1


def remembers(value: int) -> list[int]:
    return [*shared, value]


def test_a_function_is_pickled_once() -> None:
    cache = CodeCache()
    assert cache.code(outer) is cache.code(outer)


def test_a_changed_global_is_seen_even_through_another_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = CodeCache()
    before = cache.code(outer)
    monkeypatch.setitem(globals(), "factor", 3)
    after = cache.code(outer)
    assert after.digest != before.digest
    monkeypatch.setitem(globals(), "factor", 2)
    assert cache.code(outer).digest == before.digest


def test_what_may_change_in_place_is_pickled_each_time() -> None:
    cache = CodeCache()
    before = cache.code(remembers).digest
    shared.append(1)
    try:
        assert cache.code(remembers).digest != before
    finally:
        shared.clear()


def test_a_changed_closure_is_seen() -> None:
    cache = CodeCache()
    count = 1

    def counted() -> int:
        return count

    before = cache.code(counted).digest
    count = 2
    assert cache.code(counted).digest != before


@pytest.mark.parametrize("attribute", ["__defaults__", "__code__"])
def test_a_changed_function_is_seen(attribute: str) -> None:
    def one(value: int = 1) -> int:
        return value

    def two(value: int = 2) -> int:
        return -value

    cache = CodeCache()
    before = cache.code(one).digest
    setattr(one, attribute, getattr(two, attribute))
    assert cache.code(one).digest != before


def test_a_module_that_is_not_installed_travels_by_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only_here.py").write_text(
        "OFFSET = 40\n\nclass Point:\n    x = 1\n\ndef shifted(value):\n    return value + OFFSET\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here  # type: ignore[import-not-found] # noqa: PLC0415 - made above

    function, value = dumps(only_here.shifted, "it"), dumps([only_here.Point()], "it")
    monkeypatch.delitem(sys.modules, "only_here")
    (tmp_path / "only_here.py").unlink()
    assert pickle.loads(function)(2) == 42
    assert pickle.loads(value)[0].x == 1


def test_installed_code_travels_by_name() -> None:
    assert b"yaml" in dumps(__import__("yaml").safe_load, "it")
    assert len(dumps(__import__("yaml").safe_load, "it")) < 100


@pytest.mark.parametrize("value", [1, 1.5, "a", b"a", None, True])
def test_plain_arguments_take_the_short_way(value: Any) -> None:
    data = dump_arguments((value,), {"key": value})
    assert data is not None
    assert pickle.loads(data) == ((value,), {"key": value})


@pytest.mark.parametrize("value", [scaled, types, [scaled], int])
def test_other_arguments_do_not(value: Any) -> None:
    assert dump_arguments((value,), {}) is None


def test_a_deep_culprit_is_named() -> None:
    class Holder:
        def __init__(self) -> None:
            self.frame = sys._getframe()

    with pytest.raises(UnpicklableError, match=r"the arguments\[0\]\.frame \(builtins.frame\)"):
        dumps([Holder()], "the arguments")


def test_a_function_that_captures_too_much_is_refused_before_it_is_sent() -> None:
    table = b"x" * CODE_MAX

    def look() -> int:
        return len(table)

    with pytest.raises(TaskSubmissionError, match="look, with all that it captures") as caught:
        CodeCache().code(look)
    assert caught.value.code == "TOO_LARGE"
    assert "as an argument" in caught.value.remedy
