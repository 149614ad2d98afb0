"""The error tree: every failure of this package is a `NetworkError`.

The class says what caused the failure: you (`ClosedError`, `NotConnectedError`, `BusyError`, `UsageError`,
`InvalidRequestError`, `UploadError`), the peer or the network (`ConnectError`, `ConnectionLostError`,
`IncompleteReadError`, `HTTPStatusError`, ...), or the clock (`NetworkTimeoutError`). Each is also the built-in
exception that code written for sockets or asyncio streams already catches. Where the system, the resolver or OpenSSL
has raised a more special one, such as `ConnectionRefusedError`, the error is that, too: see `also_as()`. A cancellation
is never wrapped: `asyncio.CancelledError` passes through.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pepperpy.network.transient import PASSING_PROXY_STATUSES, PASSING_STATUSES, may_pass

__all__ = [
    "BusyError",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "DecodeError",
    "EndOfStreamError",
    "ForbiddenAddressError",
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

    Every error can be copied and pickled. A pickled error keeps its cause. A cause that cannot be pickled becomes a
    `PickledCause` with its class and text; a detail that cannot be pickled becomes its `repr`.

    Args:
        message: What happened, in words; never empty (the class name stands in for an empty one).
        details: Facts for programs: `host`, `port`, `phase`, `attempt` (counted from 1), `elapsed` (seconds),
            for HTTP `method` and `url` (without password and query values) and behind a redirect `redirected_to`, which
            is where it led, and what the subclass adds. A fact that is not known is left out.
        cause: The error underneath; becomes `__cause__`.
    """

    def __init__(
        self,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
    ) -> None:
        self.message: str = message or type(self).__name__
        self.details: dict[str, Any] = dict(details or {})
        # Not through super().__init__(): OSError would read several arguments as errno and strerror.
        self.args: tuple[Any, ...] = (self.message,)
        if cause is not None:
            self.__cause__: BaseException | None = cause
        if isinstance(self, OSError) and isinstance(cause, OSError):
            # By setattr: mypy takes an assignment for a new attribute of this class.
            for name in _builtin_fields(cause):
                setattr(self, name, getattr(cause, name))

    def __str__(self) -> str:
        return self.message

    @functools.cached_property
    def is_transient(self) -> bool:
        """Whether another attempt may help: refused, unreachable, lost, too slow, or a server that is busy.

        Retries of both clients go by this. An error of `connect()` and of reconnecting says what these went by, with
        `NetworkConfig.may_pass`. Whether to send again what may have arrived is another question, which it does not
        answer.
        """
        return self._may_help()

    def _may_help(self) -> bool:
        return False

    def _state(self) -> dict[str, Any]:
        """All attributes, those of the built-in class and `__cause__` included."""
        fields = ("args", "__cause__", *_builtin_fields(self))
        return {name: getattr(self, name) for name in fields} | self.__dict__

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        for name, value in (state or {}).items():
            if name != "__cause__" or value is not None:
                setattr(self, name, value)

    def __copy__(self) -> NetworkError:
        error = _empty(*_parts(self))
        error.__setstate__(self._state() | {"details": dict(self.details)})
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        # Built-in exceptions leave __cause__ out of their pickled state, but the report of a worker needs it.
        cause = self.__cause__
        if cause is not None and not _pickles(cause):
            cause = PickledCause(f"{type(cause).__module__}.{type(cause).__qualname__}: {_text(cause)}")
        state = self._state() | {"details": None, "__cause__": None}
        return _empty, _parts(self), _picklable(state) | {"details": _picklable(self.details), "__cause__": cause}


class ConnectError(NetworkError, ConnectionError):
    """No connection could be made; `__cause__` is the last attempt's error. Nothing was sent.

    It is also what that error is: a `ConnectionRefusedError`, `socket.gaierror` (the name has no address),
    `FileNotFoundError` (no such Unix socket), `PermissionError`, ..., with its `errno`.
    """

    def _may_help(self) -> bool:
        return may_pass(self.__cause__)


