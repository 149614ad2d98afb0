"""Each allocation of a change of a client's state fails once: all tasks that wait for the change go on."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

import pytest
from support.allocations import IMPOSSIBLE, MOST, Starved, turns

from pepperpy.network import ConnectError, NetworkClient, NetworkConfig
from pepperpy.network.tcp.state import ClientState

pytestmark = pytest.mark.skipif(IMPOSSIBLE is not None, reason=str(IMPOSSIBLE))

CONFIG = NetworkConfig("localhost", 1, reconnect=True)


def connected(state: ClientState) -> None:
    state.become("connected")


def failed(state: ClientState) -> None:
    state.attempt_failed(ConnectError("refused"))


@pytest.mark.parametrize("change", [connected, failed])
async def test_who_waits_for_a_change_goes_on_whatever_allocation_fails(change: Callable[[ClientState], None]) -> None:
    for number in range(MOST):
        client = NetworkClient(CONFIG)
        state = ClientState(client, CONFIG)
        state.begin(asyncio.get_running_loop())
        waiting = [asyncio.create_task(state.wait(math.inf, "wait_connected", 1)) for _ in range(3)]
        await turns()
        with contextlib.suppress(MemoryError):
            Starved(0, number)(change, state)
        if state.now == "connecting" and not state.failures:
            # There was no memory to begin with: nothing has changed.
            change(state)
        done, asleep = await asyncio.wait(waiting, timeout=5)
        for task in asleep:
            task.cancel()
        assert not asleep, "it waits for ever"
        assert {type(task.exception()) for task in done} == {ConnectError if change is failed else type(None)}
