"""aiohttp's exceptions into this package's: what happened, in which phase, and whether trying again may help."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import aiohttp
from aiohttp.http_exceptions import (
    ContentEncodingError,
    ContentLengthError,
    HttpProcessingError,
    TransferEncodingError,
)

from pepperpy.network import tls
from pepperpy.network.backoff import may_pass
from pepperpy.network.errors import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    IncompleteReadError,
    InvalidRequestError,
    NetworkError,
    NetworkTimeoutError,
    PoolTimeoutError,
    ProtocolError,
    ProxyError,
    TLSError,
    UploadError,
)
from pepperpy.network.http.call import Call
from pepperpy.network.http.redirects import location_of
from pepperpy.network.http.response import redirect_error
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.printable import printable
from pepperpy.network.tcp.tunnel import PASSING_STATUSES

# What an attempt and the reading of a body may raise.
FAILURES = (aiohttp.ClientError, OSError, ValueError, RuntimeError, BodyFailed)
# What else a third-party parser may raise that trips over what a server sent.
UNEXPECTED = (LookupError, ArithmeticError, TypeError, AttributeError)


def translate(error: Exception, call: Call) -> NetworkError:
    """The error to raise for what `Wire.send` or reading a body raised. `__cause__` is set, and shows no secret."""
    if call.body is not None and call.body.failure is not None:
        # Whatever aiohttp raised is a consequence of it.
        return call.error(UploadError, str(call.body.failure), call.body.failure.__cause__)
    if isinstance(error, BodyFailed):
        return call.error(UploadError, str(error), error.__cause__)
    if isinstance(error, NetworkError):
        # What is raised far below the call knows nothing of it.
        error.details = call.facts() | error.details
        return error
    if isinstance(error, TimeoutError):
        return _timed_out(error, call)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _not_connected(error, call)
    if isinstance(error, aiohttp.ClientResponseError):
        return _bad_response(error, call)
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return call.error(TLSError, "the certificate does not have the expected fingerprint", error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return _bad_body(error, call)
    if isinstance(error, (aiohttp.ClientConnectionError, OSError)):
        return _lost(error, call)
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        if call.history:
            last = call.history[-1]
            location = location_of(last.status, last.headers) or ""
            return redirect_error("redirected to a URL that cannot be used", location, call, error)
        # aiohttp says so of a host like 127.1. Its own text repeats the URL.
        why = error.description if isinstance(error, aiohttp.InvalidURL) else None
        return call.error(InvalidRequestError, f"the URL cannot be used{f': its host {why}' if why else ''}", error)
    if isinstance(error, RuntimeError) and "closed" in str(error).lower():
        return call.error(ClosedError, "the stream was left, or the client was closed", error)
    if isinstance(error, ValueError):
        return call.error(InvalidRequestError, printable(str(error), 500) or "the request cannot be sent", error)
    if call.connected:
        return unreadable(error, call)
    return call.error(NetworkError, f"failed with {type(error).__name__}", error)


def unreadable(error: Exception, call: Call) -> ProtocolError:
    return call.error(ProtocolError, f"what the server sent cannot be read: {type(error).__name__}", error)


def may_help(error: NetworkError) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, (TLSError, PoolTimeoutError)):
        return False
    if isinstance(error, NetworkTimeoutError):
        # A `timeout` that has passed was the caller's own limit; a silent peer may be another one next time.
        return error.details.get("limit") in ("connect_timeout", "read_timeout")
    if isinstance(error, ConnectError):
        if (status := error.details.get("status")) is not None:  # the proxy's
            return status in PASSING_STATUSES
        cause = error.__cause__
        return cause is not None and may_pass(cause)
    return isinstance(error, (ConnectionLostError, IncompleteReadError))


def _timed_out(error: Exception, call: Call) -> NetworkError:
    if call.phase == "queue":
        return call.error(PoolTimeoutError, "no connection became free in time", error, limit="max_connections")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        limit = "connect_timeout"
    elif isinstance(error, aiohttp.SocketTimeoutError):
        limit = "read_timeout"
    elif (left := call.time_left) is not None and left <= 0.01:
        limit = "deadline"
    else:
        limit = "timeout"
    return call.error(NetworkTimeoutError, f"timed out ({limit})", error, limit=limit)


def _not_connected(error: aiohttp.ClientConnectorError, call: Call) -> NetworkError:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return call.error(TLSError, tls.describe_failure(error.certificate_error), error.certificate_error)
    cause = error.os_error
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return call.error(TLSError, tls.describe_failure(cause), cause)
    if isinstance(cause, ProxyError):  # of proxy.py
        return call.error(ProxyError, f"cannot connect: {cause}", cause.__cause__, **cause.details)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return call.error(ProxyError, f"cannot connect to the proxy: {_words(cause)}", cause)
    if isinstance(cause, (ConnectionResetError, BrokenPipeError)) and call.url.scheme == "https":
        return call.error(ConnectError, f"cannot connect: {tls.describe_failure(cause)}", cause)
    if isinstance(error, aiohttp.ClientConnectorDNSError) or isinstance(cause, socket.gaierror):
        kind = ProxyError if error.host != call.host and "proxy" in call.options else ConnectError
        return call.error(kind, f"cannot look up {error.host!r}: {_words(cause)}", cause)
    return call.error(ConnectError, f"cannot connect: {_words(cause)}", cause)


def _bad_response(error: aiohttp.ClientResponseError, call: Call) -> NetworkError:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return call.error(ProxyError, f"the proxy answered {error.status}", error, status=error.status)
    if isinstance(error.__cause__ and error.__cause__.__cause__, ContentEncodingError):
        return call.error(
            ProtocolError, "the body is not compressed as announced, or in an unknown way", error.__cause__
        )
    # Not aiohttp's own words in full: they quote what came, which may be a cookie.
    reason = printable(error.message.partition("\n")[0].partition(": ")[0].rstrip(":.")) or "no reason was given"
    kind, who = _whose_answer(call)
    return call.error(kind, f"the {who}'s answer is not HTTP: {reason}", HttpProcessingError(message=reason))


def _bad_body(error: aiohttp.ClientPayloadError, call: Call) -> NetworkError:
    cause = error.__cause__
    if isinstance(cause, ContentEncodingError):
        return call.error(ProtocolError, "the body is not compressed as announced", _quiet(cause))
    if isinstance(cause, (ContentLengthError, TransferEncodingError)):
        return call.error(IncompleteReadError, "the body ended before it was whole", _quiet(cause))
    kind, who = _whose_answer(call)
    return call.error(kind, f"the {who}'s answer cannot be read: {_words(error)}", _quiet(error))


def _whose_answer(call: Call) -> tuple[type[NetworkError], str]:
    # While connecting, only a proxy answers: to CONNECT.
    return (ProxyError, "proxy") if call.phase == "connect" else (ProtocolError, "server")


def _lost(error: Exception, call: Call) -> NetworkError:
    cause = error
    if isinstance(error.__cause__, OSError):
        cause = error.__cause__
    if str(error) in ("Connector is closed.", "Connection closed"):
        return call.error(ClosedError, "the stream was left, or the client was closed", error)
    if isinstance(cause, ssl.SSLError):
        # With TLS 1.3 the server looks at the client's certificate when the client takes the handshake for done.
        return call.error(TLSError, tls.describe_failure(cause), cause)
    if isinstance(error, aiohttp.ServerDisconnectedError) and call.phase == "connect":
        text = "the proxy closed the connection instead of answering"
        return call.error(ProxyError, text, ConnectionResetError(errno.ECONNRESET, text))
    if not call.connected:
        return call.error(ConnectError, f"cannot connect: {_words(cause)}", cause)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return call.error(ConnectionLostError, "the server closed the connection without an answer", cause)
    if isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT:
        text = "the server gave no sign of life in time, or took no data (keepalive, user_timeout)"
        return call.error(ConnectionLostError, text, cause, limit="user_timeout")
    return call.error(ConnectionLostError, f"the connection was lost: {_words(cause)}", cause)


def _quiet(error: aiohttp.ClientPayloadError | HttpProcessingError) -> Exception:
    """`error`, or one of words that a traceback may show: aiohttp quotes what came as it is."""
    text = error.message if isinstance(error, HttpProcessingError) else str(error)
    if (shown := printable(text)) == text:
        return error
    return HttpProcessingError(message=shown) if isinstance(error, HttpProcessingError) else type(error)(shown)


def _words(error: BaseException) -> str:
    """What an operating system error says; never empty, never a URL."""
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if not error.errno or isinstance(error, (socket.gaierror, ssl.SSLError)) or os.strerror(error.errno) in text:
            return text
        # asyncio says which call failed, and not why.
        return f"{text}: {os.strerror(error.errno)}"
    text = str(error)
    return printable(text) if text and "://" not in text else type(error).__name__
