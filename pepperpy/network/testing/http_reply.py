"""`Reply` and `Failure`: what a server, or the network, does to a request.

Each failure raises what aiohttp raises in the same case, so that translation and retries are those of production.
"""

from __future__ import annotations

import asyncio
import errno
import http
import math
import socket
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage, TransferEncodingError
from multidict import CIMultiDict

from pepperpy.network.checks import check_int
from pepperpy.network.errors import (
    ConnectError,
    ConnectionLostError,
    IncompleteReadError,
    NetworkError,
    NetworkTimeoutError,
    PoolTimeoutError,
    ProtocolError,
    ProxyError,
    TLSError,
)
from pepperpy.network.http.checks import check_headers
from pepperpy.network.json_codec import default_codec
from pepperpy.network.testing.http_request import MockRequest

Delay: TypeAlias = float | asyncio.Event
"""Seconds of silence (`math.inf` for ever), or silence until the test sets the event."""

HeadFailure = Literal[
    "dns", "connect", "connect timeout", "tls", "proxy", "pool timeout", "disconnect", "reset", "stale", "timeout",
    "protocol",
]  # fmt: skip
BodyFailure = Literal["incomplete", "timeout"]
FailureKind: TypeAlias = HeadFailure | BodyFailure | type[NetworkError]

_OF_CLASS: dict[type[NetworkError], str] = {
    ConnectError: "connect",
    TLSError: "tls",
    ProxyError: "proxy",
    PoolTimeoutError: "pool timeout",
    NetworkTimeoutError: "timeout",
    ConnectionLostError: "reset",
    IncompleteReadError: "incomplete",
    ProtocolError: "protocol",
}


# The default where None is a value of its own.
NOTHING: Any = object()


class ReplyOptions(TypedDict, total=False):
    """The arguments of `Reply` beside the status; see there."""

    json: Any
    text: str | None
    content: bytes | None
    chunks: Iterable[bytes | str | Delay] | None
    headers: Mapping[str, str] | Iterable[tuple[str, str]]
    delay: Delay
    then_fail: BodyFailure | type[NetworkError] | None


class Reply:
    """A response. Give at most one of `json`, `text`, `content` and `chunks`; without any the body is empty.

    Args:
        status: 200 to 599. A redirect (301, 302, 303, 307, 308 with a `Location`) is followed as such.
        json: Any JSON value, None included.
        text: A text body; declared as text/plain in UTF-8. For `events()` give `headers` another Content-Type.
        content: A body of bytes, without a Content-Type.
        chunks: A body that comes in pieces, for streams: bytes or text, and between them delays (see below), in which
            the server is silent.
        headers: A mapping or pairs; pairs may repeat a name, such as `Set-Cookie`. They replace the headers that the
            body brings. Nothing is decompressed: with a `Content-Encoding`, give the body as the client shall get it.
        delay: The delay before the head comes; see below.
        then_fail: How the body breaks off after the given part: "incomplete" (the connection ends or is reset:
            `IncompleteReadError`) or "timeout" (`NetworkTimeoutError` of `read_timeout`, without the wait).

    A delay is a number of seconds (`math.inf`: for ever), or an `asyncio.Event` that the test sets. The time limits of
    the client apply meanwhile.

    Raises:
        TypeError, ValueError: No response can have such a value; the message names it.
    """

    def __init__(
        self,
        status: int = 200,
        *,
        json: Any = NOTHING,
        text: str | None = None,
        content: bytes | None = None,
        chunks: Iterable[bytes | str | Delay] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        delay: Delay = 0.0,
        then_fail: BodyFailure | type[NetworkError] | None = None,
    ) -> None:
        check_int("status", status, 200, 599)
        self.status = status
        self.delay = check_delay("delay", delay)
        self.then_fail = None if then_fail is None else kind_of("then_fail", then_fail, BODY_FAULTS)
        given = [json is not NOTHING, text is not None, content is not None, chunks is not None]
        if sum(given) > 1:
            raise ValueError("a reply has only one of json, text, content and chunks")
        self.headers: CIMultiDict[str] = CIMultiDict()
        body = b""
        if json is not NOTHING:
            body = default_codec().dumps(json)
            self.headers["Content-Type"] = "application/json"
        elif text is not None:
            body = text.encode()
            self.headers["Content-Type"] = "text/plain; charset=utf-8"
        elif content is not None:
            body = bytes(content)
        self.chunks = [body] if chunks is None else [_chunk(chunk) for chunk in chunks]
        # A body that is there at once has a length. Any other comes in chunks, unless the test gives a length.
        self.body: bytes | None = body if chunks is None and then_fail is None else None
        own = CIMultiDict(headers)
        for name, value in own.items():
            check_headers("headers", {name: value}, none=False)
        if self.body is not None:
            self.headers["Content-Length"] = str(len(body))
        elif "Content-Length" not in own:
            self.headers["Transfer-Encoding"] = "chunked"
        self.headers.update(own)

    def __repr__(self) -> str:
        return f"<Reply {self.status}>"

    @property
    def reason(self) -> str:
        """The usual phrase for the status, or an empty one."""
        try:
            return http.HTTPStatus(self.status).phrase
        except ValueError:
            return ""


