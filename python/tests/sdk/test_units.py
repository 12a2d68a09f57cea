"""Amounts as people write them."""

from __future__ import annotations

import pytest
from schedulemesh.errors import ConfigurationError
from schedulemesh.units import to_bytes, to_milliseconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [(7, 7), ("7", 7), ("7B", 7), ("1k", 1_000), ("1.5 KiB", 1_536), ("4GiB", 4 << 30),
     ("4Gi", 4 << 30), ("2GB", 2_000_000_000), ("1T", 10**12)],
)  # fmt: skip
def test_memory(text: str | int, expected: int) -> None:
    assert to_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(1.5, 1_500), ("250ms", 250), ("30s", 30_000), ("1h 30m", 5_400_000), ("1h30m", 5_400_000),
     ("2d", 172_800_000)],
)  # fmt: skip
def test_durations(text: str | float, expected: int) -> None:
    assert to_milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "much", "4 apples", "GiB", "-1"])
def test_what_is_no_amount_is_told(text: str) -> None:
    with pytest.raises(ConfigurationError, match="memory="):
        to_bytes(text)
    with pytest.raises(ConfigurationError, match="timeout="):
        to_milliseconds(text)
