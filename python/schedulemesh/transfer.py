"""Arguments and values of any size, streamed between the pickler and the control plane."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

from schedulemesh import pickling

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from schedulemesh._native import BlobReader, BlobWriter, Client

_PIECE = 256 << 10


class Outgoing:
    """A file for the pickler: keeps what is small, and uploads from the first byte what is not."""

    def __init__(self, native: Client, inline_max: int) -> None:
        self._native = native
        self._inline_max = inline_max
        self._parts: list[bytes] = []
        self._size = 0
        self._upload: BlobWriter | None = None

    def write(self, data: ReadableBuffer) -> int:
        """Take a piece of the pickle.

        Args:
            data: The piece.
        """
        view = memoryview(data).cast("B")
        size = view.nbytes
        self._size += size
        if self._upload is None:
            if self._size <= self._inline_max:
                self._parts.append(bytes(view))
                return size
            self._upload = self._native.blob_writer()
            for part in self._parts:
                self._upload.write(part)
            self._parts.clear()
        for start in range(0, size, _PIECE):
            self._upload.write(bytes(view[start : start + _PIECE]))
        return size

    def finish(self) -> tuple[bytes | None, tuple[str, int] | None]:
        """Return the bytes, or the id and size of the blob that holds them."""
        if self._upload is None:
            return b"".join(self._parts), None
        return None, self._upload.finish()

    def abort(self) -> None:
        """Give an upload up."""
        if self._upload is not None:
            self._upload.abort()


class Incoming(io.RawIOBase):
    """A blob as a file that the unpickler reads."""

    def __init__(self, reader: BlobReader) -> None:
        super().__init__()
        self._reader = reader
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as one piece reaches.

        Args:
            buffer: Where to put the bytes.
        """
        if not self._rest:
            self._rest = memoryview(self._reader.read())
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Give up what was not read."""
        if not self.closed:
            self._reader.close()
        super().close()


def upload(
    native: Client, inline_max: int, value: Any, what: str
) -> tuple[bytes | None, tuple[str, int] | None]:
    """Pickle a value: into bytes when it is small, else into a blob.

    Args:
        native: Whom to send it to.
        inline_max: Most bytes that are small.
        value: What to pickle.
        what: What it is to the user, for the message of an error.
    """
    file = Outgoing(native, inline_max)
    try:
        pickling.dump(value, file, what)
        return file.finish()
    except BaseException:
        file.abort()
        raise


def download(native: Client, blob: str) -> Any:
    """Return the value whose pickle is in a blob.

    Args:
        native: Whom to ask for it.
        blob: The id of the blob.
    """
    with io.BufferedReader(Incoming(native.blob_reader(blob)), _PIECE) as file:
        return pickle.load(file)  # noqa: S301 - made by the user's own task
