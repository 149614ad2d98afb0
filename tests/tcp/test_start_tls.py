"""STARTTLS: a plain connection that goes on with TLS, and what becomes of it when that fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
from support.cancelling import Mode, cancelled_at, open_sockets, until
from support.certificates import ca_file, self_signed_cert, server_cert, server_context
from support.mortal import echo, mortal_and_client, silence
from support.servers import TOO_MUCH, Peer, peer_and_client
from support.tls_peer import TRANSPORTS, TLSPeer, use_transport

from pepperpy.network import (
    BufferLimits,
    ClosedError,
    ConnectionLostError,
    Keepalive,
    NetworkClient,
    NetworkTimeoutError,
    NotConnectedError,
    TLSConfig,
    TLSError,
    UsageError,
)

TRUSTING = TLSConfig(ca_file=ca_file())


@pytest.fixture(params=TRANSPORTS, autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_transport(monkeypatch, request.param)
    return str(request.param)


@contextlib.asynccontextmanager
async def before_tls(**settings: object) -> AsyncIterator[tuple[Peer, NetworkClient, TLSPeer]]:
    """A plain connection whose two sides have agreed to go on with TLS."""
    async with peer_and_client(**settings) as (peer, client):
        await client.send(b"STARTTLS\n")
        assert await peer.receive(9) == b"STARTTLS\n"
        await peer.send(b"OK\n")
        assert await client.receive_line() == b"OK\n"
        yield peer, client, TLSPeer(peer.sock, server_context(server_cert()))


async def test_a_plain_connection_goes_on_with_tls() -> None:
    async with before_tls() as (_, client, peer):
        assert client.tls is None
        await asyncio.gather(client.start_tls(TRUSTING), peer.handshake())
        assert client.tls is not None
        await client.send(b"secret\n")
        assert await peer.receive(7) == b"secret\n"
        await peer.send(b"x" * 1_000_000)
        assert await client.receive_exactly(1_000_000) == b"x" * 1_000_000
        assert client.stats.bytes_received == 1_000_003
        with pytest.raises(UsageError, match="already"):
            await client.start_tls(TRUSTING)
        await client.send(b"still there")
        assert await peer.receive(11) == b"still there"


async def test_what_comes_with_the_end_of_the_handshake_is_received() -> None:
    # As a task sees it that was waiting before the upgrade, and below the least high-water mark.
    async with before_tls(buffers=BufferLimits(receive_high=1, receive_low=0)) as (_, client, peer):
        waiting = asyncio.create_task(client.receive_exactly(300_000))

        async def serve() -> None:
            await peer.handshake()
            await peer.send(b"y" * 300_000 + b"rest" * 100_000)

        serving = asyncio.create_task(serve())
        await client.start_tls(TRUSTING)
        assert await waiting == b"y" * 300_000
        assert await client.receive_exactly(400_000) == b"rest" * 100_000
        await serving


async def test_what_was_accepted_before_leaves_in_plain_and_what_is_sent_meanwhile_encrypted() -> None:
    async with peer_and_client() as (plain, client):
        await client.send(TOO_MUCH)
        upgrading = asyncio.create_task(client.start_tls(TRUSTING))
        await asyncio.sleep(0)
        assert await plain.receive(len(TOO_MUCH)) == TOO_MUCH
        await until(lambda: client._link.protocol.is_tls, "the handshake has begun")
        await client.send(b"meanwhile")
        assert client.stats.bytes_queued == 9
        peer = TLSPeer(plain.sock, server_context(server_cert()))
        await peer.handshake()
        await upgrading
        assert await peer.receive(9) == b"meanwhile"


@pytest.mark.parametrize("size", [1, 100, 4096])
async def test_plain_bytes_that_came_after_the_agreement_are_refused(size: int) -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"OK\n" + b"x" * size)
        assert await client.receive_line() == b"OK\n"
        await until(lambda: client.stats.bytes_received == size + 3, "all has come")
        with pytest.raises(TLSError, match=f"{size} plain bytes before TLS began; the connection was closed") as caught:
            await client.start_tls(TRUSTING)
        assert caught.value.details == client.config.place | {"phase": "start_tls", "received": size}
        with pytest.raises(ClosedError):
            await client.receive()
        assert await peer.receive_all() == b""


async def test_a_certificate_that_is_refused_closes_the_connection() -> None:
    async with before_tls() as (plain, client, _):
        peer = TLSPeer(plain.sock, server_context(self_signed_cert()))
        with pytest.raises(TLSError, match=r"self-signed.*the connection was closed") as caught:
            await asyncio.gather(client.start_tls(TRUSTING.replace(server_hostname="localhost")), _failing(peer))
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        for call in (client.receive, client.flush, client.start_tls):
            with pytest.raises(ClosedError):
                await call()
        assert not client.is_connected


async def _failing(peer: TLSPeer) -> None:
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await peer.handshake()


async def test_a_peer_that_says_nothing_or_goes_away_closes_the_connection() -> None:
    async with before_tls() as (peer, client, _):
        with pytest.raises(NetworkTimeoutError, match=r"TLS did not start within 0.05 s; the connection was closed"):
            await client.start_tls(TRUSTING, timeout=0.05)
        assert not client.is_connected
        assert await peer.receive(5)
        assert await peer.receive_all()
    async with before_tls() as (peer, client, _):
        peer.send_eof()
        with pytest.raises((TLSError, ConnectionLostError)):
            await client.start_tls(TRUSTING)
        assert not client.is_connected


async def test_closing_meanwhile_ends_the_upgrade() -> None:
    for close in (NetworkClient.abort, NetworkClient.disconnect):
        async with before_tls(close_timeout=0.05) as (_, client, _peer):
            upgrading = asyncio.create_task(client.start_tls(TRUSTING))
            await until(lambda client=client: client._link.protocol.is_tls, "the handshake has begun")
            if (closing := close(client)) is not None:
                await closing
            with pytest.raises(ClosedError, match="closed by this side"):
                await upgrading
            assert not client.is_connected


@pytest.mark.slow
async def test_closing_in_order_while_the_upgrade_waits_sends_what_was_accepted() -> None:
    async with peer_and_client(buffers=BufferLimits(send_high=1 << 40)) as (peer, client):
        await client.send(TOO_MUCH)
        upgrading = asyncio.create_task(client.start_tls(TRUSTING))
        await asyncio.sleep(0)
        await client.send(b"q" * len(TOO_MUCH))
        closing = asyncio.create_task(client.disconnect())
        await asyncio.sleep(0)
        assert await peer.receive_all() == TOO_MUCH + b"q" * len(TOO_MUCH)
        with pytest.raises(ClosedError):
            await upgrading
        await closing


async def test_a_connection_that_is_given_up_as_lost_meanwhile_says_so() -> None:
    async with before_tls() as (_, client, _peer):
        upgrading = asyncio.create_task(client.start_tls(TRUSTING))
        await until(lambda: client._link.protocol.is_tls, "the handshake has begun")
        # As a heartbeat does that is not answered.
        client._link.protocol.lose(NetworkTimeoutError("the peer did not answer"))
        for call in (upgrading, client.receive(), client.send(b"x")):
            with pytest.raises(ConnectionLostError, match="connection lost: the peer did not answer"):
                await call


async def test_an_upgrade_that_comes_second_is_refused_and_changes_nothing() -> None:
    async with peer_and_client() as (plain, client):
        await client.send(TOO_MUCH)
        first, second = (asyncio.create_task(client.start_tls(TRUSTING)) for _ in range(2))
        await asyncio.sleep(0)
        await plain.receive(len(TOO_MUCH))
        with pytest.raises(UsageError, match="already"):
            await second
        peer = TLSPeer(plain.sock, server_context(server_cert()))
        await peer.handshake()
        await first
        await client.send(b"once")
        assert await peer.receive(4) == b"once"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel would need minutes")
async def test_a_connection_that_breaks_in_the_handshake_is_a_tls_error_and_no_timeout() -> None:
    async with peer_and_client(keepalive=Keepalive(user_timeout=60)) as (_, client):
        # More than the peer's kernel takes, less than ours: the handshake waits there until the kernel gives up.
        sock = client._link.protocol.extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        await client.send(b"x" * 400_000)
        await client.flush()
        upgrading = asyncio.create_task(client.start_tls(TRUSTING))
        await until(lambda: client._link.protocol.is_tls, "the handshake has begun")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 50)
        with pytest.raises(TLSError, match="broke during the TLS handshake: Connection timed out; the conn") as caught:
            await upgrading
        assert caught.value.errno == errno.ETIMEDOUT
        assert not client.is_connected


async def _leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


UPGRADES_THAT_FAIL = {
    "refused": (echo, None, TLSError),  # a handshake that comes back is none
    "left": (_leave, None, TLSError),
    "slow": (silence, 0.05, NetworkTimeoutError),
}


@pytest.mark.parametrize("name", UPGRADES_THAT_FAIL)
async def test_a_client_that_reconnects_does_so_after_an_upgrade_that_failed(name: str) -> None:
    handler, timeout, error = UPGRADES_THAT_FAIL[name]
    async with mortal_and_client(handler) as (server, client):
        with pytest.raises(error, match="the connection was closed"):
            await client.start_tls(TRUSTING, timeout=timeout)
        await client.wait_connected()
        for call in (client.receive, client.flush):
            with pytest.raises(ConnectionLostError, match="connection lost: TLS did not start"):
                await call()
        await client.send(b"x")
        assert client.tls is None
        assert (server.accepted, client.stats.connects) == (2, 2)


async def test_a_client_that_reconnects_does_so_after_an_upgrade_that_was_cancelled() -> None:
    async with mortal_and_client(silence) as (server, client):
        upgrading = asyncio.create_task(client.start_tls(TRUSTING))
        await until(lambda: client._link.protocol.is_tls, "the handshake has begun")
        upgrading.cancel()
        await asyncio.wait([upgrading])
        await client.wait_connected()
        assert server.accepted == 2


async def test_what_makes_no_sense_is_refused_and_changes_nothing() -> None:
    client = NetworkClient(peer_config := (await _config()))
    with pytest.raises(NotConnectedError):
        await client.start_tls(TRUSTING)
    assert peer_config is client.config
    async with before_tls() as (peer, client, _):
        with pytest.raises(TypeError, match=r"^tls must be a TLSConfig, an ssl\.SSLContext or None, not str"):
            await client.start_tls("context")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="timeout"):
            await client.start_tls(TRUSTING, timeout=-1)
        with pytest.raises(ValueError, match="server_hostname"):
            await client.start_tls(TRUSTING.replace(server_hostname=""))
        await client.send(b"plain")
        assert await peer.receive(5) == b"plain"
        await client.send_eof()
        with pytest.raises(ClosedError, match="send_eof"):
            await client.start_tls(TRUSTING)


async def _config() -> object:
    async with peer_and_client() as (_, client):
        return client.config


@pytest.mark.parametrize("mode", Mode)
async def test_an_upgrade_cancelled_at_any_suspension_closes_the_connection(mode: Mode) -> None:
    for number in itertools.count(1):
        sockets = open_sockets()
        async with before_tls() as (_, client, peer):
            serving = asyncio.create_task(_failing(peer))
            outcome = await cancelled_at(client.start_tls(TRUSTING), number, mode)
            if outcome.cancelled:
                assert not client.is_connected
                assert client.tls is None
                with pytest.raises(ClosedError):
                    await client.send(b"x")
                await client.disconnect()
            else:
                await client.send(b"x")
            await serving
            if not outcome.cancelled:
                assert await peer.receive(1) == b"x"
        await until(lambda sockets=sockets: open_sockets() <= sockets, "all sockets are closed")
        if not outcome.cancelled:
            break
    assert number > 1
