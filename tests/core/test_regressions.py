"""One test for each defect that a review or another test has found, where no file of its own fits better."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from support.cancelling import until
from support.servers import TOO_MUCH, client_of, echo_server, peer_and_client, wait_for_the_kernel

from pepperpy.network import (
    BufferLimits,
    ClosedError,
    ConnectionLostError,
    NetworkClient,
    NetworkTimeoutError,
    UsageError,
)
from pepperpy.network.transient import may_pass

EXIT = """
import asyncio, socket, sys
import uvloop
from pepperpy.network import NetworkClient, NetworkConfig

async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    async with NetworkClient(NetworkConfig("127.0.0.1", listener.getsockname()[1])) as client:
        peer, _ = listener.accept()
        asyncio.get_running_loop().call_later(0.05, {event})
        try:
            await client.receive_line(timeout=0.5)
        except Exception:
            pass
        {leave}

factory = asyncio.SelectorEventLoop if sys.argv[1] == "asyncio" else uvloop.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("loop_name", ["asyncio", "uvloop"])
@pytest.mark.parametrize("event", ["peer.sendall, b'x\\n'", "peer.close", "id, 0"], ids=["data", "end", "timeout"])
@pytest.mark.parametrize(
    ("leave", "code"), [("sys.exit(3)", 3), ("raise KeyboardInterrupt", -signal.SIGINT)], ids=["exit", "interrupt"]
)
def test_a_task_may_leave_the_program_in_the_step_that_woke_it(
    loop_name: str, event: str, leave: str, code: int
) -> None:
    script = EXIT.format(event=event, leave=leave)
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script, loop_name], capture_output=True, text=True
    )
    assert result.returncode == code, result.stderr
    assert "Fatal Python error" not in result.stderr


async def test_after_a_failed_send_the_client_is_not_connected_and_connects_again() -> None:
    async with echo_server() as port, peer_and_client() as (peer, client):
        peer.reset()
        wait_for_the_kernel(client.extra_info("socket"), lost=True)
        with pytest.raises(ConnectionLostError):
            await client.send(b"x")
        assert not client.is_connected
        client.config = client.config.replace(port=port)
        await client.connect()
        await client.send(b"again")
        assert await client.receive() == b"again"


async def test_disconnect_after_a_failed_send_does_not_wait() -> None:
    async with peer_and_client(close_timeout=30) as (peer, client):
        peer.send_eof()
        assert await client.receive() == b""
        peer.close()
        with pytest.raises(ConnectionLostError):
            # Until the answer to one, a reset, has come.
            while True:
                await client.send(b"x")
                await asyncio.sleep(0)
        started = time.monotonic()
        await client.disconnect()
        assert time.monotonic() - started < 10


async def test_flush_after_send_eof_tells_of_a_loss() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        await client.send_eof()
        peer.reset()
        await until(lambda: not client.is_connected, "the client has noticed the loss")
        with pytest.raises(ConnectionLostError):
            await client.flush()


async def test_a_cancelled_flush_does_not_hide_a_loss_from_disconnect() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(TOO_MUCH)
        flushing = asyncio.create_task(client.flush())
        await asyncio.sleep(0)
        flushing.cancel()
        await asyncio.wait([flushing])
        peer.reset()
        await until(lambda: not client.is_connected, "the client has noticed the loss")
        with pytest.raises(ConnectionLostError, match="unsent"):
            await client.disconnect()
        await client.disconnect()


async def test_what_abort_dropped_is_no_error_of_disconnect() -> None:
    async with peer_and_client() as (_, client):
        await client.send(TOO_MUCH)
        client.abort()
        await client.disconnect()


async def test_the_end_of_a_stream_that_was_reset_meanwhile_disturbs_nobody() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"the reason")
        peer.reset()
        await client.send_eof()
        assert await client.receive() == b"the reason"
        with pytest.raises(ConnectionLostError):
            await client.receive()


async def test_a_forked_child_whose_loop_goes_on_sends_nothing_again() -> None:
    async with peer_and_client() as (peer, client):
        await client.send(b"[1]")
        await client.send(b"[2]")
        child = os.fork()
        if not child:
            client._sender._turn_ended()
            os._exit(0)
        os.waitpid(child, 0)
        await client.send_eof()
        assert await peer.receive_all() == b"[1][2]"


@pytest.mark.parametrize("size", [4, len(TOO_MUCH)], ids=["free", "transport full"])
def test_what_another_loop_may_not_send_is_not_sent(size: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(listener.getsockname()[1], buffers=BufferLimits(send_high=1 << 30))
        first, second = asyncio.SelectorEventLoop(), asyncio.SelectorEventLoop()
        first.run_until_complete(client.connect())
        first.run_until_complete(client.send(b"x" * size))
        accepted = client.stats.bytes_sent
        with pytest.raises(UsageError, match="loop"):
            second.run_until_complete(client.send(b"refused"))
        assert client.stats.bytes_sent == accepted
        second.close()
        client.abort()
        first.run_until_complete(asyncio.sleep(0))
        first.close()


@pytest.mark.slow
async def test_the_time_limit_of_a_send_spans_all_its_waits() -> None:
    async with peer_and_client(buffers=BufferLimits(send_high=1, send_low=0)) as (peer, client):
        await client.send(b"x" * (8 << 20))
        loop = asyncio.get_running_loop()
        started = loop.time()
        # However slow the machine is, the first one gets its room.
        limits = [None] + [0.5] * 19
        senders = [asyncio.create_task(client.send(b"y" * (8 << 20), timeout=limit)) for limit in limits]
        ended = asyncio.gather(*senders, return_exceptions=True)
        while not ended.done():
            # The senders have the room of 3 MiB each 0.1 s at most: far too little for all within their time.
            room = asyncio.create_task(peer.receive(3 << 20))
            await asyncio.wait([room, ended], return_when=asyncio.FIRST_COMPLETED)
            room.cancel()  # there are no 3 MiB left when all have ended
            await asyncio.sleep(0.1)
        assert loop.time() - started < 20
        assert {type(result) for result in await ended} == {type(None), NetworkTimeoutError}


@pytest.mark.parametrize("close", [NetworkClient.disconnect, NetworkClient.abort])
async def test_a_client_closed_while_it_connects_does_not_come_up_later(close: object) -> None:
    async with echo_server() as port:
        client = client_of(port)
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(0)
        result = close(client)  # type: ignore[operator]
        if result is not None:
            await result
        with pytest.raises(ClosedError):
            await connecting
        assert not client.is_connected
        await client.connect()
        await client.disconnect()


async def test_nodelay_can_be_switched_off() -> None:
    async with peer_and_client(nodelay=False) as (_, client):
        assert not client._link.protocol.extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_addresses_that_fail_in_different_ways_are_tried_again() -> None:
    assert may_pass(OSError("Multiple exceptions: [Errno 113] no route, [Errno 111] refused"))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_after_its_loop_was_closed_a_client_can_be_used_in_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = client_of(listener.getsockname()[1])
        for _ in range(2):
            loop = asyncio.SelectorEventLoop()
            loop.run_until_complete(client.connect())
            loop.close()
            assert not client.is_connected
        client.abort()
        asyncio.run(client.disconnect())
        del client
        gc.collect()
