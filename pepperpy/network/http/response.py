"""`HTTPResponse`: what a call brought back; and the one place that reads a body, under its limit."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from http.cookies import SimpleCookie
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from pepperpy.network.errors import DecodeError, HTTPStatusError, RedirectError, ResponseTooLargeError
from pepperpy.network.http.call import Call, Timings
from pepperpy.network.http.content import (
    as_unicode,
    content_length,
    encoding_of,
    parse_content_type,
    readable,
    readable_headers,
    readable_reason,
)
from pepperpy.network.json_codec import JSONCodec, decode_as, default_codec
from pepperpy.network.printable import printable


class ResponseHead:
    """What is known of a response once its head has arrived."""

    __slots__ = ("_call", "_codec", "_raw", "_strict")

    def __init__(self, raw: Any, call: Call, codec: JSONCodec, strict: bool) -> None:
        self._raw = raw
        self._call = call
        self._codec = codec
        self._strict = strict

    @property
    def status(self) -> int:
        return int(self._raw.status)

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    @property
    def reason(self) -> str:
        """The reason phrase, printable and of at most 200 characters; may be empty."""
        return readable_reason(self._raw.reason)

    @property
    def method(self) -> str:
        """The method of the request that was answered; a redirect may have changed it to GET."""
        return str(self._raw.method)

    @property
    def url(self) -> str:
        """The URL that answered, after redirects."""
        return str(self._raw.url)

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers; names are case-insensitive, and `getall(name)` gives all of one name."""
        return readable_headers(self._raw.headers)

    @property
    def cookies(self) -> SimpleCookie:
        """The cookies that this response set; the client's jar has them too."""
        cookies: SimpleCookie = self._raw.cookies
        return cookies

    @property
    def history(self) -> tuple[HTTPResponse, ...]:
        """The redirects that led here, oldest first; their bodies were not read."""
        return _responses(self._call, self._raw, self._codec, self._strict)

    @property
    def attempts(self) -> int:
        """How often the request was sent, from 1."""
        return self._call.attempt

    @property
    def elapsed(self) -> float:
        """Seconds of the whole call, retries and body included."""
        return self._call.elapsed

    @property
    def timings(self) -> Timings:
        """Where those seconds went; of the last attempt, and if it was redirected of its last hop."""
        return self._call.timings

    @property
    def encoding(self) -> str:
        """The character encoding that the server declared, or UTF-8."""
        return encoding_of(self._raw.headers) or "utf-8"

    def _decode_error(self, text: str, content: bytes, cause: Exception | None = None) -> DecodeError:
        if cause is not None:
            # A codec of the user's own may quote the body.
            text = f"{text}: {printable(str(cause), 600)}"
        error = self._call.error(DecodeError, text, cause, status=self.status)
        error.content = content
        return error


class HTTPResponse(ResponseHead):
    """A response, its body read.

    Attributes:
        content: The body, decompressed.
    """

    __slots__ = ("content",)

    def __init__(self, raw: Any, content: bytes, call: Call, codec: JSONCodec, strict: bool) -> None:
        self._raw = raw
        self._call = call
        self._codec = codec
        self._strict = strict
        self.content = content

    def __repr__(self) -> str:
        return f"<HTTPResponse {self.status} {self.reason!r}, {len(self.content)} bytes>"

    @property
    def text(self) -> str:
        """The body as text.

        Raises:
            DecodeError: It is not text in the declared encoding; `content` has the bytes, and so has the error.
        """
        encoding = self.encoding
        try:
            return self.content.decode(encoding)
        except (UnicodeError, LookupError) as error:
            raise self._decode_error(f"the body is not text in {encoding}", self.content, error) from error

    def json(self, type: Any = None) -> Any:
        """The body as JSON; with `type` (a dataclass, msgspec or pydantic class, `list[Model]`, ...) as that.

        Read in the encoding that the server declared, as `text`. Decoded whatever type the body is declared as, unless
        `HTTPConfig.strict_content_type`.

        Raises:
            DecodeError: It is no JSON, does not fit `type`, or is not declared as JSON although that is required.
            UsageError: `type` needs a library that is not installed; a `ModuleNotFoundError` as well, which names it.
        """
        headers = self._raw.headers
        if self._strict and not _is_json(kind := parse_content_type(headers.get("Content-Type", ""))[0]):
            raise self._decode_error(f"the body is declared as '{printable(kind)}', not as JSON", self.content)
        try:
            content = as_unicode(self.content, encoding_of(headers))
            return self._codec.loads(content) if type is None else decode_as(content, type, self._codec)
        except ValueError as error:
            expected = "JSON" if type is None else f"JSON for {getattr(type, '__name__', type)}"
            raise self._decode_error(f"the body is not {expected}", self.content, error) from error

    def raise_for_status(self) -> None:
        """Raise `HTTPStatusError` if the status is 400 or above."""
        if not self.ok:
            raise status_error(self._raw, self.content[: self._call.config.max_error_body], self._call)


