"""`NetworkConfig`: where to connect and how. Frozen, validated, comparable; picklable without an `SSLContext` in it."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pepperpy.network import tls
from pepperpy.network.checks import Default, check_bool, check_int, check_seconds, check_size, check_timeout, shown
from pepperpy.network.config_url import read_url
from pepperpy.network.hosts import check_host
from pepperpy.network.proxy_url import read_proxy

if TYPE_CHECKING:
    from pepperpy.network.tcp.client import NetworkClient

KIB = 1024
MIB = 1024 * KIB


State = Literal["connecting", "connected", "lost", "closed"]

_MAX_USER_TIMEOUT = 2_147_483  # seconds: below 2**31 ms

# The fields that hold a callable.
_CALLABLES = ("on_connect", "may_pass", "on_state", "heartbeat")


@dataclass(frozen=True)
class NetworkConfig:
    """Settings of one TCP connection. Its `repr` shows no secret.

    The first five fields may be given by position; all others are keyword-only. A wrong type raises `TypeError`,
    a value out of range `ValueError`; both name the field and the value.

    Attributes:
        host: Name or address to connect to; an IPv6 address without brackets. Left out with `unix_path`.
        port: 1 to 65535.
        timeout: Seconds that one operation may wait; more than 0. None waits for ever.
        retries: How often `connect()` tries again after its first failure; 0 or more.
        retry_delay: Seconds; the first retry waits 0 to this long, each later one up to twice as long as the one
            before (see `backoff.Backoff`). 0 retries at once.

        max_retry_delay: Seconds; no wait between attempts is longer. Arbitrary; the AWS SDKs use 20, gRPC 120.
        connect_timeout: Seconds for one attempt: name lookup, all addresses, the proxy's answer and the TLS handshake
            together. Default: `timeout`.
        close_timeout: Seconds that `disconnect()` gives the peer to take what was accepted for sending, before it
            aborts. Always bounded. Arbitrary; the default is that of `timeout`.
        happy_eyeballs_delay: Seconds before the next address is raced against the ones under way (RFC 8305, section 8).
        local_address: `(host, port)` to connect from; port 0 lets the system choose. A fixed port can be used again at
            once after a connection (SO_REUSEADDR; not on Windows, where it would let other programs take the port).
        nodelay: Set TCP_NODELAY, so that a small send is not held back (Nagle); asyncio and Go do the same.
        keepalive: Ask the system to find dead peers, which no amount of waiting for data does.
        keepalive_idle: Seconds of silence before the first probe. These three are Go's defaults (net.KeepAliveConfig).
        keepalive_interval: Seconds between probes.
        keepalive_count: Unanswered probes until the connection counts as lost.
        user_timeout: Seconds that the peer may leave data or probes unacknowledged, or its window shut, until the
            connection counts as lost (TCP_USER_TIMEOUT, RFC 5482; Linux only). Default: when keepalive gives up, which
            is `keepalive_idle + keepalive_count * keepalive_interval`, 150 s; Linux heeds this one instead of the count
            where both are set. It also ends the connection to a peer that lives but takes no data for so long while
            some waits here, such as a printer without paper or a program in its debugger: Linux has no value that
            spares such a peer and finds a dead one. None spares it: a dead peer with data under way is then found by
            the system, on Linux after about 15 minutes (tcp_retries2), and a silent one still by keepalive.
        socket_options: `(level, option, value)` triples as for `socket.setsockopt`, set before connecting and last. One
            of IPPROTO_IP is for IPv4 sockets, one of IPPROTO_IPV6 for IPv6 sockets; the other sockets go without it.
        receive_high_water: Bytes received and not yet taken at which reading pauses. One read, at most 256 KiB, may
            come on top. asyncio streams pause at 128 KiB.
        receive_low_water: Bytes at or below which reading goes on.
        send_high_water: Bytes accepted and not yet handed to the kernel at which `send()` waits. As asyncio: 64 KiB.
        send_low_water: Bytes at or below which waiting senders go on. As asyncio: 16 KiB.
        max_message_size: Bytes, terminator included, of the longest line or message that `receive_line()`,
            `receive_lines()` and `receive_until()` collect. Of a codec without a `max_size` too, counted as that is:
            without length or separator. asyncio's limit of 64 KiB is its streams' best known trap.

        unix_path: Path of a Unix socket to connect to instead of `host` and `port`, at most 107 bytes (Linux; 103
            elsewhere). What concerns TCP or addresses (`nodelay`, `keepalive`, `user_timeout`, `local_address`, ...)
            does not apply.
        proxy: URL of a proxy to connect through, user and password in it where it wants them (percent-encoded):
            `socks5h://`, `socks4a://` and `http://` (CONNECT) leave the name lookup to the proxy, `socks5://` and
            `socks4://` look up here. The SOCKS ones need `pip install python-socks`.

        tls: True for TLS as the fields below say, or an `ssl.SSLContext`, which is used as it is, never modified.
            `start_tls()` uses them too.
        server_hostname: The name that the certificate must be for, and that the server is told (SNI). None: `host`.
        verify_ssl: Check the certificate and its name, which must be a subjectAltName (RFC 9525): a common name is
            refused. False is for tests: anybody can then pose as the server.
        ca_file: PEM file of the authorities to trust instead of OpenSSL's. Both files are read by `connect()`, which
            raises `ValueError` if they cannot be used.
        client_cert: PEM file with certificate and key, or `(certificate, key)`, or `(certificate, key, password)`,
            where the key may be None.
        alpn: Names of protocols to offer (RFC 7301), the preferred one first.
        tls_minimum_version: The oldest version of TLS to speak. 1.2, as RFC 9325 asks for.
        tls_ignore_unexpected_eof: Take the end of a TLS stream without close_notify for an end in order, for servers
            that are killed or never send one. Otherwise it raises `ConnectionLostError`, because anybody on the way can
            end a stream so: only for a protocol that says itself where its messages end. OpenSSL's option of that name
            in an `ssl.SSLContext` given as `tls` does the same.
        certificate_pin: SHA-256 of the server's certificate in DER, in hex (colons allowed) or as 32 bytes, or a tuple
            of several, one of which must be the server's. Checked besides the rest, or instead with
            `verify_ssl=False`, before any byte of yours is sent. A renewed certificate is another one: pin it as well.
        system_trust: Trust what the operating system trusts instead of OpenSSL's files; on macOS and Windows these
            differ, and need `pip install truststore`.

        hosts: Further `(host, port)` pairs. Every attempt begins at `host` and goes on, without a wait, to the next one
            while none can be reached; each has `connect_timeout` seconds.
        on_connect: `on_connect(connection)`, async or not, run on every new connection before the client counts as
            connected: to log in or subscribe. `connection` is a `NetworkClient` of that connection alone, good until
            the callable returns; the client itself still waits. It shares the `connect_timeout` of its host. What it
            raises fails the attempt.
        may_pass: `may_pass(error)`, asked whether a failed attempt may succeed later; `error` is that of the connection
            or of `on_connect`. True, False, or None for the default: `backoff.may_pass`, and a Unix socket that is not
            there; but of what `on_connect` raises, ConnectionError (TLSError as without it), TimeoutError and EOFError.
            Once a reconnecting client has been connected, its settings can work, and the default is that all passes
            but a certificate or pin that is refused: also an unknown name, a lack of descriptors or memory, a proxy
            that refuses, a `ca_file` or `client_cert` that cannot be used (ValueError); and of what `on_connect`
            raises, each OSError of the system, which has an `errno`.
        on_state: `on_state(client, state)`, a plain function, called by the loop soon after each change: "connecting"
            when `connect()` begins, "connected", "lost" (also when the peer has ended its stream and every byte is
            taken), and "closed" at the end: a `connect()` that failed, `disconnect()`, `abort()`, or a reconnecting
            client that has given up. In their order, but the client may be further already. What it
            raises goes to the loop's exception handler and changes nothing.
        reconnect: Make a new connection when one is lost; see `NetworkClient`. The peer's end of stream counts as loss.
        reconnect_attempts: Attempts, one after the other, until the client gives up; 1 or more. None never does.
            Connections that ended at once, or were lost again too soon, count (see `reconnect.py`).
        heartbeat: `heartbeat(connection)`, async or not, run when no byte came or went for `heartbeat_interval`
            seconds. It gets what `on_connect` gets, and normally sends what the peer answers. If no byte at all arrives
            within `heartbeat_timeout` seconds of its start, or it is not done by then, or it raises, the connection is
            lost (`ConnectionLostError`, whose `__cause__` says why). It may receive only where no task does. Where the
            client uses `request()`, it has to use `connection.request()`, which waits for its turn (and has `timeout`
            seconds like any request): the answer to anything else would be taken for a reply. It rests while a request
            waits for its reply, which has a time limit of its own, and while reading is paused at `receive_high_water`:
            nothing can be concluded then. If it closes its connection, the client is closed.
        heartbeat_interval: Seconds; more than 0. This and the next are the defaults of the websockets library.
        heartbeat_timeout: Seconds; more than 0.
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
    keepalive: bool = True
    keepalive_idle: int = 15
    keepalive_interval: int = 15
    keepalive_count: int = 9
    user_timeout: float | Default | None = Default.KEEPALIVE
    socket_options: tuple[tuple[int, int, int | bytes], ...] = ()
    receive_high_water: int = 256 * KIB
    receive_low_water: int = 64 * KIB
    send_high_water: int = 64 * KIB
    send_low_water: int = 16 * KIB
    max_message_size: int = 16 * MIB
    unix_path: str | None = None
    proxy: str | None = None
    tls: bool | ssl.SSLContext = False
    server_hostname: str | None = None
    verify_ssl: bool = True
    ca_file: str | os.PathLike[str] | None = None
    client_cert: Any = None
    alpn: tuple[str, ...] = ()
    tls_minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    tls_ignore_unexpected_eof: bool = False
    certificate_pin: str | bytes | tuple[str | bytes, ...] = ()
    system_trust: bool = False
    hosts: tuple[tuple[str, int], ...] = ()
    on_connect: Callable[[NetworkClient], Awaitable[object] | object] | None = None
    may_pass: Callable[[Exception], bool | None] | None = None
    on_state: Callable[[NetworkClient, State], object] | None = None
    reconnect: bool = False
    reconnect_attempts: int | None = None
    heartbeat: Callable[[NetworkClient], Awaitable[object] | object] | None = None
    heartbeat_interval: float = 20.0
    heartbeat_timeout: float = 20.0

    def __post_init__(self) -> None:
        if self.unix_path is None:
            check_host("host", self.host)
            if self.port == 0 and self.port is not False:
                raise ValueError(f"port must be given, from 1 to 65535: NetworkConfig({self.host!r}, 6379)")
            check_int("port", self.port, 1, 65535)
        else:
            _check_unix(self)
        if self.proxy is not None:
            read_proxy(self.proxy)
        tls.check_fields(self)
        check_timeout("timeout", self.timeout, zero=False)
        check_int("retries", self.retries, 0)
        check_seconds("retry_delay", self.retry_delay, zero=True)
        check_seconds("max_retry_delay", self.max_retry_delay, zero=True)
        if self.connect_timeout is not Default.TIMEOUT:
            check_timeout("connect_timeout", self.connect_timeout, zero=False)
        check_seconds("close_timeout", self.close_timeout, zero=True)
        check_seconds("happy_eyeballs_delay", self.happy_eyeballs_delay, zero=True)
        if self.local_address is not None:
            _check_local_address(self.local_address)
        for name in ("nodelay", "reconnect"):
            check_bool(name, getattr(self, name))
        check_keepalive(self)
        _check_socket_options(self.socket_options)
        for direction in ("receive", "send"):
            high = getattr(self, f"{direction}_high_water")
            low = getattr(self, f"{direction}_low_water")
            check_size(f"{direction}_high_water", high)
            check_int(f"{direction}_low_water", low, 0)
            if low >= high:
                raise ValueError(f"{direction}_low_water must be below {direction}_high_water={high}, not {low}")
        check_size("max_message_size", self.max_message_size)
        _check_hosts(self.hosts)
        for name in _CALLABLES:
            _check_callable(name, getattr(self, name), plain=name in ("may_pass", "on_state"))
        if self.reconnect_attempts is not None:
            check_int("reconnect_attempts", self.reconnect_attempts, 1)
        check_seconds("heartbeat_interval", self.heartbeat_interval, zero=False)
        check_seconds("heartbeat_timeout", self.heartbeat_timeout, zero=False)

    def replace(self, **changes: Any) -> NetworkConfig:
        """A copy with some fields changed; validated like a new one. An unknown field raises `TypeError`."""
        return dataclasses.replace(self, **changes)

    @property
    def attempt_timeout(self) -> float | None:
        """Seconds that one attempt to connect may take: `connect_timeout`, or `timeout` where that is not set."""
        return self.timeout if isinstance(self.connect_timeout, Default) else self.connect_timeout

    def explained(self, loss: BaseException) -> str:
        """Why a connection of this configuration was lost, in words that name the setting where one has decided it."""
        words = str(loss) or type(loss).__name__
        if getattr(loss, "errno", None) != errno.ETIMEDOUT or self.unix_path is not None:
            return words
        if hasattr(socket, "TCP_USER_TIMEOUT") and (seconds := unanswered_timeout(self)) is not None:
            return (
                f"{words}: the peer answered nothing, or took no data, for user_timeout={seconds:g} s;"
                " user_timeout=None spares a peer that takes its time"
            )
        return f"{words}: the peer answered neither keepalive probes nor data" if self.keepalive else words

    @property
    def address(self) -> str:
        """Where to connect in words: `host:port`, or the path of the Unix socket."""
        return self.unix_path or f"{self.host}:{self.port}"

    @property
    def place(self) -> dict[str, Any]:
        """Where to connect as the `details` of an error have it: `host` and `port`, or `path`."""
        return {"host": self.host, "port": self.port} if self.unix_path is None else {"path": self.unix_path}

    @property
    def tls_name(self) -> str:
        """The name that the certificate must be for; empty for none."""
        # Neither the zone of a link-local address nor the dot at the end of a name is part of it (RFC 6066, section 3).
        return self.host.partition("%")[0].rstrip(".") if self.server_hostname is None else self.server_hostname

    def __repr__(self) -> str:
        shown = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        if self.proxy is not None:
            shown["proxy"] = read_proxy(self.proxy).shown
        if isinstance(self.client_cert, tuple):
            shown["client_cert"] = (*self.client_cert[:2], *("***" for _ in self.client_cert[2:]))
        texts = {name: _name_of(value) if name in _CALLABLES else repr(value) for name, value in shown.items()}
        return f"NetworkConfig({', '.join(f'{name}={text}' for name, text in texts.items())})"

    @property
    def bare(self) -> NetworkConfig:
        """This without its callables: a connection keeps its configuration, and they would keep what they belong to.

        That is the client, often, which then could not be collected.
        """
        return self.replace(**dict.fromkeys(_CALLABLES))

    @property
    def is_supervised(self) -> bool:
        """Whether anything has to be done when a connection comes or goes."""
        return self.reconnect or self.on_state is not None or self.heartbeat is not None

    @classmethod
    def from_url(cls, url: str) -> NetworkConfig:
        """Read `tcp://host:port?field=value&...`, where a field is any scalar one of this class.

        `tls://host:port` is the same with `tls=True`, `unix:///path` names a Unix socket. Booleans are `true` or
        `false`, no limit is `none`, an IPv6 address stands in brackets. `proxy` may hold a password, and is no field.

        Raises:
            TypeError: `url` is not a string.
            ValueError: Not such a URL, an unknown or doubled field, or a value out of range.
        """
        return cls(**read_url(url, {field.name: str(field.type) for field in dataclasses.fields(cls)}))


