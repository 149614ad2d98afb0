"""What a failed exchange becomes: an error of this package. `retries.py` decides whether another one may help."""

from __future__ import annotations

from pepperpy.network.errors import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    ForbiddenAddressError,
    IncompleteReadError,
    InvalidRequestError,
    NetworkError,
    NetworkTimeoutError,
    PoolTimeoutError,
    ProtocolError,
    ProxyError,
    TLSError,
    UploadError,
    also_as,
)
from pepperpy.network.http.call import Call
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.redirects import location_of
from pepperpy.network.http.response import redirect_error
from pepperpy.network.http.transport import Kind, WireError

_ERRORS: dict[Kind, type[NetworkError]] = {
    "dns": ConnectError,
    "forbidden": ForbiddenAddressError,
    "refused": ConnectError,
    "connect_timeout": NetworkTimeoutError,
    "queue_timeout": PoolTimeoutError,
    "read_timeout": NetworkTimeoutError,
    "write_timeout": NetworkTimeoutError,
    "tls": TLSError,
    "proxy": ProxyError,
    "reset": ConnectionLostError,
    "no_answer": ConnectionLostError,
    "malformed": ProtocolError,
    "truncated": IncompleteReadError,
    "bad_encoding": ProtocolError,
    "closed": ClosedError,
    "bad_url": InvalidRequestError,
    "unsendable": InvalidRequestError,
    "body_failed": UploadError,
    "other": NetworkError,
}

# The setting that `details["limit"]` names.
_LIMITS: dict[Kind, str] = {
    "connect_timeout": "connect_timeout",
    "queue_timeout": "max_connections",
    "read_timeout": "read_timeout",
    "write_timeout": "write_timeout",
}


def failure_of(error: WireError | NetworkError | TimeoutError, call: Call) -> NetworkError:
    """The error to raise for what ended an attempt or the reading of a body. Its `__cause__` shows no secret.

    Args:
        error: What the transport raised; or `TimeoutError`: the time of the attempt was over.
    """
    if call.body is not None and call.body.failure is not None:
        # Whatever was raised is a consequence of it.
        return call.error(UploadError, str(call.body.failure), call.body.failure.__cause__)
    if isinstance(error, WireError):
        return _of_the_wire(error, call)
    if isinstance(error, NetworkError):
        # What is raised far below the call knows nothing of it.
        error.details = call.facts() | error.details
        return error
    if call.phase == "queue":
        return _of_the_wire(WireError("queue_timeout", cause=error), call)
    limit = "deadline" if (left := call.time_left) is not None and left <= 0.01 else "timeout"
    return call.error(NetworkTimeoutError, f"timed out ({limit})", error, limit=limit)


_OF_THE_QUEUE = ("max_connections", "max_connections_per_host")


def _of_the_wire(error: WireError, call: Call) -> NetworkError:
    kind, details = error.kind, error.details
    if kind == "bad_url" and call.history:
        _, last = call.history[-1]
        location = location_of(last.status, last.headers) or ""
        return redirect_error("redirected to a URL that cannot be used", location, call, error.cause)
    if (limit := _LIMITS.get(kind)) is not None:
        details = {"limit": limit, **details}
    text = error.text
    if kind == "queue_timeout":
        text += f" ({_limits_of_the_queue(call.config, str(details['limit']))})"
    made = _ERRORS[kind]
    if issubclass(made, (ConnectError, ConnectionLostError)):
        made = also_as(made, error.cause)
    return call.error(made, text, error.cause, **details)


def _limits_of_the_queue(config: HTTPConfig, passed: str) -> str:
    shown = [f"{name}={value}" for name in _OF_THE_QUEUE if (value := getattr(config, name)) is not None]
    return "; ".join(shown if passed == "max_connections" else [passed, *shown])
