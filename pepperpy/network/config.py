"""`NetworkConfig`: where to connect and how. Frozen, validated, comparable; picklable without an `SSLContext` in it."""

from __future__ import annotations

import errno
import functools
import os
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from pepperpy.network.address_policy import AddressPolicy, check_address_policy
from pepperpy.network.arguments import explains_arguments, unknown_argument
from pepperpy.network.checks import (
    Default,
    check_bool,
    check_callable,
    check_int,
    check_seconds,
    check_size,
    check_timeout,
    name_of,
    shown,
)
from pepperpy.network.config_url import read_url, read_variables
from pepperpy.network.hosts import check_host
from pepperpy.network.keepalive import Keepalive, check_keepalive, keepalive_of
from pepperpy.network.lookup import Resolver, check_resolver
from pepperpy.network.proxy_url import read_proxy
from pepperpy.network.settings import Settings
from pepperpy.network.socket_checks import (
    SocketFactory,
    check_hosts,
    check_local_address,
    check_port,
    check_socket_options,
    check_unix_alone,
    check_unix_path,
)
from pepperpy.network.tcp_settings import (
    DEFAULT_BUFFERS,
    INSTEAD,
    BufferLimits,
    Heartbeat,
    Reconnect,
    check_heartbeat,
    check_reconnect,
)
from pepperpy.network.tls_config import TLSConfig, check_proxy_tls, check_tls, tls_settings
from pepperpy.network.units import MIB
from pepperpy.network.wire_log import Logger, check_wire_log

if TYPE_CHECKING:
    from pepperpy.network.events import Event, Observer
    from pepperpy.network.tcp.client import NetworkClient
else:
    # Its module is imported where something is observed.
    Event = object

State = Literal["connecting", "connected", "lost", "closed"]

# The fields that hold a callable, which the client calls; and the others.
_CALLABLES = ("on_connect", "may_pass", "on_state", "on_event", "heartbeat")
_OTHER_CALLABLES = ("address_policy", "resolver", "socket_factory")