class KeepaliveSettings(Protocol):
    """How dead peers are found: fields of `NetworkConfig`, which explains them, and of `HTTPConfig`."""

    @property
    def keepalive(self) -> bool: ...
    @property
    def keepalive_idle(self) -> int: ...
    @property
    def keepalive_interval(self) -> int: ...
    @property
    def keepalive_count(self) -> int: ...
    @property
    def user_timeout(self) -> float | Default | None: ...


def check_keepalive(config: KeepaliveSettings) -> None:
    """Refuse what no system takes."""
    check_bool("keepalive", config.keepalive)
    # Linux: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL are 32767 s, MAX_TCP_KEEPCNT is 127 (include/net/tcp.h).
    check_int("keepalive_idle", config.keepalive_idle, 1, 32767)
    check_int("keepalive_interval", config.keepalive_interval, 1, 32767)
    check_int("keepalive_count", config.keepalive_count, 1, 127)
    if config.user_timeout is not Default.KEEPALIVE:
        check_timeout("user_timeout", config.user_timeout, zero=False)
        if isinstance(config.user_timeout, (int, float)) and config.user_timeout > _MAX_USER_TIMEOUT:
            raise ValueError(f"user_timeout must be at most 2147483 s (2**31 ms), not {config.user_timeout!r}")


