"""Asynchronous network clients with a C core.

    NetworkClient, NetworkConfig     one stream connection: TCP, TLS, a proxy, a Unix socket
    NetworkClient.framed()           its messages, told apart by a codec: LengthPrefixed, JSONLines, ...
    NetworkClient.request(), .pipeline()    whose a reply is
    NetworkPool                      lends connected clients
    serve()                          accepts connections: a NetworkClient for each
    HTTPClient, HTTPConfig           HTTP on the same core; `session` is aiohttp's
    NetworkError                     the base of all errors (errors.py)
    testing                          what stands in for servers and networks in tests

docs/architecture.md shows the folders and follows one byte through them; each folder lists its files.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from pepperpy.network import config as _config
from pepperpy.network import tcp_settings as _tcp_settings
from pepperpy.network.address_policy import PublicOnly
from pepperpy.network.checks import Default, Timeout
from pepperpy.network.config import NetworkConfig, State
from pepperpy.network.errors import (
    BusyError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DecodeError,
    EndOfStreamError,
    ForbiddenAddressError,
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
from pepperpy.network.keepalive import Keepalive
from pepperpy.network.tcp.client import NetworkClient
from pepperpy.network.tcp.stats import NetworkStats
from pepperpy.network.tcp.tcp_info import TCPInfo
from pepperpy.network.tcp_settings import BufferLimits, Heartbeat, Reconnect
from pepperpy.network.tls import TLSInfo
from pepperpy.network.tls_config import TLSConfig

if TYPE_CHECKING:
    __version__: str
    from pepperpy.network.events import (
        AttemptDone,
        CallDone,
        CallStarted,
        ConnectDone,
        ConnectionDropped,
        Done,
        Event,
        HeartbeatDone,
        LookupDone,
        PoolWaitDone,
        ProxyDone,
        ResponseStarted,
        StateChanged,
        TLSDone,
    )
    from pepperpy.network.http.auth import Auth, BasicAuth, BearerAuth, DigestAuth, RefreshingAuth
    from pepperpy.network.http.call import Timings
    from pepperpy.network.http.client import HTTPClient
    from pepperpy.network.http.config import HTTPConfig
    from pepperpy.network.http.cookie_store import Cookies
    from pepperpy.network.http.cookies import Cookie
    from pepperpy.network.http.download import DownloadResult
    from pepperpy.network.http.interceptors import Interceptor
    from pepperpy.network.http.limits import ResponseLimits
    from pepperpy.network.http.mapping import MapResult
    from pepperpy.network.http.middleware import Middleware, Send, each_exchange
    from pepperpy.network.http.middleware_request import HTTPRequest
    from pepperpy.network.http.options import RequestOptions
    from pepperpy.network.http.rate_limit import RateLimit
    from pepperpy.network.http.response import HTTPResponse
    from pepperpy.network.http.sse import ServerSentEvent
    from pepperpy.network.http.stats import HTTPStats
    from pepperpy.network.http.stream import HTTPStream
    from pepperpy.network.json_codec import JSONCodec, RequestData
    from pepperpy.network.messages.codec_protocols import NO_MESSAGE, Codec, Decoder, IncrementalCodec
    from pepperpy.network.messages.codecs import COBS, SLIP, Delimited, Fixed, LengthPrefixed, Netstring
    from pepperpy.network.messages.framed import Framed
    from pepperpy.network.messages.values import JSONLines, Mapped, MsgPack, TextLines
    from pepperpy.network.pool.pool import NetworkPool, PoolStats
    from pepperpy.network.requests.pipeline import Pipeline
    from pepperpy.network.tcp.serve import Server, serve

# Or Python would write the warnings of `pepperpy.network.tcp`, `.pool` and `.http` to the stderr of a program that does
# not set up logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Loaded on first touch: programs that only speak TCP do not wait for the modules of HTTP.
_LAZY_MODULES = {
    "AttemptDone": "events",
    "Auth": "http.auth",
    "BasicAuth": "http.auth",
    "BearerAuth": "http.auth",
    "COBS": "messages.codecs",
    "CallDone": "events",
    "CallStarted": "events",
    "Codec": "messages.codec_protocols",
    "Cookie": "http.cookies",
    "Cookies": "http.cookie_store",
    "ConnectDone": "events",
    "ConnectionDropped": "events",
    "Done": "events",
    "Decoder": "messages.codec_protocols",
    "Delimited": "messages.codecs",
    "DigestAuth": "http.auth",
    "DownloadResult": "http.download",
    "Event": "events",
    "Fixed": "messages.codecs",
    "Framed": "messages.framed",
    "HTTPClient": "http.client",
    "HTTPConfig": "http.config",
    "HTTPRequest": "http.middleware_request",
    "HTTPResponse": "http.response",
    "HTTPStats": "http.stats",
    "HTTPStream": "http.stream",
    "HeartbeatDone": "events",
    "IncrementalCodec": "messages.codec_protocols",
    "Interceptor": "http.interceptors",
    "JSONCodec": "json_codec",
    "JSONLines": "messages.values",
    "LengthPrefixed": "messages.codecs",
    "LookupDone": "events",
    "MapResult": "http.mapping",
    "Mapped": "messages.values",
    "Middleware": "http.middleware",
    "MsgPack": "messages.values",
    "NO_MESSAGE": "messages.codec_protocols",
    "Netstring": "messages.codecs",
    "NetworkPool": "pool.pool",
    "Pipeline": "requests.pipeline",
    "PoolStats": "pool.pool",
    "PoolWaitDone": "events",
    "ProxyDone": "events",
    "RateLimit": "http.rate_limit",
    "RefreshingAuth": "http.auth",
    "RequestData": "json_codec",
    "RequestOptions": "http.options",
    "ResponseLimits": "http.limits",
    "ResponseStarted": "events",
    "SLIP": "messages.codecs",
    "Send": "http.middleware",
    "Server": "tcp.serve",
    "ServerSentEvent": "http.sse",
    "StateChanged": "events",
    "TLSDone": "events",
    "TextLines": "messages.values",
    "Timings": "http.call",
    "each_exchange": "http.middleware",
    "serve": "tcp.serve",
}


# The type that callables in settings take, for typing.get_type_hints(): those modules may not import it themselves.
_config.__dict__["NetworkClient"] = _tcp_settings.__dict__["NetworkClient"] = NetworkClient


if not TYPE_CHECKING:
    # Type checkers would take every name for one of this package, misspelt ones too.
    def __getattr__(name: str) -> Any:
        if name == "__version__":
            value = importlib.import_module("importlib.metadata").version("pepperpy-network")
        elif (module := _LAZY_MODULES.get(name)) is not None:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "COBS",
    "NO_MESSAGE",
    "SLIP",
    "AttemptDone",
    "Auth",
    "BasicAuth",
    "BearerAuth",
    "BufferLimits",
    "BusyError",
    "CallDone",
    "CallStarted",
    "ClosedError",
    "Codec",
    "ConnectDone",
    "ConnectError",
    "ConnectionDropped",
    "ConnectionLostError",
    "Cookie",
    "Cookies",
    "DecodeError",
    "Decoder",
    "Default",
    "Delimited",
    "DigestAuth",
    "Done",
    "DownloadResult",
    "EndOfStreamError",
    "Event",
    "Fixed",
    "ForbiddenAddressError",
    "Framed",
    "HTTPClient",
    "HTTPConfig",
    "HTTPRequest",
    "HTTPResponse",
    "HTTPStats",
    "HTTPStatusError",
    "HTTPStream",
    "Heartbeat",
    "HeartbeatDone",
    "IncompleteReadError",
    "IncrementalCodec",
    "IntegrityError",
    "Interceptor",
    "InvalidRequestError",
    "JSONCodec",
    "JSONLines",
    "Keepalive",
    "LengthPrefixed",
    "LookupDone",
    "MapResult",
    "Mapped",
    "MessageTooLargeError",
    "Middleware",
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
    "PoolWaitDone",
    "ProtocolError",
    "ProxyDone",
    "ProxyError",
    "PublicOnly",
    "RateLimit",
    "Reconnect",
    "RedirectError",
    "RefreshingAuth",
    "RequestData",
    "RequestOptions",
    "ResponseLimits",
    "ResponseStarted",
    "ResponseTooLargeError",
    "Send",
    "Server",
    "ServerSentEvent",
    "State",
    "StateChanged",
    "TCPInfo",
    "TLSConfig",
    "TLSDone",
    "TLSError",
    "TLSInfo",
    "TextLines",
    "Timeout",
    "Timings",
    "UploadError",
    "UsageError",
    "__version__",
    "each_exchange",
    "serve",
]
