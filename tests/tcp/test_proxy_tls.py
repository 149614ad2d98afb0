"""TCP through proxies that speak TLS themselves: the real tinyproxy behind socat; and by hand what they do not do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, open_sockets, until
from support.certificates import ca_file, server_cert, server_context, unknown_ca_cert, wrong_host_cert
from support.own_kind import own_kind
from support.proxies import PROXY_CREDENTIALS, Tinyproxy, tls_front
from support.servers import client_of, echo_server
from support.tls_peer import TRANSPORTS, excuse_failures_within_tls, use_transport

from pepperpy.network import (
    NetworkClient,
    NetworkConfig,
    NetworkPool,
    NetworkTimeoutError,
    ProxyError,
    TLSConfig,
    TLSError,
)

USER, PASSWORD = PROXY_CREDENTIALS
TRUSTING = TLSConfig(ca_file=ca_file())
DATA = bytes(range(256)) * 4000


@pytest.fixture(scope="module")
def front(locked_proxy: Tinyproxy) -> Iterator[str]:
    """The URL of a proxy that speaks TLS and wants `PROXY_CREDENTIALS`."""
    with tls_front(locked_proxy.port, server_cert()) as port:
        yield f"https://{USER}:{PASSWORD}@localhost:{port}"


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    use_transport(monkeypatch, request.param)
    monkeypatch.setattr("pepperpy.network.tcp.connect.LOOKS_AGAIN", False)
    return str(request.param)


@pytest.fixture(autouse=True)
def _trusted_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain target leaves no place for the proxy's authority but the system's: SSL_CERT_FILE of OpenSSL."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file()))


async def _both_ways(client: NetworkClient) -> None:
    sending = asyncio.create_task(client.send(DATA))
    assert await client.receive_exactly(len(DATA)) == DATA
    await sending


async def test_bytes_go_through_to_a_plain_server_whose_connection_is_no_tls(front: str, transport: str) -> None:
    async with echo_server() as port, client_of(port, proxy=front) as client:
        await _both_ways(client)
        assert client.tls is None
        assert client.stats.bytes_received == client.stats.bytes_sent == len(DATA)


async def test_tls_goes_through_within_the_tls_to_the_proxy(front: str, transport: str) -> None:
    async with tls_echo_server() as port, client_of(port, proxy=front, tls=TRUSTING) as client:
        await _both_ways(client)
        assert client.tls is not None
        assert client.stats.bytes_received == client.stats.bytes_sent == len(DATA)
        with pytest.raises(RuntimeError, match="TLS is in use already"):
            await client.start_tls()


async def test_what_is_sent_after_a_while_leaves_as_well(front: str, transport: str) -> None:
    async with echo_server() as port, client_of(port, proxy=front) as client:
        # Until the transport has nothing left to do.
        for _ in range(10):
            await asyncio.sleep(0)
        await client.send(b"hello")
        assert await client.receive_exactly(5) == b"hello"


async def test_tls_begins_later_as_well(front: str, transport: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == b"STARTTLS"
        writer.write(b"go")
        await writer.start_tls(server_context(server_cert()))
        writer.write(await reader.readexactly(5))
        await writer.drain()
        await reader.read()

    async with serving(serve) as port, client_of(port, proxy=front) as client:
        await client.send(b"STARTTLS")
        assert await client.receive_exactly(2) == b"go"
        await client.start_tls(TRUSTING)
        await client.send(b"hello")
        assert await client.receive_exactly(5) == b"hello"
        assert client.tls is not None


async def test_a_pool_does_not_lend_again_what_has_begun_tls_behind_the_proxy(front: str, transport: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(b"go")
            await writer.start_tls(server_context(server_cert()))
            await reader.read()

    async with serving(serve) as port:
        async with NetworkPool(NetworkConfig("127.0.0.1", port, proxy=front)) as pool:
            async with pool.acquire() as client:
                await client.send(b"x")
                assert await client.receive_exactly(2) == b"go"
                await client.start_tls(TRUSTING)
            async with pool.acquire() as client:
                assert client.tls is None
            assert pool.stats.dropped["unfinished"] == 1


async def test_where_tls_within_tls_cannot_be_done_the_error_says_so(front: str) -> None:
    class Own(ssl.SSLContext):
        """As truststore's: not for aiofastnet, which does the TLS to the proxy, and whose transport no loop takes."""

    context = Own(ssl.PROTOCOL_TLS_CLIENT)
    async with echo_server() as port, client_of(port, proxy=front) as client:
        with pytest.raises(RuntimeError, match="cannot do TLS within the TLS to the proxy"):
            await client.start_tls(context)
        assert not client.is_connected


