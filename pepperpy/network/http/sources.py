"""The sources of a body's bytes: memory, a path, an open file of the caller's, an async iterable."""

from __future__ import annotations

import asyncio
import io
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any, cast

from pepperpy.network.errors import InvalidRequestError
from pepperpy.network.http.aiohttp_types import aiohttp, is_stream_reader
from pepperpy.network.http.threads import done, in_endless_thread, in_thread
from pepperpy.network.http.upload import BodyFailed, Closing, Source, Writer
from pepperpy.network.printable import printable
from pepperpy.network.units import KIB

# Bytes to read and send at once. A read in a thread costs 0.1 ms of CPU beside its bytes: 10 MB of a file took 18 ms in
# pieces of 64 KiB, and 9 ms in these (measured).
CHUNK = 256 * KIB

OCTETS = "application/octet-stream"

_TAKEN = "bytes or another bytes-like object, str, os.PathLike, a binary file, an async iterable of bytes"


class BytesSource(Source):
    def __init__(self, data: bytes, content_type: str) -> None:
        super().__init__(content_type, len(data))
        self.data = data

    async def write(self, writer: Writer) -> None:
        view = memoryview(self.data)
        for start in range(0, len(view), CHUNK):
            await writer.write(view[start : start + CHUNK])


class PathSource(Source):
    def __init__(self, path: os.PathLike[Any], content_type: str) -> None:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # Opening a pipe would wait for its other end. A directory is left to open(), which raises.
            raise InvalidRequestError(f"{os.fsdecode(path)!r} is no regular file; open it, and give the open file")
        with open(path, "rb", buffering=0) as file:
            super().__init__(content_type, _size(file, 0))
        self._path = path

    async def write(self, writer: Writer) -> None:
        # Opened for each write, so that only the task that reads uses it.
        with open(self._path, "rb", buffering=0) as file:
            await _copy(file, self.size, writer, wait=True)


class FileSource(Source):
    def __init__(self, file: Any, start: int | None, size: int | None, content_type: str) -> None:
        super().__init__(content_type, size)
        self._file = file
        self._start = start  # where to begin; None: the file cannot be read again

    async def write(self, writer: Writer) -> None:
        if self._start is not None:
            await done(in_thread(self._file.seek, self._start))
        await _copy(self._file, self.size, writer, wait=self._start is not None)


class ChunksSource(Source):
    def __init__(self, chunks: AsyncIterable[Any], content_type: str) -> None:
        super().__init__(content_type, None)
        self._chunks = chunks

    async def write(self, writer: Writer) -> None:
        async with Closing(self._chunks) as iterator:
            async for chunk in iterator:
                await writer.write(as_bytes(chunk))


class FormSource(Source):
    """The parts of a multipart/form-data body (RFC 7578)."""

    def __init__(self, boundary: str, parts: Iterable[tuple[Source, str]]) -> None:
        """Args: parts: Each with its Content-Disposition, in which names are UTF-8, as browsers send them."""
        self._parts: list[tuple[bytes, Source]] = []
        self._end = f"--{boundary}--\r\n".encode()
        size: int | None = len(self._end)
        for source, disposition in parts:
            # A field has none, as from browsers: some servers take a field with a type for a file.
            kind = f"Content-Type: {source.content_type}\r\n" if source.content_type else ""
            head = f"--{boundary}\r\n{kind}Content-Disposition: {disposition}\r\n\r\n".encode()
            self._parts.append((head, source))
            size = None if size is None or source.size is None else size + len(head) + source.size + len(b"\r\n")
        super().__init__(f"multipart/form-data; boundary={boundary}", size)

    async def write(self, writer: Writer) -> None:
        for head, source in self._parts:
            await writer.write(head)
            await source.write(writer)
            await writer.write(b"\r\n")
        await writer.write(self._end)


