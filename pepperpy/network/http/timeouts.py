"""The time limits of one attempt, from seconds or an `aiohttp.ClientTimeout`, whose word for no limit is 0 as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pepperpy.network.http.aiohttp_types import aiohttp, is_client_timeout
from pepperpy.network.http.request import Limits

if TYPE_CHECKING:
    from pepperpy.network.http.config import HTTPConfig


def total_of(timeout: aiohttp.ClientTimeout | float | None) -> float | None:
    """Seconds for the whole attempt; None: no limit."""
    return (timeout.total if is_client_timeout(timeout) else timeout) or None


def limits_of(config: HTTPConfig, timeout: aiohttp.ClientTimeout | float | None) -> Limits:
    """The limits of its parts. What a `ClientTimeout` leaves open is as configured."""
    queue, connect, read = None, config.connect_timeout, config.read_timeout
    if is_client_timeout(timeout):
        queue = timeout.connect
        connect = connect if timeout.sock_connect is None else timeout.sock_connect
        read = read if timeout.sock_read is None else timeout.sock_read
    return Limits(
        queue=queue or None,
        pool=config.pool_timeout,
        connect=connect or None,
        read=read or None,
        write=config.write_timeout,
    )
