"""Frames of the agent link: MessagePack maps, as `crates/mesh-api/src/agent.rs` defines them."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]

from schedulemesh.agent import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PROTOCOL = 1

Key = tuple[int, int]
"""A task and its attempt: the fencing token."""

_REPORT_HEAD = b"\x81\xa6report\x82\xa3seq"
_ITEMS = b"\xa5items"
_packer = msgpack.Packer(use_bin_type=True, autoreset=True)


class BadFrame(Exception):  # noqa: N818 - says what was received
    """Says that the other side sent something that is not a frame."""


def encode(kind: str, body: object) -> bytes:
    """Encode a frame."""
    return bytes(_packer.pack({kind: body}))


def decode(data: bytes) -> tuple[str, Any]:
    """Decode a frame into its kind and its body."""
    try:
        frame = msgpack.unpackb(data, raw=False, strict_map_key=False)
    except Exception as error:
        raise BadFrame(f"{len(data)} bytes are not MessagePack: {error}") from error
    return one_of(frame)


def one_of(value: object) -> tuple[str, Any]:
    """Read an enum: a name, or a map with one entry."""
    if isinstance(value, str):
        return value, None
    if isinstance(value, dict) and len(value) == 1:
        ((name, body),) = value.items()
        if isinstance(name, str):
            return name, body
    raise BadFrame(f"expected one of several kinds, got {type(value).__name__}")


def hello(
    cluster: str, incarnation: str, ray_version: str, held: Iterable[Key], nodes: Sequence[Any]
) -> bytes:
    """Encode the first frame."""
    body = {
        "protocol": PROTOCOL,
        "cluster": cluster,
        "incarnation": incarnation,
        "version": __version__,
        "python": platform.python_version(),
        "ray": ray_version,
        "platform": f"{os.uname().sysname.lower()} {os.uname().machine}",
        "held": [{"task": task, "attempt": attempt} for task, attempt in held],
        "nodes": list(nodes),
    }
    return encode("hello", body)


def item(key: Key, what: object) -> bytes:
    """Encode one report, to be joined with others by `report`."""
    return bytes(_packer.pack({"task": key[0], "attempt": key[1], "what": what}))


def report(seq: int, items: Sequence[bytes]) -> bytes:
    """Encode a frame of reports, the first of which has the number `seq`."""
    head = _REPORT_HEAD + _packer.pack(seq) + _ITEMS
    count = len(items)
    array = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")  # noqa: PLR2004
    return bytes(head + array + b"".join(items))
