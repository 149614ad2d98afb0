"""Names of the tests' own, which no resolver knows: each is looked up as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from pepperpy.network import connect


@contextlib.contextmanager
def names(table: dict[str, list[str] | Exception]) -> Iterator[dict[str, int]]:
    """Look these names up as their IPv4 addresses, in that order, or fail; the table may change meanwhile.

    Gives how often each was asked for.
    """
    real = connect._look_up
    asked = dict.fromkeys(table, 0)

    async def look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
        if host not in table:
            return await real(loop, host, port)
        asked[host] += 1
        found = table[host]
        if isinstance(found, Exception):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, port)) for each in found]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect, "_look_up", look_up)
        yield asked
