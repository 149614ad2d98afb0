"""A bare asyncio protocol that keeps nothing: what the loop's own transport takes."""

import asyncio

from workloads import WORKLOADS


async def idle(port: int) -> dict:
    from memory import growth

    class Nothing(asyncio.Protocol):
        __slots__ = ()

    loop = asyncio.get_running_loop()
    transports = []

    async def open_one() -> None:
        transport, _ = await loop.create_connection(Nothing, "127.0.0.1", port)
        transports.append(transport)

    report = await growth(open_one, WORKLOADS["idle"].operations)
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0)
    return report
