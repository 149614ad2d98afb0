"""What a `NetworkClient` says of its connection. Nothing here waits, or changes anything."""

from __future__ import annotations

from typing import Any

from pepperpy.network._core.directions import Receiving
from pepperpy.network.tcp.client_link import ClientLink
from pepperpy.network.tcp.stats import NetworkStats, stats_of
from pepperpy.network.tcp.tcp_info import TCPInfo, tcp_info_of
from pepperpy.network.tls import TLSInfo


class InspectingMethods:
    """The part of `NetworkClient` that says what its connection is like."""

    __slots__ = ()

    _link: ClientLink
    _receiver: Receiving

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection: made, not closed by this side, not known to be lost, and not at its end.

        When the peer has ended its stream, this stays True until every received byte is taken (see `at_eof`), over TLS
        too, or until a send has raised a loss. So `while client.is_connected` loses no last line.
        """
        return self._link.protocol.is_connected

    @property
    def at_eof(self) -> bool:
        """Whether the peer has ended its stream and every received byte is taken: a receive returns the end at once.

        From then on `is_connected` is False, and `connect()` makes a new connection. On a plain connection sending
        works until then. Always False for a client that reconnects, because it treats the end as a loss.
        """
        return self._link.protocol.at_eof

    @property
    def is_reusable(self) -> bool:
        """Whether somebody else could begin on this connection as on a new one; for a pool of your own.

        It is open, and nothing is unread, unsent or waited for. It costs less than 0.1 us, because it looks at what the
        event loop has read; what lies in the kernel it learns with the loop's next turn. `NetworkPool` asks the kernel
        as well.
        """
        return self._link.protocol.is_reusable(self._receiver)

    @property
    def local_address(self) -> Any:
        """This side's address: `(host, port)` for IPv4, with two more numbers for IPv6, or the path of a Unix socket.

        None if not connected.
        """
        return self._link.protocol.extra_info("sockname")

    @property
    def remote_address(self) -> Any:
        """The peer's address, in the form of `local_address`; None if not connected."""
        return self._link.protocol.extra_info("peername")

    def extra_info(self, name: str) -> Any:
        """What `asyncio.BaseTransport.get_extra_info(name)` says of the connection: `socket`, `peercert`, ...

        None if there is none of that name, or no connection.
        """
        return self._link.protocol.extra_info(name)

    def tcp_info(self) -> TCPInfo | None:
        """What the kernel knows of the connection now: round-trip time, retransmissions, window. One system call.

        None where nobody knows: not on Linux, on a Unix socket, without a connection.
        """
        return tcp_info_of(self._link.protocol.extra_info("socket"))

    @property
    def tls(self) -> TLSInfo | None:
        """Version, cipher, protocol (ALPN) and peer certificate of a TLS connection; None if there is no such one.

        TLS to an `https://` proxy does not count.
        """
        protocol = self._link.protocol
        connection = None if protocol.tls_of_proxy else protocol.extra_info("ssl_object")
        return None if connection is None else TLSInfo.of(connection)

    @property
    def stats(self) -> NetworkStats:
        """The counters of this client, as they are now. Counting costs the same whether you read them or not."""
        return stats_of(self._link)
