"""The body of one attempt: counts its bytes, and checks them against the announced size.

A transport sends a body in a task of its own, and aiohttp treats each exception there as one of the connection. So an
exception of a source is wrapped in `BodyFailed`, and kept as `Body.failure`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

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


class Writer(Protocol):
    """What a body is written to: a transport's. A payload uses no more of it."""

    @property
    def transport(self) -> Any:
        """What is aborted if the body fails; None: nothing."""

    async def write(self, chunk: Any) -> Any: ...


class Readable(Protocol):
    """Where the bytes of one attempt come from: a `Source`, or a payload that an `aiohttp.FormData` has made."""

    @property
    def content_type(self) -> str: ...
    @property
    def size(self) -> int | None: ...

    async def write(self, writer: Any) -> Any: ...


class Source:
    """A body, or a part of one, that is read while it is sent. `write()` closes what it has opened.

    Attributes:
        content_type: Empty: it has none.
        size: Bytes; None if only reading them would tell.
    """

    def __init__(self, content_type: str, size: int | None) -> None:
        self.content_type: str = content_type
        self.size: int | None = size

    async def write(self, writer: Writer) -> None:
        raise NotImplementedError


class Closing:
    """A block that reads a source, an async iterable, and closes its iterator at the end, if that can be closed."""

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._iterator = aiter(source)

    async def __aenter__(self) -> AsyncIterator[Any]:
        return self._iterator

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # GeneratorExit: the task was dropped, and nothing can be awaited any more. The loop closes a generator that was
        # dropped. Before CPython 3.13 it cannot, if that waits: "asynchronous generator is already running".
        if kind is not GeneratorExit and (aclose := getattr(self._iterator, "aclose", None)) is not None:
            await aclose()


class UploadPayload:
    """The body of one attempt."""

    def __init__(self, body: Body, inner: Readable, progress: Progress | None) -> None:
        self.size: int | None = inner.size
        self._body = body
        self._inner = inner
        self._progress = progress

    async def write_with_length(self, writer: Writer, content_length: int | None) -> None:
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

    async def _write(self, writer: Writer, content_length: int | None) -> None:
        announced = self.size if content_length is None else content_length
        if self.size not in (None, announced):
            raise BodyFailed(f"the body has {self.size} bytes, but Content-Length says {announced}")
        meter = _Meter(writer, announced, self._progress)
        try:
            await self._inner.write(meter)
        except BodyFailed:
            raise
        except BaseException as error:
            if error is meter.broken or is_for_the_loop(error):
                raise
            raise BodyFailed(f"the body's source failed: {type_and_text(error)}") from error
        if announced not in (None, meter.sent):
            raise BodyFailed(f"the body ended after {meter.sent} of the {announced} bytes announced")


class _Meter:
    """Stands in front of the writer: counts bytes, reports progress, and knows the writer's own exceptions."""

    transport = None

    def __init__(self, writer: Writer, announced: int | None, progress: Progress | None) -> None:
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
        except BaseException as error:
            if is_for_the_loop(error):
                raise
            raise BodyFailed(f"progress raised {type_and_text(error)}") from error


def is_for_the_loop(error: BaseException) -> bool:
    """Whether `error` ends the task or the program, and is no failure of a source or of `progress`.

    These may raise other errors that are no Exception: pytest.fail() does.
    """
    return isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)) or is_cancelled(error)


def is_cancelled(error: BaseException) -> bool:
    """Whether `error` is the cancellation of this task, and not one that a source or `progress` raised."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def type_and_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
