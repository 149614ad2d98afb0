"""`HTTPStream`: a response whose body is read as it comes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

from pepperpy.network.errors import BusyError, MessageTooLargeError, NetworkError, UsageError
from pepperpy.network.http.call import Call
from pepperpy.network.http.content import as_unicode, encoding_of, parse_content_type
from pepperpy.network.http.failures import failure_of
from pepperpy.network.http.lines import LineSplitter
from pepperpy.network.http.response import ResponseHead, read_start, too_large
from pepperpy.network.http.sse import EventParser, ServerSentEvent
from pepperpy.network.http.transport import Answer, WireError
from pepperpy.network.json_codec import JSONCodec, decode_as
from pepperpy.network.printable import printable, printable_bytes
from pepperpy.network.watchdog import time_limit


class HTTPStream(ResponseHead):
    """A response whose body is read as it comes; what `HTTPClient.stream()` gives, to be used with `async with`.

    Read it in one of its ways, by one task; each reads on where the last one stopped, except that `lines()`,
    `json_lines()` and `events()` may have taken a part of the next line. There is no limit on the whole, unless
    `max_response_size` was given; `read_timeout` limits each silence.

    Each way of reading raises, besides what it names itself:
        UsageError, BusyError: Outside of the block; while another task reads.
        ConnectionLostError, IncompleteReadError, ProtocolError: It broke off. What had arrived and was not read yet is
            lost, as aiohttp does it.
        NetworkTimeoutError: The server was silent for `read_timeout`, or the deadline passed.
        ResponseTooLargeError: More than the `max_response_size` that was given.

    Leaving the block before the end closes the connection. Cancellation: the same.
    """

    __slots__ = ("_entered", "_limit", "_max_line_size", "_open", "_reading", "_size")

    def __init__(
        self,
        open: Callable[[], Awaitable[tuple[Answer, Call]]],
        codec: JSONCodec,
        strict: bool,
        max_line_size: int,
        limit: int | None,
    ) -> None:
        self._open = open
        self._entered = False
        self._codec = codec
        self._strict = strict
        self._max_line_size = max_line_size
        self._limit = limit
        self._reading = False
        self._size = 0

    def __repr__(self) -> str:
        return "<HTTPStream new>" if not self._entered else f"<HTTPStream {self.status} {self.reason!r}>"

    async def __aenter__(self) -> HTTPStream:
        if self._entered:
            raise UsageError("a stream can be entered once; ask the client for another one")
        self._answer, self._call = await self._open()
        self._request = self._call.request
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        answer = self._answer
        try:
            if answer.ended:
                # The request's body may still be on its way; the connection is free after that. If the body fails now,
                # the answer is whole all the same.
                with contextlib.suppress(WireError):
                    await answer.read_some()
        finally:
            answer.abort()  # does nothing then
            if self._call.body is not None:
                await self._call.body.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Pieces of the body as they come, decompressed; never empty."""
        if not self._entered:
            raise UsageError("enter the stream first: async with client.stream(...) as stream")
        answer, call = self._answer, self._call
        call.phase = "body"
        while True:
            if self._reading:
                raise call.error(BusyError, "another task reads this stream")
            self._reading = True
            failure: NetworkError | None = None
            try:
                if call.trip.ends_at == math.inf:
                    chunk = await answer.read_some()
                else:
                    with time_limit(call.trip.ends_at - call.now):
                        chunk = await answer.read_some()
            except (WireError, TimeoutError) as error:
                failure = failure_of(error, call)
            finally:
                self._reading = False
            if failure is None:
                if not chunk:
                    call.done_at = call.done_at or call.now
                    return
                self._size += len(chunk)
                if self._limit is None or (self._size <= self._limit and answer.wire_bytes <= self._limit):
                    yield chunk
                    continue
                failure = too_large(answer, call, self._limit, self._size)
            answer.abort()
            raise failure

    async def read(self) -> bytes:
        """All that is still to come of the body."""
        async with contextlib.aclosing(self.chunks()) as chunks:
            return b"".join([chunk async for chunk in chunks])

    def lines(self) -> AsyncGenerator[bytes, None]:
        r"""Lines of the body, without the ``\n`` or ``\r\n`` that ends them.

        Raises:
            MessageTooLargeError: A line of more than `ResponseLimits.max_line_size` bytes; the lines before it have
                been given out.
        """
        splitter = LineSplitter(self._max_line_size)
        return self._parsed(splitter.feed, splitter.finish)

    async def json_lines(self, type: Any = None) -> AsyncGenerator[Any, None]:
        """The JSON values of a body with one a line (NDJSON), decoded into `type` if given; empty lines are skipped.

        Raises:
            DecodeError: A line is no JSON or does not fit `type`; its `content` is that line.
            MessageTooLargeError: As `lines()`.
        """
        number = 0
        async with contextlib.aclosing(self.lines()) as lines:
            async for line in lines:
                number += 1
                if not line.strip():
                    continue
                try:
                    content = as_unicode(line, encoding_of(self._answer.headers))
                    value = self._codec.loads(content) if type is None else decode_as(content, type, self._codec)
                except ValueError as error:
                    raise self._decode_error(f"line {number} is not the expected JSON", line, error) from error
                yield value

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """Server-sent events.

        Raises:
            DecodeError: Content-Type says something else than text/event-stream: the server sent an error in JSON, say,
                or a login page. `content` is the start of the body, as much as comes within a second and at most
                `ResponseLimits.max_error_body` bytes. The connection is closed. Without Content-Type, the body is read.
            MessageTooLargeError: An event of more than `ResponseLimits.max_line_size` bytes.
        """
        kind = "" if not self._entered else parse_content_type(self._answer.headers.get("Content-Type", ""))[0]
        if kind not in ("", "text/event-stream"):
            raise await self._no_events(kind)
        parser = EventParser(self._max_line_size)
        async with contextlib.aclosing(self._parsed(parser.feed, parser.finish)) as events:
            async for event in events:
                yield event

    async def _no_events(self, kind: str) -> NetworkError:
        if self._reading:
            return self._call.error(BusyError, "another task reads this stream")
        self._reading = True
        try:
            # This may be an endless stream of another type, so the wait for its start is bounded.
            start = await read_start(self._answer, self._call.config.limits.max_error_body, 1.0)
        finally:
            self._reading = False
        self._answer.abort()
        text = f"the body is declared as '{printable(kind)}', not as text/event-stream, and begins with"
        return self._decode_error(f"{text} '{printable_bytes(start)}'", start)

    async def _parsed(
        self, feed: Callable[[bytes], list[Any]], finish: Callable[[], list[Any]]
    ) -> AsyncGenerator[Any, None]:
        async with contextlib.aclosing(self.chunks()) as chunks:
            try:
                async for chunk in chunks:
                    for item in feed(chunk):
                        yield item
                    feed(b"")  # raises now what is too large, not when the server sends more
                for item in finish():
                    yield item
            except MessageTooLargeError as error:
                raise self._call.error(MessageTooLargeError, error.message, **error.details) from None
