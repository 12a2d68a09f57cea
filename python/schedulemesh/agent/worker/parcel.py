"""Batches and their results as one value of bytes, which Ray carries faster than nested ones.

A quarter of a millisecond faster for a single task: Ray pickles each argument on its own.
"""

from __future__ import annotations

import marshal
from typing import Any

VERSION = 4


def wrap(value: Any) -> Any:
    """Make bytes of a value; one with parts that only Ray can carry stays as it is."""
    try:
        return marshal.dumps(value, VERSION)
    except ValueError:
        # It has a reference into the object store, which Ray has to see in order to count it.
        return value


def unwrap(value: Any) -> Any:
    """Undo `wrap`."""
    return marshal.loads(value) if isinstance(value, bytes) else value  # noqa: S302 - our own
