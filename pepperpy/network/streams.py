"""asyncio's streams over the compiled core, for code that cannot be rewritten for `NetworkClient`.

`open_connection()`, `open_unix_connection()`, `start_server()` and `start_unix_server()` take the arguments of
asyncio's functions of these names. They give a `StreamReader` and a `StreamWriter`, which are subclasses of asyncio's:
the same methods, results, errors and limits, as the asyncio of the running interpreter has them. Lines, records and
small writes cost a fraction (docs/streams.md has the figures).

What differs: a task that waits for bytes runs inside the loop's read callback, and small writes of one turn of the loop
leave together (`StreamWriter`). asyncio's private attributes are not there.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pepperpy.network._core.reader_core import ReaderCore
from pepperpy.network._core.writer_core import WriterCore

__all__ = ["StreamReader", "StreamWriter", "open_connection", "start_server"]
if hasattr(socket, "AF_UNIX"):
    __all__ += ["open_unix_connection", "start_unix_server"]

_DEFAULT_LIMIT = 2**16  # bytes; asyncio's
# asyncio's readuntil() takes several since 3.13.
_SEVERAL_SEPARATORS = sys.version_info >= (3, 13)

_Connected = Callable[["StreamReader", "StreamWriter"], Awaitable[None] | None]


class StreamReader(asyncio.StreamReader):
    """`asyncio.StreamReader` over the compiled core.

    Cancellation: A read that is cancelled has taken nothing. asyncio's `read()` of everything drops what it had.

    Args:
        limit: Bytes of the longest line, its end not counted. Reading pauses when twice as many are unread.
        loop: The loop that it is used in; None: the running one.
    """

    def __init__(self, limit: int = _DEFAULT_LIMIT, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(limit, loop)
        asyncios = vars(self)
        self._core = ReaderCore(asyncios["_loop"], limit)
        self._shown_limit = limit
        # Code that uses asyncio's private buffer fails at once, rather than find it empty.
        for name in asyncios.keys() - {"_core", "_shown_limit", "_source_traceback"}:
            delattr(self, name)

    def __repr__(self) -> str:
        core = self._core
        words = ["StreamReader"]
        if core.unread:
            words.append(f"{core.unread} bytes")
        if core.ended:
            words.append("eof")
        if self._shown_limit != _DEFAULT_LIMIT:
            words.append(f"limit={self._shown_limit}")
        if core.waiter is not None:
            words.append(f"waiter={core.waiter!r}")
        if core.exception is not None:
            words.append(f"exception={core.exception!r}")
        if core.transport is not None:
            words.append(f"transport={core.transport!r}")
        if core.paused:
            words.append("paused")
        return f"<{' '.join(words)}>"

    def __del__(self) -> None:
        # asyncio's protocol drops what comes for a reader that is gone, and finds the end of the stream.
        if hasattr(self, "_core"):
            self._core.stop_listening()

    # ---- Reading ----

    async def read(self, n: int = -1) -> bytes:
        core = self._core
        if n < 0:
            while (data := core.take_all()) is None:
                await core.wait_all()
            return data
        while (data := core.take(n)) is None:
            await core.wait()
        return data

    async def readline(self) -> bytes:
        core = self._core
        try:
            while (line := core.take_until(b"\n")) is None:
                await core.wait_until(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial
        except asyncio.LimitOverrunError as error:
            core.drop_line(error.consumed)
            raise ValueError(error.args[0])  # noqa: B904  as asyncio's
        return line

    async def readexactly(self, n: int) -> bytes:
        core = self._core
        while (data := core.take_exactly(n)) is None:
            await core.wait_exactly(n)
        return data

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        core = self._core
        if type(separator) is tuple and _SEVERAL_SEPARATORS:
            separators = sorted(map(_as_separator, separator), key=len)
            if not separators:
                raise ValueError("Separator should contain at least one element")
            while (data := core.take_until_any(separators)) is None:
                await core.wait_more()
            return data
        separator = _as_separator(separator)
        while (data := core.take_until(separator)) is None:
            await core.wait_until(separator)
        return data

    def at_eof(self) -> bool:
        return self._core.ended and not self._core.unread

    # ---- Feeding ----

    def feed_data(self, data: Any) -> None:
        self._core.feed(data)

    def feed_eof(self) -> None:
        self._core.feed_eof()

    def exception(self) -> Any:
        return self._core.exception

    def set_exception(self, exc: Any) -> None:
        self._core.set_exception(exc)

    def set_transport(self, transport: Any) -> None:
        assert self._core.transport is None, "Transport already set"
        self._core.read_from(transport)


class StreamWriter(asyncio.StreamWriter):
    """`asyncio.StreamWriter` whose small writes leave together.

    The first write of a task's step leaves at once; further ones of less than 8 KiB leave when the turn of the loop
    ends, or when 64 KiB have come together. `transport` is the loop's own: once it was asked for, each write leaves at
    once, since others may now write to it.
    """

    def __init__(self, transport: Any, protocol: Any, reader: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport, protocol, reader, loop)
        self._gather_for(loop)

    def _gather_for(self, loop: asyncio.AbstractEventLoop) -> None:
        self._core = WriterCore(loop, super().transport)

    @property
    def transport(self) -> Any:
        self._core.stop_gathering()
        return super().transport

    def write(self, data: Any) -> None:
        self._core.write(data)

    def writelines(self, data: Iterable[Any]) -> None:
        self._core.writelines(data)

    def write_eof(self) -> None:
        # The transport refuses what is written later.
        self._core.stop_gathering()
        super().write_eof()

    def close(self) -> None:
        self._core.flush()
        super().close()

    @functools.wraps(asyncio.StreamWriter.start_tls)
    async def start_tls(self, *args: Any, **options: Any) -> None:  # type: ignore[override]
        self._core.stop_gathering()
        await super().start_tls(*args, **options)
        self._gather_for(asyncio.get_running_loop())


class _Protocol(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """asyncio's own, for all but the bytes that come: the loop reads them into the reader's core."""

    def __init__(self, reader: StreamReader, connected: _Connected | None, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, connected, loop)  # type: ignore[arg-type]
        # As attributes of the object, which spares a call for each read.
        self.get_buffer = reader._core.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = reader._core.buffer_updated  # type: ignore[method-assign]


async def open_connection(
    host: Any = None, port: Any = None, *, limit: int = _DEFAULT_LIMIT, **kwds: Any
) -> tuple[StreamReader, StreamWriter]:
    """`asyncio.open_connection()`, with its arguments and errors."""
    loop = asyncio.get_running_loop()
    return await _opened(loop, limit, lambda factory: loop.create_connection(factory, host, port, **kwds))


async def _opened(
    loop: asyncio.AbstractEventLoop, limit: int, connect: Callable[[Callable[[], _Protocol]], Awaitable[Any]]
) -> tuple[StreamReader, StreamWriter]:
    reader = StreamReader(limit, loop)
    protocol = _Protocol(reader, None, loop)
    transport, _ = await connect(lambda: protocol)
    return reader, StreamWriter(transport, protocol, reader, loop)


async def start_server(
    client_connected_cb: _Connected, host: Any = None, port: Any = None, *, limit: int = _DEFAULT_LIMIT, **kwds: Any
) -> asyncio.Server:
    """`asyncio.start_server()`, with its arguments and errors. `client_connected_cb` gets this module's streams."""
    loop = asyncio.get_running_loop()
    factory = functools.partial(_accepted, client_connected_cb, limit, loop)
    return await loop.create_server(factory, host, port, **kwds)


