"""`HTTPResponse`: the result of a call; and the one place that reads a body, under its limit."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from http.cookies import SimpleCookie
from typing import Any, Never, Self, TypeVar, overload

from multidict import CIMultiDictProxy

from pepperpy.network.arguments import explains_attributes
from pepperpy.network.errors import DecodeError, HTTPStatusError, RedirectError, ResponseTooLargeError
from pepperpy.network.http.call import Call, Timings
from pepperpy.network.http.content import (
    as_unicode,
    content_length,
    decode_text,
    encoding_of,
    json_encoding_of,
    parse_content_type,
    readable,
    readable_headers,
    readable_reason,
)
from pepperpy.network.http.cookies import response_cookies
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import Answer, WireError
from pepperpy.network.json_types import decode_as
from pepperpy.network.printable import printable
from pepperpy.network.units import MIB

# Bytes of a decompressed body from which `max_ratio` counts; see `ResponseLimits`. Arbitrary.
RATIO_FROM = 16 * MIB

T = TypeVar("T")

_STREAM = "async with client.stream(method, url) as stream, and one of its methods"


class ResponseHead:
    """What is known about a response when its head has arrived."""

    __slots__ = ("_answer", "_call", "_request")

    _answer: Answer
    _call: Call
    _request: Request  # the one that was answered

    def __getstate__(self) -> Never:
        raise TypeError("a response cannot be pickled: take what is needed of it, such as status, headers and content")

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    @property
    def reason(self) -> str:
        """The reason phrase, printable, at most 200 characters; may be empty."""
        return readable_reason(self._answer.reason)

    @property
    def method(self) -> str:
        """The method of the request that was answered; a redirect may have changed it to GET."""
        return self._request.method

    @property
    def url(self) -> str:
        """The URL that answered, after redirects."""
        return str(self._request.url)

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers. Names are case-insensitive; `getall(name)` returns all values of a name."""
        return readable_headers(self._answer.headers)

    @property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """Name and value of each header, in their order, as they came."""
        return list(self._answer.fields)

    @property
    def cookies(self) -> SimpleCookie:
        """The cookies that this response set; the client's jar has them too."""
        return response_cookies(self._answer.headers.getall("Set-Cookie", ()))

    @property
    def history(self) -> tuple[HTTPResponse, ...]:
        """The redirects that led here, the oldest first. Their bodies were not read."""
        return _responses(self._call, self._answer)

    @property
    def transport(self) -> str:
        """Who carried it: `core`, `aiohttp` or `mock`; see `HTTPConfig.transport`."""
        return self._answer.carrier

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
        """Where these seconds went: in the last attempt, and after redirects in its last request."""
        return self._call.timings

    @property
    def encoding(self) -> str:
        """The character encoding that the server declared, or UTF-8."""
        return encoding_of(self._answer.header("content-type")) or "utf-8"

    def _decode_error(self, text: str, content: bytes, cause: Exception | None = None) -> DecodeError:
        if cause is not None:
            # The message of a user's own codec may contain the body.
            text = f"{text}: {printable(str(cause), 600)}"
        error = self._call.error(DecodeError, text, cause, status=self.status)
        error.content = content
        return error


