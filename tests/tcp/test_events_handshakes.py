"""What `on_event` is told of TLS that begins later, and of connections that others have made."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest
from support.cancelling import until
from support.certificates import ca_file, self_signed_cert, server_cert, server_context
from support.seen import Seen, failing
from support.servers import client_of, peer_and_client
from support.tls_peer import TRANSPORTS, use_transport

from pepperpy.network import (
    AttemptDone,
    ConnectError,
    NetworkClient,
    NetworkConfig,
    NetworkError,
    NetworkPool,
    NetworkTimeoutError,
    StateChanged,
    TLSConfig,
    TLSDone,
    TLSError,
    serve,
)

TRUSTING = TLSConfig(ca_file=ca_file(), server_hostname="localhost")
CONNECTED = ["connecting", "LookupDone", "ConnectDone", "AttemptDone", "connected"]


@pytest.fixture(params=TRANSPORTS, autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_transport(monkeypatch, request.param)


async def upgraded(client: NetworkClient) -> None:
    """The server's side of STARTTLS."""
    await client.receive_line()
    await client.send(b"OK\n")
    await client.start_tls(server_context(server_cert()))
    await client.receive_line()


async def upgraded_with_a_strange_certificate(client: NetworkClient) -> None:
    await client.receive_line()
    await client.send(b"OK\n")
    await client.start_tls(server_context(self_signed_cert()))


async def start_tls(client: NetworkClient) -> None:
    await client.send(b"STARTTLS\n")
    assert await client.receive_line() == b"OK\n"
    await client.start_tls(TRUSTING)


async def receive_line(client: NetworkClient) -> None:
    await client.receive_line()


# ---- start_tls() ----


async def test_tls_that_begins_later_is_told_on_both_sides() -> None:
    here, there = Seen(), Seen()
    config = NetworkConfig("localhost", 1, on_event=there, timeout=10)
    async with serve(upgraded, "127.0.0.1", 0, config=config) as server:
        async with client_of(server.port, on_event=here) as client:
            assert here.take() == CONNECTED
            await start_tls(client)
            assert here.names == ["TLSDone"]
            done = here.one(TLSDone)
            assert client.tls is not None and done.version == client.tls.version
            assert done.error is None and done.seconds > 0
            assert (done.host, done.port, done.attempt) == ("127.0.0.1", server.port, 0)
            name = client.local_address
    assert {event.id for event in here.events} == {done.id}
    assert there.names[:3] == ["connecting", "connected", "TLSDone"]
    done = there.one(TLSDone)
    assert (done.host, done.port, done.error, done.version) == (*name, None, here.one(TLSDone).version)


async def test_a_certificate_that_is_refused_later_is_told_before_the_loss() -> None:
    seen = Seen()
    async with serve(upgraded_with_a_strange_certificate) as server:
        async with client_of(server.port, on_event=seen) as client:
            seen.take()
            with pytest.raises(TLSError):
                await start_tls(client)
    done = seen.one(TLSDone)
    assert isinstance(done.error, TLSError) and done.version == ""
    assert seen.names == ["TLSDone", "lost", "closed"]


async def test_a_handshake_that_takes_too_long_is_told_as_cancelled() -> None:
    seen = Seen()
    async with peer_and_client(on_event=seen) as (_, client):
        seen.take()
        with pytest.raises(NetworkTimeoutError):
            await client.start_tls(TRUSTING, timeout=0.03)
        assert seen.names == ["TLSDone", "lost"]
        assert isinstance(seen.one(TLSDone).error, asyncio.CancelledError)


@pytest.mark.parametrize("reconnect", [False, True])
async def test_tls_that_on_connect_begins_is_a_step_of_the_attempt(reconnect: bool) -> None:
    seen = Seen()
    async with serve(upgraded) as server:
        settings = {"on_connect": start_tls, "reconnect": reconnect, "retry_delay": 0.001}
        async with client_of(server.port, on_event=seen, **settings) as client:
            steps = ["LookupDone", "ConnectDone", "TLSDone", "AttemptDone"]
            assert seen.names == ["connecting", *steps, "connected"]
            if reconnect:
                seen.take()
                await client.send(b"the handler ends with this\n")
                await until(lambda: seen.names == ["lost", *steps, "connected"], "it is connected again")
            assert {event.attempt for event in seen.events if not isinstance(event, StateChanged)} == {1}
            assert len({event.id for event in seen.events}) == 1


async def test_tls_that_on_connect_begins_for_a_pool_is_a_step_of_the_attempt() -> None:
    seen = Seen()
    async with serve(upgraded) as server:
        config = NetworkConfig("127.0.0.1", server.port, on_event=seen, on_connect=start_tls, timeout=10)
        async with NetworkPool(config) as pool, pool.acquire() as client:
            assert client.tls is not None
            assert seen.names[:4] == ["LookupDone", "ConnectDone", "TLSDone", "AttemptDone"]
            assert seen.one(TLSDone).id == seen.one(AttemptDone).id


async def test_tls_that_on_connect_cannot_begin_is_told_with_each_attempt() -> None:
    seen = Seen()
    async with serve(upgraded_with_a_strange_certificate) as server:
        client = client_of(server.port, on_event=seen, on_connect=start_tls, retries=1, retry_delay=0)
        with pytest.raises(ConnectError):
            await client.connect()
    assert [type(done.error).__name__ for done in seen.all(TLSDone)] == ["TLSError"] * len(seen.all(AttemptDone))


async def test_tls_with_the_second_of_several_hosts_names_that_one() -> None:
    seen = Seen()
    async with serve(upgraded) as server:
        async with client_of(1, hosts=(("127.0.0.1", server.port),), on_event=seen) as client:
            await start_tls(client)
    assert seen.one(TLSDone).port == server.port


