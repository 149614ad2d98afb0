"""A request's body, sent beside the reading of its answer: a server may answer before it has read all, or anything."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from pepperpy.network._core.handover import Handover
from pepperpy.network._core.http_reader import ResponseReader
from pepperpy.network.errors import NetworkError
from pepperpy.network.http.request import Payload, Request
from pepperpy.network.http.transport import WireError
from pepperpy.network.http.upload import BodyFailed

if TYPE_CHECKING:
    from pepperpy.network._core.stream_protocol import StreamProtocol
    from pepperpy.network.http.h1.connection import Connection

# Seconds that a body waits for 100 (Continue). RFC 9110, section 10.1.1: not without end; curl's figure.
CONTINUE_WAIT = 1.0


class Upload:
    """Sends one body, in a task of its own that begins at once.

    Attributes:
        complete: Whether all of it was accepted for sending.
    """

    def __init__(self, connection: Connection, request: Request, payload: bytes | Payload) -> None:
        loop = asyncio.get_running_loop()
        self.complete: bool = False
        self._connection = connection
        headers = request.headers
        self._chunked = "Transfer-Encoding" in headers
        length = headers.get("Content-Length")
        self._length = None if length is None else int(length)
        # Gets whether the body may be sent; None if the request does not ask (Expect: 100-continue).
        self._leave: Handover | None = None
        if headers.get("Expect", "").lower() == "100-continue":
            self._leave = Handover(loop)
        self._task = loop.create_task(self._run(payload))

    @property
    def runs(self) -> bool:
        """Whether more of it may still come from its source."""
        return not self._task.done()

    def note(self, reader: ResponseReader) -> None:
        """Bytes of the answer have come. With its head, or 100 (Continue), the body learns whether to go."""
        if self._leave is not None and not self._leave.is_over and (reader.has_head or reader.continued):
            self._leave.give(reader.continued)

    def give_up(self) -> None:
        """Send no more of it. The connection cannot be used again."""
        self._task.cancel()

    async def wait_ended(self) -> None:
        """After `give_up()`: wait until nothing of its source is in use. A cancellation changes nothing about that."""
        await asyncio.wait([self._task])

    async def _run(self, payload: bytes | Payload) -> None:
        connection = self._connection
        try:
            if self._leave is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CONTINUE_WAIT):
                        await self._leave
                        if not self._leave.outcome:
                            return  # it has answered, and does not want the body
            writer = _Writer(connection.protocol, self._chunked)
            if isinstance(payload, bytes):
                await writer.write(payload)
            else:
                await payload.write_with_length(writer, self._length)
            await writer.end()
            self.complete = True
        except BodyFailed as error:
            connection.break_off(WireError("body_failed", str(error), error.__cause__))
        except NetworkError:
            pass  # the connection is gone; what the server said before, the reader gets
        except Exception as error:
            connection.break_off(WireError("other", f"sending the body failed with {type(error).__name__}", error))


class _Writer:
    """What a payload writes to; aiohttp's payloads use no more of a writer.

    Attributes:
        transport: What a payload aborts that has failed.
    """

    def __init__(self, protocol: StreamProtocol, chunked: bool) -> None:
        self.transport = protocol
        self._sender = protocol.sender
        self._chunked = chunked

    async def write(self, chunk: Any) -> None:
        data = bytes(chunk)
        if data:
            await self._send([b"%x\r\n" % len(data), data, b"\r\n"] if self._chunked else [data])

    async def end(self) -> None:
        if self._chunked:
            await self._send([b"0\r\n\r\n"])

    async def _send(self, pieces: list[bytes]) -> None:
        waiter = None
        while not self._sender.send_many(pieces):
            waiter = self._sender.wait(None, waiter)
            await waiter