def status_error(raw: Any, body: bytes, call: Call) -> HTTPStatusError:
    """The error for a response with a status of 400 or above."""
    reason = readable_reason(raw.reason)
    text = f"the server answered {raw.status} {reason}".rstrip()
    error = call.error(HTTPStatusError, text, status=int(raw.status), reason=reason)
    error.headers = readable_headers(raw.headers)
    error.body = body
    return error


def redirect_error(text: str, location: str, call: Call, cause: Exception | None = None) -> RedirectError:
    """The error for a redirect that is not followed; `call.history` ends with it."""
    error = call.error(RedirectError, text, cause)
    error.location = readable(location)
    error.history = _responses(call, None, call.config.json_codec or default_codec(), call.config.strict_content_type)
    return error


def _responses(call: Call, last: Any, codec: JSONCodec, strict: bool) -> tuple[HTTPResponse, ...]:
    """The redirects that led to `last`."""
    before = itertools.takewhile(lambda raw: raw is not last, call.history)
    return tuple(HTTPResponse(raw, b"", call, codec, strict) for raw in before)


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def is_known_to_fit(raw: Any, call: Call, limit: int) -> bool:
    """Whether the body cannot go past `limit` bytes, so that aiohttp may read it at once.

    Raises:
        ResponseTooLargeError: It is announced as larger. The connection is closed.
    """
    if call.method == "HEAD":
        return True
    stream = raw.content
    if stream.is_eof() and stream.total_bytes <= limit:
        return True  # it came together with the head, as small ones do
    headers = raw.headers
    announced = content_length(headers)
    if announced is None or "Content-Encoding" in headers or "Transfer-Encoding" in headers:
        return False
    # aiohttp holds the peer to the length that it announced.
    check_announced(raw, call, limit, announced)
    return True


def check_announced(raw: Any, call: Call, limit: int, announced: int) -> None:
    """Raise `ResponseTooLargeError`, and close the connection, if the announced length is past `limit`."""
    if announced > limit:
        raw.close()
        text = f"the body is announced with {announced} bytes, which is past max_response_size={limit}"
        raise call.error(ResponseTooLargeError, text, limit=limit, announced=announced, status=raw.status)


def too_large(raw: Any, call: Call, limit: int, size: int) -> ResponseTooLargeError:
    """The error for a body that went past `limit`, `size` bytes of it read. No more of it is read."""
    received = raw.content.total_raw_bytes
    text = f"the body goes past max_response_size={limit}: {received} bytes received so far"
    if "Content-Encoding" in raw.headers:
        text += f", {size} decompressed"
    return call.error(ResponseTooLargeError, text, limit=limit, received=received, decoded=size, status=raw.status)


async def read_body(raw: Any, call: Call, limit: int) -> bytes:
    """The whole body, and the connection back in the pool.

    While it comes it is held once, in pieces of at most `limit` bytes together, the last one apart, beside what aiohttp
    buffers; they are joined only when all of it is there.

    Raises:
        ResponseTooLargeError: More than `limit` bytes, as they came or as decompressed. Nothing of it is held any more,
            the connection is closed.
        And what aiohttp raises.
    """
    pieces: list[bytes] = []
    size, whole = await _read_into(pieces, raw, limit)
    if not whole:
        pieces.clear()  # the traceback would keep them
        raise too_large(raw, call, limit, size)
    return b"".join(pieces)


async def read_start(raw: Any, limit: int, seconds: float | None = None) -> bytes:
    """What can be had, in so many `seconds`, of a body that only explains an error; an error in it does not matter."""
    pieces: list[bytes] = []
    with contextlib.suppress(aiohttp.ClientError, OSError):
        async with asyncio.timeout(seconds):
            await _read_into(pieces, raw, limit)
    return b"".join(pieces)[:limit]


async def _read_into(pieces: list[bytes], raw: Any, limit: int) -> tuple[int, bool]:
    """Read the body until it ends or goes past `limit` bytes; its bytes so far, and whether they are all.

    The connection is released if they are, and else closed.
    """
    stream = raw.content
    size = 0
    try:
        while piece := await stream.readany():
            pieces.append(piece)
            size += len(piece)
            if size > limit or stream.total_raw_bytes > limit:
                raw.close()
                return size, False
        # An answer may come before the request's body was sent; the connection is free only after that.
        await raw.wait_for_close()
    except BaseException:
        raw.close()
        raise
    return size, True
