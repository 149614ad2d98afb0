"""`HTTPConfig`: how an `HTTPClient` behaves. Frozen, validated, picklable; its `repr` shows no secret."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pepperpy.network.address_policy import AddressPolicy, check_address_policy
from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import (
    check_bool,
    check_callable,
    check_int,
    check_seconds,
    check_size,
    check_timeout,
    name_of,
    shown,
)
from pepperpy.network.config_url import read_http_url, read_variables
from pepperpy.network.http.aiohttp_types import aiohttp
from pepperpy.network.http.arguments import unknown_argument
from pepperpy.network.http.auth import as_auth
from pepperpy.network.http.checks import (
    Params,
    check_cookies,
    check_limits,
    check_middlewares,
    check_params,
    check_proxy,
    check_verify,
)
from pepperpy.network.http.config_checks import (
    IDEMPOTENCY_KEY,
    check_base_url,
    check_default_headers,
    check_http_proxy_tls,
    check_http_tls,
    check_interceptors,
    check_key_name,
    check_retry_budget,
    check_retry_statuses,
    check_secret_headers,
    check_text_errors,
    check_transport,
)
from pepperpy.network.http.limits import DEFAULT_LIMITS, ResponseLimits, check_response_limits
from pepperpy.network.http.rate_limit import RateLimit, rate_limits
from pepperpy.network.http.redact import redact_headers, redact_url
from pepperpy.network.json_codec import JSONCodec
from pepperpy.network.keepalive import Keepalive, check_keepalive
from pepperpy.network.lookup import Resolver, check_resolver
from pepperpy.network.settings import Settings
from pepperpy.network.socket_checks import (
    SocketFactory,
    check_local_address,
    check_socket_options,
    check_unix_alone,
    check_unix_path,
)
from pepperpy.network.tls_config import TLSConfig
from pepperpy.network.transient import PASSING_STATUSES
from pepperpy.network.units import MIB
from pepperpy.network.wire_log import Logger, check_wire_log

if TYPE_CHECKING:
    from pepperpy.network.events import Event
else:
    # Its module is imported where something is observed.
    Event = object


@explains_arguments(unknown_argument)
@dataclass(frozen=True, repr=False)
class HTTPConfig(Settings):
    """Settings of one `HTTPClient`. Only `base_url` may be given by position.

    A wrong type raises `TypeError`, a value out of range `ValueError`; both name the field and the value.

    Attributes:
        base_url: A URL without scheme is appended to it, path included: `http://host/api` with `users` or `/users`
            gives `http://host/api/users`. An absolute URL is used as it is.
        headers: Headers of every request. A request's own header replaces one of the same name, and None removes it.
        params: Query parameters of every request: a mapping or pairs of name and value, as `request()` takes them; kept
            as a dict. A request's own replace those of the same name, and None removes one.
        cookies: Cookies to begin with. They go to the origin of `base_url`, or without one to each origin that a
            request names; never to another origin that a redirect leads to, not even another port of the host. Cookies
            that servers set are kept until the client is closed, and go to all ports of their host, as in browsers
            (RFC 6265, section 8.5). Values are sent byte for byte.
        auth: `(user, password)`, an `Auth`, or a callable that returns a token (see `RefreshingAuth`). With a
            `base_url` it is sent to that origin only, and a redirect never takes it to another origin. If a URL has
            user and password, these are sent instead.

        timeout: Seconds for one attempt, from its start to the last byte of the body, or an `aiohttp.ClientTimeout`.
            Streams and downloads have no such limit, because their size is not known. An attempt that it ends is not
            tried again; see `read_timeout`. None: no limit.
        connect_timeout: Seconds for one attempt to connect: name lookup, all addresses, a proxy's answer to CONNECT and
            TLS together. Waiting for one of `max_connections` does not count. 10: a SYN that is lost three times is
            still answered after 7 s (RFC 6298).
        read_timeout: Seconds without a byte from the server; then the request is tried again as `retries` says.
            aiohttp's default is no limit.
        write_timeout: Seconds in which the server takes none of a body that is sent to it, and sends nothing either. A
            source of the body that is slow does not count. 30: as `read_timeout`.
        pool_timeout: Seconds to wait for one of `max_connections`; then `PoolTimeoutError`. None: the other limits end
            this wait, such as `timeout`.
        deadline: Seconds for a whole call: all attempts, the waits between them, and the body. None: no limit.
        close_timeout: Seconds that `close()` gives connections to end in order; then it aborts them.

        retries: Attempts after the first; 0 switches off all retries, also those of stale connections.
        retry_delay: Seconds; the base of the exponential backoff with full jitter (see `backoff.Backoff`).
        max_retry_delay: Seconds of the longest wait between attempts. A longer `Retry-After` ends the retries.
        retry_statuses: Statuses after which idempotent methods are tried again.
        retry_budget: The retries allowed to one host, as a share of its calls in the last 10 to 20 seconds; ten more
            are always allowed. The ratio is Finagle's and reqwest's default.
        idempotency_key: True: each POST and PATCH has a header Idempotency-Key, a new random UUID for each call and the
            same for its attempts, so that these methods are tried again as well. The name of a header: that one in its
            place. Only for servers that know it; a redirect takes it to no other origin. A request's own
            `idempotency_key`, or header of that name, goes before it.

        tls: How `https://` is spoken: a `TLSConfig`, or an `ssl.SSLContext`, which is used as it is. The name of every
            server is `TLSConfig.server_hostname`, if that is set, whatever a URL says.
        verify_ssl: False is short for `TLSConfig(verify=False)`, and logs a warning, once. A request with
            `verify_ssl=False` does the same for itself; it uses nothing of an `ssl.SSLContext` of yours.
        proxy: The URL of a proxy for all requests, credentials included: `http://` or `https://`; or `socks5h://` and
            the other SOCKS ones of `NetworkConfig.proxy`, which need `pip install python-socks`. The port may be left
            out with `http://` (80) and `https://` (443).
        proxy_tls: How TLS to an `https://` proxy is spoken, as `NetworkConfig.proxy_tls`. None: as `tls` and
            `verify_ssl` say, but for `server_hostname` and `certificate_pin`, which are the server's alone. Where there
            is a pin, so is `verify=False`: the proxy's certificate is checked.
        no_proxy: Hosts that are reached without `proxy`, and without one of the environment: text in the form of
            NO_PROXY, such as `".internal, 10.0.0.0/8, localhost:8080"` (docs/environment.md). A request's own `proxy`
            is used for all.
        resolver: Who looks up names in place of the system: as `NetworkConfig.resolver`.
        address_policy: Which addresses may be connected to, against SSRF: as `NetworkConfig.address_policy`, asked for
            each redirect too. A request on a pooled connection goes to the address that was allowed when it was made. A
            `proxy` needs no leave, and what it is asked for does: see `PublicOnly.proxy_lookup`.
        unix_path: The path of a Unix socket to which every request and redirect goes, whatever host its URL names (as
            `http://localhost/info`). At most 107 bytes (Linux; 103 elsewhere). There is no proxy then, and settings
            about TCP or addresses do not apply.
        socket_factory: Makes the sockets, as `NetworkConfig.socket_factory`. Where aiohttp carries a request, it must
            be a plain function, and the socket not connected yet.
        local_address: `(host, port)` to connect from; port 0 lets the system choose. A fixed port allows one connection
            to a server at a time.
        socket_options: `(level, option, value)` triples as for `socket.setsockopt`, set before connecting and last. One
            of IPPROTO_IP is for IPv4 sockets, one of IPPROTO_IPV6 for IPv6 sockets; the other sockets go without it.
        transport: Who carries the requests. `aiohttp`, or `auto`: this package's own core, in a fraction of the CPU
            time; aiohttp then has what is sent by `client.session`, with up to `max_connections` of its own.
            `HTTPResponse.transport` tells who it was.
        trust_env: Heed HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, unless there is a `proxy`, and ~/.netrc, as
            they are when the client opens (docs/environment.md). Off: the environment is not configuration.

        raise_for_status: A status of 400 or above raises `HTTPStatusError`.
        max_redirects: How many redirects are followed; 0 returns the redirect itself. 10: as aiohttp, and the usual
            advice for curl.
        allow_downgrade: Follow a redirect from https to http.
        secret_headers: Further names of headers that are never sent to another origin, nor shown in errors and logs.
        max_response_size: Bytes of one body, as it came and as decompressed; a larger one raises
            `ResponseTooLargeError`. Streams and downloads are limited only on request. None: no limit. Arbitrary.
        limits: What else a server may not exceed: a `ResponseLimits`.
        decompress: Undo the Content-Encoding of a body: gzip, deflate, and br and zstd where their packages are
            installed. False: the body is given as it came; `headers` say what it is, and Accept-Encoding is sent as
            before. A download is not decompressed, except on request.

        max_connections: Open connections; further requests wait, for `pool_timeout`. aiohttp's default.
        max_connections_per_host: The same for each host and port. Requests through another proxy, or with
            `verify_ssl=False`, have connections of their own, which count apart. None: no limit of its own.
        keepalive_timeout: Seconds for which an unused connection is kept. aiohttp's default.
        keepalive: Keepalive of TCP, not of HTTP: the system asks a silent server whether it is there. So a NAT gateway
            keeps a connection whose answer takes long (some forget a silent one after 60 s), and a dead server is
            noticed even if `read_timeout` is long or None. True, or a `Keepalive` with times of your own; False leaves
            the system's settings, with which it hardly ever asks.
        rate_limit: Requests per second, a `RateLimit`, or a table of these by host, with `*` for all others; hosts that
            it does not name have no limit. Each attempt counts.
        middlewares: Callables `async def mw(request, send)` around each call, the first one outermost (see
            `Middleware`).
        interceptors: Objects with `pre_request` and/or `post_response` (see `Interceptor`), called in this order.
        text_errors: What `HTTPResponse.text` and `get()` make of bytes that are no character: the name of an error
            handler of `codecs`. "replace": each becomes U+FFFD, as in browsers, and `content` has the bytes. "strict":
            `DecodeError`. JSON is read strictly, always.
        on_event: `on_event(event)`, a plain function, which is called for each call, lookup, address, handshake,
            attempt and answer, at once and wherever that happens: see `Event`. It has to be quick, and only looks. If
            it raises, the loop's exception handler is called and nothing else changes.
        wire_log: A `logging.Logger` (or `LoggerAdapter`), to which the heads of requests and answers are written, at
            DEBUG, a line for each header, 500 characters at most. Secret headers are `***`, as in errors, and URLs are
            without their secrets; bodies are left out. The environment variable PEPPERPY_NETWORK_WIRE_LOG=1 switches
            it on for all clients that are opened then, with the logger `pepperpy.network.wire`.
        json_codec: Writes and reads JSON; by default the fastest of msgspec, orjson and the standard library that is
            installed.
        strict_content_type: Refuse to decode JSON from a response that is not declared as JSON.
    """

    base_url: str | None = None
    _: KW_ONLY
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Params = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    auth: Any = None
    timeout: float | aiohttp.ClientTimeout | None = 60.0
    connect_timeout: float | None = 10.0
    read_timeout: float | None = 30.0
    write_timeout: float | None = 30.0
    pool_timeout: float | None = None
    deadline: float | None = None
    close_timeout: float = 1.0
    retries: int = 2
    retry_delay: float = 0.5
    max_retry_delay: float = 30.0
    retry_statuses: Iterable[int] = PASSING_STATUSES
    retry_budget: float = 0.2
    idempotency_key: bool | str = False
    tls: bool | ssl.SSLContext | TLSConfig = True
    verify_ssl: bool = True
    proxy: str | None = None
    proxy_tls: ssl.SSLContext | TLSConfig | None = None
    no_proxy: str = ""
    resolver: Resolver | None = None
    address_policy: AddressPolicy | None = None
    unix_path: str | os.PathLike[str] | None = None
    socket_factory: SocketFactory | None = None
    local_address: tuple[str, int] | None = None
    socket_options: tuple[tuple[int, int, int | bytes], ...] = ()
    transport: Literal["auto", "aiohttp"] = "auto"
    trust_env: bool = False
    raise_for_status: bool = True
    max_redirects: int = 10
    allow_downgrade: bool = False
    secret_headers: Collection[str] = frozenset()
    max_response_size: int | None = 64 * MIB
    limits: ResponseLimits = DEFAULT_LIMITS
    decompress: bool = True
    max_connections: int = 100
    max_connections_per_host: int | None = None
    keepalive_timeout: float = 15.0
    keepalive: bool | Keepalive = True
    rate_limit: float | RateLimit | Mapping[str, float | RateLimit] | None = None
    middlewares: Iterable[Callable[..., Awaitable[Any]]] = ()
    interceptors: Iterable[Any] = ()
    text_errors: str = "replace"
    on_event: Callable[[Event], object] | None = None
    wire_log: Logger | None = None
    json_codec: JSONCodec | None = None
    strict_content_type: bool = False

    # Its mappings cannot be hashed.
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.base_url is not None:
            self._set("base_url", check_base_url(self.base_url))
        self._set("headers", check_default_headers(self.headers))
        self._set("params", check_params(self.params))
        self._set("cookies", check_cookies(self.cookies))
        self._set("auth", as_auth(self.auth))
        check_limits("timeout", self.timeout)
        for name in ("connect_timeout", "read_timeout", "write_timeout", "pool_timeout", "deadline"):
            check_timeout(name, getattr(self, name), zero=False)
        for name in ("close_timeout", "retry_delay", "max_retry_delay", "keepalive_timeout"):
            check_seconds(name, getattr(self, name), zero=True)
        check_keepalive(self.keepalive)
        check_int("retries", self.retries, 0)
        self._set("retry_statuses", check_retry_statuses(self.retry_statuses))
        check_retry_budget(self.retry_budget)
        self._set("idempotency_key", check_key_name(self.idempotency_key, self.headers))
        check_verify(self.verify_ssl)
        check_http_tls(self.tls, self.verify_ssl)
        check_http_proxy_tls(self.proxy_tls)
        check_transport(self.transport)
        if self.proxy_tls is not None and self.transport == "aiohttp":
            raise ValueError("proxy_tls must be left out with transport='aiohttp', which has the same TLS for both")
        for name in ("trust_env", "raise_for_status", "allow_downgrade", "decompress", "strict_content_type"):
            check_bool(name, getattr(self, name))
        if self.proxy is not None:
            self._set("proxy", check_proxy(self.proxy))
        if not isinstance(self.no_proxy, str):
            raise TypeError(f"no_proxy must be a str in the form of NO_PROXY, not {shown(self.no_proxy)}")
        check_resolver(self.resolver)
        check_address_policy(self.address_policy)
        if self.unix_path is not None:
            self._set("unix_path", check_unix_path(self.unix_path))
            check_unix_alone(self)
        if self.socket_factory is not None:
            check_callable("socket_factory", self.socket_factory)
        check_local_address(self.local_address)
        check_socket_options(self.socket_options)
        check_int("max_redirects", self.max_redirects, 0)
        self._set("secret_headers", check_secret_headers(self.secret_headers))
        if self.max_response_size is not None:
            check_size("max_response_size", self.max_response_size)
        if self.max_connections_per_host is not None:
            check_int("max_connections_per_host", self.max_connections_per_host, 1)
        check_int("max_connections", self.max_connections, 1)
        check_response_limits(self.limits)
        if self.rate_limit is not None:
            self._set("rate_limit", rate_limits(self.rate_limit))
        self._set("middlewares", check_middlewares("middlewares", self.middlewares))
        self._set("interceptors", check_interceptors(self.interceptors))
        check_text_errors(self.text_errors)
        if self.on_event is not None:
            check_callable("on_event", self.on_event, plain=True)
        check_wire_log(self.wire_log)
        if self.json_codec is not None and not isinstance(self.json_codec, JSONCodec):
            raise TypeError(f"json_codec must be a JSONCodec, not {type(self.json_codec).__name__}")

    @classmethod
    def from_url(cls, url: str) -> HTTPConfig:
        """Read `https://user:password@host/path?field=value&...`: the base URL, `auth`, and any scalar field.

        Write booleans as `true` or `false`, no limit as `none`, statuses with commas between them. Fields of its parts
        go by these names: `server_hostname`, `ca_file`, `client_cert`, `certificate_pin`, `system_trust` (in
        `https://` URLs only); `proxy_ca_file`, `proxy_client_cert`; `keepalive_idle`, `keepalive_interval`,
        `keepalive_count`, `user_timeout`. `proxy` is no field, because it may hold a password.

        Raises:
            TypeError: `url` is not a string.
            ValueError: It is no such URL, or has an unknown or repeated field or a value out of range. The message
                shows no password.
        """
        return cls(**read_http_url(url, _TYPES))

    @classmethod
    def from_env(cls, prefix: str) -> HTTPConfig:
        """Read variables of the environment: `from_env("APP_API_")` reads APP_API_BASE_URL, APP_API_TIMEOUT, ...

        The names are those of the fields that `from_url()` reads, in upper case; also `BASE_URL`, `UNIX_PATH` and
        `PROXY`. `APP_API_URL` is read by `from_url()` first, and the other variables come on top. One that is named
        like no field is left alone, unless it looks like a misspelt one.

        Raises:
            TypeError: `prefix` is not a string.
            ValueError: It is empty, or a variable has no such value; or a value is out of range. No message shows what
                may be a password.
        """
        return cls(**read_variables(prefix, _TYPES, read_http_url))

    @property
    def key_header(self) -> str:
        """The name of the header that has an `idempotency_key`."""
        return self.idempotency_key if isinstance(self.idempotency_key, str) else IDEMPOTENCY_KEY

    @property
    def key_headers(self) -> tuple[str, str]:
        """The names of headers that make a request repeatable: the standard one, and the client's own."""
        return IDEMPOTENCY_KEY, self.key_header

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _shown(self, name: str, value: Any) -> str:
        if name in ("base_url", "proxy"):
            value = redact_url(value)
        elif name == "headers":
            value = dict(redact_headers(value, self.secret_headers))
        elif name in ("params", "cookies"):
            value = dict.fromkeys(value, "***")
        elif name == "on_event":
            return name_of(value)
        elif name in ("address_policy", "resolver", "socket_factory"):
            return repr(value) if isinstance(value, Settings) else name_of(value)
        elif name in ("interceptors", "middlewares"):
            # Their own repr may show the key that they sign with.
            value = tuple(getattr(item, "__name__", type(item).__name__) for item in value)
        return repr(value)


_TYPES = {item.name: str(item.type) for item in dataclasses.fields(HTTPConfig)}
SETTINGS = tuple(item.name for item in dataclasses.fields(HTTPConfig))