class Failure:
    """A failure that a request meets instead of a response.

    Args:
        kind: A word of this list, or the error class that the client shall raise:

            "dns"                                  ConnectError: there is no such name; not tried again
            "connect" or ConnectError              the connection is refused
            "connect timeout"                      NetworkTimeoutError of `connect_timeout`
            "tls" or TLSError                      the certificate is not trusted
            "proxy" or ProxyError                  the proxy refuses the connection
            "pool timeout" or PoolTimeoutError     none of `max_connections` became free
            "reset" or ConnectionLostError         the connection is reset after the request was sent
            "disconnect"                           ConnectionLostError: closed without an answer
            "stale"                                the same on a pooled connection, which is tried again at once
            "timeout" or NetworkTimeoutError       no answer for `read_timeout`; without the wait
            "protocol" or ProtocolError            the answer is not HTTP
            "incomplete" or IncompleteReadError    a response 200 whose body breaks off

        delay: The delay before it happens: seconds, or an `asyncio.Event`, as in `Reply`.

    Raises:
        TypeError, ValueError: An unknown kind, or an invalid delay. The message lists the kinds.
    """

    def __init__(self, kind: FailureKind, *, delay: Delay = 0.0) -> None:
        self.kind = kind_of("kind", kind, (*get_args(HeadFailure), "incomplete"))
        self.delay = check_delay("delay", delay)

    def __repr__(self) -> str:
        return f"<Failure {self.kind!r}>"


def kind_of(field: str, kind: Any, allowed: Collection[str]) -> str:
    name: Any = _OF_CLASS.get(kind) if isinstance(kind, type) else kind
    if name not in allowed:
        shown = kind.__name__ if isinstance(kind, type) else repr(kind)
        raise ValueError(f"{field} must be one of {', '.join(map(repr, allowed))} or its error class, not {shown}")
    return str(name)


def check_delay(field: str, delay: Any) -> Delay:
    if isinstance(delay, asyncio.Event):
        return delay
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise TypeError(f"{field} must be seconds or an asyncio.Event, not {delay!r}")
    if delay < 0 or math.isnan(delay):
        raise ValueError(f"{field} must be 0 seconds or more, not {delay!r}")
    return delay


def _chunk(chunk: Any) -> bytes | Delay:
    if isinstance(chunk, str):
        return chunk.encode()
    if isinstance(chunk, (bytes, bytearray, memoryview)):
        return bytes(chunk)
    return check_delay("each of chunks that is not bytes or str", chunk)


# ---- What aiohttp raises ----


@dataclass(frozen=True)
class Fault:
    """An exception, and how far an attempt is when it comes."""

    make: Callable[[MockRequest], Exception]
    phase: str = "response"
    connected: bool = True
    reused: bool = False


def _request_info(request: MockRequest) -> aiohttp.RequestInfo:
    return aiohttp.RequestInfo(request.target, request.method, request.headers, request.target)


def _failed(kind: type[aiohttp.ClientConnectorError], error: OSError) -> Callable[[MockRequest], Exception]:
    def make(request: MockRequest) -> Exception:
        target = request.target
        # What the error shows of aiohttp's ConnectionKey.
        key: Any = SimpleNamespace(host=target.host, port=target.port, is_ssl=target.scheme == "https", ssl=True)
        # A new one each time: exceptions collect tracebacks.
        again = type(error)(*error.args)
        again.__dict__.update(error.__dict__)
        return kind(key, again)

    return make


def _reset(request: MockRequest) -> Exception:
    cause = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    error = aiohttp.ClientOSError(*cause.args)
    error.__cause__ = cause
    return error


def _not_http(request: MockRequest) -> Exception:
    error = aiohttp.ClientResponseError(_request_info(request), (), status=400, message="Bad status line")
    error.__cause__ = BadHttpMessage("Bad status line")
    return error


def _incomplete(request: MockRequest) -> Exception:
    error = aiohttp.ClientPayloadError("Response payload is not completed")
    error.__cause__ = TransferEncodingError("Not enough data to satisfy transfer length header.")
    return error


def _silent(request: MockRequest) -> Exception:
    return aiohttp.SocketTimeoutError("Timeout on reading data from socket")


def _untrusted() -> ssl.SSLCertVerificationError:
    text = "unable to get local issuer certificate"
    error = ssl.SSLCertVerificationError(1, f"certificate verify failed: {text}")
    error.verify_code = 20  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    error.verify_message = text
    return error


_REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
_NO_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

FAULTS: dict[str, Fault] = {
    "dns": Fault(_failed(aiohttp.ClientConnectorDNSError, _NO_NAME), "dns", False),
    "connect": Fault(_failed(aiohttp.ClientConnectorError, _REFUSED), "connect", False),
    "connect timeout": Fault(lambda _: aiohttp.ConnectionTimeoutError("Connection timeout"), "connect", False),
    "tls": Fault(_failed(aiohttp.ClientConnectorCertificateError, _untrusted()), "connect", False),
    "proxy": Fault(_failed(aiohttp.ClientProxyConnectionError, _REFUSED), "connect", False),
    "pool timeout": Fault(lambda _: aiohttp.ConnectionTimeoutError("Connection timeout"), "queue", False),
    "reset": Fault(_reset),
    "disconnect": Fault(lambda _: aiohttp.ServerDisconnectedError()),
    "stale": Fault(lambda _: aiohttp.ServerDisconnectedError(), reused=True),
    "timeout": Fault(_silent),
    "protocol": Fault(_not_http),
}
BODY_FAULTS: dict[str, Callable[[MockRequest], Exception]] = {"incomplete": _incomplete, "timeout": _silent}
