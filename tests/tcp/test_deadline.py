"""client.deadline(): one time limit for a block of calls, which says what was waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.servers import TOO_MUCH, client_of, full_listener, peer_and_client

from pepperpy.network import LengthPrefixed, NetworkClient, NetworkTimeoutError, UsageError
from pepperpy.network.timers import EARLY_S, Timer

SHORT = 0.03


async def two_sends(client: NetworkClient) -> None:
    while True:
        await client.send(TOO_MUCH, timeout=None)


async def request(client: NetworkClient) -> None:
    await client.request(b"?", NetworkClient.receive_line)


async def iterate(client: NetworkClient) -> None:
    async for _ in client.lines():
        pass


async def iterate_messages(client: NetworkClient) -> None:
    async for _ in client.framed(LengthPrefixed(4)):
        pass


CALLS: dict[str, tuple[Callable[[NetworkClient], Any], str, str]] = {
    "receive": (lambda client: client.receive(timeout=None), "receive", "receive"),
    "receive_exactly": (lambda client: client.receive_exactly(9), "receive", "receive_exactly"),
    "peek": (lambda client: client.peek(9), "receive", "peek"),
    "skip_until": (lambda client: client.skip_until(b";"), "receive", "skip_until"),
    "lines": (iterate, "receive", "receive"),
    "send": (two_sends, "send", "send"),
    "framed": (lambda client: client.framed(LengthPrefixed(4)).receive_batch(), "receive", "receive_batch"),
    "messages": (iterate_messages, "receive", "receive"),
    "request": (request, "request", "request"),
}


@pytest.mark.parametrize("name", CALLS)
async def test_the_error_names_the_call_that_waited_when_the_time_was_over(name: str) -> None:
    call, phase, method = CALLS[name]
    async with peer_and_client() as (_, client):
        with pytest.raises(NetworkTimeoutError, match=f"the deadline of {SHORT} s was over .*{method}") as caught:
            async with client.deadline(SHORT):
                await call(client)
        details = caught.value.details
        assert (details["phase"], details["call"], details["port"]) == (phase, method, client.config.port)
        assert details["elapsed"] >= SHORT - 2 * EARLY_S
        assert "waited" not in details or details["waited"] <= details["elapsed"]
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)


async def test_one_limit_for_all_calls_of_a_block_and_nothing_is_lost() -> None:
    async with peer_and_client() as (peer, client):
        with pytest.raises(NetworkTimeoutError) as caught:
            async with client.deadline(0.1):
                await peer.send(b"one\ntw")
                assert await client.receive_line(timeout=5) == b"one\n"
                await client.send(b"x")
                await client.receive_line(timeout=5)
        assert caught.value.details["call"] == "receive_line"
        assert caught.value.details["waited"] <= caught.value.details["elapsed"]
        await peer.send(b"o\n")
        assert await client.receive_line() == b"two\n"


async def test_connecting_is_limited_too() -> None:
    with full_listener() as port:
        client = client_of(port, retries=5)
        with pytest.raises(NetworkTimeoutError) as caught:
            async with client.deadline(SHORT):
                await client.connect()
        assert (caught.value.details["phase"], caught.value.details["call"]) == ("connect", "connect")
        assert not client.is_connected


async def test_the_limit_of_the_call_still_counts() -> None:
    async with peer_and_client() as (_, client):
        async with client.deadline(5):
            with pytest.raises(NetworkTimeoutError, match="receive timed out after"):
                await client.receive(timeout=0.01)


@pytest.mark.parametrize("outer", [0.02, 5, None])
async def test_of_two_blocks_the_shorter_one_wins(outer: float | None) -> None:
    inner = 0.02 if outer != 0.02 else 5
    met = []
    async with peer_and_client() as (_, client):
        with pytest.raises(NetworkTimeoutError, match=r"deadline of 0\.02 s"):
            async with client.deadline(outer):
                try:
                    async with client.deadline(inner):
                        await client.receive()
                except NetworkTimeoutError:
                    met.append("inner")
                    raise
    assert met == (["inner"] if inner == 0.02 else [])


async def test_two_blocks_that_end_together_raise_one_error_and_leave_no_cancellation() -> None:
    async with peer_and_client() as (peer, client):
        with pytest.raises(NetworkTimeoutError):
            async with client.deadline(SHORT):
                async with client.deadline(SHORT):
                    await client.receive()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await peer.send(b"x")
        assert await client.receive() == b"x"


async def test_a_cancellation_from_outside_stays_one() -> None:
    async with peer_and_client() as (_, client):

        async def block(seconds: float) -> None:
            async with client.deadline(seconds):
                await client.receive()

        task = asyncio.create_task(block(5))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Both at once: the task still ends as cancelled.
        task = asyncio.create_task(block(0))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.001, task.cancel)
        with pytest.raises((asyncio.CancelledError, NetworkTimeoutError)):
            await task


async def test_a_block_that_waits_for_something_else_says_so() -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(NetworkTimeoutError, match="was over outside of a call") as caught:
            async with client.deadline(0):
                await asyncio.Event().wait()
        assert caught.value.details["phase"] == "deadline"


async def test_an_error_of_the_block_passes_as_it_is() -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(KeyError):
            async with client.deadline(5):
                raise KeyError


async def test_many_blocks_set_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    set_for = []
    look_by = Timer.look_by

    def counted(timer: Timer, when: float) -> None:
        set_for.append(when)
        look_by(timer, when)

    monkeypatch.setattr(Timer, "look_by", counted)
    async with peer_and_client() as (peer, client):
        for _ in range(50):
            async with client.deadline(60):
                await peer.send(b"x")
                assert await client.receive(timeout=None) == b"x"
    assert len(set_for) == 1


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), ("5", TypeError)])
async def test_seconds_that_are_none_are_refused(seconds: Any, error: type[Exception]) -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(error, match="seconds must be"):
            client.deadline(seconds)


async def test_a_deadline_that_is_in_use_is_refused_and_one_that_was_used_is_not() -> None:
    async with peer_and_client() as (_, client):
        deadline = client.deadline(5)
        async with deadline:
            with pytest.raises(UsageError, match="in use already"):
                await deadline.__aenter__()
        async with deadline:
            pass
