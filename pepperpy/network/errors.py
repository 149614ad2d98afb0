"""The error tree: every failure of this package is a `NetworkError`.

The class says whose doing it was: you (`ClosedError`, `NotConnectedError`, `BusyError`, `UsageError`,
`InvalidRequestError`, `UploadError`), the peer or the network (`ConnectError`, `ConnectionLostError`,
`IncompleteReadError`, `HTTPStatusError`, ...), or the clock (`NetworkTimeoutError`). Each is also the built-in
exception that code written for sockets or asyncio streams already catches. Cancellation is never wrapped:
`asyncio.CancelledError` passes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BusyError",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "DecodeError",
    "HTTPStatusError",
    "IncompleteReadError",
    "IntegrityError",
    "InvalidRequestError",
    "MessageTooLargeError",
    "NetworkError",
    "NetworkTimeoutError",
    "NotConnectedError",
    "PoolTimeoutError",
    "ProtocolError",
    "ProxyError",
    "RedirectError",
    "ResponseTooLargeError",
    "TLSError",
    "UploadError",
    "UsageError",
]


class NetworkError(Exception):
    """Base of all errors of this package; catch it to catch them all.

    Args:
        message: What happened, in words; never empty (the class name stands in for an empty one).
        details: Facts for programs: `host`, `port`, `phase`, `attempt` (counted from 1), `elapsed` (seconds),
            for HTTP `method` and `url` (without secrets), and what the subclass adds. Only what is known is present.
        cause: The error underneath; becomes `__cause__`.
    """

    def __init__(
        self,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
    ) -> None:
        self.message = message or type(self).__name__
        self.details: dict[str, Any] = dict(details or {})
        # Not through super().__init__(): OSError would read several arguments as errno and strerror.
        self.args = (self.message,)
        if cause is not None:
            self.__cause__ = cause
        if isinstance(self, OSError) and isinstance(cause, OSError):
            setattr(self, "errno", cause.errno)  # noqa: B010  (mypy takes an assignment for this class's own attribute)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # __cause__ is not part of the built-in exceptions' pickled state; a worker's report needs it.
        return type(self), (self.message, self.details, self.__cause__)


class ConnectError(NetworkError, ConnectionError):
    """No connection could be made; `__cause__` is the last attempt's error. Nothing was sent."""


class ConnectionLostError(NetworkError, ConnectionError):
    """The peer or the network ended the connection; `__cause__` is the OSError, if there was one.

    What had arrived before can still be received. What was handed over for sending may or may not
    have reached the peer. `connect()` makes a new connection.
    """


class ClosedError(NetworkError, ConnectionError):
    """You closed it: `disconnect()`, `abort()` or `send_eof()` came before this call, or during it."""


class NotConnectedError(NetworkError, ConnectionError):
    """You have not connected yet: call `connect()` or use `async with` first."""


class NetworkTimeoutError(NetworkError, TimeoutError):
    """The time limit passed first.

    Nothing was consumed or queued, and the connection stays usable, unless the call says otherwise.
    """


class IncompleteReadError(NetworkError, EOFError):
    """The peer ended its stream in the middle of what was asked for.

    `details["received"]` and, where it is known, `details["expected"]` count bytes. What was received is
    handed over once, as `partial`, and is no longer in the receive buffer.
    """

    def __init__(
        self,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
        partial: bytes = b"",
    ) -> None:
        super().__init__(message, details, cause)
        self.partial = partial

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.details, self.__cause__, self.partial)


class MessageTooLargeError(NetworkError, ValueError):
    """The peer sent a line or message beyond the limit that `details["limit"]` (bytes) names.

    Over TCP nothing was consumed: raise the limit and ask again, take the bytes with `receive()`, or disconnect. A
    stream of HTTP has given out what came before it, and cannot be read on.
    """


class BusyError(NetworkError, RuntimeError):
    """Two tasks at once: one already receives from, or connects, this client. It is not disturbed."""


class UsageError(NetworkError, RuntimeError):
    """The client was used from another thread, event loop or process than the one it was connected in.

    Or asked for what its connection cannot do: an end of one direction over TLS, TLS over TLS.
    """


# ---- HTTP, and TLS and proxies for both clients ----


class InvalidRequestError(NetworkError, ValueError):
    """You asked for something that cannot be sent: a bad URL, method, header or combination, an id that is in use.

    Nothing was sent.
    """


class UploadError(NetworkError):
    """The body could not be sent as announced: its source failed (`__cause__` says how) or has another size.

    The request was broken off, so that no server takes a part for the whole; the connection was closed.
    """


class TLSError(ConnectError):
    """No secure connection could be made; the message says which check failed.

    No application byte was sent, unless it was the server that refused the client's certificate: with TLS 1.3 it says
    so only afterwards, and has taken none.
    """


class ProxyError(ConnectError):
    """The proxy could not be reached, or refused; `details["status"]` is its answer's (of SOCKS, too), if it gave one.

    `details["proxy"]` is its URL without secrets, where it is one of a TCP connection or a SOCKS proxy.
    """


class PoolTimeoutError(NetworkTimeoutError):
    """The time limit passed while waiting for one of the connections of a pool.

    For HTTP: one of `max_connections`; none was attempted. For `NetworkPool`: `details` counts those `in_use` and
    `preparing` (being connected or checked), and the tasks `waiting`.
    """


class ProtocolError(NetworkError, ValueError):
    """The peer sent something that is not HTTP, or not what it had announced. Its connection was closed.

    Of `Framed`: what comes next in the stream is no message of its codec. Nothing was consumed, the connection is open.
    Of `request()` and pipelines: something that no request had asked for. The connection was aborted.
    """


class RedirectError(NetworkError, ValueError):
    """A redirect was not followed: too many, to no usable address, or from https to http."""


class ResponseTooLargeError(NetworkError, ValueError):
    """A body went past the limit that `details["limit"]` (bytes) names. Reading ended there, the connection closed."""


class DecodeError(NetworkError, ValueError):
    """A body, line or message is not the text, JSON or value that was asked for; `content` holds its bytes."""

    def __init__(
        self,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
        content: bytes = b"",
    ) -> None:
        super().__init__(message, details, cause)
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.details, self.__cause__, self.content)


class IntegrityError(NetworkError, ValueError):
    """A download arrived whole, but its size or checksum is not the expected one; nothing was put in place."""


class HTTPStatusError(NetworkError):
    """The server answered with a status of 400 or above.

    Attributes:
        status: The status code.
        reason: The reason phrase; may be empty.
        headers: The response's headers, a case-insensitive mapping.
        method: The request's method.
        url: The URL that answered, without secrets.
        body: The start of the response's body, at most `HTTPConfig.max_error_body` bytes.
    """

    def __init__(
        self,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message, details, cause)
        self.headers: Mapping[str, str] = headers if headers is not None else {}
        self.body = body

    @property
    def status(self) -> int:
        return int(self.details["status"])

    @property
    def reason(self) -> str:
        return str(self.details.get("reason", ""))

    @property
    def method(self) -> str:
        return str(self.details.get("method", ""))

    @property
    def url(self) -> str:
        return str(self.details.get("url", ""))

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, because aiohttp's view of the headers does not pickle.
        headers: Any = self.headers
        return type(self), (self.message, self.details, self.__cause__, headers.copy(), self.body)
