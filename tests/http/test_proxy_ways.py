"""The two ways through a proxy of HTTP, over TLS to it or not: a tunnel, and the URL in the request line. By hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import socket
import ssl
from base64 import b64encode
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, open_sockets, until
from support.certificates import ca_file, client_cert, self_signed_cert, server_cert, server_context, wrong_host_cert
from support.http_faults import answering, response
from support.http_peer import Connection, HTTPPeer, http_peer
from support.nginx import TEXT, Nginx
from support.proxies import Tinyproxy, tls_front
from support.tls_peer import TRANSPORTS, TLSPeer, excuse_failures_within_tls, use_transport

from pepperpy.network import (
    ConnectionLostError,
    ForbiddenAddressError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    NetworkTimeoutError,
    ProxyError,
    PublicOnly,
    TLSConfig,
    TLSError,
)

TRUSTING = HTTPConfig(tls=TLSConfig(ca_file=ca_file()), retries=0)
USER, PASSWORD = "proxy-user", "proxy-canary"
BASIC = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(params=["plain", *TRANSPORTS])
def certificate(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of the proxy, for each implementation of TLS; None: it speaks none."""
    monkeypatch.setattr("pepperpy.network.tcp.connect.LOOKS_AGAIN", False)
    if request.param == "plain":
        return None
    use_transport(monkeypatch, request.param)
    return server_cert()


def with_credentials(proxy: HTTPPeer) -> str:
    return proxy.url.replace("//", f"//{USER}:{PASSWORD}@")


async def tunnel(connection: Connection) -> None:
    """Connect to the target of CONNECT, and pass bytes on; a request of another kind is answered here."""
    while (request := await connection.read_head()).method != "CONNECT":
        await connection.read_body()
        await connection.send(response(b"by the proxy"))
    host, _, port = request.target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    await connection.relay(reader, writer)


async def test_a_request_of_http_names_its_url_and_a_tunnel_is_kept_for_https(certificate: Any) -> None:
    async with http_peer(answering(response(b"by the server")), certificate=server_cert()) as server:
        async with http_peer(tunnel, certificate=certificate) as proxy:
            async with HTTPClient(TRUSTING.replace(proxy=with_credentials(proxy))) as client:
                for _ in range(2):
                    text = await client.post("http://[fe80::1%25lo]:81/a%2Fb?c=d#e", params={"f": "g"}, data=b"body")
                    assert text == "by the proxy"
                    assert await client.get(f"{server.url}/path") == "by the server"
                assert await client.get("http://server.test") == "by the proxy"
    plain_1, connect, plain_2, plain_3 = proxy.requests
    assert [request.connection for request in proxy.requests] == [1, 2, 1, 3]
    assert plain_1.method == plain_2.method == "POST"
    # Without the zone, which counts on this machine only.
    assert plain_1.target == plain_2.target == "http://[fe80::1]:81/a%2Fb?c=d&f=g"
    assert (plain_1.headers["Host"], plain_1.body) == ("[fe80::1]:81", b"body")
    assert (plain_3.target, plain_3.headers["Host"]) == ("http://server.test/", "server.test")
    assert connect.target == f"127.0.0.1:{server.port}"
    assert [request.headers["Proxy-Authorization"] for request in proxy.requests] == [BASIC] * 4
    assert [request.target for request in server.requests] == ["/path"] * 2


async def test_no_server_gets_the_credentials_of_a_proxy(certificate: Any) -> None:
    """Neither behind a tunnel, nor directly, though the requests are alike but for their proxy."""

    async def forwarding(connection: Connection) -> None:
        if (await connection.read_head()).method == "CONNECT":
            reader, writer = await asyncio.open_connection("127.0.0.1", secure.port)
            await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
            await connection.relay(reader, writer)
        await connection.send(response(b"", f"Location: {server.url}/moved", status="302 Found"))

    # The same name with the default port of each scheme, so that the header Host is the same as well.
    tls = TLSConfig(ca_file=ca_file(), server_hostname="localhost")
    async with (
        http_peer(answering(response())) as server,
        http_peer(answering(response()), certificate=server_cert()) as secure,
        http_peer(forwarding, certificate=certificate) as proxy,
    ):
        config = HTTPConfig(tls=tls, proxy=with_credentials(proxy), no_proxy=f"127.0.0.1:{server.port}", retries=0)
        async with HTTPClient(config) as client:
            assert await client.get("http://same.test/") == "ok"
            assert await client.get("https://same.test/") == "ok"
            assert await client.get(server.url) == "ok"
            assert await client.get(server.url, proxy=False) == "ok"
    assert [request.headers.get("Proxy-Authorization") for request in proxy.requests] == [BASIC, BASIC]
    assert (len(server.requests), len(secure.requests)) == (3, 1)
    for request in server.requests + secure.requests:
        assert "proxy" not in f"{request.headers!r}".lower()