class ConnectionLostError(NetworkError, ConnectionError):
    """The peer or the network ended the connection; `__cause__` is the OSError, if there was one.

    What had arrived before can still be received. What was handed over for sending may or may not
    have reached the peer. `connect()` makes a new connection. Where the system has said how it was lost, the error is
    also a `ConnectionResetError`, `BrokenPipeError`, ..., with its `errno`.
    """

    def _may_help(self) -> bool:
        return True


class ClosedError(NetworkError, ConnectionError):
    """You closed the connection: `disconnect()`, `abort()` or `send_eof()` came before this call, or during it."""


class NotConnectedError(NetworkError, ConnectionError):
    """You have not connected yet: call `connect()` or use `async with` first."""


class NetworkTimeoutError(NetworkError, TimeoutError):
    """A time limit passed before the call was done.

    Nothing was consumed or queued, and the connection stays usable, unless the call says otherwise.
    """

    def _may_help(self) -> bool:
        # HTTP names the limit. `timeout` and `deadline` were the caller's own; after silence, another peer may answer.
        return self.details.get("limit") in (None, "connect_timeout", "read_timeout", "write_timeout")


class IncompleteReadError(NetworkError, asyncio.IncompleteReadError):
    """The peer ended its stream in the middle of what was asked for. It is also asyncio's error of this name.

    Attributes:
        partial: What was received, which is no longer in the receive buffer. `details["received"]` counts it.
        expected: How many bytes were asked for, as `details["expected"]`; None if that is not known.
    """

    def __init__(
        self,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
        partial: bytes = b"",
    ) -> None:
        super().__init__(message, details, cause)
        self.partial: bytes = partial

    @property
    def expected(self) -> int | None:  # type: ignore[override]  # asyncio's is a plain attribute
        found: int | None = self.details.get("expected")
        return found

    def _may_help(self) -> bool:
        return True


class EndOfStreamError(NetworkError, EOFError):
    """The peer has ended its stream, and every byte before that is taken. Only with `NetworkConfig(eof="raise")`."""

    def _may_help(self) -> bool:
        return True


class MessageTooLargeError(NetworkError, ValueError):
    """The peer sent a line or message beyond the limit that `details["limit"]` (bytes) names.

    Over TCP nothing was consumed: raise the limit and ask again, take the bytes with `receive()`, or disconnect. An
    HTTP stream has returned what came before, and cannot be read any further.
    """


class BusyError(NetworkError, RuntimeError):
    """Another task already receives from this client, or connects it. That task is not disturbed."""


class UsageError(NetworkError, RuntimeError):
    """The client was used in a way that it does not support.

    It was used from another thread, event loop or process than the one it was connected in; or asked for what its
    connection cannot do (to end one direction over TLS, TLS over TLS); or told to connect again while it still holds
    bytes of a stream that the peer has ended.
    """


# ---- HTTP, and TLS and proxies for both clients ----


class InvalidRequestError(NetworkError, ValueError):
    """The request is invalid: a bad URL, method, header or combination, or an id that is in use. Nothing was sent."""


class UploadError(NetworkError):
    """The body could not be sent as announced: its source failed (`__cause__` says how) or has another size.

    The connection was closed in the middle of the request, so that no server takes a part for the whole.
    """


class TLSError(ConnectError):
    """No secure connection could be made; the message says which check failed.

    It is also what OpenSSL or the system has raised: an `ssl.SSLError`, `ssl.SSLCertVerificationError` (with its
    `verify_code`), or a `ConnectionResetError` if the peer hung up.

    No application byte was sent, with one exception: a server that refuses the client's certificate says so late with
    TLS 1.3, after the first bytes. It has processed none of them.
    """


class ProxyError(ConnectError):
    """The proxy could not be reached, or refused.

    `details["status"]` is the status of its answer, if it gave one; SOCKS has one too. `details["proxy"]` is its URL
    without secrets, for TCP connections and SOCKS proxies.
    """

    def _may_help(self) -> bool:
        status = self.details.get("status")
        return super()._may_help() if status is None else status in PASSING_PROXY_STATUSES


