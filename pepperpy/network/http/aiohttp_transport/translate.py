"""aiohttp's exceptions as a `WireError`: what happened, in words that hold no secret and nothing raw of a peer's."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

import aiohttp
from aiohttp.http_exceptions import (
    ContentEncodingError,
    ContentLengthError,
    HttpProcessingError,
    LineTooLong,
    TransferEncodingError,
)

from pepperpy.network import tls
from pepperpy.network.errors import ForbiddenAddressError, ProxyError
from pepperpy.network.http.aiohttp_transport.handler import TooManyInterim, WriteTimeout
from pepperpy.network.http.request import Request
from pepperpy.network.http.system_text import text_of
from pepperpy.network.http.transport import Kind, Trip, WireError
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.printable import printable

# What an exchange and the reading of a body may raise.
FAILURES = (aiohttp.ClientError, OSError, ValueError, RuntimeError, BodyFailed)
# What else a third-party parser may raise that trips over what a server sent.
UNEXPECTED = (LookupError, ArithmeticError, TypeError, AttributeError)


def wire_error(error: Exception, request: Request, trip: Trip, closed: bool) -> WireError:
    """What `error`, raised for this request, means.

    Args:
        closed: Whether the answer was given back, or the transport closed.
    """
    # If the source of the body failed, that is the reason. aiohttp sends the body in a task of its own, and `error` is
    # only a consequence.
    failure = error if isinstance(error, BodyFailed) else None if request.body is None else request.body.failure
    if failure is not None:
        return WireError("body_failed", str(failure), failure.__cause__)
    if isinstance(error, TimeoutError):
        return _timed_out(error, trip)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _not_connected(error, request)
    if isinstance(error, aiohttp.ClientResponseError):
        return _bad_response(error, trip)
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return WireError("tls", "the certificate does not have the expected fingerprint", error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return _bad_body(error, trip)
    if closed and isinstance(error, (aiohttp.ClientConnectionError, RuntimeError)):
        return WireError("closed", cause=error)
    if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
        return _lost(error, trip)
    if isinstance(error, aiohttp.InvalidURL):
        # aiohttp says so of a host like 127.1. Its own text repeats the URL.
        why = f": its host {error.description}" if error.description else ""
        return WireError("bad_url", f"the URL cannot be used{why}", error)
    if isinstance(error, aiohttp.NonHttpUrlClientError):
        return WireError("bad_url", "the URL cannot be used", error)
    if isinstance(error, ValueError):
        return WireError("unsendable", printable(str(error), 500) or "the request cannot be sent", error)
    if trip.request_left:
        return unreadable(error)
    return WireError("other", f"failed with {type(error).__name__}", error)


def unreadable(error: Exception) -> WireError:
    return WireError("malformed", f"what the server sent cannot be read: {type(error).__name__}", error)


def _timed_out(error: TimeoutError, trip: Trip) -> WireError:
    if trip.phase == "queue":
        return WireError("queue_timeout", cause=error)
    if isinstance(error, WriteTimeout):
        return WireError("write_timeout", cause=error)
    return WireError("read_timeout" if trip.request_left else "connect_timeout", cause=error)


def _not_connected(error: aiohttp.ClientConnectorError, request: Request) -> WireError:
    of_proxy = request.proxy is not None and (error.host, error.port) != (request.url.raw_host, request.url.port)
    whose = "TLS to the proxy: " if of_proxy else ""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return WireError("tls", whose + tls.describe_failure(error.certificate_error), error.certificate_error)
    cause = error.os_error
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return WireError("tls", whose + tls.describe_failure(cause), cause)
    if isinstance(cause, ForbiddenAddressError):
        return WireError("forbidden", str(cause), cause.__cause__, **cause.details)
    if isinstance(cause, ProxyError):  # of tcp/tunnel.py
        return WireError("proxy", f"cannot connect: {cause}", cause.__cause__, **cause.details)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return WireError("proxy", f"cannot connect to the proxy: {text_of(cause)}", cause)
    if isinstance(cause, (ConnectionResetError, BrokenPipeError)) and request.url.scheme == "https":
        return WireError("refused", f"cannot connect: {tls.describe_failure(cause)}", cause)
    if isinstance(error, aiohttp.ClientConnectorDNSError) or isinstance(cause, socket.gaierror):
        kind: Kind = "proxy" if of_proxy else "dns"
        return WireError(kind, f"cannot look up {error.host!r}: {text_of(cause)}", cause)
    return WireError("refused", f"cannot connect: {text_of(cause)}", cause)


def _bad_response(error: aiohttp.ClientResponseError, trip: Trip) -> WireError:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return WireError("proxy", f"the proxy answered {error.status}", error, status=error.status)
    found = error.__cause__ and error.__cause__.__cause__  # by the parser
    if isinstance(found, ContentEncodingError):
        return WireError("bad_encoding", cause=error.__cause__)
    reason, details = _reason(error), _limit_of(found)
    kind, who = _whose_answer(trip)
    if details:
        reason = f"a line of the head is longer than max_field_size={details['size']} bytes"
    return WireError(kind, f"the {who}'s answer is not HTTP: {reason}", HttpProcessingError(message=reason), **details)


def _limit_of(error: BaseException | None) -> dict[str, Any]:
    """The `details` of an error about a limit. For too many headers there are none: aiohttp says that in words only."""
    if isinstance(error, LineTooLong):
        return {"limit": "max_field_size", "size": error.args[1]}
    return {"limit": "max_interim"} if isinstance(error, TooManyInterim) else {}


def _reason(error: aiohttp.ClientResponseError | HttpProcessingError) -> str:
    """What the parser says, without its quotations: they come from the peer, and may be cookies."""
    return printable(error.message.partition("\n")[0].partition(": ")[0].rstrip(":.")) or "no reason was given"


def _bad_body(error: aiohttp.ClientPayloadError, trip: Trip) -> WireError:
    cause = error.__cause__
    if isinstance(cause, ContentEncodingError):
        return WireError("bad_encoding", "the body is not compressed as announced", _quiet(cause))
    if isinstance(cause, (ContentLengthError, TransferEncodingError)):
        return WireError("truncated", cause=_quiet(cause))
    kind, who = _whose_answer(trip)
    shown = HttpProcessingError(message=_reason(cause)) if isinstance(cause, HttpProcessingError) else _quiet(error)
    return WireError(kind, f"the {who}'s answer cannot be read: {text_of(error)}", shown, **_limit_of(error))


def _whose_answer(trip: Trip) -> tuple[Kind, str]:
    # While connecting, only a proxy answers: to CONNECT.
    return ("proxy", "proxy") if trip.phase == "connect" else ("malformed", "server")


def _lost(error: Exception, trip: Trip) -> WireError:
    cause = error
    if isinstance(error.__cause__, OSError):
        cause = error.__cause__
    elif isinstance(error.__cause__, TypeError) and isinstance(tls_failure := error.__cause__.__context__, OSError):
        # Before CPython 3.11.8 and 3.12.2, asyncio stumbles when TLS within TLS fails (cpython#113214).
        cause = tls_failure
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        cause = aiohttp.ServerDisconnectedError()  # without the half of a head, cookies included, that aiohttp shows
    if isinstance(cause, ssl.SSLError) and trip.request_left and not tls.is_refusal(cause):
        return WireError("reset", f"the connection was lost: {tls.SPOILED}", cause)
    if isinstance(cause, ssl.SSLError):
        # In TLS 1.3 the client counts the handshake as done before the server has checked the client's certificate.
        return WireError("tls", tls.describe_failure(cause), cause)
    if isinstance(error, aiohttp.ServerDisconnectedError) and trip.phase == "connect":
        text = "the proxy closed the connection instead of answering"
        return WireError("proxy", text, ConnectionResetError(errno.ECONNRESET, text))
    if not trip.request_left:
        return WireError("refused", f"cannot connect: {text_of(cause)}", cause)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return WireError("no_answer", cause=cause)
    if isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT:
        text = "the server gave no sign of life in time, or took no data (keepalive, user_timeout)"
        return WireError("reset", text, cause, limit="user_timeout")
    return WireError("reset", f"the connection was lost: {text_of(cause)}", cause)


def _quiet(error: aiohttp.ClientPayloadError | HttpProcessingError) -> Exception:
    """`error`, or one like it with a printable text: aiohttp quotes what came as it is, and a traceback shows that."""
    text = error.message if isinstance(error, HttpProcessingError) else str(error)
    if (shown := printable(text)) == text:
        return error
    return HttpProcessingError(message=shown) if isinstance(error, HttpProcessingError) else type(error)(shown)
