"""Asynchronous network clients with a C core.

    NetworkClient (tcp.py)          the documented API: policy, no bytes
        connect.py, backoff.py      from a host name to a connected socket
        attempt.py, reconnect.py    on_connect and further hosts; what goes on between two connections
        _stream_protocol            asyncio's callbacks                          } compiled from
        _receiver, _sender          what a task takes and what it hands over     } ext/pepperpy/network
        _receive_buffer, _send_queue, _waiter, _endpoint                         }
    HTTPClient (http/)              the documented API on aiohttp; http/__init__.py has its picture
    errors.py, config.py, backoff.py, tls.py        shared by all

docs/architecture.md follows one byte through it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pepperpy.network.config import Default, NetworkConfig
from pepperpy.network.errors import (
    BusyError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DecodeError,
    HTTPStatusError,
    IncompleteReadError,
    IntegrityError,
    InvalidRequestError,
    MessageTooLargeError,
    NetworkError,
    NetworkTimeoutError,
    NotConnectedError,
    PoolTimeoutError,
    ProtocolError,
    ProxyError,
    RedirectError,
    ResponseTooLargeError,
    TLSError,
    UploadError,
    UsageError,
)
from pepperpy.network.tcp import NetworkClient, NetworkStats

if TYPE_CHECKING:
    from pepperpy.network.http.auth import Auth, BasicAuth, BearerAuth, RefreshingAuth
    from pepperpy.network.http.call import Timings
    from pepperpy.network.http.client import HTTPClient, HTTPStats
    from pepperpy.network.http.codec import JSONCodec, RequestData
    from pepperpy.network.http.config import HTTPConfig
    from pepperpy.network.http.download import DownloadResult
    from pepperpy.network.http.interceptors import Interceptor
    from pepperpy.network.http.mapping import MapResult
    from pepperpy.network.http.prepare import RequestOptions
    from pepperpy.network.http.rate_limit import RateLimit
    from pepperpy.network.http.response import HTTPResponse
    from pepperpy.network.http.sse import ServerSentEvent
    from pepperpy.network.http.stream import HTTPStream

# Loaded on first touch: programs that only speak TCP do not wait for aiohttp's import.
_HTTP_MODULES = {
    "Auth": "auth",
    "BasicAuth": "auth",
    "BearerAuth": "auth",
    "DownloadResult": "download",
    "HTTPClient": "client",
    "HTTPConfig": "config",
    "HTTPResponse": "response",
    "HTTPStats": "client",
    "HTTPStream": "stream",
    "Interceptor": "interceptors",
    "JSONCodec": "codec",
    "MapResult": "mapping",
    "RateLimit": "rate_limit",
    "RefreshingAuth": "auth",
    "RequestData": "codec",
    "RequestOptions": "prepare",
    "ServerSentEvent": "sse",
    "Timings": "call",
}


def __getattr__(name: str) -> Any:
    if (module := _HTTP_MODULES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.http.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Auth",
    "BasicAuth",
    "BearerAuth",
    "BusyError",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "DecodeError",
    "Default",
    "DownloadResult",
    "HTTPClient",
    "HTTPConfig",
    "HTTPResponse",
    "HTTPStats",
    "HTTPStatusError",
    "HTTPStream",
    "IncompleteReadError",
    "IntegrityError",
    "Interceptor",
    "InvalidRequestError",
    "JSONCodec",
    "MapResult",
    "MessageTooLargeError",
    "NetworkClient",
    "NetworkConfig",
    "NetworkError",
    "NetworkStats",
    "NetworkTimeoutError",
    "NotConnectedError",
    "PoolTimeoutError",
    "ProtocolError",
    "ProxyError",
    "RateLimit",
    "RedirectError",
    "RefreshingAuth",
    "RequestData",
    "RequestOptions",
    "ResponseTooLargeError",
    "ServerSentEvent",
    "TLSError",
    "Timings",
    "UploadError",
    "UsageError",
]
