"""The body of one attempt: counts its bytes, and checks them against the announced size.

aiohttp sends a payload in a task of its own, and treats each exception there as one of the connection. So an exception
of a source is wrapped in `BodyFailed`, and kept as `Body.failure`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from pepperpy.network.units import KIB

if TYPE_CHECKING:
    from pepperpy.network.http.body import Body

Progress = Callable[[int, int | None], object]

# Bytes after which an upload lets the loop run, even if the transport takes everything at once. Arbitrary.
TURN = 256 * KIB


class BodyFailed(Exception):
    """The body could not be sent as announced. `__cause__` is the exception of its source or of `progress`, if any.

    It is never an OSError: aiohttp would treat that as a failure of the connection, and send the request again.
    """


class Source(aiohttp.Payload):
    """A payload that is read while it is sent."""

    def __init__(self, content_type: str, size: int | None) -> None:
        super().__init__(None, content_type=content_type)
        self._bytes_count = size
        self._begun = False

    @property
    def size(self) -> int | None:
        return self._bytes_count

    @property
    def autoclose(self) -> bool:
        # write() closes what it has opened.
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("the body is a stream, which has no text")


class UploadPayload(Source):
    """The body of one attempt, as aiohttp's payload. A redirect may write it again, if it is not `consumed`."""

    def __init__(self, body: Body, inner: aiohttp.Payload, progress: Progress | None) -> None:
        super().__init__(inner.content_type, inner.size)
        self._body = body
        self._inner = inner
        self._progress = progress

    @property
    def consumed(self) -> bool:
        return self._inner.consumed

    async def close(self) -> None:
        await self._inner.close()

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Send the body: `content_length` bytes, if that was announced.

        Raises:
            BodyFailed: It has another length, or its source or `progress` raised. The connection is aborted.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._body.begun = True
        self._body.writers.add(task)
        try:
            # After an early redirect the previous write may still be ending. Both would move the position of one file.
            await self._body.close()
            self._body.failure = None
            await self._write(writer, content_length)
        except BodyFailed as failure:
            self._body.failure = failure
            # aiohttp only marks the connection. If an answer has begun, its reader and the server would wait for each
            # other.
            if (transport := writer.transport) is not None:
                transport.abort()
            raise
        finally:
            self._body.writers.discard(task)

    async def _write(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        announced = self.size if content_length is None else content_length
        if self.size not in (None, announced):
            raise BodyFailed(f"the body has {self.size} bytes, but Content-Length says {announced}")
        meter = _Meter(writer, announced, self._progress)
        try:
            # A payload calls only write() of its writer. aiohttp's MultipartPayloadWriter relies on that too.
            await self._inner.write(cast(AbstractStreamWriter, meter))
        except BodyFailed:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if error is meter.broken or is_cancelled(error):
                raise
            raise BodyFailed(f"the body's source failed: {type_and_text(error)}") from error
        if announced not in (None, meter.sent):
            raise BodyFailed(f"the body ended after {meter.sent} of the {announced} bytes announced")


class _Meter:
    """Stands in front of aiohttp's writer: counts bytes, reports progress, and knows the writer's own exceptions."""

    def __init__(self, writer: AbstractStreamWriter, announced: int | None, progress: Progress | None) -> None:
        self.sent = 0
        self.broken: BaseException | None = None  # what the connection raised
        self._announced = announced
        self._progress = progress
        self._turn = 0
        self._writer = writer

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        size = len(chunk)
        if not size:
            return
        if self._announced is not None and self.sent + size > self._announced:
            raise BodyFailed(f"the body has more than the {self._announced} bytes announced")
        if self._turn >= TURN:
            # Before a chunk, not after it: the answer may come right after the last chunk, and aiohttp cancels a writer
            # that has not ended by then.
            self._turn = 0
            await asyncio.sleep(0)
        try:
            await self._writer.write(chunk)
        except BaseException as error:
            self.broken = error
            raise
        self.sent += size
        self._turn += size
        if self._progress is not None:
            await self._report(self._progress)

    async def _report(self, progress: Progress) -> None:
        try:
            result = progress(self.sent, self._announced)
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            raise BodyFailed(f"progress raised {type_and_text(error)}") from error


def is_cancelled(error: BaseException) -> bool:
    """Whether `error` is the cancellation of this task, and not one that a source or `progress` raised."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def type_and_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
