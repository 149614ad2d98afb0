"""`H1Answer`: the answer of one exchange; takes its body from the connection as it is asked for."""

from __future__ import annotations

import asyncio

from multidict import CIMultiDictProxy

from pepperpy.network._core.http_reader import ResponseReader
from pepperpy.network.http.h1.connection import Connection
from pepperpy.network.http.h1.decoding import BadEncoding, Decoder, Truncated, decoder_of
from pepperpy.network.http.h1.losses import READ_ERRORS
from pepperpy.network.http.h1.upload import Upload
from pepperpy.network.http.transport import WireError
from pepperpy.network.units import KIB

# Bytes that are given to a decoder at once. A body may be too large by then, and nobody wants the rest.
MAX_INPUT = 16 * KIB


class H1Answer:
    """See `Answer`."""

    carrier = "core"
    __slots__ = ("_connection", "_decoder", "_decodes", "_given_back", "_reader", "ended", "status")

    def __init__(self, connection: Connection, reader: ResponseReader, decodes: bool) -> None:
        """Args: decodes: Whether content codings are undone."""
        self.status: int = reader.status
        self.ended: bool = False
        self._reader = reader
        self._connection: Connection | None = connection  # None once it carries something else, or nothing
        self._decodes = decodes and reader.content_encoding is not None
        self._decoder: Decoder | None = None
        self._given_back = False

    @property
    def reason(self) -> str:
        return self._reader.reason

    @property
    def version(self) -> str:
        return self._reader.version

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        return self._reader.headers

    def header(self, name: str) -> str | None:
        return self._reader.header(name)

    @property
    def trailers(self) -> CIMultiDictProxy[str]:
        return self._reader.trailers

    @property
    def whole_size(self) -> int | None:
        remaining = self._reader.remaining
        if self._decodes and (remaining != 0 or self._reader.body_bytes):
            return None
        if remaining is None or (self._connection is not None and remaining > self._connection.receiver.bytes_buffered):
            return None
        return self._reader.body_bytes + remaining

    @property
    def wire_bytes(self) -> int:
        return self._reader.body_bytes

    async def read_some(self) -> bytes:
        if self.ended:
            return b""
        while True:
            connection, reader = self._checked(), self._reader
            try:
                if self._decoder is not None and not self._decoder.wants_input:
                    data = self._decoder.decode(b"")
                else:
                    if self._decodes:
                        piece = reader.take_body(connection.receiver, MAX_INPUT)
                    else:
                        piece = reader.take_body(connection.receiver)
                    if piece is None:
                        await connection.wait(reader.wait(connection.receiver))
                        continue
                    data = self._decoded(piece) if self._decodes and piece else piece
                if data:
                    if reader.is_whole and self._decoder is None and not connection.sends:
                        # The connection is free before its user sees the last piece.
                        self._end(connection)
                    return data
                if self._decoder is not None and not self._decoder.wants_input:
                    # Of several codings, one gives much, of which the next one makes nothing: others have a turn.
                    await asyncio.sleep(0)
                    continue
                if not reader.is_whole:
                    continue
                if self._decoder is not None:
                    self._decoder.finish()
                break
            except READ_ERRORS as error:
                failure = connection.fail(error, reader)
            except (BadEncoding, Truncated) as error:
                failure = _undecodable(error)
                connection.abort()
            # Outside of the except block: its __context__ would be shown as well.
            self._connection = None
            raise failure
        if (upload := self._end(connection)) is not None:
            await upload.wait_ended()
        return b""

    def _decoded(self, piece: bytes) -> bytes:
        if self._decoder is None:
            # Here, and not before: a coding matters only where there is a body.
            self._decoder = decoder_of(self._reader.content_encoding or b"")
            if self._decoder is None:
                self._decodes = False
                return piece
        return self._decoder.decode(piece)

    async def read(self) -> bytes:
        reader = self._reader
        if self.ended:
            return b""
        connection = self._checked()
        try:
            if self._decodes or reader.remaining is None:
                pieces = []
                while piece := await self.read_some():
                    pieces.append(piece)
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            receiver = connection.receiver
            while (rest := reader.take_rest(receiver)) is None:
                await connection.wait(reader.wait_for_rest(receiver))
                self._checked()
            if (upload := self._end(connection)) is not None:
                await upload.wait_ended()
            return rest
        except READ_ERRORS as error:
            failure = connection.fail(error, reader)
        except BaseException:
            # Cancelled, say: what was taken is lost.
            self.abort()
            raise
        self._connection = None
        raise failure

    def _checked(self) -> Connection:
        if self._connection is None:
            raise WireError("closed", "the stream was left, or the client was closed")
        return self._connection

    def _end(self, connection: Connection) -> Upload | None:
        # The connection is free before its user goes on, but for an upload whose end has to be waited for.
        self._connection = None
        self.ended = True
        return connection.finish(self._reader)

    def release(self) -> None:
        connection, reader = self._connection, self._reader
        if connection is None:
            return
        self._connection = None
        try:
            while not reader.is_whole and reader.take_body(connection.receiver) is not None:
                pass
        except READ_ERRORS:
            connection.abort()
            return
        if reader.is_whole:
            connection.finish(reader)
        else:
            connection.abort()

    def abort(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


def _undecodable(error: BadEncoding | Truncated) -> WireError:
    return WireError("truncated" if isinstance(error, Truncated) else "bad_encoding", str(error), error)