async def test_a_header_of_the_caller_comes_before_the_credentials_of_the_url(certificate: Any) -> None:
    async with http_peer(answering(response()), certificate=certificate) as proxy:
        async with HTTPClient(TRUSTING.replace(proxy=with_credentials(proxy))) as client:
            await client.get("http://server.test/", headers={"proxy-authorization": "Bearer mine"})
    assert proxy.requests[0].headers.getall("Proxy-Authorization") == ["Bearer mine"]


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_refusal_is_a_proxy_error_for_a_tunnel_and_an_answer_for_a_request(
    certificate: Any, status: int
) -> None:
    refusal = response(b"no", status=f"{status} {USER}\x1b[31m")
    async with http_peer(answering(refusal), certificate=certificate) as proxy:
        async with HTTPClient(TRUSTING.replace(proxy=with_credentials(proxy))) as client:
            with pytest.raises(ProxyError, match=f"the proxy answered {status}") as refused:
                await client.get("https://server.test/")
            # Nobody can tell it from the server's own answer.
            with pytest.raises(HTTPStatusError) as answered:
                await client.get("http://server.test/")
    assert refused.value.details["status"] == answered.value.status == status
    assert refused.value.is_transient is (status == 502)
    for error in (refused.value, answered.value):
        assert PASSWORD not in f"{error!r}{error.details}{error.__cause__!r}" and "\x1b" not in str(error)


async def test_a_proxy_that_ends_the_connection_is_named_by_where_it_was(certificate: Any) -> None:
    async def close(connection: Connection) -> None:
        await connection.read_head()

    async with http_peer(close, certificate=certificate) as proxy:
        async with HTTPClient(TRUSTING.replace(proxy=with_credentials(proxy))) as client:
            with pytest.raises(ProxyError, match="closed the connection"):
                await client.get("https://server.test/")
            with pytest.raises(ConnectionLostError, match="closed the connection without an answer"):
                await client.get("http://server.test/")


async def test_a_proxy_that_hangs_up_in_the_handshake_is_a_proxy_error() -> None:
    async def hang_up(connection: Connection) -> None:
        connection.close()

    async with http_peer(hang_up) as proxy:
        url = with_credentials(proxy).replace("http:", "https:")
        async with HTTPClient(TRUSTING.replace(proxy=url)) as client:
            for target in ("http", "https"):
                with pytest.raises(ProxyError, match="TLS to the proxy https") as caught:
                    await client.get(f"{target}://server.test/")
                assert PASSWORD not in f"{caught.value!r}{caught.value.details}"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_says_nothing_is_ended_by_its_time_limit(certificate: Any, scheme: str) -> None:
    async def silent(connection: Connection) -> None:
        await connection.wait_closed()

    async with http_peer(silent, certificate=certificate) as proxy:
        async with HTTPClient(TRUSTING.replace(proxy=proxy.url, connect_timeout=0.3, read_timeout=0.3)) as client:
            words = f"connect_timeout\\) through the proxy {proxy.url} " if scheme == "https" else "read_timeout"
            with pytest.raises(NetworkTimeoutError, match=words):
                await client.get(f"{scheme}://server.test/")
            assert client.stats.open_connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_call_cancelled_at_any_suspension_leaves_nothing_and_the_next_gets_its_own(
    web: Nginx, proxy: Tinyproxy, certificate: Any, scheme: str
) -> None:
    # Processes of their own: asyncio's server reports each handshake that a client leaves. nginx takes a URL in a
    # request line as a proxy does, and keeps the connection.
    port, url = (proxy.port, web.https_url("")) if scheme == "https" else (web.http_port, "http://server.test")
    with contextlib.ExitStack() as stack:
        if certificate is not None:
            port = stack.enter_context(tls_front(port, certificate))
        config = TRUSTING.replace(proxy=f"{'http' if certificate is None else 'https'}://localhost:{port}")
        for mode in Mode:
            for number in itertools.count(1):
                sockets = open_sockets()
                async with HTTPClient(config) as client:
                    outcome = await cancelled_at(client.get(f"{url}/text"), number, mode)
                    assert outcome.cancelled or outcome.value == TEXT
                    assert (await client.get_json(f"{url}/echo?{number}"))["uri"].endswith(f"/echo?{number}")
                    assert client.stats.open_connections == 1
                await until(lambda sockets=sockets: open_sockets() <= sockets, "all sockets are closed")
                if not outcome.cancelled:
                    break
            assert number > 2