def unanswered_timeout(config: KeepaliveSettings) -> float | None:
    """`user_timeout` in seconds: where that is not set, when keepalive gives up."""
    if not isinstance(config.user_timeout, Default):
        return config.user_timeout
    return min(config.keepalive_idle + config.keepalive_count * config.keepalive_interval, _MAX_USER_TIMEOUT)


def check_config(owner: str, config: object, more: bool = False) -> None:
    """Refuse what is no `NetworkConfig` alone, in the place where `owner` takes one."""
    if not isinstance(config, NetworkConfig) or more:
        kind = "a NetworkConfig and nothing else" if more else f"a NetworkConfig, not {type(config).__name__}"
        example = "NetworkConfig('localhost', 6379)"
        if isinstance(config, str) and "://" in config:
            example = "NetworkConfig.from_url(...)"
        raise TypeError(f"config must be {kind}: {owner}({example})")


def _check_unix(config: NetworkConfig) -> None:
    if not isinstance(config.unix_path, str):
        raise TypeError(f"unix_path must be a str, not {shown(config.unix_path)}")
    if not config.unix_path or "\0" in config.unix_path[1:]:
        raise ValueError(f"unix_path must be a path without NUL characters, not {shown(config.unix_path)}")
    try:
        size = len(os.fsencode(config.unix_path))
    except UnicodeEncodeError:
        raise ValueError(f"unix_path must be a path that can be encoded, not {shown(config.unix_path)}") from None
    # sun_path of unix(7), elsewhere of <sys/un.h>, with a NUL at its end unless the name is an abstract one (Linux).
    limit = (108 if sys.platform == "linux" else 104) - (config.unix_path[0] != "\0")
    if size > limit:
        raise ValueError(f"unix_path must be at most {limit} bytes, not {size}: {shown(config.unix_path)}")
    for name, none in (("host", ""), ("port", 0), ("proxy", None), ("local_address", None), ("hosts", ())):
        if getattr(config, name) != none:
            raise ValueError(f"{name} must be left out with unix_path={shown(config.unix_path)}")