@explains_arguments(functools.partial(unknown_argument, instead=INSTEAD))
@dataclass(frozen=True, repr=False)
class NetworkConfig(Settings):
    """Settings of one TCP connection. Its `repr` shows no secret.

    The first five fields may be given by position; all others are keyword-only. A wrong type raises `TypeError`, a
    value out of range `ValueError`. Both name the field and the value.

    Attributes:
        host: The name or address to connect to; an IPv6 address without brackets. Leave it out with `unix_path`.
        port: 1 to 65535.
        timeout: Seconds that one operation may wait; more than 0. None waits for ever.
        retries: How often `connect()` tries again after its first failure; 0 or more.
        retry_delay: Seconds that the first retry waits at most; each later one waits up to twice as long as the one
            before, and each wait is random (see `backoff.Backoff`). 0 retries at once.

        max_retry_delay: The longest wait between attempts, in seconds. Arbitrary; the AWS SDKs use 20, gRPC 120.
        connect_timeout: Seconds for one attempt: name lookup, all addresses, the proxy's answer and the TLS handshake
            together. Default: `timeout`.
        close_timeout: Seconds that `disconnect()` gives the peer to take what was accepted for sending; then it aborts.
            Never None. Arbitrary; the same default as `timeout`.
        happy_eyeballs_delay: Seconds after which the next address joins the race of those under way (RFC 8305, section
            8).
        local_address: `(host, port)` to connect from; port 0 lets the system choose. A fixed port can be used again
            right after a connection that the peer has closed too (SO_REUSEADDR; not on Windows, where other programs
            could take the port).
        nodelay: Set TCP_NODELAY, so that the system does not delay small sends (Nagle); asyncio and Go do the same.
        keepalive: Ask the system to find dead peers: True, or a `Keepalive` with times of your own. False leaves the
            system's settings, with which it hardly ever finds one.
        socket_options: `(level, option, value)` triples as for `socket.setsockopt`, set before connecting, after all
            others. An option of IPPROTO_IP is set on IPv4 sockets only, one of IPPROTO_IPV6 on IPv6 sockets only.
        buffers: Bytes at which reading and sending pause and go on: a `BufferLimits`.
        max_message_size: Bytes of the longest line or message, terminator included, that `receive_line()`,
            `receive_lines()` and `receive_until()` collect. It also limits the messages of a codec without `max_size`,
            there without length or separator. asyncio's limit of 64 KiB is the best known trap of its streams.
        idle_timeout: Seconds of silence after which a receive that waits fails: no byte came for so long, since the
            last one or since the call. For long messages, with `timeout=None` or a long one, which limits the whole
            call. Exact to about 10 ms. It does not limit pipelines, whose requests have a `timeout` each. None: no
            limit.
        eof: What a receive does at the end of the peer's stream, when every byte is taken: "return" `b""`, 0, `[]` or
            None, as its method says; or "raise" `EndOfStreamError`. Iterations end in both cases.

        unix_path: The path of a Unix socket to connect to instead of `host` and `port`, a str or a Path, at most 107
            bytes (Linux; 103 elsewhere). Settings about TCP or addresses (`nodelay`, `keepalive`, `local_address`, ...)
            do not apply.
        socket_factory: `socket_factory(address)`, async or not, makes the socket for each address that is tried (of the
            proxy, if there is one). `address` is what `socket.getaddrinfo` gives: `(family, type, proto, name,
            sockaddr)`. The client sets `keepalive` and `socket_options`, and connects the socket. One that is connected
            already, such as the end of a tunnel, is used as it is. An `OSError` means that this address cannot be
            reached; any other exception ends `connect()`.
        proxy: The URL of a proxy to connect through, with user and password if it wants them (percent-encoded). One of
            HTTP gets them as Basic, and as Digest (RFC 7616) from when it has asked for that.
            `socks5h://`, `socks4a://`, `http://` and `https://` (CONNECT) leave the name lookup to the proxy; for
            `socks5://` and `socks4://` this machine looks up. SOCKS needs `pip install python-socks`. With `https://`,
            TLS to the proxy comes first: its certificate must be for the proxy's host, and is checked by what `tls`
            says but for `server_hostname`, `certificate_pin`, `alpn`, and `verify=False` beside a pin; without `tls`,
            by the system's authorities. Or by `proxy_tls`. The port may be left out with `http://` (80) and `https://`
            (443).
        proxy_tls: How TLS to an `https://` proxy is spoken: a `TLSConfig`, or an `ssl.SSLContext`, which is used as it
            is. It has nothing of `tls` and `verify_ssl` then: `TLSConfig(ca_file=...)` for a company's own authority,
            `client_cert=` for a proxy that wants one, `server_hostname=` for a certificate with another name. Other
            proxies and the server have no use for it. None: as `proxy` says.

        trust_env: Heed ALL_PROXY and NO_PROXY, unless there is a `proxy`, at each connection (docs/environment.md).
            Off: the environment is not configuration.
        resolver: Who looks up names in place of the system: `async resolver(host, port)`, or an object with such a
            method `resolve`. It gives IP addresses as str, the best one first; at most
            1,000. It is asked for each connection and each proxy, within `connect_timeout`, and its answers are not
            remembered here; never for what is an address already, nor for `local_address`. What it raises fails the
            attempt: an OSError decides itself whether it may pass, all else does not.
        address_policy: Which addresses may be connected to, against SSRF: `PublicOnly()`, or `policy(host, ip, port)`
            of yours, a plain function that returns True or False. It is asked after each lookup, for each address and
            for a host that is one in any spelling, and the connection goes to an address that it has allowed. Of a
            mixed answer the forbidden ones are left out. If none is left, `ForbiddenAddressError` is raised, which
            nothing tries again. A `proxy` needs no leave, and its target does: see `PublicOnly.proxy_lookup`.

        tls: Speak TLS from the start: True, a `TLSConfig`, or an `ssl.SSLContext`, which is used as it is. To begin
            later, leave it False and give the `TLSConfig` to `start_tls()`.
        verify_ssl: False is short for `TLSConfig(verify=False)`, also for `start_tls()` without arguments.

        hosts: Further `(host, port)` pairs. Every attempt begins with `host`. If that cannot be reached, it tries the
            next one without a wait, and so on. Each has `connect_timeout` seconds.
        on_connect: `on_connect(connection)`, async or not, runs on every new connection before the client counts as
            connected, to log in or subscribe. `connection` is a `NetworkClient` for that connection alone, which works
            until the callable returns; the client itself still waits. It shares the `connect_timeout` of its host. If
            it raises, the attempt fails.
        may_pass: `may_pass(error)` decides whether a failed attempt may succeed later; `error` comes from the
            connection or from `on_connect`. It returns True, False, or None for the default. The default of
            `connect()`: yes for what `transient.may_pass` names; of what `on_connect` raises, for ConnectionError
            (TLSError as without `on_connect`), TimeoutError and EOFError. The default of a reconnecting client that has
            been connected, so that its settings have worked: yes for all but a refused certificate or pin, also for an
            unknown name, a lack of descriptors or memory, a proxy that refuses, a file of the `TLSConfig` that cannot
            be used (ValueError); of what `on_connect` raises, also for each OSError of the system, which has an
            `errno`.
        on_state: `on_state(client, state)`, a plain function, which the loop calls soon after each change: "connecting"
            when `connect()` begins; "connected"; "lost", also when the peer has ended its stream and every byte is
            taken; "closed" at the end, after a `connect()` that failed, `disconnect()`, `abort()`, or when a
            reconnecting client has given up. The calls come in order, but the client may be further already. If it
            raises, the loop's exception handler is called and nothing else changes.
        on_event: `on_event(event)`, a plain function, which is called for each lookup, address, handshake, attempt,
            change of state and heartbeat, at once and wherever that happens: see `Event`. It has to be quick, and only
            looks: it must not use the client. If it raises, the loop's exception handler is called and nothing else
            changes.
        wire_log: A `logging.Logger` (or `LoggerAdapter`), to which all bytes that come and go are written, at DEBUG:
            the start of each piece, 500 characters at most, without control characters. Over TLS, in clear text. Only
            for debugging: passwords and keys are in it, because nobody can leave them out who does not know your
            protocol.
        reconnect: Make a new connection when one is lost: True, or a `Reconnect` that says when to give up.
        heartbeat: Ask a silent peer for a sign of life: a `Heartbeat`, or its `probe` alone.
    """

    host: str = ""
    port: int = 0
    timeout: float | None = 5.0
    retries: int = 3
    retry_delay: float = 1.0
    _: KW_ONLY
    max_retry_delay: float = 30.0
    connect_timeout: float | Default | None = Default.TIMEOUT
    close_timeout: float = 5.0
    happy_eyeballs_delay: float = 0.25
    local_address: tuple[str, int] | None = None
    nodelay: bool = True
    keepalive: bool | Keepalive = True
    socket_options: tuple[tuple[int, int, int | bytes], ...] = ()
    buffers: BufferLimits = DEFAULT_BUFFERS
    max_message_size: int = 16 * MIB
    idle_timeout: float | None = None
    eof: Literal["return", "raise"] = "return"
    unix_path: str | os.PathLike[str] | None = None
    socket_factory: SocketFactory | None = None
    proxy: str | None = None
    proxy_tls: ssl.SSLContext | TLSConfig | None = None
    trust_env: bool = False
    resolver: Resolver | None = None
    address_policy: AddressPolicy | None = None
    tls: bool | ssl.SSLContext | TLSConfig = False
    verify_ssl: bool = True
    hosts: tuple[tuple[str, int], ...] = ()
    on_connect: Callable[[NetworkClient], Awaitable[object] | object] | None = None
    may_pass: Callable[[Exception], bool | None] | None = None
    on_state: Callable[[NetworkClient, State], object] | None = None
    on_event: Callable[[Event], object] | None = None
    wire_log: Logger | None = None
    reconnect: bool | Reconnect = False
    heartbeat: Heartbeat | Callable[[NetworkClient], Awaitable[object] | object] | None = None

    def __post_init__(self) -> None:
        if self.unix_path is None:
            check_host("host", self.host)
            if self.port == 0 and self.port is not False:
                raise ValueError(f"port must be given, from 1 to 65535: NetworkConfig({self.host!r}, 6379)")
            check_port("port", self.port)
        else:
            # As text from now on. By this call, because the class is frozen.
            object.__setattr__(self, "unix_path", check_unix_path(self.unix_path))
            check_unix_alone(self, "host", "port", "hosts")
        if self.proxy is not None:
            read_proxy(self.proxy)
        check_proxy_tls(self.proxy_tls)
        check_bool("trust_env", self.trust_env)
        check_resolver(self.resolver)
        check_address_policy(self.address_policy)
        self._check_tls()
        check_timeout("timeout", self.timeout, zero=False)
        check_int("retries", self.retries, 0)
        check_seconds("retry_delay", self.retry_delay, zero=True)
        check_seconds("max_retry_delay", self.max_retry_delay, zero=True)
        if self.connect_timeout is not Default.TIMEOUT:
            check_timeout("connect_timeout", self.connect_timeout, zero=False)
        check_seconds("close_timeout", self.close_timeout, zero=True)
        check_seconds("happy_eyeballs_delay", self.happy_eyeballs_delay, zero=True)
        check_local_address(self.local_address)
        check_bool("nodelay", self.nodelay)
        check_keepalive(self.keepalive)
        check_socket_options(self.socket_options)
        if not isinstance(self.buffers, BufferLimits):
            raise TypeError(f"buffers must be a BufferLimits, not {shown(self.buffers)}")
        check_size("max_message_size", self.max_message_size)
        check_timeout("idle_timeout", self.idle_timeout, zero=False)
        if self.eof not in ("return", "raise"):
            raise ValueError(f'eof must be "return" or "raise", not {shown(self.eof)}')
        check_hosts(self.hosts)
        for name in ("on_connect", "may_pass", "on_state", "on_event", "socket_factory"):
            if (value := getattr(self, name)) is not None:
                check_callable(name, value, plain=name not in ("on_connect", "socket_factory"))
        check_wire_log(self.wire_log)
        check_reconnect(self.reconnect)
        check_heartbeat(self.heartbeat)

    def _check_tls(self) -> None:
        check_tls(self.tls, off=True)
        check_bool("verify_ssl", self.verify_ssl)
        if self.tls_settings.checks_name and self.tls and not self.tls_name:
            raise ValueError("server_hostname must name whom the certificate is for, unless verify_ssl is False")

    @property
    def attempt_timeout(self) -> float | None:
        """Seconds that one attempt to connect may take: `connect_timeout`, or `timeout` if that is not set."""
        return self.timeout if isinstance(self.connect_timeout, Default) else self.connect_timeout

    def explained(self, loss: BaseException) -> str:
        """Why a connection with this configuration was lost, as text that names the setting which caused it, if any."""
        if isinstance(loss, SystemError):
            # CPython 3.11 raises "error return without exception set" if it has no memory for the frame of a
            # `__getitem__` (_PyFrame_Push); asyncio's selector has one.
            return "the interpreter failed (SystemError), probably for lack of memory"
        words = str(loss) or type(loss).__name__
        keepalive = keepalive_of(self.keepalive)
        if getattr(loss, "errno", None) != errno.ETIMEDOUT or self.unix_path is not None or keepalive is None:
            return words
        return f"{words}: {keepalive.why_timed_out}"

    @property
    def address(self) -> str:
        """Where to connect, as text: `host:port`, or the path of the Unix socket."""
        return f"{self.host}:{self.port}" if self.unix_path is None else os.fspath(self.unix_path)

    @property
    def place(self) -> dict[str, Any]:
        """Where to connect, for the `details` of an error: `host` and `port`, or `path`."""
        return {"host": self.host, "port": self.port} if self.unix_path is None else {"path": self.unix_path}

    @functools.cached_property
    def tls_settings(self) -> TLSConfig:
        """The `TLSConfig` of `tls` and `verify_ssl`, whether or not TLS is on from the start."""
        return tls_settings(self.tls, self.verify_ssl)

    def tls_name_of(self, settings: TLSConfig) -> str:
        """The name that the certificate must have with these settings; empty for none."""
        # It has neither the zone of a link-local address nor the dot at the end of a name (RFC 6066, section 3).
        name = settings.server_hostname
        return self.host.partition("%")[0].rstrip(".") if name is None else name

    @property
    def tls_name(self) -> str:
        """The same with the settings of this configuration."""
        return self.tls_name_of(self.tls_settings)

    def _shown(self, name: str, value: Any) -> str:
        if name == "proxy":
            return repr(read_proxy(value).shown)
        is_callable = name in (*_CALLABLES, *_OTHER_CALLABLES) and not isinstance(value, Settings)
        return name_of(value) if is_callable else repr(value)

    @property
    def bare(self) -> NetworkConfig:
        """This configuration without its callables. A connection keeps its configuration alive, and the callables would
        keep alive what they belong to: often the client, which could not be collected then.
        """
        return self._copy(dict.fromkeys((*_CALLABLES, *_OTHER_CALLABLES)))

    def for_each_host(self) -> list[NetworkConfig]:
        """The configurations that one attempt tries in turn: `host`, then each of `hosts`; without reconnecting."""
        if not (self.hosts or self.on_connect or self.may_pass or self.is_supervised):
            return [self]
        places = ((self.host, self.port), *self.hosts)
        alone = dict.fromkeys(_CALLABLES) | {"hosts": (), "reconnect": False}
        return [self._copy(alone | {"host": host, "port": port}) for host, port in places]

    def for_peer(self, host: str, port: int, unix_path: str | None) -> NetworkConfig:
        """This configuration with the place of a peer that others have connected to."""
        return self._copy({"host": host, "port": port, "unix_path": unix_path})

    def _copy(self, changes: dict[str, Any]) -> NetworkConfig:
        # Without the checks, which were made before and take 50 us: each attempt to connect needs a copy.
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, **changes)
        return copy

    @property
    def is_supervised(self) -> bool:
        """Whether the client has anything to do when a connection comes or goes."""
        told = self.on_state is not None or self.on_event is not None
        return bool(self.reconnect) or told or self.heartbeat is not None

    @classmethod
    def from_url(cls, url: str) -> NetworkConfig:
        """Read `tcp://host:port?field=value&...`, where a field is any scalar one of this class.

        `tls://host:port` is the same with `tls=True`; `unix:///path` names a Unix socket. Write booleans as `true` or
        `false`, no limit as `none`, an IPv6 address in brackets. `proxy` is no field, because it may hold a password.

        Fields of its parts go by these names: `server_hostname`, `ca_file`, `client_cert`, `certificate_pin`,
        `system_trust`, `ignore_unexpected_eof` (in `tls://` URLs only); `proxy_ca_file`, `proxy_client_cert`;
        `keepalive_idle`, `keepalive_interval`, `keepalive_count`, `user_timeout`; `reconnect_attempts`;
        `receive_high_water`, `receive_low_water`, `send_high_water`, `send_low_water`.

        Raises:
            TypeError: `url` is not a string.
            ValueError: It is no such URL, or has an unknown or repeated field or a value out of range.
        """
        return cls(**read_url(url, {field.name: str(field.type) for field in fields(cls)}))

    @classmethod
    def from_env(cls, prefix: str) -> NetworkConfig:
        """Read variables of the environment: `from_env("APP_REDIS_")` reads APP_REDIS_HOST, APP_REDIS_PORT, ...

        The names are those of the fields that `from_url()` reads, in upper case; also `HOST`, `PORT`, `UNIX_PATH`,
        `PROXY` and `TLS`. `APP_REDIS_URL` is read by `from_url()` first, and the other variables come on top. One
        that is named like no field is left alone, unless it looks like a misspelt one.

        Raises:
            TypeError: `prefix` is not a string.
            ValueError: It is empty, or a variable has no such value; or a value is out of range. No message shows what
                may be a password.
        """
        return cls(**read_variables(prefix, {field.name: str(field.type) for field in fields(cls)}, read_url))


