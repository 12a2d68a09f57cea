"""Amounts as people write them: `"4GiB"`, `"2h"`, and plain numbers."""

from __future__ import annotations

import re

from schedulemesh.errors import ConfigurationError

_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_SIZE = re.compile(rf"\s*{_NUMBER}\s*([kKMGTP]?)(i?)[bB]?\s*")
_DURATION_PART = re.compile(rf"{_NUMBER}\s*(ms|s|m|h|d)\s*")
_POWER = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def to_bytes(value: float | str, option: str = "memory") -> int:
    """Return an amount of memory in bytes.

    Args:
        value: A number of bytes, or a text such as `"512MiB"`, `"4Gi"` or `"2GB"`.
        option: What the value belongs to, for the message of an error.

    Raises:
        ConfigurationError: When the text is no amount.
    """
    if not isinstance(value, str):
        return int(value)
    match = _SIZE.fullmatch(value)
    if match is None:
        message = f"{option}={value!r} is no amount of memory"
        raise ConfigurationError(message, remedy='write bytes as a number, or "512MiB", "4GiB"')
    number, prefix, binary = match.groups()
    base = 1_024 if binary else 1_000
    return int(float(number) * base ** _POWER[prefix])


def to_milliseconds(value: float | str, option: str = "timeout") -> int:
    """Return a duration in milliseconds.

    Args:
        value: A number of seconds, or a text such as `"30s"`, `"2h"` or `"1h 30m"`.
        option: What the value belongs to, for the message of an error.

    Raises:
        ConfigurationError: When the text is no duration.
    """
    if not isinstance(value, str):
        return round(value * 1_000)
    text = value.strip()
    parts = _DURATION_PART.findall(text)
    if not parts or _DURATION_PART.sub("", text):
        message = f"{option}={value!r} is no duration"
        raise ConfigurationError(message, remedy='write seconds as a number, or "30s", "1h 30m"')
    return round(sum(float(number) * _MILLISECONDS[unit] for number, unit in parts))
