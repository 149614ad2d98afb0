"""The race of one name's addresses (RFC 8305, sections 4 and 5): the first that connects wins, the rest are closed.

It works alike on every loop. uvloop's `create_connection()` cannot race (uvloop#406). Its `sock_connect()` takes a
thread to look up an address that is a number already, and loses the zone of a link-local address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from itertools import chain, zip_longest
from typing import Any

from pepperpy.network.lookup import AddressInfo

Connect = Callable[[AddressInfo], Coroutine[Any, Any, socket.socket]]


async def race(connect: Connect, addresses: Sequence[AddressInfo], delay: float) -> tuple[socket.socket, AddressInfo]:
    """The socket that was connected first, and its address.

    Each address begins `delay` seconds after the one before, or at once when one has failed.

    Raises:
        OSError: Every address failed; one error names them all, and is what the last one that was tried has raised. If
            they failed in different ways, its `__cause__` is an ExceptionGroup of them.

    Cancellation: No socket is left open.
    """
    running: dict[asyncio.Task[socket.socket], AddressInfo] = {}
    won = None
    try:
        won = await _first(connect, interleaved(addresses), delay, running)
        return won
    finally:
        for task in running:
            task.cancel()
            # It may have connected meanwhile.
            task.add_done_callback(_close)
        try:
            if running:
                await asyncio.wait(running)
        except BaseException:
            if won is not None:
                won[0].close()
            raise


async def _first(
    connect: Connect, left: list[AddressInfo], delay: float, running: dict[asyncio.Task[socket.socket], AddressInfo]
) -> tuple[socket.socket, AddressInfo]:
    began: list[asyncio.Task[socket.socket]] = []
    failures: dict[asyncio.Task[socket.socket], OSError] = {}
    while left or running:
        if left:
            address = left.pop(0)
            began.append(task := asyncio.create_task(connect(address)))
            running[task] = address
        done, _ = await asyncio.wait(running, timeout=delay if left else None, return_when=asyncio.FIRST_COMPLETED)
        # In the order in which they began.
        for task in [task for task in running if task in done]:
            address = running.pop(task)
            try:
                return task.result(), address
            except OSError as error:
                failures[task] = error
    raise _joined([failures[task] for task in began])


def interleaved(addresses: Sequence[AddressInfo]) -> list[AddressInfo]:
    """The same addresses with the families alternating, so that an unreachable family costs one delay only."""
    families: dict[int, list[AddressInfo]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*families.values())) if address is not None]


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _joined(failures: list[OSError]) -> OSError:
    """One error for all; `failures` are in the order in which the addresses were tried."""
    texts = dict.fromkeys([str(error) or type(error).__name__ for error in failures])
    last = failures[-1]
    if len(texts) == 1:
        return last
    message = f"every address failed: {', '.join(texts)}"
    kind = type(last) if type(last).__module__ == "builtins" else OSError
    joined = kind(message) if last.errno is None else kind(last.errno, message)
    # `transient.may_pass()` looks at each of them, and a traceback shows them.
    joined.__cause__ = ExceptionGroup("each address", failures)
    return joined
