"""Asynchronous network clients with a C core.

    NetworkClient (tcp.py)          the documented API: policy, no bytes
        connect.py, backoff.py      from a host name to a connected socket
        _stream_protocol            asyncio's callbacks                          } compiled from
        _receiver, _sender          what a task takes and what it hands over     } ext/pepperpy/network
        _receive_buffer, _send_queue, _waiter, _endpoint                         }
    errors.py, config.py            shared by all

docs/architecture.md follows one byte through it.
"""

from pepperpy.network.config import Default, NetworkConfig
from pepperpy.network.errors import (
    BusyError,
    ClosedError,
    ConnectError,
    ConnectionLostError,
    IncompleteReadError,
    MessageTooLargeError,
    NetworkError,
    NetworkTimeoutError,
    NotConnectedError,
    UsageError,
)
from pepperpy.network.tcp import NetworkClient, NetworkStats

__all__ = [
    "BusyError",
    "ClosedError",
    "ConnectError",
    "ConnectionLostError",
    "Default",
    "IncompleteReadError",
    "MessageTooLargeError",
    "NetworkClient",
    "NetworkConfig",
    "NetworkError",
    "NetworkStats",
    "NetworkTimeoutError",
    "NotConnectedError",
    "UsageError",
]