class ForbiddenAddressError(ConnectError):
    """The `address_policy` allows none of the host's addresses, or not to leave the lookup to a proxy.

    Nothing was sent, and no connection was tried to such an address. It is never tried again: neither by `retries` nor
    by a client that reconnects. `details["addresses"]` has the forbidden ones.
    """

    def _may_help(self) -> bool:
        return False


class PoolTimeoutError(NetworkTimeoutError):
    """The time limit passed while the call waited for a connection of a pool.

    HTTP: for one of `max_connections`; no connection was attempted. `NetworkPool`: `details` counts the connections
    `in_use` and `preparing` (being connected or checked), and the tasks `waiting`.
    """

    def _may_help(self) -> bool:
        # The time went by here. Another attempt would only lengthen the queue.
        return False


class ProtocolError(NetworkError, ValueError):
    """The peer broke the protocol.

    HTTP: it sent something that is not HTTP, or not what it had announced. The connection was closed.
    `Framed`: the next bytes are no message of the codec. Nothing was consumed, and the connection is open.
    `request()` and pipelines: it sent something that no request had asked for. The connection was aborted.
    """


class RedirectError(NetworkError, ValueError):
    """A redirect was not followed: there were too many, it led to no usable address, or from https to http.

    Attributes:
        location: Where it leads, as the server wrote it. The message leaves it out: an app's address may have a code.
        history: The redirects up to this one, oldest first, as `HTTPResponse.history`. A pickled error has none.
    """

    location: str = ""
    history: tuple[Any, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        make, parts, state = super().__reduce__()
        return make, parts, {**state, "history": ()}


class ResponseTooLargeError(NetworkError, ValueError):
    """A body exceeded the limit that `details["limit"]` (bytes) names. The connection was closed.

    With a `ratio` in the `details`, the limit is that of a decompressed body of what had come (`max_ratio`).
    """


class DecodeError(NetworkError, ValueError):
    """A body, line or message is not the text, JSON or value that was asked for. `content` holds its bytes."""

    def __init__(
        self,
        message: str = "",
        details: Mapping[str, Any] | None = None,
        cause: BaseException | None = None,
        content: bytes = b"",
    ) -> None:
        super().__init__(message, details, cause)
        self.content = content


class IntegrityError(NetworkError, ValueError):
    """A download is complete, but its size or checksum is not the expected one. The file was not put in place."""


class HTTPStatusError(NetworkError):
    """The server answered with a status of 400 or above.

    Attributes:
        status: The status code.
        reason: The reason phrase; may be empty.
        headers: The response's headers, a case-insensitive mapping.
        method: The request's method.
        url: The URL that answered, without password and query values; its path is shown as it is.
        body: The start of the response's body, at most `ResponseLimits.max_error_body` bytes.
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

    def _may_help(self) -> bool:
        return self.details.get("status") in PASSING_STATUSES

    def _state(self) -> dict[str, Any]:
        # A copy of a multidict's read-only view is a multidict, which pickles.
        headers: Any = self.headers
        return {**super()._state(), "headers": headers.copy() if hasattr(headers, "copy") else dict(headers)}


# ---- Two classes in one ----

Kind = TypeVar("Kind", bound=NetworkError)


def also(kind: type[Kind], builtin: type[BaseException]) -> type[Kind]:
    """A class, named as `kind`, whose errors are of `kind` and of the built-in class that `builtin` is or derives from;
    those of the modules socket and ssl count as built in.

    For failures that programs know as built-in exceptions: `FileNotFoundError` for a missing file, `ImportError` for a
    missing package.
    """
    # No generator: one that ends for want of memory is reported a second time, as an error that nobody caught.
    for base in builtin.__mro__:
        if base.__module__ in ("builtins", "socket", "ssl"):
            builtin = base
            break
    made: Any = kind if issubclass(kind, builtin) else _both((kind, builtin))
    both: type[Kind] = made
    return both


def also_as(kind: type[Kind], cause: BaseException | None) -> type[Kind]:
    """A class whose errors are of `kind` and, if `cause` is an `OSError`, of the class of that: what callers catch.

    But for `TimeoutError`: to callers, that is a limit of theirs that has passed, after which they may call again.
    """
    return also(kind, type(cause)) if isinstance(cause, OSError) and not isinstance(cause, TimeoutError) else kind


@functools.cache
def _both(parts: tuple[Any, Any]) -> type:
    kind = parts[0]
    return type(kind.__name__, parts, {"__module__": kind.__module__, "__doc__": kind.__doc__, "_parts": parts})


def what_is_needed(what: str, package: str, extra: str) -> str:
    """The text that every missing package has: what it is for, the extra that lists it, the command that installs it.

    The command names the package itself: it works for an installation from an index, from a file and from a checkout.
    tests/house/test_extras.py compares the extra with pyproject.toml.
    """
    return f"{what} needs {package}, which is in the extra {extra!r}: pip install {package}"


def not_installed(what: str, package: str, extra: str) -> NetworkError:
    """The error for `what`, which needs a package that is not installed: a `UsageError` and `ModuleNotFoundError`.

    Its details have `package` and `extra`.
    """
    text = what_is_needed(what, package, extra)
    error = also(UsageError, ModuleNotFoundError)(text, {"package": package, "extra": extra})
    setattr(error, "name", package.replace("-", "_"))  # noqa: B010  (mypy knows the class as UsageError only)
    return error


def without_tracebacks(error: Kind) -> Kind:
    """The same error. Neither it nor what it was raised from has a traceback, which would keep frames alive."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        if (each := left.pop()) is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        left += (each.__cause__, each.__context__, *(each.exceptions if isinstance(each, BaseExceptionGroup) else ()))
    return error


# ---- Copies ----


class PickledCause(Exception):
    """Stands in for a `__cause__` that cannot be pickled. Its text has the class and the text of that cause."""


_SIMPLE = (str, bytes, int, float, bool, type(None))
_OF_OSERROR = ("errno", "strerror", "filename")
_OF_SSLERROR = ("library", "reason", "verify_code", "verify_message")  # each has some of them


def _parts(error: NetworkError) -> tuple[type[NetworkError], type[BaseException] | None]:
    found: tuple[type[NetworkError], type[BaseException] | None] = getattr(type(error), "_parts", (type(error), None))
    return found


def _builtin_fields(error: BaseException) -> tuple[str, ...]:
    """The fields that the built-in class of an error stores outside of its `__dict__`."""
    # No generator expression here, nor elsewhere on the way of an error for want of memory: it makes a function, and
    # CPython 3.12 and 3.13 crash where there is no memory for that.
    if isinstance(error, ssl.SSLError):
        return *_OF_OSERROR, *[name for name in _OF_SSLERROR if hasattr(error, name)]
    if isinstance(error, OSError):
        return _OF_OSERROR
    return ("name",) if isinstance(error, ImportError) else ()


def _empty(kind: type[NetworkError], builtin: type[BaseException] | None) -> NetworkError:
    """An error without content, for `__setstate__` to fill."""
    made: Any = kind if builtin is None else also(kind, builtin)
    # `__base__` is the base with the built-in fields. `made.__new__` may belong to another base, which would raise.
    error: NetworkError = made.__base__.__new__(made)
    return error


def _picklable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value if _pickles(value) else _text(value, repr) for name, value in values.items()}


def _pickles(value: object) -> bool:
    # Errors of this module always pickle. Checking each error in a chain of causes would double the work at each level.
    if isinstance(value, (*_SIMPLE, PickledCause, NetworkError)) and type(value).__module__ in (__name__, "builtins"):
        return True
    import pickle

    try:
        # In both directions: many exceptions pickle but do not unpickle, because their arguments are not in `args`.
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True


def _text(value: object, make: Callable[[object], str] = str) -> str:
    try:
        return make(value)
    except Exception as failure:
        return f"({make.__name__}() of it raised {type(failure).__name__})"