def _accepted(connected: _Connected, limit: int, loop: asyncio.AbstractEventLoop) -> _Protocol:
    def with_our_writer(reader: StreamReader, writer: Any) -> Awaitable[None] | None:
        # asyncio has just made it, and gives no say in what class it makes.
        writer.__class__ = StreamWriter
        writer._gather_for(loop)
        return connected(reader, writer)

    return _Protocol(StreamReader(limit, loop), with_our_writer, loop)


if hasattr(socket, "AF_UNIX"):

    async def open_unix_connection(
        path: Any = None, *, limit: int = _DEFAULT_LIMIT, **kwds: Any
    ) -> tuple[StreamReader, StreamWriter]:
        """`asyncio.open_unix_connection()`, with its arguments and errors."""
        loop = asyncio.get_running_loop()
        return await _opened(loop, limit, lambda factory: loop.create_unix_connection(factory, path, **kwds))

    async def start_unix_server(
        client_connected_cb: _Connected, path: Any = None, *, limit: int = _DEFAULT_LIMIT, **kwds: Any
    ) -> asyncio.Server:
        """`asyncio.start_unix_server()`, with its arguments and errors; see `start_server()`."""
        loop = asyncio.get_running_loop()
        factory = functools.partial(_accepted, client_connected_cb, limit, loop)
        return await loop.create_unix_server(factory, path, **kwds)


def _as_separator(separator: Any) -> bytes:
    if not len(separator):
        raise ValueError("Separator should be at least one-byte string")
    if not isinstance(separator, (bytes, bytearray, memoryview)):
        raise TypeError(f"argument should be integer or bytes-like object, not {type(separator).__name__!r}")
    return separator if type(separator) is bytes else bytes(separator)