def open_source(what: str, value: Any, also: str = "") -> tuple[Callable[[str], Source], bool, str | None]:
    """A function that makes the source of `value` from a content type; whether it can do so again; the file's name."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return partial(BytesSource, bytes(value)), True, None
    if isinstance(value, str):
        return partial(BytesSource, encode(what, value)), True, None
    if isinstance(value, os.PathLike):
        return partial(PathSource, value), True, os.path.basename(os.fsdecode(value))
    if isinstance(value, asyncio.StreamReader) or is_stream_reader(value):
        # Iterating over a StreamReader would give lines, up to its limit.
        value = _read_all(value)
    if isinstance(value, AsyncIterable):
        return partial(ChunksSource, value), aiter(value) is not value, None
    if callable(getattr(value, "read", None)):
        _check_file(what, value)
        start = _position(value)
        size = None if start is None else _size(value, start)
        name: Any = getattr(value, "name", None)
        if not isinstance(name, str) or name.startswith("<"):
            # The name of a descriptor is its number, that of a standard stream "<stdin>".
            name = ""
        return partial(FileSource, value, start, size), start is not None, os.path.basename(name) or None
    if (content := bytes_of(value)) is not None:
        return partial(BytesSource, content), True, None
    raise TypeError(f"{what} must be {_TAKEN}{also}, not {type(value).__name__}")


def _check_file(what: str, file: Any) -> None:
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        raise TypeError(f"{what} must be a file opened in binary mode ('rb'), not in text mode")
    if getattr(file, "closed", False):
        raise InvalidRequestError(f"{what} is a closed file")
    if (readable := getattr(file, "readable", None)) is not None and not readable():
        raise InvalidRequestError(f"{what} is a file that is not open for reading")


def _position(file: Any) -> int | None:
    try:
        return cast(int, file.tell()) if file.seekable() else None
    except (AttributeError, OSError):
        return None


def _size(file: Any, start: int) -> int | None:
    """Bytes from `start` to the end of a seekable file; None if only reading them would tell."""
    import tempfile  # here, as it loads what compresses: most programs send no file

    # Files of other types may read, or decompress, everything to find their end: gzip.GzipFile does.
    if not isinstance(getattr(file, "raw", file), (io.FileIO, io.BytesIO, tempfile.SpooledTemporaryFile)):
        return None
    size: int | None = max(file.seek(0, os.SEEK_END) - start, 0)
    file.seek(start)
    if size == 0 and file.read(1):
        # Files of /proc and devices report 0, whatever they hold.
        file.seek(start)
        return None
    return size


async def _copy(file: Any, size: int | None, writer: Writer, *, wait: bool) -> None:
    """Send `size` bytes of `file`, None for all. Bytes that were appended since it was measured are left out.

    Args:
        wait: Whether a cancellation waits for the read under way. Not for a pipe, whose read may last for ever.
    """
    left = size
    while left is None or left > 0:
        wanted = CHUNK if left is None else min(CHUNK, left)
        data = as_bytes(await (done(in_thread(file.read, wanted)) if wait else in_endless_thread(file.read, wanted)))
        if not data:
            break
        await writer.write(data)
        if left is not None:
            left -= len(data)
    if left:
        raise BodyFailed(f"the file ended {left} bytes before the {size} announced: it was changed meanwhile")


async def _read_all(reader: asyncio.StreamReader | aiohttp.StreamReader) -> AsyncIterator[bytes]:
    while chunk := await reader.read(CHUNK):
        yield chunk


def path_and_reason(error: OSError | ValueError, path: Any) -> str:
    """The path of a user's file, and why it cannot be used."""
    why = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    named = isinstance(path, (str, bytes, os.PathLike))
    return f"'{printable(os.fsdecode(path))}': {why}" if named else f"a file: {why}"


def as_bytes(chunk: Any) -> bytes:
    if isinstance(chunk, bytes):
        return chunk
    # A copy: the transport may still hold the piece when the source fills its buffer again.
    if (content := bytes_of(chunk)) is None:
        raise TypeError(f"the body's source must give bytes-like objects, not {type(chunk).__name__}")
    return content


def bytes_of(value: Any) -> bytes | None:
    """A copy of a bytes-like object, whatever the size of its items is; None: it is none."""
    try:
        with memoryview(value) as view:
            return view.tobytes()
    except TypeError:
        return None


def encode(what: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{what} has text that UTF-8 cannot hold: {error.reason}", cause=error) from error


def guess_type(name: str) -> str:
    import mimetypes  # here, as it is only needed for files

    kind, encoding = mimetypes.guess_type(name)
    # With an encoding, as for "a.tar.gz", `kind` is the type of what is compressed.
    return kind if kind and not encoding else OCTETS
