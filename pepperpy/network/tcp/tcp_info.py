"""`TCPInfo`: what Linux knows of one TCP connection (TCP_INFO, linux/tcp.h)."""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

# Bytes of `struct tcp_info` as of Linux 4.10, up to delivery_rate. Newer ones append fields.
_LAYOUT = struct.Struct("=8B24I4Q6IQ")
_STATES = (
    *("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT"),
    *("LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"),
)
# The kernel has no value yet.
_NONE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TCPInfo:
    """What the kernel knows of a connection at this moment. Through a proxy, it is the connection to the proxy.

    Attributes:
        state: As in RFC 9293: "ESTABLISHED", "CLOSE_WAIT", ...
        rtt: The smoothed round-trip time, in seconds.
        rttvar: How much it varies, in seconds.
        min_rtt: The shortest one of the last minutes, in seconds; None: none was measured yet.
        rto: Seconds after which data without an acknowledgment is sent again.
        mss: Bytes of a segment that is sent, at most.
        pmtu: Bytes of a packet on this path, at most.
        cwnd: Bytes that may be under way, by the congestion control; of whole segments.
        unacked: Segments that are under way.
        lost: Of these, segments that count as lost.
        retransmits: How often in a row the oldest of them was sent again; 0: the peer answers.
        total_retransmits: Segments sent again since the beginning.
        bytes_acked: Bytes that the peer has acknowledged.
        bytes_received: Bytes that came in order.
        not_sent: Bytes that the kernel has and has not sent yet.
        delivery_rate: Bytes a second that arrived at the peer, as measured last.
        since_data_received: Seconds since data came last.
        since_data_sent: Seconds since data was sent last.
    """

    state: str
    rtt: float
    rttvar: float
    min_rtt: float | None
    rto: float
    mss: int
    pmtu: int
    cwnd: int
    unacked: int
    lost: int
    retransmits: int
    total_retransmits: int
    bytes_acked: int
    bytes_received: int
    not_sent: int
    delivery_rate: int
    since_data_received: float
    since_data_sent: float


def tcp_info_of(sock: Any) -> TCPInfo | None:
    """The facts about a transport's socket; None: it is no open socket of TCP, or the system is not Linux."""
    if sys.platform != "linux" or sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAYOUT.size)
    except OSError:
        return None  # closed meanwhile; or a sandbox that has no such option
    # An old kernel knows fewer fields.
    fields = _LAYOUT.unpack(data.ljust(_LAYOUT.size, b"\0"))
    state, _, retransmits = fields[:3]
    rto, _, mss, _, unacked, _, lost, _, _, sent, _, received, _, pmtu, _, rtt, rttvar, _, cwnd = fields[8:27]
    total_retransmits = fields[31]
    _, _, acked, bytes_received, _, _, not_sent, min_rtt, _, _, delivery_rate = fields[32:]
    return TCPInfo(
        state=_STATES[state] if state < len(_STATES) else str(state),
        rtt=rtt / 1e6,
        rttvar=rttvar / 1e6,
        min_rtt=None if min_rtt in (0, _NONE) else min_rtt / 1e6,
        rto=rto / 1e6,
        mss=mss,
        pmtu=pmtu,
        cwnd=cwnd * mss,
        unacked=unacked,
        lost=lost,
        retransmits=retransmits,
        total_retransmits=total_retransmits,
        bytes_acked=acked,
        bytes_received=bytes_received,
        not_sent=not_sent,
        delivery_rate=delivery_rate,
        since_data_received=received / 1e3,
        since_data_sent=sent / 1e3,
    )
