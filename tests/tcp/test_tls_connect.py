"""Connecting over TLS: what is refused, in which words, and what a cancelled attempt leaves."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import pickle
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support import certificates
from support.cancelling import Mode, cancelled_at, open_sockets, until
from support.certificates import ca_file, client_cert, client_context, server_cert, server_context
from support.servers import client_of
from support.tls_peer import TRANSPORTS, TLSPeer, accepted, tls_client_of, tls_peer_and_client, use_transport

from pepperpy.network import ConnectionLostError, NetworkClient, NetworkConfig, NetworkTimeoutError, TLSConfig, TLSError
from pepperpy.network.tcp import handshake


@pytest.fixture(params=TRANSPORTS, autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_transport(monkeypatch, request.param)
    return str(request.param)


@contextlib.asynccontextmanager
async def server(
    serve: Callable[[TLSPeer], Any], cert: Path | ssl.SSLContext
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """The port of a server that does `serve` with each connection, and what it has received in clear text."""
    received: list[bytes] = []
    loop = asyncio.get_running_loop()
    context = cert if isinstance(cert, ssl.SSLContext) else server_context(cert)

    async def accept(listener: socket.socket) -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            with sock:
                peer = TLSPeer(sock, context)
                try:
                    received.append(await serve(peer) or b"")
                except (ssl.SSLError, ConnectionError) as error:
                    received.append(repr(error).encode())
                    with contextlib.suppress(ConnectionError):
                        await loop.sock_sendall(sock, peer.encrypted(b""))  # its alert

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = asyncio.create_task(accept(listener))
        try:
            yield listener.getsockname()[1], received
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])


async def _take_one_byte(peer: TLSPeer) -> bytes:
    await peer.handshake()
    return await peer.receive(1)


async def refused(client: NetworkClient) -> TLSError:
    with pytest.raises(TLSError) as caught:
        await client.connect()
    assert not client.is_connected
    details = dict(caught.value.details)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.details) == (str(caught.value), details)
    assert type(again.__cause__) is type(caught.value.__cause__)
    assert details.pop("elapsed") >= 0
    details.pop("received", None)  # plain bytes, if the loop was quick to read them
    assert details == client.config.place | {"phase": "connect", "attempt": 1}
    return caught.value


BAD = {
    "expired_cert": "the certificate has expired",
    "not_yet_valid_cert": "the certificate is not yet valid",
    "wrong_host_cert": "the certificate is not for 'localhost'",
    "common_name_cert": "the certificate is not for 'localhost': no subjectAltName names it",
    "unknown_ca_cert": "the certificate's issuer is unknown",
    "self_signed_cert": "the certificate is self-signed",
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_certificate_is_refused_at_once_and_nothing_is_sent(name: str) -> None:
    async with server(_take_one_byte, getattr(certificates, name)()) as (port, received):
        client = NetworkClient(
            NetworkConfig("localhost", port, tls=TLSConfig(ca_file=ca_file()), retries=3, retry_delay=0)
        )
        error = await refused(client)
        assert BAD[name] in str(error)
        assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
        await until(lambda: bool(received), "the server has seen the refusal")
        assert len(received) == 1
        assert b"SSL" in received[0] or b"Connection" in received[0]


async def test_without_verification_anything_goes_unless_it_is_pinned() -> None:
    async with server(_take_one_byte, certificates.self_signed_cert()) as (port, received):
        client = tls_client_of(port, verify=False, ca_file=None)
        async with client:
            await client.send(b"x")
            assert client.tls is not None
            certificate = client.tls.peer_certificate
            await until(lambda: received == [b"x"], "the byte is there")
        right, wrong = hashlib.sha256(certificate), hashlib.sha256(b"another")
        colons = ":".join(f"{byte:02X}" for byte in right.digest())
        for pin in (right.hexdigest(), right.digest(), colons, (wrong.digest(), right.hexdigest())):
            async with client_of(port, tls=TLSConfig(certificate_pin=pin), verify_ssl=False) as pinned:
                await pinned.send(b"y")
                await until(lambda: received[-1] == b"y", "the byte is there")
                received.clear()
                received.append(b"")
        error = await refused(
            client_of(port, tls=TLSConfig(certificate_pin=wrong.digest()), verify_ssl=False, retries=2)
        )
        assert f"not a pinned one: its SHA-256 is {right.hexdigest()}" in str(error)
        await until(lambda: len(received) == 2, "the server has seen the end")
        # Nothing in clear text, only the end of the connection.
        assert received[1] == b"" or b"Error" in received[1]


async def test_the_name_may_be_another_one_than_the_host() -> None:
    async with server(_take_one_byte, certificates.wrong_host_cert()) as (port, _):
        async with tls_client_of(port, server_hostname="elsewhere.example") as client:
            await client.send(b"x")
        assert "'127.0.0.1'" in str(await refused(tls_client_of(port)))


async def test_protocols_are_offered_and_the_chosen_one_is_told() -> None:
    context = server_context(server_cert())
    context.set_alpn_protocols(["two"])
    async with tls_peer_and_client(context, alpn=("one", "two")) as (peer, client):
        assert client.tls is not None
        assert client.tls.alpn == peer.tls.selected_alpn_protocol() == "two"


async def test_the_servers_certificate_is_told_each_time_and_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        async with tls_peer_and_client() as (_, client):
            told = client.extra_info("peercert")
            assert told["subjectAltName"] == (("DNS", "localhost"), ("IP Address", "127.0.0.1"))
            assert told["serialNumber"]
            told.clear()  # it is the caller's
        # aiofastnet decodes a certificate by way of a file.
        monkeypatch.setattr(tempfile, "NamedTemporaryFile", None)
    async with tls_peer_and_client(verify=False) as (_, client):
        assert client.extra_info("peercert") == {}


async def test_a_client_certificate_is_shown() -> None:
    context = server_context(server_cert())
    context.load_verify_locations(ca_file())
    context.verify_mode = ssl.CERT_REQUIRED
    async with tls_peer_and_client(context, client_cert=client_cert()) as (peer, client):
        await client.send(b"x")
        assert await peer.receive(1) == b"x"
        assert "pepperpy-client" in str(peer.tls.getpeercert())


async def test_an_older_version_than_allowed_is_refused() -> None:
    context = server_context(server_cert())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with tls_peer_and_client(context) as (_, client):
        assert client.tls is not None
        assert client.tls.version == "TLSv1.2"
    async with server(_take_one_byte, context) as (port, _):
        error = await refused(tls_client_of(port, minimum_version=ssl.TLSVersion.TLSv1_3))
        assert "no TLS version that both sides allow" in str(error)


async def test_a_context_of_ones_own_is_used_as_it_is() -> None:
    context = client_context()
    before = (context.options, context.minimum_version, context.verify_mode, context.check_hostname)
    async with tls_peer_and_client(tls=context) as (peer, client):
        await client.send(b"x")
        assert await peer.receive(1) == b"x"
        assert client._link.protocol.extra_info("sslcontext") is context
    assert before == (context.options, context.minimum_version, context.verify_mode, context.check_hostname)


async def test_the_same_settings_share_one_context() -> None:
    contexts = set()
    for _ in range(2):
        async with tls_peer_and_client() as (_, client):
            contexts.add(client._link.protocol.extra_info("sslcontext"))
    async with tls_peer_and_client(alpn=("one",)) as (_, client):
        contexts.add(client._link.protocol.extra_info("sslcontext"))
    assert len(contexts) == 2


async def test_a_server_without_tls_is_told_as_such() -> None:
    async def hello(peer: TLSPeer) -> None:
        await asyncio.get_running_loop().sock_sendall(peer.sock, b"220 plain.example ready\r\n")
        await asyncio.get_running_loop().sock_recv(peer.sock, 65536)

    async with server(hello, server_cert()) as (port, _):
        error = await refused(tls_client_of(port, retries=2))
        assert "does not speak TLS on this port" in str(error) or "plain bytes before TLS" in str(error)


async def test_a_server_that_goes_away_in_the_handshake_is_tried_again() -> None:
    async def leave(peer: TLSPeer) -> None:
        await asyncio.get_running_loop().sock_recv(peer.sock, 65536)

    async with server(leave, server_cert()) as (port, received):
        client = tls_client_of(port, retries=1, retry_delay=0)
        with pytest.raises(TLSError, match="closed the connection during the handshake"):
            await client.connect()
        assert len(received) == 2


async def test_a_connection_that_is_lost_as_it_is_made_is_told_of_at_its_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_peer = handshake._check_peer

    def late(protocol: Any, config: NetworkConfig) -> None:
        # As if the loop had already read what comes next, which is a reset.
        check_peer(protocol, config)
        protocol.lose(ConnectionResetError("reset"))
        protocol.connection_lost(None)

    monkeypatch.setattr(handshake, "_check_peer", late)
    async with server(_take_one_byte, server_cert()) as (port, _):
        client = tls_client_of(port, nodelay=False)
        await client.connect()
        with pytest.raises(ConnectionLostError, match="connection lost: reset"):
            await client.send(b"x")


async def test_the_handshake_is_within_the_time_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = tls_client_of(listener.getsockname()[1], connect_timeout=0.05)
        with pytest.raises(NetworkTimeoutError, match=r"no answer within 0.05 s"):
            await client.connect()


async def test_a_file_that_cannot_be_used_is_named() -> None:
    client = client_of(1, tls=TLSConfig(ca_file="/nonexistent.pem"))
    with pytest.raises(ValueError, match=r"ca_file '/nonexistent.pem' cannot be used"):
        await client.connect()


@pytest.mark.parametrize("mode", Mode)
async def test_connecting_cancelled_at_any_suspension_leaves_no_socket(mode: Mode, distance: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        for number in itertools.count(1):
            sockets = open_sockets()
            client = tls_client_of(listener.getsockname()[1])

            async def serve() -> None:
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                sock.setblocking(False)
                with sock, contextlib.suppress(ssl.SSLError, ConnectionError):
                    await TLSPeer(sock, server_context(server_cert())).handshake()

            serving = asyncio.create_task(serve())
            outcome = await cancelled_at(client.connect(), number, mode)
            if not outcome.cancelled:
                await client.disconnect()
            assert not client.is_connected
            await asyncio.wait([serving], timeout=0.05)
            serving.cancel()
            await asyncio.wait([serving])
            # What nobody has accepted yet is no connection of the next client.
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
            await until(lambda sockets=sockets: open_sockets() <= sockets, "all sockets are closed")
            # The same client connects all the same.
            async with accepted(client, listener, server_context(server_cert())) as peer:
                await client.send(b"x")
                assert await peer.receive(1) == b"x"
            if not outcome.cancelled:
                break
    # The connection to what is far, and the handshake.
    assert number > 1 + (distance == "far")