def observer_of(config: NetworkConfig, id: int | None = None, attempt: int = 0) -> Observer | None:
    """What tells `on_event` of `config`, see `Observer`; None without one."""
    if config.on_event is None:
        return None
    from pepperpy.network.events import Observer

    return Observer(config.on_event, *event_place(config), id, attempt)


def event_place(config: NetworkConfig) -> tuple[str, int]:
    """`host` and `port` of events about a connection of this configuration."""
    return os.fspath(config.unix_path or config.host), config.port


def check_config(owner: str, config: object, more: bool = False) -> None:
    """Accept one `NetworkConfig` as the argument of `owner`; `more`: whether there were further arguments."""
    if not isinstance(config, NetworkConfig) or more:
        kind = "a NetworkConfig and nothing else" if more else f"a NetworkConfig, not {type(config).__name__}"
        example = "NetworkConfig('localhost', 6379)"
        if isinstance(config, str) and "://" in config:
            example = "NetworkConfig.from_url(...)"
        raise TypeError(f"config must be {kind}: {owner}({example})")


def explain_setting(owner: str, name: str, known: Collection[str], instead: Mapping[str, str] = INSTEAD) -> TypeError:
    """The error for an unknown argument of `owner`, whose settings are those of a `NetworkConfig`."""
    if name in _FIELDS:
        return TypeError(f"unknown argument {name!r}: it is a setting, {owner}(NetworkConfig({name}=...))")
    return unknown_argument(name, [*known, *_FIELDS], instead)


_FIELDS = [field.name for field in fields(NetworkConfig)]
