"""`HTTPResponse`: what a call brought back; and the one place that reads a body, under its limit."""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from pepperpy.network.errors import DecodeError, HTTPStatusError, ResponseTooLargeError
from pepperpy.network.http.call import Call, Timings
from pepperpy.network.http.codec import JSONCodec, decode_as

# Codecs of Python's that are no encodings of text on the wire; some take quadratic time.
_NOT_FOR_BODIES = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "unicode_escape"})


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
        """The reason phrase; may be empty."""
        return self._raw.reason or ""

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
        headers: CIMultiDictProxy[str] = self._raw.headers
        return headers

    @property
    def cookies(self) -> SimpleCookie:
        """The cookies that this response set; the client's jar has them too."""
        cookies: SimpleCookie = self._raw.cookies
        return cookies

    @property
    def history(self) -> tuple[HTTPResponse, ...]:
        """The redirects that led here, oldest first; their bodies were not read."""
        return tuple(HTTPResponse(raw, b"", self._call, self._codec, self._strict) for raw in self._raw.history)

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
        charset = self._raw.charset
        if charset:
            try:
                name = codecs.lookup(charset).name
            except (LookupError, ValueError):
                name = ""
            if name and name not in _NOT_FOR_BODIES:
                return name
        return "utf-8"

    def _decode_error(self, text: str, content: bytes, cause: Exception | None = None) -> DecodeError:
        if cause is not None:
            text = f"{text}: {cause}"
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

        Decoded whatever the Content-Type says, unless `HTTPConfig.strict_content_type`.

        Raises:
            DecodeError: It is no JSON, does not fit `type`, or is not declared as JSON although that is required.
            ModuleNotFoundError: `type` needs a library that is not installed; the message names it.
        """
        if self._strict and not _is_json(self._raw.content_type):
            text = f"the body is declared as {self._raw.content_type!r}, not as JSON"
            raise self._decode_error(text, self.content)
        try:
            return self._codec.loads(self.content) if type is None else decode_as(self.content, type, self._codec)
        except ValueError as error:
            expected = "JSON" if type is None else f"JSON for {getattr(type, '__name__', type)}"
            raise self._decode_error(f"the body is not {expected}", self.content, error) from error

    def raise_for_status(self) -> None:
        """Raise `HTTPStatusError` if the status is 400 or above."""
        if not self.ok:
            raise status_error(self._raw, self.content[: self._call.config.max_error_body], self._call)


def status_error(raw: Any, body: bytes, call: Call) -> HTTPStatusError:
    """The error for a response with a status of 400 or above."""
    reason = raw.reason or ""
    text = f"the server answered {raw.status} {reason}".rstrip()
    error = call.error(HTTPStatusError, text, status=int(raw.status), reason=reason)
    error.headers = raw.headers
    error.body = body
    return error


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
    headers: Mapping[str, str] = raw.headers
    announced = headers.get("Content-Length")
    if announced is None or "Content-Encoding" in headers or "Transfer-Encoding" in headers:
        return False
    # aiohttp holds the peer to the length that it announced.
    if len(announced) < 20 and int(announced) <= limit:
        return True
    raw.close()
    raise _too_large(raw, call, limit)


async def read_body(raw: Any, call: Call, limit: int) -> bytes:
    """The whole body, and the connection back in the pool.

    Raises:
        ResponseTooLargeError: More than `limit` bytes, as they came or as decompressed. The connection is closed; what
            was held in memory is at most `limit` plus what aiohttp buffers.
        And what aiohttp raises.
    """
    content, rest = await read_at_most(raw, limit)
    if rest:
        raise _too_large(raw, call, limit)
    return content


def _too_large(raw: Any, call: Call, limit: int) -> ResponseTooLargeError:
    announced = raw.headers.get("Content-Length")
    which = "the body" if announced is None else f"the body of {announced} bytes"
    text = f"{which} goes past max_response_size={limit}"
    return call.error(ResponseTooLargeError, text, limit=limit, status=raw.status)


async def read_start(raw: Any, limit: int) -> bytes:
    """What can be had of a body that only serves to explain a status: an error in it does not matter."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        return (await read_at_most(raw, limit))[0]
    return b""


async def read_at_most(raw: Any, limit: int) -> tuple[bytes, bool]:
    """The body up to `limit` bytes, and whether there was more; then the connection is closed, else released."""
    stream = raw.content
    pieces = []
    size = 0
    try:
        while piece := await stream.readany():
            pieces.append(piece)
            size += len(piece)
            if size > limit or stream.total_raw_bytes > limit:
                raw.close()
                return b"".join(pieces)[:limit], True
        # An answer may come before the request's body was sent; the connection is free only after that.
        await raw.wait_for_close()
    except BaseException:
        raw.close()
        raise
    return b"".join(pieces), False
