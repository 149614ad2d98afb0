"""aiohttp's resolver: gives it the addresses of lookup.py."""

from __future__ import annotations

import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from pepperpy.network import lookup
from pepperpy.network.lookup import MAX_NAMES, forget, look_up

# As aiohttp's own resolver: no addresses of a family that this machine does not have.
_FLAGS = socket.AI_ADDRCONFIG & getattr(socket, "AI_MASK", -1)


class Resolver(AbstractResolver):
    """Looks up names for one client.

    After connecting has failed, the next connection begins with the next address: the first one may belong to a server
    that accepts and then says nothing until the time is over.
    """

    def __init__(self, resolver: lookup.Resolver | None) -> None:
        """Args: resolver: The user's, to be asked in place of the system."""
        self._resolver = resolver
        self._failures: dict[str, int] = {}  # by host; the host that failed longest ago is first

    def failed(self, host: str) -> None:
        forget(host, _FLAGS)
        self._failures[host] = self._failures.pop(host, 0) + 1
        if len(self._failures) > MAX_NAMES:
            del self._failures[next(iter(self._failures))]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await look_up(host, port, _FLAGS, self._resolver)
        first = self._failures.get(host, 0) % len(addresses)
        return [
            ResolveResult(
                hostname=host,
                host=_with_scope(address),
                port=address[1],
                family=family,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family, _, proto, _, address in addresses[first:] + addresses[:first]
        ]

    async def close(self) -> None:
        pass


def _with_scope(address: tuple[Any, ...]) -> str:
    # aiohttp keeps only the text, and a link-local address is useless without its interface.
    host: str = address[0]
    return f"{host}%{address[3]}" if len(address) > 3 and address[3] and "%" not in host else host