# ---- serve() ----


async def test_an_accepted_connection_is_told_from_its_handshake_to_its_end() -> None:
    seen = Seen()
    config = NetworkConfig("localhost", 1, on_event=seen, timeout=10)
    async with serve(receive_line, "127.0.0.1", 0, tls=server_cert(), config=config) as server:
        async with client_of(server.port, tls=TRUSTING) as client:
            await client.send(b"end\n")
            name = client.local_address
            await until(lambda: "closed" in seen.names, "the handler has ended")
    assert seen.names == ["connecting", "TLSDone", "connected", "closed"]
    done = seen.one(TLSDone)
    assert done.error is None and done.version.startswith("TLSv1") and done.seconds > 0
    assert {(event.host, event.port, event.attempt) for event in seen.events} == {(*name, 0)}
    assert len({event.id for event in seen.events}) == 1


async def test_an_accepted_connection_that_breaks_is_told_as_lost() -> None:
    seen = Seen()
    config = NetworkConfig("localhost", 1, on_event=seen, timeout=10)
    async with serve(receive_line, "127.0.0.1", 0, config=config) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            await until(lambda: "connected" in seen.names, "it is accepted")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await until(lambda: "lost" in seen.names, "the reset has come")
    assert seen.names[:3] == ["connecting", "connected", "lost"]
    assert isinstance(seen.all(StateChanged)[2].error, ConnectionResetError)


async def test_a_peer_that_does_not_speak_tls_is_told_with_the_reason() -> None:
    seen = Seen()
    config = NetworkConfig("localhost", 1, on_event=seen, timeout=10)
    async with serve(receive_line, "127.0.0.1", 0, tls=server_cert(), config=config) as server:
        async with client_of(server.port) as client:
            await client.send(b"GET / HTTP/1.1\r\n\r\n")
            await until(lambda: "closed" in seen.names, "the handshake has failed")
            name = client.local_address
    assert seen.names == ["connecting", "TLSDone", "closed"]
    done, closed = seen.one(TLSDone), seen.all(StateChanged)[-1]
    assert isinstance(done.error, TLSError) and done.version == ""
    assert isinstance(closed.error, TLSError)
    assert (done.host, done.port) == name


async def test_a_handshake_that_the_end_of_the_server_cuts_short_is_told_as_cancelled() -> None:
    seen = Seen()
    config = NetworkConfig("localhost", 1, on_event=seen, timeout=10)
    async with serve(receive_line, "127.0.0.1", 0, tls=server_cert(), config=config) as server:
        peer = socket.create_connection(("127.0.0.1", server.port))
        await until(lambda: bool(seen.names), "it is accepted")
    peer.close()
    assert seen.names == ["connecting", "TLSDone", "closed"]
    assert isinstance(seen.one(TLSDone).error, asyncio.CancelledError)


@pytest.mark.parametrize("close", [NetworkClient.abort, NetworkClient.close])
async def test_a_connection_that_on_state_closes_in_its_handshake_gets_no_handler(
    close: Callable[[NetworkClient], None],
) -> None:
    handled, states = [], []

    async def handler(client: NetworkClient) -> None:
        handled.append(client)

    def on_state(client: NetworkClient, state: str) -> None:
        states.append(state)
        if state == "connecting":
            close(client)

    config = NetworkConfig("localhost", 1, on_state=on_state)
    async with serve(handler, "127.0.0.1", 0, tls=server_cert(), config=config) as server:
        client = client_of(server.port, tls=TRUSTING, retries=0)
        # With TLS 1.3 a client is done before the server.
        with contextlib.suppress(NetworkError):
            await client.connect()
            assert await client.receive() == b""
        client.abort()
        await until(lambda: not server.connections, "its task has ended")
    assert (handled, states) == ([], ["connecting", "closed"])


async def test_an_on_event_that_raises_keeps_no_connection_from_being_served() -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    config = NetworkConfig("localhost", 1, on_event=failing, timeout=10)
    async with serve(upgraded, "127.0.0.1", 0, config=config) as server:
        async with client_of(server.port) as client:
            await start_tls(client)
            await client.send(b"end\n")
            assert await client.receive() == b""
    assert set(reported) == {"on_event raised ValueError"}


# ---- from_socket() ----


async def test_a_client_for_a_given_socket_tells_of_its_handshake_and_its_states() -> None:
    seen = Seen()
    config = NetworkConfig("some.example", 7, tls=TRUSTING, on_event=seen, timeout=10)
    async with serve(receive_line, tls=server_cert()) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        async with await NetworkClient.from_socket(sock, config) as client:
            assert seen.names == ["connecting", "TLSDone", "connected"]
            assert client.tls is not None and seen.one(TLSDone).version == client.tls.version
            await client.send(b"end\n")
    assert seen.names[-1] == "closed"
    assert {(event.host, event.port) for event in seen.events} == {("some.example", 7)}


async def test_a_given_socket_whose_handshake_fails_is_told_with_the_reason() -> None:
    seen = Seen()
    config = NetworkConfig("localhost", 1, tls=TRUSTING, on_event=seen, timeout=10)
    async with serve(receive_line, tls=self_signed_cert()) as server:
        with pytest.raises(TLSError) as caught:
            await NetworkClient.from_socket(socket.create_connection(("127.0.0.1", server.port)), config)
    assert seen.names == ["connecting", "TLSDone", "closed"]
    assert isinstance(seen.one(TLSDone).error, TLSError)
    assert seen.all(StateChanged)[-1].error is caught.value
