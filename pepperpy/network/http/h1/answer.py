"""`H1Answer`: the answer of one exchange; takes its body from the connection as it is asked for."""

from __future__ import annotations

import asyncio

from pepperpy.network._core.http_exchange import HTTPAnswer
from pepperpy.network._core.http_reader import READ_ERRORS
from pepperpy.network.http.h1.connection import Connection
from pepperpy.network.http.h1.decoding import BadEncoding, Decoder, Truncated, decoder_of
from pepperpy.network.http.transport import WireError
from pepperpy.network.units import KIB

# Bytes that are given to a decoder at once. A body may be too large by then, and nobody wants the rest.
MAX_INPUT = 16 * KIB


class H1Answer(HTTPAnswer):
    """See `Answer`. Its bases read it: head and framing, and what is known when all of it came at once."""

    carrier = "core"
    __slots__ = ()

    connection: Connection | None
    decoder: Decoder | None

    async def read_some(self) -> bytes:
        if self.ended:
            return b""
        while True:
            connection = self._checked()
            try:
                if self.decoder is not None and not self.decoder.wants_input:
                    data = self.decoder.decode(b"")
                else:
                    if self.decodes:
                        piece = self.take_body(connection.receiver, MAX_INPUT)
                    else:
                        piece = self.take_body(connection.receiver)
                    if piece is None:
                        await connection.wait(self.wait(connection.receiver))
                        continue
                    data = self._decoded(piece) if self.decodes and piece else piece
                if data:
                    if self.is_whole and self.decoder is None and connection.upload is None:
                        # The connection is free before its user sees the last piece.
                        self.end()
                    return data
                if self.decoder is not None and not self.decoder.wants_input:
                    # There is more to decode, and no output yet: one coding may give the next one much of which it
                    # makes nothing. Other tasks get a turn meanwhile.
                    await asyncio.sleep(0)
                    continue
                if not self.is_whole:
                    continue
                if self.decoder is not None:
                    self.decoder.finish()
                break
            except READ_ERRORS as error:
                failure = connection.fail(error, self)
            except (BadEncoding, Truncated) as error:
                failure = _undecodable(error)
                connection.abort()
            # Outside of the except block: its __context__ would be shown as well.
            self.connection = None
            raise failure
        if (upload := self.end()) is not None:
            await upload.wait_ended()
        return b""

    def _decoded(self, piece: bytes) -> bytes:
        if self.decoder is None:
            # Only now, because an unknown coding matters only if there is a body.
            self.decoder = decoder_of(self.content_encoding or b"")
            if self.decoder is None:
                self.decodes = False
                return piece
        return self.decoder.decode(piece)

    async def read(self) -> bytes:
        if self.ended:
            return b""
        connection = self._checked()
        try:
            if self.decodes or self.remaining is None:
                pieces = []
                while piece := await self.read_some():
                    pieces.append(piece)
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            receiver = connection.receiver
            while (rest := self.take_rest(receiver)) is None:
                await connection.wait(self.wait_for_rest(receiver))
                self._checked()
            if (upload := self.end()) is not None:
                await upload.wait_ended()
            return rest
        except READ_ERRORS as error:
            failure = connection.fail(error, self)
        except BaseException:
            # Cancelled, say: what was taken is lost.
            self.abort()
            raise
        self.connection = None
        raise failure

    def _checked(self) -> Connection:
        if self.connection is None:
            raise WireError("closed", "the stream was left, or the client was closed")
        return self.connection

    def release(self) -> None:
        connection = self.connection
        if connection is None:
            return
        self.connection = None
        try:
            while not self.is_whole and self.take_body(connection.receiver) is not None:
                pass
        except READ_ERRORS:
            connection.abort()
            return
        if self.is_whole:
            connection.finish(self)
        else:
            connection.abort()

    def abort(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()


def _undecodable(error: BadEncoding | Truncated) -> WireError:
    return WireError("truncated" if isinstance(error, Truncated) else "bad_encoding", str(error), error)
