"""client.deadline(): one time limit for a block of calls, which says what was waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from support.held_up import LIMIT_S, hold_up
from support.servers import TOO_MUCH, client_of, echo_server, full_listener, peer_and_client

from pepperpy.network import LengthPrefixed, NetworkClient, NetworkConfig, NetworkPool, NetworkTimeoutError, UsageError
from pepperpy.network.timers import EARLY_S, Timer
from pepperpy.network.watchdog import watchdog_of

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
        assert SHORT - 2 * EARLY_S <= details["elapsed"] < 60
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


@pytest.mark.parametrize("outside_first", [False, True])
@pytest.mark.parametrize("blocks", [1, 2])
async def test_a_cancellation_from_outside_in_the_same_turn_as_the_end_stays_one(
    blocks: int, outside_first: bool
) -> None:
    async with peer_and_client() as (_, client):

        async def block() -> None:
            async with client.deadline(60):
                async with client.deadline(60 if blocks == 2 else None):
                    await client.receive(timeout=None)

        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        watchdog = watchdog_of(asyncio.get_running_loop())
        for end in (task.cancel, watchdog.close) if outside_first else (watchdog.close, task.cancel):
            end()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()


async def test_a_task_that_was_cancelled_before_and_went_on_gets_the_error_of_its_block() -> None:
    async with peer_and_client() as (_, client):

        async def stubborn() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            async with client.deadline(SHORT):
                await client.receive()

        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(NetworkTimeoutError):
            await task


async def test_a_block_that_has_ended_cancels_nobody_later() -> None:
    async with peer_and_client() as (_, client):
        async with client.deadline(SHORT):
            pass
        await asyncio.sleep(2 * SHORT)  # the time is what the test is about


async def test_a_block_behind_one_that_ended_early_has_its_own_end() -> None:
    async with peer_and_client() as (_, client):
        async with client.deadline(SHORT):
            pass
        with pytest.raises(NetworkTimeoutError):
            async with client.deadline(3 * SHORT):
                await client.receive(timeout=None)


async def test_each_of_several_blocks_has_its_own_end() -> None:
    async def block(client: NetworkClient, seconds: float) -> None:
        with pytest.raises(NetworkTimeoutError, match=f"the deadline of {seconds} s was over"):
            async with client.deadline(seconds):
                await asyncio.Event().wait()

    async with peer_and_client() as (_, client):
        blocks = [asyncio.create_task(block(client, seconds)) for seconds in (60, 0.09, SHORT, 60, 0.06)]
        await asyncio.gather(*blocks[1:3], blocks[4])
        assert not blocks[0].done()
        assert not blocks[3].done()
        for waiting in (blocks[0], blocks[3]):
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


async def test_what_a_block_does_with_its_cancellation_counts() -> None:
    async with peer_and_client() as (_, client):
        with pytest.raises(KeyError):
            async with client.deadline(0):
                try:
                    await client.receive()
                finally:
                    raise KeyError
        async with client.deadline(0):
            with contextlib.suppress(asyncio.CancelledError):
                await client.receive()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_what_came_while_the_loop_was_held_up_came_in_time() -> None:
    async with peer_and_client() as (peer, client):

        async def block() -> bytes:
            async with client.deadline(LIMIT_S):
                return await client.receive_line(timeout=None)

        receiving = asyncio.create_task(block())
        await asyncio.sleep(0)
        await hold_up(lambda: peer.sock.send(b"line\n"))
        assert await receiving == b"line\n"


async def test_the_call_is_named_also_where_a_special_method_makes_it() -> None:
    with full_listener() as port:
        client = client_of(port, connect_timeout=10)
        with pytest.raises(NetworkTimeoutError) as caught:
            async with client.deadline(SHORT), client:
                pass
        assert caught.value.details["call"] == "connect"


@pytest.mark.parametrize("by_block", [False, True])
async def test_a_wait_for_a_connection_of_a_pool_is_named(by_block: bool) -> None:
    async with echo_server() as port, NetworkPool(NetworkConfig("127.0.0.1", port), max_size=1) as pool:

        async def another() -> None:
            if not by_block:
                await pool.acquire()
            async with pool.acquire():
                pass

        async with pool.acquire() as client:
            with pytest.raises(NetworkTimeoutError, match=r"in acquire\(\)") as caught:
                async with client.deadline(SHORT):
                    await another()
            assert (caught.value.details["phase"], caught.value.details["call"]) == ("acquire", "acquire")


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
