"""Asynchronous network clients with a C core.

    NetworkClient (tcp.py)          the documented API: policy, no bytes
        proxy.py, handshake.py      through a proxy; from a socket to a connection, with TLS or without
        connect.py, backoff.py      from a host name to a connected socket
        attempt.py, reconnect.py    on_connect and further hosts; what goes on between two connections
        _stream_protocol            asyncio's callbacks                          } compiled from
        _receiver, _sender          what a task takes and what it hands over     } ext/pepperpy/network
        _receive_buffer, _send_queue, _waiter, _endpoint                         }
        framed.py                   messages over it; framing.py, serialized.py: the codecs
        _frame_reader, _framers     one message out of the receiver; where it ends   (compiled as well)
    NetworkPool (pool.py)           lends connected NetworkClients; pool.py has its picture
        request.py, pipeline.py     whose a reply is: one exchange at a time, or many
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
from pepperpy.network.tls import TLSInfo

if TYPE_CHECKING:
    from pepperpy.network.framed import Framed
    from pepperpy.network.framing import COBS, SLIP, Codec, Delimited, Fixed, LengthPrefixed, Netstring
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
    from pepperpy.network.pipeline import Pipeline
    from pepperpy.network.pool import NetworkPool, PoolStats
    from pepperpy.network.serialized import JSONLines, Mapped, MsgPack

# Loaded on first touch: programs that only speak TCP do not wait for aiohttp's import.
_LAZY_MODULES = {
    "Auth": "http.auth",
    "BasicAuth": "http.auth",
    "BearerAuth": "http.auth",
    "COBS": "framing",
    "Codec": "framing",
    "Delimited": "framing",
    "DownloadResult": "http.download",
    "Fixed": "framing",
    "Framed": "framed",
    "HTTPClient": "http.client",
    "HTTPConfig": "http.config",
    "HTTPResponse": "http.response",
    "HTTPStats": "http.client",
    "HTTPStream": "http.stream",
    "Interceptor": "http.interceptors",
    "JSONCodec": "http.codec",
    "JSONLines": "serialized",
    "LengthPrefixed": "framing",
    "MapResult": "http.mapping",
    "Mapped": "serialized",
    "MsgPack": "serialized",
    "Netstring": "framing",
    "NetworkPool": "pool",
    "PoolStats": "pool",
    "RateLimit": "http.rate_limit",
    "RefreshingAuth": "http.auth",
    "RequestData": "http.codec",
    "RequestOptions": "http.prepare",
    "Pipeline": "pipeline",
    "SLIP": "framing",
    "ServerSentEvent": "http.sse",
    "Timings": "http.call",
}


def __getattr__(name: str) -> Any:
    if (module := _LAZY_MODULES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "COBS",
    "SLIP",
    "Auth",
    "BasicAuth",
    "BearerAuth",
    "BusyError",
    "ClosedError",
    "Codec",
    "ConnectError",
    "ConnectionLostError",
    "DecodeError",
    "Default",
    "Delimited",
    "DownloadResult",
    "Fixed",
    "Framed",
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
    "JSONLines",
    "LengthPrefixed",
    "MapResult",
    "Mapped",
    "MessageTooLargeError",
    "MsgPack",
    "Netstring",
    "NetworkClient",
    "NetworkConfig",
    "NetworkError",
    "NetworkPool",
    "NetworkStats",
    "NetworkTimeoutError",
    "NotConnectedError",
    "Pipeline",
    "PoolStats",
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
    "TLSInfo",
    "Timings",
    "UploadError",
    "UsageError",
]