@explains_attributes(
    {
        "status_code": "response.status",
        "reason_phrase": "response.reason",
        "body": "response.content",
        "read": "response.content, which is there already",
        "aread": "response.content, which is there already",
        "is_success": "response.ok",
        "is_error": "not response.ok",
        "iter_content": _STREAM,
        "iter_lines": _STREAM,
        "aiter_bytes": _STREAM,
        "aiter_lines": _STREAM,
    }
)
class HTTPResponse(ResponseHead):
    """A response, its body read.

    Attributes:
        content: The body, decompressed unless `decompress=False` was given.
    """

    __slots__ = ("content",)

    def __init__(self, request: Request, answer: Answer, content: bytes, call: Call) -> None:
        self._request = request
        self._answer = answer
        self._call = call
        self.content: bytes = content

    def __copy__(self) -> Self:
        return self  # it never changes

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<HTTPResponse {self.status} {self.reason!r}, {len(self.content)} bytes>"

    async def read(self) -> bytes:
        """The body. A middleware may have a response whose `content` is not there before this.

        Raises:
            ResponseTooLargeError: The body exceeds `max_response_size`.
            ConnectionLostError, IncompleteReadError, ProtocolError, NetworkTimeoutError: The body broke off.
        """
        return self.content

    @property
    def text(self) -> str:
        """The body as text, in the declared encoding. What is broken is replaced, as `HTTPConfig.text_errors` says.

        Raises:
            DecodeError: It is not text in this encoding, with `text_errors="strict"`. The error has its bytes too, as
                `content`.
        """
        encoding = encoding_of(self._answer.header("content-type")) or "utf-8"  # as `encoding`
        try:
            return decode_text(self.content, encoding, self._call.config.text_errors)
        except UnicodeError as error:
            raise self._decode_error(f"the body is not text in {encoding}", self.content, error) from error

    @overload
    def json(self, type: type[T]) -> T: ...
    @overload
    def json(self, type: object = None) -> Any: ...
    def json(self, type: Any = None) -> Any:
        """The body as JSON; with `type` (a dataclass, msgspec or pydantic class, `list[Model]`, ...) as that type.

        It is read in the encoding that the server declared, as `text` is. The declared type of the body does not
        matter, unless `HTTPConfig.strict_content_type` is set.

        Raises:
            DecodeError: It is no JSON, does not fit `type`, or is not declared as JSON although that is required.
            UsageError: `type` needs a library that is not installed; a `ModuleNotFoundError` as well, which names it.
        """
        content_type = self._answer.header("content-type")
        if self._call.config.strict_content_type and not _is_json(kind := parse_content_type(content_type or "")[0]):
            raise self._decode_error(f"the body is declared as '{printable(kind)}', not as JSON", self.content)
        try:
            content = as_unicode(self.content, json_encoding_of(content_type))
            codec = self._call.codec
            return codec.loads(content) if type is None else decode_as(content, type, codec)
        except ValueError as error:
            expected = "JSON" if type is None else f"JSON for {getattr(type, '__name__', type)}"
            text = f"the body is not {expected}"
            if not self.content:
                text = f"the body is empty (status {self.status}), and so not {expected}"
            elif (kind := parse_content_type(content_type or "")[0]) and not _is_json(kind):
                text += f", and is declared as '{printable(kind)}'"
            raise self._decode_error(text, self.content, error) from error

    def raise_for_status(self) -> None:
        """Raise `HTTPStatusError` if the status is 400 or above."""
        if not self.ok:
            raise status_error(self._answer, self.content[: self._call.config.limits.max_error_body], self._call)


def answer_of(response: ResponseHead) -> Answer:
    """What the response is made from."""
    return response._answer


def request_of(response: ResponseHead) -> Request:
    """The request that was answered."""
    return response._request


def status_error(answer: Answer, body: bytes, call: Call) -> HTTPStatusError:
    """The error for a response with a status of 400 or above."""
    reason = readable_reason(answer.reason)
    text = f"the server answered {answer.status} {reason}".rstrip()
    error = call.error(HTTPStatusError, text, status=answer.status, reason=reason)
    error.headers = readable_headers(answer.headers)
    error.body = body
    if answer.status == 504 and call.request.only_if_cached:
        error.is_transient = False
    return error


def redirect_error(text: str, location: str, call: Call, cause: BaseException | None = None) -> RedirectError:
    """The error for a redirect that is not followed, the last one of `call.history`."""
    error = call.error(RedirectError, text, cause)
    error.location = readable(location)
    error.history = _responses(call, None)
    return error


