"""`Reply` and `Failure`: what a server, or the network, does to a request.

Each failure is the `WireError` of the transport over aiohttp in the same case, its cause included, so that errors and
retries are those of production.
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
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError, TransferEncodingError
from multidict import CIMultiDict

from pepperpy.network import tls
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
from pepperpy.network.http.transport import Kind, Phase, WireError
from pepperpy.network.json_codec import default_codec

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
        self.delay: Delay = check_delay("delay", delay)
        self.then_fail: str | None = None if then_fail is None else kind_of("then_fail", then_fail, BODY_FAULTS)
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
        self.chunks: list[Delay | bytes] = [body] if chunks is None else [_chunk(chunk) for chunk in chunks]
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
        self.kind: str = kind_of("kind", kind, (*get_args(HeadFailure), "incomplete"))
        self.delay: Delay = check_delay("delay", delay)

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


# ---- What a transport raises ----


@dataclass(frozen=True)
class Fault:
    """What is raised, and how far an exchange is when it comes."""

    make: Callable[[str], WireError]  # of the host
    phase: Phase = "response"
    connected: bool = True
    reused: bool = False


def _no_such_name(host: str) -> WireError:
    cause = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return WireError("dns", f"cannot look up {host!r}: {cause.strerror}", cause)


def _refused(what: str, kind: Kind) -> Callable[[str], WireError]:
    # A new one each time: exceptions collect tracebacks.
    def make(host: str) -> WireError:
        return WireError(
            kind, f"{what}: Connection refused", ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        )

    return make


def _untrusted(host: str) -> WireError:
    text = "unable to get local issuer certificate"
    error = ssl.SSLCertVerificationError(1, f"certificate verify failed: {text}")
    error.verify_code = 20  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    error.verify_message = text
    return WireError("tls", tls.describe_failure(error), error)


def _not_connected_in_time(kind: Kind) -> Callable[[str], WireError]:
    return lambda host: WireError(kind, cause=aiohttp.ConnectionTimeoutError("Connection timeout"))


def _reset(host: str) -> WireError:
    cause = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return WireError("reset", f"the connection was lost: {cause.strerror}", cause)


def _no_answer(host: str) -> WireError:
    return WireError("no_answer", cause=aiohttp.ServerDisconnectedError())


def _not_http(host: str) -> WireError:
    why = "Bad status line"
    return WireError("malformed", f"the server's answer is not HTTP: {why}", HttpProcessingError(message=why))


def _incomplete(host: str) -> WireError:
    cause = TransferEncodingError("Not enough data to satisfy transfer length header.")
    return WireError("truncated", cause=cause)


def _silent(host: str) -> WireError:
    return WireError("read_timeout", cause=aiohttp.SocketTimeoutError("Timeout on reading data from socket"))


FAULTS: dict[str, Fault] = {
    "dns": Fault(_no_such_name, "dns", False),
    "connect": Fault(_refused("cannot connect", "refused"), "connect", False),
    "connect timeout": Fault(_not_connected_in_time("connect_timeout"), "connect", False),
    "tls": Fault(_untrusted, "connect", False),
    "proxy": Fault(_refused("cannot connect to the proxy", "proxy"), "connect", False),
    "pool timeout": Fault(_not_connected_in_time("queue_timeout"), "queue", False),
    "reset": Fault(_reset),
    "disconnect": Fault(_no_answer),
    "stale": Fault(_no_answer, reused=True),
    "timeout": Fault(_silent),
    "protocol": Fault(_not_http),
}
BODY_FAULTS: dict[str, Callable[[str], WireError]] = {"incomplete": _incomplete, "timeout": _silent}