def _check_local_address(value: object) -> None:
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(
            f"local_address must be a tuple (host, port), where port 0 lets the system choose, not {shown(value)}"
        )
    check_host("local_address host", value[0])
    check_int("local_address port", value[1], 0, 65535)


def _check_hosts(hosts: object) -> None:
    if not isinstance(hosts, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in hosts):
        raise TypeError(f'hosts must be a tuple of pairs, such as (("b.example", 6379),), not {shown(hosts)}')
    for host, port in hosts:
        check_host("hosts: host", host)
        check_int("hosts: port", port, 1, 65535)


def _check_callable(name: str, value: object, *, plain: bool) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, not {type(value).__name__}")
    if plain and inspect.iscoroutinefunction(value):
        raise TypeError(f"{name} must be a plain function, not the coroutine function {_name_of(value)}")


def _name_of(function: Any) -> str:
    # Not its repr: that of a partial shows the arguments, that of a method its object; one may be a password.
    return str(getattr(function, "__qualname__", type(function).__name__))


def _check_socket_options(options: object) -> None:
    if not isinstance(options, tuple):
        raise TypeError(f"socket_options must be a tuple of triples, ((level, option, value),), not {options!r}")
    for option in options:
        if not (
            isinstance(option, tuple)
            and len(option) == 3
            and isinstance(option[0], int)
            and isinstance(option[1], int)
            and isinstance(option[2], (int, bytes))
        ):
            raise TypeError(
                f"socket_options must be ((int, int, int or bytes), ...), and hold triples only, not {option!r}"
            )
