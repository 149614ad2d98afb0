"""A connection through a proxy."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pepperpy.network.config import NetworkConfig


def check_proxy(url: str) -> None:
    raise NotImplementedError


def shown_proxy(url: str) -> str:
    raise NotImplementedError


async def open_tunnel(config: NetworkConfig, url: str) -> socket.socket:
    raise NotImplementedError