async def test_the_policy_is_asked_about_the_target_before_the_proxy_hears_of_it(certificate: Any) -> None:
    async with http_peer(answering(response()), certificate=certificate) as proxy:
        for policy, url, works in (
            (PublicOnly(), "http://10.0.0.1/", False),
            (PublicOnly(), "http://[::ffff:10.0.0.1]/", False),
            (PublicOnly(), "http://server.test/", False),
            (PublicOnly(proxy_lookup=True), "http://server.test/", True),
            (PublicOnly(), "http://8.8.8.8/", True),
        ):
            async with HTTPClient(TRUSTING.replace(proxy=proxy.url, address_policy=policy)) as client:
                if works:
                    assert await client.get(url) == "ok"
                else:
                    with pytest.raises(ForbiddenAddressError):
                        await client.get(url)
    assert [request.target for request in proxy.requests] == ["http://server.test/", "http://8.8.8.8/"]


# ---- proxy_tls ----


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_transport(monkeypatch, request.param)


async def get_both(config: HTTPConfig, proxy: str, server: HTTPPeer) -> None:
    async with HTTPClient(config.replace(proxy=proxy)) as client:
        assert await client.get("http://server.test/") == "by the proxy"
        assert await client.get(server.url) == "ok"


@pytest.mark.usefixtures("transport")
async def test_the_proxy_has_settings_of_its_own_and_the_server_those_of_tls() -> None:
    excuse_failures_within_tls()
    own = self_signed_cert()
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(own.read_text()[own.read_text().index("-----BEGIN CERT") :]))
    async with http_peer(answering(response()), certificate=server_cert()) as server:
        for certificate, proxy_tls in (
            (own, TLSConfig(ca_file=own)),
            (own, ssl.create_default_context(cafile=own)),
            (own, TLSConfig(verify=False, certificate_pin=digest.digest())),
            (wrong_host_cert(), TLSConfig(ca_file=ca_file(), server_hostname="elsewhere.example")),
        ):
            async with http_peer(tunnel, certificate=certificate) as proxy:
                url = proxy.url.replace("127.0.0.1", "localhost")
                await get_both(TRUSTING.replace(proxy_tls=proxy_tls), url, server)
                # Without it, it is checked as the server is; and `verify_ssl` is no word about it.
                for settings in ({}, {"verify_ssl": False, "proxy_tls": TLSConfig()}):
                    async with HTTPClient(TRUSTING.replace(proxy=url, **settings)) as client:
                        for target in ("http://server.test/", server.url):
                            with pytest.raises(TLSError, match="TLS to the proxy"):
                                await client.get(target)


@pytest.mark.usefixtures("transport")
async def test_what_the_proxy_is_trusted_by_is_not_what_the_server_is_trusted_by() -> None:
    excuse_failures_within_tls()
    async with (
        http_peer(answering(response()), certificate=server_cert()) as server,
        http_peer(tunnel, certificate=server_cert()) as proxy,
    ):
        config = HTTPConfig(proxy_tls=TLSConfig(ca_file=ca_file()), proxy=proxy.url, retries=0)
        async with HTTPClient(config) as client:
            assert await client.get("http://server.test/") == "by the proxy"
            with pytest.raises(TLSError) as caught:
                await client.get(server.url)
            assert "proxy" not in str(caught.value)
            # Of this request alone.
            assert await client.get(server.url, verify_ssl=False) == "ok"


