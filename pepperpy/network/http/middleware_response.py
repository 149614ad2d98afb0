"""The responses of a middleware: one that it makes itself, and one whose body is not read yet."""

from __future__ import annotations

import contextlib
import math

from multidict import CIMultiDictProxy

from pepperpy.network.errors import UsageError
from pepperpy.network.http.call import Call
from pepperpy.network.http.content import raw_headers
from pepperpy.network.http.failures import failure_of
from pepperpy.network.http.request import Request
from pepperpy.network.http.response import HTTPResponse, is_known_to_fit, read_body, read_start
from pepperpy.network.http.transport import Answer, WireError
from pepperpy.network.watchdog import time_limit

# Seconds for the rest of a body that nobody wants: a server may send a byte from time to time, and for ever. Arbitrary.
GIVE_UP_S = 1.0


class MadeAnswer:
    """An `Answer` whose body is in memory. No connection belongs to it."""

    version = "1.1"

    def __init__(
        self,
        carrier: str,
        status: int,
        reason: str,
        headers: CIMultiDictProxy[str],
        content: bytes,
        trailers: CIMultiDictProxy[str],
    ) -> None:
        self.carrier: str = carrier
        self.status: int = status
        self.reason: str = reason
        self.headers: CIMultiDictProxy[str] = headers
        self.trailers: CIMultiDictProxy[str] = trailers
        self.wire_bytes: int = len(content)
        self._content: bytes | None = content  # None: given out, or given up

    @classmethod
    def of(cls, answer: Answer, content: bytes) -> MadeAnswer:
        """The same answer, whose body was read."""
        return cls(answer.carrier, answer.status, answer.reason, answer.headers, content, answer.trailers)

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        return raw_headers(self.headers)

    def header(self, name: str) -> str | None:
        return self.headers.get(name)

    @property
    def ended(self) -> bool:
        return self._content is None

    @property
    def whole_size(self) -> int | None:
        return self.wire_bytes

    def take_whole(self, limit: int | None) -> bytes | None:
        if limit is not None and self.wire_bytes > limit:
            return None
        return self._take()

    async def read_some(self) -> bytes:
        return self._take()

    async def read(self) -> bytes:
        return self._take()

    def _take(self) -> bytes:
        content, self._content = self._content, None
        return content or b""

    def release(self) -> None:
        self._content = None

    def abort(self) -> None:
        self._content = None


class UnreadResponse(HTTPResponse):
    """A response whose body is read when it is asked for; until then `content` raises `UsageError`."""

    __slots__ = ("_content", "_given_up")

    def __init__(self, request: Request, answer: Answer, call: Call) -> None:
        self._request = request
        self._answer = answer
        self._call = call
        self._content: bytes | None = None
        self._given_up = False

    def __repr__(self) -> str:
        size = "not read" if self._content is None else f"{len(self._content)} bytes"
        return f"<HTTPResponse {self.status} {self.reason!r}, {size}>"

    @property
    def content(self) -> bytes:  # type: ignore[override]
        if self._content is None:
            raise UsageError("the body has not been read: content = await response.read()")
        return self._content

    def unread_answer(self) -> Answer:
        """The answer whose body the caller reads next. Raises: UsageError: The body was given up."""
        if self._given_up:
            raise UsageError("the body was given up when the request was sent again; read() it before that")
        return self._answer

    async def give_up(self) -> None:
        """Read a little of an unread body, so that its connection can be used again."""
        if self._content is None:
            self._given_up = True
            await read_start(self._answer, self._call.config.limits.max_error_body, GIVE_UP_S)

    async def read(self) -> bytes:
        if self._content is None:
            self.unread_answer()
            answer, call, limit = self._answer, self._call, self._call.max_size
            try:
                fits = limit is not None and is_known_to_fit(answer, call, limit)
                with time_limit(call.ends_at - call.now) if call.ends_at < math.inf else contextlib.nullcontext():
                    content = await (answer.read() if fits else read_body(answer, call, limit))
            except (WireError, TimeoutError) as error:
                failure = failure_of(error, call)
            else:
                self._content = content
                self._answer = MadeAnswer.of(answer, content)
                return content
            # Outside of the except block, whose error would be its __context__.
            raise failure
        return self._content
