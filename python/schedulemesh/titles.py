"""What people call what is run, where they gave it no name of their own."""

from __future__ import annotations

from typing import Any

_BYTES_MAX = 128


def title_of(target: Any) -> str | None:
    """Return what to call a function, a class, a method's name or a shell command.

    Args:
        target: What is run.
    """
    if isinstance(target, str):
        title = " ".join(target.split())
    else:
        title = getattr(target, "__qualname__", None) or type(target).__qualname__
        title = title.rpartition("<locals>.")[2]
    if len(title) > _BYTES_MAX or not title.isascii():
        title = title.encode()[:_BYTES_MAX].decode(errors="ignore")
    return title if title.isprintable() else None
