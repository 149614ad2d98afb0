"""Parts of `NetworkConfig`, each about one subject: `BufferLimits`, `Reconnect`, `Heartbeat`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any

from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import check_callable, check_int, check_seconds, check_size, name_of, shown
from pepperpy.network.settings import Settings
from pepperpy.network.tls_config import TLSConfig
from pepperpy.network.units import KIB

if TYPE_CHECKING:
    from pepperpy.network.tcp.client import NetworkClient

    Probe = Callable[[NetworkClient], Awaitable[object] | object]


@explains_arguments()
@dataclass(frozen=True, kw_only=True, repr=False)
class BufferLimits(Settings):
    """How many bytes may wait in a client, for `receive()` and for the peer. Each `low` is below its `high`.

    Attributes:
        receive_high: Unread bytes at which reading pauses. One read, at most 256 KiB, may come on top. asyncio streams
            pause at 128 KiB.
        receive_low: Unread bytes at or below which reading goes on.
        send_high: Bytes accepted and not yet given to the kernel at which `send()` waits. As asyncio: 64 KiB.
        send_low: Bytes of these at or below which waiting senders go on. As asyncio: 16 KiB.
    """

    receive_high: int = 256 * KIB
    receive_low: int = 64 * KIB
    send_high: int = 64 * KIB
    send_low: int = 16 * KIB

    def __post_init__(self) -> None:
        for direction in ("receive", "send"):
            high, low = getattr(self, f"{direction}_high"), getattr(self, f"{direction}_low")
            check_size(f"{direction}_high", high)
            check_int(f"{direction}_low", low, 0)
            if low >= high:
                raise ValueError(f"{direction}_low must be below {direction}_high={high}, not {low}")


DEFAULT_BUFFERS = BufferLimits()


@explains_arguments()
@dataclass(frozen=True, kw_only=True, repr=False)
class Reconnect(Settings):
    """Make a new connection when one is lost; see `NetworkClient`. The end of the peer's stream counts as a loss.

    The waits between attempts are those of `retry_delay` and `max_retry_delay`.

    Attributes:
        attempts: The number of attempts in a row after which the client gives up; 1 or more. None: it never does. A
            connection that ends at once, or is lost again too soon, counts as one (see `tcp/reconnect.py`).
    """

    attempts: int | None = None

    def __post_init__(self) -> None:
        if self.attempts is not None:
            check_int("attempts", self.attempts, 1)


@explains_arguments()
@dataclass(frozen=True, repr=False)
class Heartbeat(Settings):
    """Ask a silent peer for a sign of life. `heartbeat=probe` is short for `heartbeat=Heartbeat(probe)`.

    Attributes:
        probe: `probe(connection)`, async or not, runs when no byte came or went for `interval` seconds. It gets a
            client as `on_connect` does, and normally sends something that the peer answers. The connection is lost
            (`ConnectionLostError`, whose `__cause__` says why) if no byte arrives within `timeout` seconds of the start
            of the probe, if it has not ended by then, or if it raises. It may receive only if no task does. If the
            client uses `request()`, the probe has to use `connection.request()`, which waits for its turn and has the
            client's `timeout`; otherwise the answer would count as the reply to a request. The heartbeat rests while a
            request waits for its reply, which has its own time limit, and while reading is paused at
            `BufferLimits.receive_high`, because silence means nothing then. If the probe closes its connection, the
            client is closed.
        interval: Seconds of silence before the probe; more than 0. 20, and `timeout` too: as the websockets library.
        timeout: Seconds from the start of the probe to the first byte; more than 0. A probe whose request has waited
            for one of the client's has them once more.
    """

    probe: Callable[[NetworkClient], Awaitable[object] | object]
    _: KW_ONLY
    interval: float = 20.0
    timeout: float = 20.0

    def __post_init__(self) -> None:
        check_callable("probe", self.probe)
        check_seconds("interval", self.interval, zero=False)
        check_seconds("timeout", self.timeout, zero=False)

    def _shown(self, name: str, value: Any) -> str:
        return name_of(value) if name == "probe" else repr(value)


def check_reconnect(value: object) -> None:
    """Accept a value for the setting `reconnect`."""
    if not isinstance(value, (bool, Reconnect)):
        raise TypeError(f"reconnect must be True, False or a Reconnect, not {shown(value)}")


def reconnect_of(value: bool | Reconnect) -> Reconnect | None:
    """The `Reconnect` for the setting `reconnect`; None if the client does not reconnect."""
    if isinstance(value, Reconnect):
        return value
    return Reconnect() if value else None


def check_heartbeat(value: object) -> None:
    """Accept a value for the setting `heartbeat`."""
    if value is not None and not isinstance(value, Heartbeat) and not callable(value):
        raise TypeError(f"heartbeat must be a function of a client or Heartbeat(function, ...), not {shown(value)}")


def heartbeat_of(value: Heartbeat | Probe | None) -> Heartbeat | None:
    """The `Heartbeat` for the setting `heartbeat`; None if there is none."""
    return value if value is None or isinstance(value, Heartbeat) else Heartbeat(value)


# Names that `NetworkConfig` has not: of the parts' fields, of former ones and those of others -> what to write there.
INSTEAD = {
    **{field.name: f"tls=TLSConfig({field.name}=...)" for field in fields(TLSConfig)},
    **{field.name: f"buffers=BufferLimits({field.name}=...)" for field in fields(BufferLimits)},
    **{f"keepalive_{name}": f"keepalive=Keepalive({name}=...)" for name in ("idle", "interval", "count")},
    "user_timeout": "keepalive=Keepalive(user_timeout=...)",
    "verify": "verify_ssl=False, or tls=TLSConfig(verify=False)",
    "sock": "NetworkClient.from_socket(sock), or socket_factory=...",
    "ssl": "tls=True, tls=TLSConfig(...) or tls=ssl_context",
    "ssl_context": "tls=ssl_context",
    "tls_minimum_version": "tls=TLSConfig(minimum_version=...)",
    "tls_ignore_unexpected_eof": "tls=TLSConfig(ignore_unexpected_eof=...)",
    "cafile": "tls=TLSConfig(ca_file=...)",
    "cadata": "tls=TLSConfig(ca_data=...)",
    "reconnect_attempts": "reconnect=Reconnect(attempts=...)",
    "heartbeat_interval": "heartbeat=Heartbeat(probe, interval=...)",
    "heartbeat_timeout": "heartbeat=Heartbeat(probe, timeout=...)",
    **{f"{name}_water": f"buffers=BufferLimits({name}=...)" for name in (field.name for field in fields(BufferLimits))},
    "limit": "buffers=BufferLimits(...), or max_message_size=...",
}
