"""Connects to link-local addresses of `lo`, on the loop named first: fe80::1 alone, fe80::2 in a race."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import LOOPS

from pepperpy.network import NetworkClient, NetworkConfig


def listening(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6)
    listener.bind((address, 0, 0, socket.if_nametoindex("lo")))
    listener.listen()
    return listener


async def main() -> None:
    with listening("fe80::1") as first, listening("fe80::2") as second:
        config = NetworkConfig("fe80::1%lo", first.getsockname()[1], retries=0, local_address=("fe80::2%lo", 0))
        async with NetworkClient(config) as client:
            alone = client.remote_address[0].partition("%")[0]
        port = second.getsockname()[1]
        scope = socket.if_nametoindex("lo")

        def look_up(*_: Any, **__: Any) -> list[Any]:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"fe80::{n}", port, 0, scope)) for n in (1, 2)]

        socket.getaddrinfo = look_up
        async with NetworkClient(NetworkConfig("two.example", port, retries=0)) as client:
            print(f"alone {alone}, in a race {client.remote_address[0].partition('%')[0]}")


with asyncio.Runner(loop_factory=LOOPS[sys.argv[1]]) as runner:
    runner.run(main())