@pytest.mark.parametrize("secure", [False, True])
async def test_a_certificate_of_the_proxy_that_is_refused_is_named(
    locked_proxy: Tinyproxy, transport: str, secure: bool
) -> None:
    for cert, words in (
        (unknown_ca_cert(), "the certificate's issuer is unknown"),
        (wrong_host_cert(), "the certificate is not for 'localhost'"),
    ):
        before = len(locked_proxy.requests())
        with tls_front(locked_proxy.port, cert) as port:
            proxy = f"https://{USER}:{PASSWORD}@localhost:{port}"
            client = client_of(9, proxy=proxy, tls=TRUSTING if secure else False, retries=2, retry_delay=0)
            with pytest.raises(TLSError) as caught:
                await client.connect()
        assert f"TLS to the proxy https://***@localhost:{port}: {words}" in str(caught.value)
        assert PASSWORD not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"
        assert isinstance(caught.value, ssl.SSLCertVerificationError)
        assert caught.value.details["attempt"] == 1
        assert len(locked_proxy.requests()) == before


async def test_a_certificate_of_the_server_that_is_refused_is_not_said_to_be_the_proxys(
    front: str, transport: str
) -> None:
    excuse_failures_within_tls()
    with tls_front(9, unknown_ca_cert()) as port:
        with pytest.raises(TLSError) as caught:
            await client_of(port, proxy=front, tls=TRUSTING, retries=2).connect()
    assert "the certificate's issuer is unknown" in str(caught.value)
    assert "proxy" not in str(caught.value)
    assert isinstance(caught.value, ssl.SSLCertVerificationError)


async def test_wrong_credentials_and_targets_are_proxy_errors_without_secrets(front: str, transport: str) -> None:
    with pytest.raises(ProxyError) as caught:
        await client_of(9, proxy=front.replace(PASSWORD, "canary"), retries=2).connect()
    assert caught.value.details["status"] in (401, 407)
    assert "canary" not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ProxyError):
            await client_of(closed.getsockname()[1], proxy=front, retries=0).connect()
        with pytest.raises(ProxyError, match="cannot connect to it"):
            await client_of(9, proxy=f"https://localhost:{closed.getsockname()[1]}", retries=0).connect()


async def test_a_proxy_that_does_not_begin_tls_is_ended_by_connect_timeout(transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"localhost:{silent.getsockname()[1]}"
        words = rf"no answer through the proxy https://\*\*\*@{place} within 0\.05 s"
        with pytest.raises(NetworkTimeoutError, match=words):
            await client_of(9, proxy=f"https://u:p@{place}", connect_timeout=0.05, retries=0).connect()


async def test_connecting_cancelled_at_any_suspension_leaves_no_socket(front: str, transport: str) -> None:
    async with echo_server() as port:
        client = client_of(port, proxy=front)
        for mode in Mode:
            for number in itertools.count(1):
                sockets = open_sockets()
                outcome = await cancelled_at(client.connect(), number, mode)
                if not outcome.cancelled:
                    await client.disconnect()
                    break
                await until(lambda sockets=sockets: open_sockets() <= sockets, "all sockets are closed")
            assert number > 2


# ---- A proxy by hand ----


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    tasks: list[asyncio.Task[None]] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*tasks)


def tls_echo_server() -> Any:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    return serving(echo, server_context(server_cert()))


def answering(*pieces: bytes) -> Any:
    """A proxy that answers with these pieces, each a TLS record of its own, and stays until the client goes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        await reader.read()

    return serving(serve, server_context(server_cert()))


OK = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [(OK + b"greeting",), (OK, b"greeting"), (OK + b"gree", b"ting"), tuple(bytes([b]) for b in OK + b"greeting")],
    ids=["one", "two", "within", "each byte"],
)
async def test_what_the_server_says_first_is_received_however_it_comes(
    pieces: tuple[bytes, ...], transport: str
) -> None:
    async with answering(*pieces) as port:
        async with client_of(9, proxy=f"https://localhost:{port}") as client:
            assert await client.receive_exactly(8) == b"greeting"
            assert client.stats.bytes_received == 8


async def test_a_long_greeting_is_received_whole(transport: str) -> None:
    async with answering(OK + DATA) as port:
        async with client_of(9, proxy=f"https://localhost:{port}") as client:
            assert await client.receive_exactly(len(DATA)) == DATA


async def test_what_comes_before_tls_is_not_taken_for_tls(transport: str) -> None:
    async with answering(OK + b"injected") as port:
        with pytest.raises(TLSError, match="plain bytes before TLS"):
            await client_of(9, proxy=f"https://localhost:{port}", tls=TRUSTING, retries=2).connect()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 503 Full\r\n\r\n", "503 Full"),
        (b"SSH-2.0\r\n\r\n", "does not answer as an HTTP proxy"),
        (b"x" * 20_000, "longer than 16384 bytes"),
    ],
)
async def test_other_answers_are_proxy_errors(answer: bytes, words: str, transport: str) -> None:
    async with answering(answer) as port:
        with pytest.raises(ProxyError, match=words) as caught:
            await client_of(9, proxy=f"https://localhost:{port}", retries=0).connect()
        assert own_kind(caught.value) is ProxyError


async def test_a_proxy_that_closes_instead_of_answering_is_a_proxy_error(transport: str) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with serving(close, server_context(server_cert())) as port:
        with pytest.raises(ProxyError, match="closed the connection"):
            await client_of(9, proxy=f"https://localhost:{port}", retries=0).connect()
