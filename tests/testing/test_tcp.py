"""`scripted_peer`: what a client may do, what fails the test, and what is said of it."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Callable

import pytest
from support.cancelling import Mode, cancelled_at, open_sockets, until
from support.certificates import ca_file, server_cert, server_context
from support.servers import TOO_MUCH

from pepperpy.network import ConnectionLostError, NetworkClient, NetworkConfig, TLSConfig
from pepperpy.network.testing import Peer, ScriptError, scripted_peer


async def ping(peer: Peer) -> None:
    await peer.expect(b"PING\r\n")
    await peer.send(b"+PONG\r\n")


async def silent(peer: Peer) -> None:
    await peer.receive_all()


async def pinging(config: NetworkConfig, request: bytes = b"PING\r\n") -> bytes:
    async with NetworkClient(config) as client:
        await client.send(request)
        return await client.receive_until(b"\r\n")


# ---- A scripted peer whose client keeps to the script ----


async def test_a_client_that_keeps_to_the_script_passes() -> None:
    async with scripted_peer(ping) as server:
        assert await pinging(server.config) == b"+PONG\r\n"
        assert server.connections == 1
        assert (server.config.host, server.config.port) == (server.host, server.port)


async def test_each_connection_has_its_script_and_the_others_share_one() -> None:
    async def greets(peer: Peer) -> None:
        await peer.send(b"%d\r\n" % peer.number)

    async def resets(peer: Peer) -> None:
        await peer.expect(b"PING\r\n")
        await peer.reset()

    async with scripted_peer(resets, ping, others=greets) as server:
        with pytest.raises(ConnectionLostError):
            await pinging(server.config)
        assert await pinging(server.config) == b"+PONG\r\n"
        for number in (3, 4):
            assert await pinging(server.config, b"") == b"%d\r\n" % number


async def test_a_script_reads_what_it_does_not_know_in_advance() -> None:
    async def script(peer: Peer) -> None:
        size = int(await peer.receive_until(b"\r\n"))
        await peer.send((await peer.receive_exactly(size)).upper())
        await peer.send(await peer.receive_until())
        await peer.send(await peer.receive_all())

    async with scripted_peer(script) as server, NetworkClient(server.config) as client:
        await client.send(b"4\r\ndataline\nrest")
        await client.send_eof()
        assert b"".join([chunk async for chunk in client]) == b"DATAline\nrest"


async def test_bytes_that_come_one_by_one_are_what_is_expected() -> None:
    async with scripted_peer(ping) as server, NetworkClient(server.config) as client:
        for byte in b"PING\r\n":
            await client.send(bytes([byte]))
            await client.flush()
            await asyncio.sleep(0)
        assert await client.receive_line() == b"+PONG\r\n"


async def test_a_reset_a_close_and_a_half_close_are_what_they_are() -> None:
    async def resets(peer: Peer) -> None:
        await peer.send(b"last words")
        await peer.reset()

    async def closes(peer: Peer) -> None:
        await peer.send(b"last words")
        await peer.close()

    async def half_closes(peer: Peer) -> None:
        await peer.send_eof()
        await peer.expect(b"still there")
        await peer.expect_eof()

    async with scripted_peer(resets, closes, half_closes) as server:
        async with NetworkClient(server.config) as client:
            assert await client.receive() == b"last words"
            with pytest.raises(ConnectionLostError) as caught:
                await client.receive()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
        async with NetworkClient(server.config) as client:
            assert [await client.receive(), await client.receive()] == [b"last words", b""]
        async with NetworkClient(server.config) as client:
            assert await client.receive() == b""
            await client.send(b"still there")


async def test_send_returns_when_the_kernel_has_all_so_a_peer_that_is_not_read_waits() -> None:
    sent = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.send(TOO_MUCH)
        sent.set()

    async with scripted_peer(script) as server, NetworkClient(server.config) as client:
        await client.receive_exactly(1)
        assert not sent.is_set()
        await client.receive_exactly(len(TOO_MUCH) - 1)
        await sent.wait()


@pytest.mark.parametrize("script", [ping, silent])
async def test_a_peer_over_tls(script: Callable[[Peer], object]) -> None:
    context = ssl.create_default_context(cafile=str(ca_file()))
    async with scripted_peer(script, tls=server_context(server_cert())) as server:  # type: ignore[arg-type]
        reader, writer = await asyncio.open_connection(server.host, server.port, ssl=context)
        writer.write(b"PING\r\n")
        if script is ping:
            assert await reader.readline() == b"+PONG\r\n"
        writer.close()
        await writer.wait_closed()


async def test_a_network_client_over_tls() -> None:
    async with scripted_peer(ping, ping, tls=server_context(server_cert())) as server:
        config = server.config.replace(tls=TLSConfig(ca_file=ca_file()))
        for _ in range(2):
            assert await pinging(config) == b"+PONG\r\n"


# ---- A client that does not ----

DEVIATIONS: dict[str, tuple[bytes, str]] = {
    "another byte": (
        b"PINK\r\n",
        "connection 1: other bytes than expected; the first difference is at byte 3\n"
        "  expected: b'PING\\r\\n'\n  received: b'PINK\\r\\n'",
    ),
    "a first byte that is wrong already": (
        b"X",
        "connection 1: other bytes than expected; the first difference is at byte 0\n"
        "  expected: b'PING\\r\\n'\n  received: b'X'",
    ),
    "more bytes": (
        b"PING\r\nPING\r\n",
        "connection 1: more bytes than expected, after the end of the script\n  received: b'PING\\r\\n'",
    ),
}


@pytest.mark.parametrize("name", DEVIATIONS)
async def test_a_deviation_fails_the_block_and_the_client_at_once(name: str) -> None:
    request, message = DEVIATIONS[name]
    client_error: list[ConnectionLostError] = []
    with pytest.raises(ScriptError) as caught:
        async with scripted_peer(ping) as server, NetworkClient(server.config.replace(timeout=None)) as client:
            await client.send(request)
            with pytest.raises(ConnectionLostError) as lost:
                while await client.receive():
                    pass
            client_error.append(lost.value)
    assert str(caught.value) == message
    assert caught.value.__context__ is None and client_error


async def test_a_deviation_comes_before_the_error_that_it_made_of_the_client() -> None:
    with pytest.raises(ScriptError, match="first difference is at byte 3") as caught:
        async with scripted_peer(ping) as server:
            await pinging(server.config, b"PINK\r\n")
    assert isinstance(caught.value.__context__, ConnectionLostError)
    assert caught.value.__cause__ is None


@pytest.mark.usefixtures("far")
async def test_a_deviation_that_the_script_has_not_seen_yet_comes_before_the_blocks_own_error_too() -> None:
    with pytest.raises(ScriptError, match="first difference") as caught:
        async with scripted_peer(ping) as server:
            client = NetworkClient(server.config)
            await client.connect()
            await client.send(b"PINK\r\n")
            raise LookupError("of the test")
    assert isinstance(caught.value.__context__, LookupError)
    client.abort()
    await asyncio.sleep(0)


async def test_bytes_that_come_long_after_the_script_are_a_deviation() -> None:
    with pytest.raises(ScriptError, match="after the end of the script\n  received: b'more'"):
        async with scripted_peer(ping) as server, NetworkClient(server.config) as client:
            await client.send(b"PING\r\n")
            assert await client.receive_line() == b"+PONG\r\n"
            await client.send(b"more")


async def test_of_long_messages_the_place_that_differs_is_shown() -> None:
    expected = bytes(1_000_000)

    async def script(peer: Peer) -> None:
        await peer.expect(expected)

    with pytest.raises(ScriptError) as caught:
        async with scripted_peer(script) as server, NetworkClient(server.config) as client:
            await client.send(expected[:654_321] + b"!" + expected[654_322:])
    message = str(caught.value)
    assert "first difference is at byte 654321" in message
    assert "\\x00!\\x00" in message and "(bytes 654301 to 654381 of 1000000)" in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("script", "sent", "limit", "message"),
    [
        (ping, b"PIN", 30, "the client ended its stream too early.*expected: b'PING.*received: b'PIN'"),
        (silent, None, 0.05, "1 of 1 scripts got no connection"),
    ],
)
async def test_a_stream_that_ends_early_or_never_begins_fails(
    script: Callable[[Peer], object], sent: bytes | None, limit: float, message: str
) -> None:
    with pytest.raises(ScriptError, match=f"(?s){message}"):
        async with scripted_peer(script, timeout=limit) as server:  # type: ignore[arg-type]
            if sent is not None:
                async with NetworkClient(server.config) as client:
                    await client.send(sent)


async def test_the_same_holds_for_what_is_received_and_for_the_end() -> None:
    async def exactly(peer: Peer) -> None:
        await peer.receive_exactly(10)

    async def until(peer: Peer) -> None:
        await peer.receive_until(b";")

    async def eof(peer: Peer) -> None:
        await peer.expect_eof()

    async def sending(peer: Peer) -> None:
        await peer.receive_all()
        await asyncio.sleep(0)
        while True:
            await peer.send(b"too late")

    wants = [
        (exactly, "where 10 bytes were expected"),
        (until, "where b';' was expected"),
        (eof, "more bytes than expected"),
        (sending, "the client was gone before send"),
    ]
    for script, message in wants:
        with pytest.raises(ScriptError, match=message):
            async with scripted_peer(script) as server, NetworkClient(server.config) as client:
                await client.send(b"data")


async def test_a_script_that_is_not_at_its_end_fails_the_block() -> None:
    async with scripted_peer(silent) as server, NetworkClient(server.config):
        pass
    with pytest.raises(ScriptError) as caught:
        async with scripted_peer(ping, timeout=0.05) as server:
            client = NetworkClient(server.config)
            await client.connect()
            await client.send(b"PI")
            await until(lambda: any(peer._unread == b"PI" for peer in server._peers), "the script has it")
    client.abort()
    await asyncio.sleep(0)
    assert str(caught.value) == "connection 1: the script waits in expect(b'PING\\r\\n'), received: b'PI'"


async def test_a_script_has_time_to_come_to_its_end() -> None:
    async def slow(peer: Peer) -> None:
        await peer.expect(b"QUIT\r\n")
        await asyncio.sleep(0.1)  # longer than leaving the block takes by itself
        finished.set()

    finished = asyncio.Event()
    async with scripted_peer(slow) as server, NetworkClient(server.config) as client:
        await client.send(b"QUIT\r\n")
    assert finished.is_set()


async def test_an_error_of_the_test_is_its_own_and_says_where_the_script_was() -> None:
    with pytest.raises(LookupError) as caught:
        async with scripted_peer(ping) as server, NetworkClient(server.config):
            raise LookupError("of the test")
    left = "connection 1: the client ended its stream too early\n  expected: b'PING\\r\\n'\n  received: b''"
    assert caught.value.__notes__ == [f"scripted_peer: {left}"]
    with pytest.raises(LookupError) as caught:
        async with scripted_peer(ping, silent):
            raise LookupError("of the test")
    waits = "2 of 2 scripts got no connection (a TLS handshake included)"
    assert caught.value.__notes__ == [f"scripted_peer: {waits}"]


async def test_a_connection_too_many_is_reset_and_fails_the_block() -> None:
    with pytest.raises(ScriptError, match="connection 2 is one more than there are scripts") as caught:
        async with scripted_peer(ping) as server:
            await pinging(server.config)
            await pinging(server.config)
    assert isinstance(caught.value.__context__, ConnectionLostError)


async def test_an_exception_of_the_scripts_own_is_raised_as_it_is_with_what_came_after_it() -> None:
    async def checks(peer: Peer) -> None:
        assert int(await peer.receive_until()) < 10, "too large"

    with pytest.raises(AssertionError, match="too large") as caught:
        async with scripted_peer(checks, checks) as server:
            for request in (b"11\n", b"12\n"):
                with pytest.raises(ConnectionLostError):
                    await pinging(server.config, request)
    assert [note.partition("\n")[0] for note in caught.value.__notes__] == ["and then: too large"]


async def test_a_block_that_is_cancelled_while_it_begins_leaves_no_socket() -> None:
    before = open_sockets()
    for number in itertools.count(1):
        block = scripted_peer(others=silent)
        if not (await cancelled_at(block.__aenter__(), number, Mode.WAITING)).cancelled:
            break
        await asyncio.sleep(0)  # for a handle that the loop closes later
        assert open_sockets() == before
    assert number > 1
    await block.__aexit__(None, None, None)


async def test_a_cancellation_is_never_replaced() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            async with scripted_peer(ping) as server, NetworkClient(server.config) as client:
                await client.send(b"PINK\r\n")
                await asyncio.Event().wait()


async def test_nothing_is_left_of_clients_that_never_close() -> None:
    async with scripted_peer(others=silent) as server:
        clients = [NetworkClient(server.config) for _ in range(5)]
        for client in clients:
            await client.connect()
        for client in clients[:-1]:
            client.abort()
        while server.connections < 5:
            await asyncio.sleep(0)
        clients[-1].abort()


async def test_a_timeout_that_is_no_number_of_seconds_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout must be 0 or more seconds"):
        async with scripted_peer(ping, timeout=-1):
            pass