def _responses(call: Call, last: Answer | None) -> tuple[HTTPResponse, ...]:
    """The redirects that led to `last`."""
    before = itertools.takewhile(lambda past: past[1] is not last, call.history)
    return tuple(HTTPResponse(request, answer, b"", call) for request, answer in before)


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def is_known_to_fit(answer: Answer, call: Call, limit: int) -> bool:
    """Whether the body cannot exceed `limit` bytes, so that it may be read in one go.

    Raises:
        ResponseTooLargeError: The server announced a larger body. The connection is closed.
    """
    size = answer.whole_size
    if size is not None and size <= limit:
        return True  # the whole body came with the head, as small ones do
    if call.method == "HEAD":
        return True
    # By name: `headers` would make an object of each one.
    announced = content_length(answer.header("content-length"))
    if (
        announced is None
        or answer.header("content-encoding") is not None
        or answer.header("transfer-encoding") is not None
    ):
        return False
    # The transport does not read more than the announced length.
    check_announced(answer, call, limit, announced)
    return True


def check_announced(answer: Answer, call: Call, limit: int, announced: int) -> None:
    """Raise `ResponseTooLargeError`, and close the connection, if the announced length exceeds `limit`."""
    if announced > limit:
        answer.abort()
        text = f"the body is announced with {announced} bytes, which is past max_response_size={limit}"
        raise call.error(ResponseTooLargeError, text, limit=limit, announced=announced, status=answer.status)


def is_bomb(answer: Answer, size: int, ratio: int | None) -> bool:
    """Whether `size` bytes of a body are more than `ResponseLimits.max_ratio` times what came of it."""
    return size > RATIO_FROM and ratio is not None and size > ratio * answer.wire_bytes


def too_large(answer: Answer, call: Call, limit: int | None, size: int) -> ResponseTooLargeError:
    """The error for a body that exceeded `limit`, or is a bomb, after `size` bytes. No more of it is read."""
    received = answer.wire_bytes
    if limit is None or max(size, received) <= limit:
        ratio = call.config.limits.max_ratio or 0
        text = f"the body goes past max_ratio={ratio}: {received} bytes received so far, {size} decompressed"
        past: dict[str, Any] = {"limit": ratio * received, "ratio": ratio, "received": received, "decoded": size}
        return call.error(ResponseTooLargeError, text, status=answer.status, **past)
    text = f"the body goes past max_response_size={limit}: {received} bytes received so far"
    if size != received:
        text += f", {size} decompressed"
    return call.error(ResponseTooLargeError, text, limit=limit, received=received, decoded=size, status=answer.status)


async def read_body(answer: Answer, call: Call, limit: int | None) -> bytes:
    """Read the whole body; the connection goes back to the pool.

    Meanwhile the body is in memory once, in pieces of at most `limit` bytes together and one more, beside what the
    transport buffers. The pieces are joined when all of them are there.

    Raises:
        ResponseTooLargeError: It has more than `limit` bytes, as they came or as decompressed, or is a bomb. The pieces
            are dropped and the connection is closed.
        WireError: The body broke off.
    """
    pieces: list[bytes] = []
    size, whole = await _read_into(pieces, answer, limit, call.config.limits.max_ratio)
    if not whole:
        pieces.clear()  # otherwise the traceback keeps them alive
        raise too_large(answer, call, limit, size)
    return b"".join(pieces)


async def read_start(answer: Answer, limit: int, seconds: float | None = None) -> bytes:
    """The start of a body that only explains an error: what comes within `seconds`. Its own failures are ignored."""
    pieces: list[bytes] = []
    with contextlib.suppress(WireError, TimeoutError):
        async with asyncio.timeout(seconds):
            await _read_into(pieces, answer, limit)
    return b"".join(pieces)[:limit]


async def _read_into(
    pieces: list[bytes], answer: Answer, limit: int | None, ratio: int | None = None
) -> tuple[int, bool]:
    """Read the body until it ends or exceeds a limit. Returns the number of bytes, and whether that is all.

    If it is, the connection goes back to the pool; otherwise it is closed.
    """
    size = 0
    try:
        while piece := await answer.read_some():
            pieces.append(piece)
            size += len(piece)
            if (limit is not None and max(size, answer.wire_bytes) > limit) or is_bomb(answer, size, ratio):
                answer.abort()
                return size, False
    except BaseException:
        answer.abort()
        raise
    return size, True
