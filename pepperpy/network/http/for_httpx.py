"""The exchanges of httpx and httpx2 on this package's HTTP: what `pepperpy.network.httpx` and `.httpx2` have in common.

httpx keeps its policy: redirects, cookies, authentication, decompression. What lies below, one request and its answer,
is carried by the `Transport` that `HTTPClient` uses.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from types import ModuleType
from typing import Any, ClassVar

from multidict import CIMultiDict, istr
from yarl import URL

from pepperpy.network.checks import running_loop
from pepperpy.network.errors import NetworkError, UsageError
from pepperpy.network.http import transports
from pepperpy.network.http.call import IDEMPOTENT_METHODS
from pepperpy.network.http.checks import is_token
from pepperpy.network.http.config import HTTPConfig
from pepperpy.network.http.cookie_jar import CookieJar
from pepperpy.network.http.for_httpx_response import Body, Content
from pepperpy.network.http.request import Defaults, Limits, Request
from pepperpy.network.http.routes import routes_of
from pepperpy.network.http.transport import Answer, Kind, Transport, Trip, WireError
from pepperpy.network.http.upload import BodyFailed, Closing, is_for_the_loop
from pepperpy.network.http.urls import with_plain_zone
from pepperpy.network.http.wire_log import logged

# The names of httpx's exceptions. What belongs to reading or writing is decided by what the exchange was doing.
_ERRORS: dict[Kind, str] = {
    "dns": "ConnectError",
    "forbidden": "ConnectError",
    "refused": "ConnectError",
    "connect_timeout": "ConnectTimeout",
    "queue_timeout": "PoolTimeout",
    "read_timeout": "ReadTimeout",
    "write_timeout": "WriteTimeout",
    "tls": "ConnectError",
    "proxy": "ProxyError",
    "reset": "ReadError",
    "no_answer": "RemoteProtocolError",
    "malformed": "RemoteProtocolError",
    "truncated": "RemoteProtocolError",
    "closed": "ReadError",
    "bad_url": "UnsupportedProtocol",
    "unsendable": "LocalProtocolError",
    "other": "TransportError",
}
# Stands in for httpx's None, no limit: of connections, and of seconds.
_MANY = 1 << 30


class _Sent(Request):
    """A request whose headers are those that httpx has made, in their order."""

    __slots__ = ()

    @property
    def only_defaults(self) -> bool:
        return False

    def _complete(self) -> CIMultiDict[str]:
        assert self.own is not None
        return self.own


class _Streamed:
    """A body that is read from the stream of httpx while it is sent.

    Attributes:
        failure: What ended it early, or None.
    """

    def __init__(self, stream: Any, size: int | None) -> None:
        """Args: size: Bytes, as Content-Length says; None: it is sent in chunks."""
        self.size: int | None = size
        self._stream = stream
        self.failure: BaseException | None = None

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        written = 0
        try:
            async with Closing(self._stream) as pieces:
                async for piece in pieces:
                    written += len(piece)
                    if content_length is not None and written > content_length:
                        raise ValueError(f"the body has more than the {content_length} bytes of its Content-Length")
                    if piece:
                        await writer.write(piece)
            if content_length is not None and written < content_length:
                raise ValueError(f"the body has {written} bytes, but its Content-Length is {content_length}")
        except NetworkError:
            raise  # of the connection; the answer tells what happened to it
        except BaseException as error:
            if is_for_the_loop(error):
                raise
            self.failure = error
            if writer.transport is not None:
                writer.transport.abort()
            raise BodyFailed(f"the source of the body failed with {type(error).__name__}") from error


class Exchanges:
    """What carries the requests of one `AsyncClient` of `library`; a base of its transport.

    Attributes:
        body_class: Of the stream of an answer whose body is still to come.
        content_class: Of the stream of one whose body is there.
        response_class: What httpx is given.
        whole_class: The same, if the body is there and is not encoded.
    """

    library: ClassVar[ModuleType]
    body_class: ClassVar[type[Body]]
    content_class: ClassVar[type[Content]]
    response_class: ClassVar[type[Any]]
    whole_class: ClassVar[type[Any]]

    def __init__(
        self,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: Any = None,
        proxy: Any = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Iterable[tuple[int, int, int | bytes]] | None = None,
        *,
        config: HTTPConfig | None = None,
    ) -> None:
        library = self.library
        if not http1 or http2:
            raise ValueError(f"http1 must be True and http2 False, not {http1!r} and {http2!r}: this speaks HTTP/1.1")
        if config is not None and not isinstance(config, HTTPConfig):
            raise TypeError(f"config must be an HTTPConfig, not {type(config).__name__}")
        if limits is not None and not hasattr(limits, "keepalive_expiry"):
            raise TypeError(f"limits must be a {library.__name__}.Limits, not {type(limits).__name__}")
        given = (verify, cert, limits, uds, local_address, socket_options)
        limits = limits or library.Limits(max_connections=100, max_keepalive_connections=20)
        self._proxy = None if proxy is None else _proxy_url(library, proxy)
        self._retries = retries
        if config is None:
            config = HTTPConfig(
                tls=library.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env),
                max_connections=limits.max_connections or _MANY,
                keepalive_timeout=_MANY if limits.keepalive_expiry is None else limits.keepalive_expiry,
                unix_path=uds,
                local_address=None if local_address is None else (local_address, 0),
                socket_options=tuple(socket_options or ()),
            )
        elif given != (True, None, None, None, None, None):
            raise TypeError(
                "config has the settings of connections: verify, cert, limits, uds and others must be left out"
            )
        self._config = config
        self._routes = None if self._proxy is not None else routes_of(config)
        self._proxy = self._proxy or config.proxy
        self._defaults = Defaults({}, {})
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def _open(self) -> Transport:
        if self._transport is None:
            loop = asyncio.get_running_loop()
            self._transport = logged(transports.make_transport, self._config)(self._config, CookieJar({}))
            self._loop = loop
        elif self._loop is not running_loop():  # None in a forked process
            raise UsageError("this transport is used in another event loop than at first; each loop needs its own")
        return self._transport

    @property
    def open_connections(self) -> int:
        """How many connections are open now, in use or idle."""
        return 0 if self._transport is None else self._transport.open_connections

    async def handle_async_request(self, request: Any) -> Any:
        transport = self._open()
        sent = self._request(request)
        attempts = 0
        stale = False  # whether the last attempt found that the server had closed the pooled connection
        while True:
            trip = Trip()
            trip.fresh = stale
            attempts += 1
            failure: WireError
            try:
                answer = await transport.exchange(sent, trip)
                break
            except WireError as error:
                failure = error
            stale = trip.reused and not trip.heard and failure.kind in ("no_answer", "reset")
            if not self._may_try_again(failure, sent, trip, attempts, stale):
                raise self._error(failure, request, trip, sent.payload) from failure.cause
        try:
            # What came with the head is taken now: the connection is free before httpx goes on.
            content = answer.take_whole(None)
        except WireError as error:
            raise self._error(error, request, trip, sent.payload) from error.cause
        response_class = self.response_class
        if content is None:
            stream: Any = self.body_class(self, answer, request, trip, sent.payload)
        else:
            stream = self.content_class(content)
            if answer.header("content-encoding") is None:
                response_class = self.whole_class
        return response_class(
            status_code=answer.status,
            headers=answer.fields,
            stream=stream,
            extensions={
                "http_version": f"HTTP/{answer.version}".encode(),
                "reason_phrase": answer.reason.encode("utf-8", "surrogateescape"),
            },
        )

    def _request(self, request: Any) -> Request:
        url = URL(str(request.url), encoded=True)
        if url.scheme not in ("http", "https"):
            text = "Request URL is missing an 'http://' or 'https://' protocol."
            if url.scheme:
                text = f"Request URL has an unsupported protocol '{url.scheme}://'."
            raise self.library.UnsupportedProtocol(text, request=request)
        try:
            url = with_plain_zone(url)
        except ValueError as error:
            # A port that is none, say: httpx lets it pass, also where a redirect leads.
            raise self.library.UnsupportedProtocol(f"the URL cannot be used: {error}", request=request) from None
        extensions = request.extensions
        timeout = extensions.get("timeout", {})
        limits = _limits(timeout.get("connect"), timeout.get("read"), timeout.get("write"), timeout.get("pool"))
        try:
            _check_extensions(extensions, url)
            # httpx checks neither methods nor names; the transport checks the values.
            _token(request.method.encode())
            headers: CIMultiDict[str] = CIMultiDict(
                [(_token(name), value.decode("utf-8", "surrogateescape")) for name, value in request.headers.raw]
            )
            sent = _Sent(request.method, url, headers, None, self._defaults, limits)
            sent.decompress = False
            sent.proxy = self._proxy if self._routes is None else self._routes.proxy_for(url)
            sent.payload = self._payload(request.stream, headers)
        except ValueError as error:
            raise self.library.LocalProtocolError(str(error), request=request) from None
        return sent

    def _payload(self, stream: Any, headers: CIMultiDict[str]) -> bytes | _Streamed | None:
        """The body; the headers say where it ends, or the server would take its rest for another request.

        Raises:
            ValueError: The headers of the request contradict its body, or each other.
        """
        codings, lengths = headers.getall("Transfer-Encoding", ()), headers.getall("Content-Length", ())
        if codings:
            if [coding.lower() for coding in codings] != ["chunked"]:
                raise ValueError("Transfer-Encoding must be chunked")
            # RFC 9112, section 6.2: not both. httpx adds one beside a Transfer-Encoding of the caller.
            headers.popall("Content-Length", None)
            return _Streamed(stream, None)
        if len(lengths) > 1 or not all(length.isascii() and length.isdigit() for length in lengths):
            raise ValueError("Content-Length must be one number of bytes")
        if not isinstance(stream, self.library.ByteStream):
            if not lengths:
                headers["Transfer-Encoding"] = "chunked"
                return _Streamed(stream, None)
            return _Streamed(stream, int(lengths[0]))
        content = b"".join(stream)
        if lengths and int(lengths[0]) != len(content):
            raise ValueError(f"Content-Length is {lengths[0][:20]}, but the body has {len(content)} bytes")
        if content and not lengths:
            headers["Content-Length"] = str(len(content))
        return content or None

    def _may_try_again(self, failure: WireError, sent: Request, trip: Trip, attempts: int, stale: bool) -> bool:
        if isinstance(sent.payload, _Streamed) and trip.request_left:
            return False
        if stale:
            return attempts == 1 and sent.method in IDEMPOTENT_METHODS
        return failure.kind in ("dns", "refused", "connect_timeout") and attempts <= self._retries

    def _error(self, failure: WireError, request: Any, trip: Trip, payload: object) -> BaseException:
        """The exception of httpx, or that of the body's source itself."""
        if isinstance(payload, _Streamed) and payload.failure is not None:
            return payload.failure
        name = _ERRORS.get(failure.kind, "TransportError")
        if failure.kind == "reset" and isinstance(payload, _Streamed) and trip.phase == "response":
            name = "WriteError"
        elif failure.kind == "truncated" and isinstance(failure.cause, ConnectionError):
            name = "ReadError"
        elif name == "ConnectError" and trip.request_left:
            # A server of TLS 1.3 refuses the client's certificate then. Many clients repeat any request after a
            # ConnectError.
            name = "ReadError"
        error: Exception = getattr(self.library, name)(failure.text, request=request)
        return error

    async def pieces_of(self, answer: Answer, request: Any, trip: Trip, payload: object) -> AsyncIterator[bytes]:
        try:
            while piece := await answer.read_some():
                yield piece
        except WireError as error:
            raise self._error(error, request, trip, payload) from error.cause

    async def aclose(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close(self._config.close_timeout)


def _check_extensions(extensions: Mapping[str, Any], url: URL) -> None:
    """Raises: `ValueError`: The request would go elsewhere, or to another server, than its extensions say."""
    if extensions.get("target") is not None:
        raise ValueError("the extension target is not supported: the URL of a request decides its target")
    name = extensions.get("sni_hostname")
    if name is not None and url.scheme == "https" and name != url.raw_host:
        raise ValueError(
            "the extension sni_hostname is not supported; a transport with"
            " config=HTTPConfig(tls=TLSConfig(server_hostname=...)) sends another name than that of the URL"
        )


@functools.lru_cache(maxsize=1024)  # those of all clients; arbitrary
def _token(raw: bytes) -> istr:
    """A method, or the name of a header.

    Raises:
        ValueError: It is none.
    """
    text = raw.decode("latin-1")
    if not is_token(text):
        raise ValueError(f"a method or the name of a header must be a token (RFC 9110, 5.6.2), not {text[:50]!r}")
    return istr(text)


@functools.lru_cache(maxsize=64)  # most clients have one or two; arbitrary
def _limits(connect: float | None, read: float | None, write: float | None, pool: float | None) -> Limits:
    return Limits(connect=connect, read=read, write=write, pool=pool)


def _proxy_url(library: ModuleType, proxy: Any) -> str:
    """What `httpx.Proxy` says, as a URL with credentials."""
    if isinstance(proxy, (str, library.URL)):
        proxy = library.Proxy(proxy)
    if proxy.headers or proxy.ssl_context is not None:
        raise ValueError("proxy must have no headers and no ssl_context: they are not supported")
    url = URL(str(proxy.url), encoded=True)
    if proxy.auth is not None:
        user, password = proxy.auth
        url = url.with_user(user).with_password(password)
    return str(url)
