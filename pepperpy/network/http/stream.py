"""`HTTPStream`: a response whose body is read as it comes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pepperpy.network._core.event_stream import EventParser
from pepperpy.network.arguments import unknown_attribute
from pepperpy.network.errors import BusyError, MessageTooLargeError, NetworkError, UsageError, also
from pepperpy.network.http.call import Call
from pepperpy.network.http.content import as_unicode, json_encoding_of, parse_content_type
from pepperpy.network.http.failures import failure_of
from pepperpy.network.http.lines import LineSplitter
from pepperpy.network.http.response import ResponseHead, is_bomb, read_start, too_large
from pepperpy.network.http.sse import ServerSentEvent
from pepperpy.network.http.transport import Answer, WireError
from pepperpy.network.json_types import decode_as
from pepperpy.network.printable import printable, printable_bytes
from pepperpy.network.watchdog import time_limit

T = TypeVar("T")

# What other libraries call what a stream has.
_INSTEAD = {
    "status_code": "stream.status",
    "reason_phrase": "stream.reason",
    "is_success": "stream.ok",
    "content": "await stream.read()",
    "body": "await stream.read()",
    "aread": "await stream.read()",
    "text": "(await stream.read()).decode(), or client.request() for a response with text",
    "json": "json.loads(await stream.read()), or client.get_json()",
    "iter_content": "async for chunk in stream",
    "iter_chunked": "async for chunk in stream",
    "aiter_bytes": "async for chunk in stream",
    "aiter_raw": "async for chunk in stream",
    "iter_lines": "async for line in stream.lines()",
    "aiter_lines": "async for line in stream.lines()",
    "aiter_sse": "async for event in stream.events()",
}
_ENTER_FIRST = "enter the stream first: async with client.stream(...) as stream"


class HTTPStream(ResponseHead):
    """A response whose body is read as it comes. `HTTPClient.stream()` returns it, for `async with`.

    One task reads it, with one of its methods. Each goes on where the last one stopped; but `lines()`, `json_lines()`
    and `events()` may have taken a part of the next line. The size of the body has no limit unless `max_response_size`
    was given; `read_timeout` limits each silence.

    Each of these methods raises, besides what it names itself:
        UsageError, BusyError: Called outside of the block; called while another task reads.
        ConnectionLostError, IncompleteReadError, ProtocolError: The body broke off. What had arrived and was not read
            yet is lost, as with aiohttp.
        NetworkTimeoutError: The server was silent for `read_timeout`, or the deadline passed.
        ResponseTooLargeError: The body exceeds the `max_response_size` that was given, or `ResponseLimits.max_ratio`.

    If the block is left before the end of the body, or a call is cancelled, the connection is closed.
    """

    __slots__ = ("_entered", "_events", "_limit", "_max_line_size", "_open", "_reading", "_size")

    if not TYPE_CHECKING:  # as far as types go, there are no other attributes

        def __getattr__(self, name):
            if hasattr(HTTPStream, name):  # a slot that is empty, or a property that reads one
                raise also(UsageError, AttributeError)(_ENTER_FIRST)
            raise unknown_attribute(self, name, _INSTEAD)

    def __init__(
        self,
        open: Callable[[], Awaitable[tuple[Answer, Call]]],
        max_line_size: int,
        limit: int | None,
    ) -> None:
        self._open = open
        self._entered = False
        self._max_line_size = max_line_size
        self._limit = limit
        self._reading = False
        self._size = 0
        self._events: EventParser[ServerSentEvent] | None = None

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
                # The request's body may still be on its way. The connection is free after that. If the body fails now,
                # the answer is complete all the same.
                with contextlib.suppress(WireError):
                    await answer.read_some()
        finally:
            answer.abort()  # does nothing if the answer has ended
            self._call.note_end(error)
            if self._call.body is not None:
                await self._call.body.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The pieces of the body as they come, decompressed unless `decompress=False` was given; none is empty."""
        if not self._entered:
            raise UsageError(_ENTER_FIRST)
        answer, call = self._answer, self._call
        call.phase = "body"
        while True:
            if self._reading:
                raise call.error(BusyError, "another task reads this stream")
            self._reading = True
            failure: NetworkError | None = None
            chunk = b""
            try:
                if call.ends_at == math.inf:
                    chunk = await answer.read_some()
                else:
                    with time_limit(call.ends_at - call.now):
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
                within = self._limit is None or (self._size <= self._limit and answer.wire_bytes <= self._limit)
                if within and not is_bomb(answer, self._size, call.config.limits.max_ratio):
                    yield chunk
                    continue
                failure = too_large(answer, call, self._limit, self._size)
            answer.abort()
            raise failure

    async def read(self) -> bytes:
        """Read the rest of the body."""
        async with contextlib.aclosing(self.chunks()) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def lines(self) -> AsyncGenerator[bytes, None]:
        r"""The lines of the body, without the ``\n`` or ``\r\n`` that ends them.

        Raises:
            MessageTooLargeError: A line has more than `ResponseLimits.max_line_size` bytes. The lines before it were
                returned.
        """
        async with contextlib.aclosing(self._line_batches()) as batches:
            async for lines in batches:
                for line in lines:
                    yield line

    @overload
    def json_lines(self, type: type[T]) -> AsyncGenerator[T, None]: ...
    @overload
    def json_lines(self, type: object = None) -> AsyncGenerator[Any, None]: ...
    async def json_lines(self, type: Any = None) -> AsyncGenerator[Any, None]:
        """The values of a body with one JSON value a line (NDJSON), as `type` if given. Empty lines are skipped.

        Raises:
            DecodeError: A line is no JSON or does not fit `type`; `content` has that line.
            MessageTooLargeError: As `lines()`.
        """
        number = 0
        encoding = json_encoding_of(self._answer.header("content-type")) if self._entered else None
        async with contextlib.aclosing(self._line_batches()) as batches:
            async for lines in batches:
                codec = self._call.codec
                for line in lines:
                    number += 1
                    if not line or line.isspace():
                        continue
                    try:
                        content = as_unicode(line, encoding)
                        value = codec.loads(content) if type is None else decode_as(content, type, codec)
                    except ValueError as error:
                        raise self._decode_error(f"line {number} is not the expected JSON", line, error) from error
                    yield value

    @property
    def last_event_id(self) -> str:
        """The last event ID so far, of `events()`; also one that came without an event."""
        return "" if self._events is None else self._events.last_event_id

    @property
    def reconnection_time(self) -> float | None:
        """Seconds to wait before reconnecting, as the server last said in `events()`; None if it has not."""
        return None if self._events is None or self._events.retry is None else self._events.retry / 1000

    async def events(self, *, last_event_id: str = "") -> AsyncGenerator[ServerSentEvent, None]:
        """Server-sent events of this answer. `HTTPClient.events()` opens further ones when it ends.

        Args:
            last_event_id: The ID of the stream that this one goes on with; events without an ID have it.

        Raises:
            DecodeError: The Content-Type is another one than text/event-stream: the server may have sent an error as
                JSON, or a login page. `content` has the start of the body: what comes within a second, at most
                `ResponseLimits.max_error_body` bytes. The connection is closed. Without Content-Type, the body is read.
            MessageTooLargeError: An event has more than `ResponseLimits.max_line_size` bytes.
        """
        kind = "" if not self._entered else parse_content_type(self._answer.header("content-type") or "")[0]
        if kind not in ("", "text/event-stream"):
            raise await self._no_events(kind)
        self._events = parser = EventParser(self._max_line_size, ServerSentEvent, last_event_id)
        async with contextlib.aclosing(self.chunks()) as chunks:
            try:
                async for chunk in chunks:
                    for event in parser.feed(chunk):
                        yield event
            except MessageTooLargeError as error:
                raise self._too_large(error) from None

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

    async def _line_batches(self) -> AsyncGenerator[list[bytes], None]:
        """The lines that each piece of the body completes. Their reader gives them out one by one.

        So a line costs one step of one generator.
        """
        splitter = LineSplitter(self._max_line_size)
        async with contextlib.aclosing(self.chunks()) as chunks:
            try:
                async for chunk in chunks:
                    yield splitter.feed(chunk)
                    splitter.feed(b"")  # raises now if a line is too large, not when the server sends more
                yield splitter.finish()
            except MessageTooLargeError as error:
                raise self._too_large(error) from None

    def _too_large(self, error: MessageTooLargeError) -> NetworkError:
        return self._call.error(MessageTooLargeError, error.message, **error.details)