@pytest.mark.usefixtures("transport")
async def test_a_pin_of_the_proxy_is_checked_before_it_gets_a_byte() -> None:
    async with http_peer(tunnel, certificate=server_cert()) as proxy:
        proxy_tls = TLSConfig(ca_file=ca_file(), certificate_pin="ab" * 32)
        async with HTTPClient(TRUSTING.replace(proxy=with_credentials(proxy), proxy_tls=proxy_tls)) as client:
            for url in ("http://server.test/", "https://server.test/"):
                with pytest.raises(TLSError, match=r"TLS to the proxy.*not a pinned one"):
                    await client.get(url)
    assert proxy.requests == []


@pytest.mark.usefixtures("transport")
async def test_a_proxy_that_wants_a_certificate_gets_it_and_the_server_does_not(proxy: Tinyproxy, web: Nginx) -> None:
    shown = TLSConfig(ca_file=ca_file(), client_cert=client_cert())
    with tls_front(proxy.port, server_cert(), ca_file()) as port:
        url = f"https://localhost:{port}"
        config = TRUSTING.replace(proxy=url, retries=2, retry_delay=0)
        async with HTTPClient(config.replace(proxy_tls=shown)) as client:
            for target in (web.url("/text"), web.https_url("/text")):
                assert (await client.request("GET", target)).status == 200
            # nginx answers 400 to a client that shows none.
            with pytest.raises(HTTPStatusError, match="400"):
                await client.get(web.mtls_url("/text"))


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_gets_no_certificate_refuses_what_the_client_takes_for_done(scheme: str) -> None:
    context = server_context(server_cert())
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # the server looks at it after the client's part
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file())
    loop = asyncio.get_running_loop()

    async def refuse(listener: socket.socket) -> None:
        sock, _ = await loop.sock_accept(listener)
        with sock:
            sock.setblocking(False)
            peer = TLSPeer(sock, context)
            with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
                await peer.handshake()
            await loop.sock_sendall(sock, peer.encrypted(b""))
            # Until the client has left: a reset would overtake the alert.
            while await loop.sock_recv(sock, 65536):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        refusing = asyncio.create_task(refuse(listener))
        proxy = f"https://{USER}:{PASSWORD}@localhost:{listener.getsockname()[1]}"
        async with HTTPClient(TRUSTING.replace(proxy=proxy)) as client:
            with pytest.raises(TLSError, match=r"TLS to the proxy.*wants a client certificate") as caught:
                await client.get(f"{scheme}://server.test/")
        await refusing
    assert PASSWORD not in f"{caught.value!r}{caught.value.details}{caught.value.__cause__!r}"


@pytest.mark.parametrize("inner", [False, True])
async def test_a_context_that_only_the_loop_can_use_goes_within_or_around_any_other(inner: bool) -> None:
    excuse_failures_within_tls()

    class Own(ssl.SSLContext):
        """As truststore's."""

    own = Own(ssl.PROTOCOL_TLS_CLIENT)
    own.load_verify_locations(ca_file())
    other = TLSConfig(ca_file=ca_file())
    tls, proxy_tls = (own, other) if inner else (other, own)
    async with http_peer(answering(response()), certificate=server_cert()) as server:
        async with http_peer(tunnel, certificate=server_cert()) as proxy:
            await get_both(HTTPConfig(tls=tls, proxy_tls=proxy_tls), proxy.url, server)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"proxy_tls": True}, TypeError, "proxy_tls must be a TLSConfig, an ssl.SSLContext or None, not bool"),
        ({"proxy_tls": {"ca_file": "canary"}}, TypeError, "proxy_tls must be a TLSConfig, .*, not dict"),
        ({"proxy_tls": "servers"}, ValueError, "proxy_tls must have a context for clients"),
        ({"proxy_tls": TLSConfig(alpn=("h2",))}, ValueError, "proxy_tls: alpn must be left out"),
        ({"proxy_tls": TLSConfig(), "transport": "aiohttp"}, ValueError, "proxy_tls must be left out with transport"),
        ({"proxy_tls": TLSConfig(), "unix_path": "/x"}, ValueError, "proxy_tls must be left out with unix_path"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    if settings["proxy_tls"] == "servers":
        settings = {"proxy_tls": server_context(server_cert())}
    with pytest.raises(error, match=words):
        HTTPConfig(**settings)


async def test_a_file_that_cannot_be_read_is_told_when_the_client_opens() -> None:
    client = HTTPClient(HTTPConfig(proxy_tls=TLSConfig(ca_file="/nothing/there.pem")))
    with pytest.raises(ValueError, match="ca_file"):
        await client.__aenter__()
