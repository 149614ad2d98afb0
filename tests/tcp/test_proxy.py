"""TCP through proxies: SOCKS by the real microsocks, CONNECT by the real tinyproxy, and by hand what they do not do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from support.cancelling import Mode, cancelled_at, open_sockets, until
from support.certificates import ca_file, server_cert, server_context
from support.own_kind import own_kind
from support.proxies import PROXY_CREDENTIALS, Tinyproxy
from support.servers import Peer, client_of, echo_server
from support.tls_peer import TRANSPORTS, accepted, use_transport

from pepperpy.network import ConnectError, NetworkClient, NetworkConfig, NetworkError, ProxyError, TLSConfig, TLSError

USER, PASSWORD = PROXY_CREDENTIALS


@pytest.fixture(params=["socks5", "socks5h", "socks5 with a password", "http", "http with a password"])
def proxy_url(
    request: pytest.FixtureRequest, socks: int, locked_socks: int, proxy: Tinyproxy, locked_proxy: Tinyproxy
) -> str:
    return {
        "socks5": f"socks5://127.0.0.1:{socks}",
        "socks5h": f"socks5h://localhost:{socks}",
        "socks5 with a password": f"socks5h://{USER}:{PASSWORD}@127.0.0.1:{locked_socks}",
        "http": proxy.url,
        "http with a password": f"http://{USER}:{PASSWORD}@127.0.0.1:{locked_proxy.port}",
    }[str(request.param)]


async def test_bytes_go_through_every_kind_of_proxy(proxy_url: str) -> None:
    async with echo_server() as port:
        async with NetworkClient(NetworkConfig("localhost", port, proxy=proxy_url)) as client:
            data = bytes(range(256)) * 4000
            sending = asyncio.create_task(client.send(data))
            assert await client.receive_exactly(len(data)) == data
            await sending


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_tls_goes_through_every_kind_of_proxy(
    proxy_url: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_transport(monkeypatch, transport)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        config = NetworkConfig(
            "localhost", listener.getsockname()[1], tls=TLSConfig(ca_file=ca_file()), proxy=proxy_url
        )
        client = NetworkClient(config)
        async with accepted(client, listener, server_context(server_cert())) as peer:
            await client.send(b"x" * 100_000)
            assert await peer.receive(100_000) == b"x" * 100_000
            await peer.send(b"y")
            assert await client.receive() == b"y"


async def test_wrong_credentials_and_targets_are_proxy_errors_without_secrets(
    locked_socks: int, locked_proxy: Tinyproxy, socks: int, proxy: Tinyproxy
) -> None:
    for url in (
        f"socks5h://{USER}:wrong-secret@127.0.0.1:{locked_socks}",
        f"socks5h://127.0.0.1:{locked_socks}",
        f"http://{USER}:wrong-secret@127.0.0.1:{locked_proxy.port}",
        f"http://127.0.0.1:{locked_proxy.port}",
    ):
        error = await _failure(NetworkConfig("127.0.0.1", 9, proxy=url, retries=3, retry_delay=0))
        assert isinstance(error, ProxyError)
        assert error.details["attempt"] == 1
        if url.startswith("http"):
            assert error.details["status"] in (401, 407)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        for url in (f"socks5h://127.0.0.1:{socks}", proxy.url):
            error = await _failure(NetworkConfig("127.0.0.1", port, proxy=url, retries=1, retry_delay=0))
            assert isinstance(error, ProxyError)
            # Nobody listens yet: that may pass. tinyproxy says 500 for it, which says nothing.
            assert error.details["attempt"] == (2 if url.startswith("socks") else 1)
            assert type(error.details["status"]) is int
        error = await _failure(
            NetworkConfig("127.0.0.1", 9, proxy=f"socks5h://user:secret@127.0.0.1:{port}", retries=0)
        )
        assert isinstance(error, ProxyError)
        assert f"proxy socks5h://***@127.0.0.1:{port}: cannot connect to it" in str(error)


async def _failure(config: NetworkConfig) -> NetworkError:
    with pytest.raises(ConnectError) as caught:
        await NetworkClient(config).connect()
    for text in (str(caught.value), repr(caught.value.details), repr(config), repr(caught.value.__cause__)):
        assert "secret" not in text
        assert USER not in text
    return caught.value


# ---- A proxy by hand ----


@contextlib.asynccontextmanager
async def proxy_by_hand(serve: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[int]:
    """The port of a proxy that does `serve` with each connection."""
    loop = asyncio.get_running_loop()
    tasks = []

    async def accept(listener: socket.socket) -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            tasks.append(asyncio.create_task(serve_one(sock)))

    async def serve_one(sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            await serve(Peer(sock))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        tasks.append(asyncio.create_task(accept(listener)))
        try:
            yield listener.getsockname()[1]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _head(peer: Peer) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await peer.receive(1)
    return head


async def test_a_name_is_looked_up_where_the_scheme_says() -> None:
    asked = b""

    async def unreachable(peer: Peer) -> None:
        nonlocal asked
        await peer.receive(3)
        await peer.send(b"\5\0")
        asked = await peer.receive(7 + len(name))
        await peer.send(b"\5\4\0\1" + bytes(6))

    name = "no.such.host.invalid"
    async with proxy_by_hand(unreachable) as port:
        for scheme, kind in (("socks5", ConnectError), ("socks5h", ProxyError)):
            error = await _failure(NetworkConfig(name, 9, proxy=f"{scheme}://127.0.0.1:{port}", retries=0))
            assert own_kind(error) is kind
            assert (name.encode() in asked) == (scheme == "socks5h")


@pytest.mark.parametrize("cut", [1, 15, 39, 45])
async def test_the_answer_may_come_in_pieces_and_the_server_may_speak_first(cut: int) -> None:
    answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n220 greeting\r\n"

    async def serve(peer: Peer) -> None:
        assert (await _head(peer)).startswith(b"CONNECT host.example:25 HTTP/1.1\r\nHost: host.example:25\r\n")
        await peer.send(answer[:cut])
        await asyncio.sleep(0.01)  # so that most often they are two reads of the client
        await peer.send(answer[cut:])
        await peer.receive(1)

    async with proxy_by_hand(serve) as port:
        config = NetworkConfig("host.example", 25, proxy=f"http://127.0.0.1:{port}")
        async with NetworkClient(config) as client:
            assert await client.receive_line() == b"220 greeting\r\n"


@pytest.mark.parametrize("scheme", ["socks4", "socks4a"])
async def test_socks4_is_spoken(scheme: str) -> None:
    async def serve(peer: Peer) -> None:
        name = "localhost" if scheme == "socks4a" else ""
        address = b"\0\0\0\1" if name else b"\x7f\0\0\1"
        request = b"\x04\x01\x00\x19" + address + b"user\0" + (name.encode() + b"\0" if name else b"")
        assert await peer.receive(len(request)) == request
        await peer.send(b"\0\x5a\0\0\0\0\0\0" + b"greeting\n")
        await peer.receive(1)

    async with proxy_by_hand(serve) as port:
        config = NetworkConfig("localhost", 25, proxy=f"{scheme}://user@127.0.0.1:{port}", retries=0)
        async with NetworkClient(config) as client:
            assert await client.receive_line() == b"greeting\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed the connection instead of answering"),
        (b"HTTP/1.1 200", "closed the connection instead of answering"),
        (b"SSH-2.0-x\r\n\r\n", "does not answer as an HTTP proxy: 'SSH-2.0-x'"),
        (b"HTTP/1.1 403 No\x1b[2J way\r\n\r\n", r"403 No\\x1b\[2J way"),
        (b"HTTP/1.1 200 OK\r\n" + b"a" * 20_000, "longer than 16384 bytes"),
    ],
    ids=["nothing", "half", "another protocol", "a refusal", "no end"],
)
async def test_a_proxy_that_answers_otherwise_is_an_error(answer: bytes, words: str) -> None:
    async def serve(peer: Peer) -> None:
        await _head(peer)
        await peer.send(answer)

    async with proxy_by_hand(serve) as port:
        with pytest.raises(ProxyError, match=words):
            await client_of(9, proxy=f"http://127.0.0.1:{port}").connect()


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 400 No "])
async def test_what_a_proxy_repeats_of_the_credentials_is_in_no_error(first: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await _head(peer)
        await peer.send(first + b"Proxy-Authorization: Basic dTpzM2NyZXQ= of u:s3cret\r\n\r\n")

    async with proxy_by_hand(serve) as port:
        with pytest.raises(ProxyError, match=r"Proxy-Authorization: Basic \*\*\* of u:\*\*\*") as caught:
            await client_of(9, proxy=f"http://u:s3cret@127.0.0.1:{port}").connect()
    assert "s3cret" not in repr(caught.value.details)


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a", "http"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_proxy_that_hangs_up_is_tried_again(scheme: str, reset: bool) -> None:
    async def serve(peer: Peer) -> None:
        await peer.receive(1)
        if not reset:
            # What is left unread would make a reset of it.
            await asyncio.get_running_loop().sock_recv(peer.sock, 65536)

    async with proxy_by_hand(serve) as port:
        config = NetworkConfig("host.example", 25, proxy=f"{scheme}://127.0.0.1:{port}", retries=2, retry_delay=0)
        error = await _failure(config)
        assert own_kind(error) is ProxyError
        assert "it closed the connection" in str(error)
        assert "status" not in error.details
        assert error.details["attempt"] == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Unexpected SOCKS version number"),
        (b"\x05\xff", "No acceptable authentication methods"),
        (b"\x05\x00\x05\x00\x00\x03\x01\xff\x00\x00", "does not answer as a SOCKS proxy"),
    ],
    ids=["another protocol", "no method", "a name that is none"],
)
async def test_a_socks_proxy_that_answers_otherwise_is_an_error_that_stays(answer: bytes, words: str) -> None:
    async def serve(peer: Peer) -> None:
        await peer.receive(3)
        await peer.send(answer)
        await peer.receive(1000)

    async with proxy_by_hand(serve) as port:
        config = NetworkConfig("host.example", 25, proxy=f"socks5h://127.0.0.1:{port}", retries=2, retry_delay=0)
        error = await _failure(config)
        assert own_kind(error) is ProxyError
        assert words in str(error)
        assert error.details["attempt"] == 1


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "socks4a", "http"])
@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "a\ue000.example", ".".join(["a" * 50] * 6)])
async def test_what_is_no_host_name_is_refused_before_the_proxy_is_asked(scheme: str, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        error = await _failure(NetworkConfig(host, 25, proxy=url, retries=2, retry_delay=0))
        assert own_kind(error) is ConnectError
        assert "is no host name" in str(error)
        assert isinstance(error.__cause__, socket.gaierror)
        assert error.details["attempt"] == 1


async def test_what_comes_before_tls_is_not_taken_for_tls() -> None:
    async def serve(peer: Peer) -> None:
        await _head(peer)
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\ninjected")
        await peer.receive(100_000)

    async with proxy_by_hand(serve) as port:
        with pytest.raises(TLSError):
            await client_of(9, proxy=f"http://127.0.0.1:{port}", tls=True, retries=2).connect()


async def test_connecting_cancelled_at_any_suspension_leaves_no_socket(proxy_url: str, distance: str) -> None:
    async with echo_server() as port:
        client = client_of(port, proxy=proxy_url)
        for mode in Mode:
            for number in itertools.count(1):
                sockets = open_sockets()
                outcome = await cancelled_at(client.connect(), number, mode)
                if not outcome.cancelled:
                    await client.disconnect()
                    break
                # The proxy lets go of the echo server, which runs here, when it has seen the end.
                await until(lambda sockets=sockets: open_sockets() <= sockets, "all sockets are closed")
            # The connection to what is far, and the transport; the proxy's answer may be there already.
            assert number > 1 + (distance == "far")


# ---- The configuration ----


def test_no_secret_is_shown() -> None:
    config = NetworkConfig(
        "h", 1, proxy="socks5h://name:s3cret@p:1", tls=TLSConfig(client_cert=("cert", "key", "s3cret"))
    )
    assert repr(config) == (
        "NetworkConfig(host='h', port=1, proxy='socks5h://***@p:1', tls=TLSConfig(client_cert=('cert', 'key', '***')))"
    )
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    "url",
    [
        "",
        "name:s3cret@p:1",
        "ftp://name:s3cret@p:1",
        "socks5://name:s3cret@p",
        "socks5://name:s3cret@:1",
        "socks5://name:s3cret@p:99999",
        "socks5://name:s3cret@p:1/path",
        "socks5://name:s3cret@p:s3cret",
        "http://name:s3cret@p q:1",
        "http://name:s3cret@p\nq:1",
        "socks5://s3cret@p:1",
        "socks5://s3cret%ff:s3cr%c3%a9t@p:1",
        "socks5://s3cret:" + "x" * 256 + "@p:1",
        "http://na%3Ame:s3cret@p:1",
        "https://na%3Ame:s3cret@p:1",
        "http://name:s3cret%0d%0aX: y@p:1",
    ],
)
def test_a_bad_proxy_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="proxy must") as caught:
        NetworkConfig("h", 1, proxy=url)
    assert "s3cret" not in str(caught.value)


async def test_socks_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks.async_.asyncio", None)
    with pytest.raises(ImportError, match=r"pip install python-socks"):
        await client_of(9, proxy="socks5h://127.0.0.1:9").connect()
