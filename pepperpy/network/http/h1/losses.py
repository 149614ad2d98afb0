"""What became of a connection, as a `WireError`; in words that hold no secret and nothing raw of a peer's."""

from __future__ import annotations

import errno
import ssl

from pepperpy.network import tls
from pepperpy.network._core.http_head import MalformedResponse
from pepperpy.network._core.http_reader import ResponseReader, TruncatedResponse
from pepperpy.network.http.system_text import text_of
from pepperpy.network.http.transport import WireError


def failure_of(error: BaseException, reader: ResponseReader, heard: bool, tls_of_proxy: bool) -> WireError:
    """What one of `READ_ERRORS` means.

    Args:
        heard: Whether a byte has come since the request.
        tls_of_proxy: Whether the connection's TLS is with a proxy.
    """
    if isinstance(error, MalformedResponse):
        return WireError("malformed", f"the server's answer is not HTTP: {error}", error, **error.details)
    if isinstance(error, TruncatedResponse):
        if reader.has_head:
            return WireError("truncated", str(error), error)
        return _without_head(error, heard)
    if isinstance(error, MemoryError):
        return WireError("other", "there is no memory for the answer", error)
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    timed_out = isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT
    ended = isinstance(cause, ssl.SSLEOFError)  # without close_notify
    if reader.has_head and (ended or not reader.ends_with_stream) and not timed_out:
        return WireError("truncated", f"the body ended before it was whole: {text_of(cause)}", cause)
    if ended:
        return _without_head(cause, heard)
    if isinstance(cause, ssl.SSLError) and not tls.is_refusal(cause):
        return WireError("reset", f"the connection was lost: {tls.SPOILED}", cause)
    if isinstance(cause, ssl.SSLError):
        # In TLS 1.3 the client counts the handshake as done before the server has checked the client's certificate.
        return WireError("tls", "TLS to the proxy: " * tls_of_proxy + tls.describe_failure(cause), cause)
    if timed_out:
        text = "the server gave no sign of life in time, or took no data (keepalive, user_timeout)"
        return WireError("reset", text, cause, limit="user_timeout")
    return WireError("reset", f"the connection was lost: {text_of(cause)}", cause)


def _without_head(cause: BaseException, heard: bool) -> WireError:
    if heard:
        return WireError("no_answer", "the server closed the connection in the middle of its answer's head", cause)
    return WireError("no_answer", "the server closed the connection without an answer", cause)
