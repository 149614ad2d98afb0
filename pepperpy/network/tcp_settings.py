"""Parts of `NetworkConfig`, each about one subject: `BufferLimits`, `Reconnect`, `Heartbeat`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import check_callable, check_int, check_seconds, check_size, name_of, shown
from pepperpy.network.settings import Settings
from pepperpy.network.units import KIB

if TYPE_CHECKING:
    from pepperpy.network.tcp.client import NetworkClient

    Probe = Callable[[NetworkClient], Awaitable[object] | object]


@explains_arguments()
@dataclass(frozen=True, kw_only=True, repr=False)
class BufferLimits(Settings):
    """How many bytes wait in a client: for `receive()`, and for the peer. Each `low` is below its `high`.

    Attributes:
        receive_high: Bytes received and not yet taken at which reading pauses. One read, at most 256 KiB, may come on
            top. asyncio streams pause at 128 KiB.
        receive_low: Bytes at or below which reading goes on.
        send_high: Bytes accepted and not yet handed to the kernel at which `send()` waits. As asyncio: 64 KiB.
        send_low: Bytes at or below which waiting senders go on. As asyncio: 16 KiB.
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
    """Make a new connection when one is lost; see `NetworkClient`. The peer's end of stream counts as loss.

    The waits between attempts are those of `retry_delay` and `max_retry_delay`.

    Attributes:
        attempts: Attempts, one after the other, until the client gives up; 1 or more. None never does. Connections that
            ended at once, or were lost again too soon, count (see `reconnect.py`).
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
        probe: `probe(connection)`, async or not, run when no byte came or went for `interval` seconds. It gets what
            `on_connect` gets, and normally sends what the peer answers. If no byte at all arrives within `timeout`
            seconds of its start, or it is not done by then, or it raises, the connection is lost
            (`ConnectionLostError`, whose `__cause__` says why). It may receive only where no task does. Where the
            client uses `request()`, it has to use `connection.request()`, which waits for its turn (and has the
            client's `timeout` like any request): the answer to anything else would be taken for a reply. It rests while
            a request waits for its reply, which has a time limit of its own, and while reading is paused at
            `BufferLimits.receive_high`: nothing can be concluded then. If it closes its connection, the client is
            closed.
        interval: Seconds; more than 0. This and the next are the defaults of the websockets library.
        timeout: Seconds; more than 0.
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
    """Refuse what a client cannot have as `reconnect`."""
    if not isinstance(value, (bool, Reconnect)):
        raise TypeError(f"reconnect must be True, False or a Reconnect, not {shown(value)}")


def reconnect_of(value: bool | Reconnect) -> Reconnect | None:
    """What `reconnect` of a client stands for; None: not at all."""
    if isinstance(value, Reconnect):
        return value
    return Reconnect() if value else None


def check_heartbeat(value: object) -> None:
    """Refuse what a client cannot have as `heartbeat`."""
    if value is not None and not isinstance(value, Heartbeat):
        check_callable("heartbeat", value)


def heartbeat_of(value: Heartbeat | Probe | None) -> Heartbeat | None:
    """What `heartbeat` of a client stands for; None: there is none."""
    return value if value is None or isinstance(value, Heartbeat) else Heartbeat(value)
