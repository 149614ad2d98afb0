"""The client against servers that others wrote: nginx over TCP and TLS, and tinyproxy with and without credentials."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from typing import Any

import pytest
from support.cancelling import until
from support.certificates import ca_file, client_cert
from support.nginx import BIG, BIG_SHA256, BIG_SIZE, BOMB_SIZE, JSON, PASSWORD, TEXT, USER
from support.proxies import PROXY_CREDENTIALS

from pepperpy.network import (
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    ProxyError,
    ResponseLimits,
    ResponseTooLargeError,
    TLSConfig,
)

TRUSTING = HTTPConfig(tls=TLSConfig(ca_file=ca_file()))
LOCKED = ":".join(PROXY_CREDENTIALS)


async def test_text_and_json_over_tcp_and_tls(web: Any) -> None:
    async with HTTPClient(TRUSTING) as client:
        for url in (web.url, web.https_url):
            assert await client.get(url("/text")) == TEXT
            assert await client.get_json(url("/json")) == JSON
            assert await client.get_json(url("/json-as-text")) == JSON
            assert await client.head(url("/text")) == ""


async def test_nginx_sends_a_file_again_only_if_it_has_changed(web: Any) -> None:
    async with HTTPClient(TRUSTING) as client:
        for url in (web.url("/files/big.bin"), web.https_url("/files/big.bin")):
            known = await client.request("GET", url)
            again = await client.request("GET", url, if_changed_since=known)
            assert (len(known.content), again.status, again.content) == (BIG_SIZE, 304, b"")


async def test_connections_are_kept_and_used_again(web: Any) -> None:
    async with HTTPClient(TRUSTING) as client:
        for url in (web.url("/text"), web.https_url("/text")):
            web.forget_requests()
            for _ in range(5):
                await client.get(url)
            requests = web.requests()
            assert [r.number for r in requests] == [1, 2, 3, 4, 5]
            assert len({r.connection for r in requests}) == 1


async def test_a_server_that_announces_the_end_of_its_connections_costs_no_retry(web: Any) -> None:
    async with HTTPClient(HTTPConfig(retries=0)) as client:
        for _ in range(10):
            assert await client.get(web.url("/keepalive-3")) == TEXT
            assert await client.get(web.url("/keepalive-0")) == TEXT
        assert client.stats.attempts == 20


async def test_a_server_that_ends_idle_connections_unannounced_costs_no_retry(web: Any) -> None:
    async with HTTPClient(HTTPConfig(retries=0)) as client:
        for _ in range(3):
            assert await client.get(web.url("/keepalive-50ms")) == TEXT
            await until(lambda: client.stats.open_connections == 0, "nginx has ended the idle connection")
        assert client.stats.attempts == 3


async def test_gzip_is_unpacked(web: Any) -> None:
    async with HTTPClient() as client:
        answer = await client.request("GET", web.url("/gzip/data.json"))
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.json()[2] == {"number": 2, "square": 4}
        assert answer.content == await asyncio.to_thread((web.root / "data.json").read_bytes)
        plain = await client.request("GET", web.url("/gzip/data.json"), headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers and plain.content == answer.content
        async with client.stream("GET", web.url("/gzip/data.json")) as stream:
            assert await stream.read() == answer.content


async def test_a_bomb_of_nginx_is_not_unpacked(web: Any) -> None:
    async with HTTPClient() as client:
        with pytest.raises(ResponseTooLargeError):
            await client.get(web.url("/bomb"))
    # A stream holds no more than a piece of it, and may take it all if the client allows that.
    async with HTTPClient(HTTPConfig(limits=ResponseLimits(max_ratio=None))) as client:
        async with client.stream("GET", web.url("/bomb")) as stream:
            size = 0
            async for chunk in stream:
                size += len(chunk)
            assert size == BOMB_SIZE


async def test_a_large_file_arrives_whole_read_and_streamed(web: Any) -> None:
    async with HTTPClient(TRUSTING) as client:
        for url in (web.url("/files/big.bin"), web.https_url("/files/big.bin")):
            answer = await client.request("GET", url)
            assert hashlib.sha256(answer.content).hexdigest() == BIG_SHA256
            digest = hashlib.sha256()
            async with client.stream("GET", url) as stream:
                async for chunk in stream:
                    digest.update(chunk)
            assert digest.hexdigest() == BIG_SHA256


async def test_a_range_is_what_was_asked_for(web: Any) -> None:
    async with HTTPClient() as client:
        answer = await client.request("GET", web.url("/files/big.bin"), headers={"Range": "bytes=100-199"})
        assert (answer.status, answer.content) == (206, BIG[100:200])
        assert answer.headers["Content-Range"] == f"bytes 100-199/{BIG_SIZE}"


async def test_uploads_arrive_whole_in_one_piece_and_in_chunks(web: Any, tmp_path: Any) -> None:
    path = tmp_path / "upload.bin"
    await asyncio.to_thread(path.write_bytes, BIG)
    seen: list[Any] = []

    async def pieces() -> Any:
        for start in range(0, BIG_SIZE, 1 << 20):
            yield BIG[start : start + (1 << 20)]

    async with HTTPClient(TRUSTING) as client:
        for url in (web.url("/upload"), web.https_url("/upload")):
            assert await client.post(url, data=BIG) == str(BIG_SIZE)
            assert await client.put(url, data=path, progress=lambda *now: seen.append(now)) == str(BIG_SIZE)
            assert await client.post(url, data=pieces()) == str(BIG_SIZE)
            assert int(await client.post(url, files={"file": path}, data={"a": "b"})) > BIG_SIZE
        await client.put(web.url("/files/copy.bin"), data=path)
    assert await asyncio.to_thread((web.root / "copy.bin").read_bytes) == BIG
    (web.root / "copy.bin").unlink()
    sent = [now for now, _ in seen]
    assert sent[-1] == BIG_SIZE and {total for _, total in seen} == {BIG_SIZE}
    assert sorted(sent[: len(sent) // 2]) == sent[: len(sent) // 2]


async def test_a_body_that_is_too_large_is_refused_in_words(web: Any) -> None:
    async with HTTPClient() as client:
        with pytest.raises(HTTPStatusError, match="413"):
            await client.post(web.url("/too-large"), data=bytes(5_000_000))


async def test_what_goes_out_is_what_was_asked_for(web: Any) -> None:
    async with HTTPClient() as client:
        arguments: dict[str, Any] = {
            "params": {"q": "a b&c", "l": [1, 2]},
            "headers": {"X-Test": "ä".encode().decode("latin-1")},
        }
        echo = json.loads(await client.put(web.url("/echo"), json={"a": 1}, **arguments))
        assert (echo["method"], echo["uri"], echo["size"]) == ("PUT", "/echo?q=a+b%26c&l=1&l=2", 7)
        assert echo["content_type"] == "application/json"
        assert "gzip" in echo["accept_encoding"]
        echo = json.loads(await client.post(web.url("/echo"), data={"a": "1", "b": ["2", "3"]}))
        assert (echo["content_type"], echo["size"]) == ("application/x-www-form-urlencoded", len("a=1&b=2&b=3"))


async def test_basic_auth_of_nginx(web: Any) -> None:
    async with HTTPClient() as client:
        with pytest.raises(HTTPStatusError, match="401"):
            await client.get(web.url("/basic-auth"))
        assert await client.get(web.url("/basic-auth"), auth=(USER, PASSWORD)) == TEXT
        with_userinfo = web.url("/basic-auth").replace("//", f"//{USER}:{PASSWORD.replace(' ', '%20')}@")
        assert await client.get(with_userinfo) == TEXT


async def test_a_client_certificate_is_shown(web: Any) -> None:
    async with HTTPClient(TRUSTING) as client:
        with pytest.raises(HTTPStatusError, match="400"):
            await client.get(web.mtls_url("/text"))
    async with HTTPClient(HTTPConfig(tls=TLSConfig(ca_file=ca_file(), client_cert=client_cert()))) as client:
        assert await client.get(web.mtls_url("/text")) == TEXT


async def test_cookies_of_nginx(web: Any) -> None:
    async with HTTPClient() as client:
        assert await client.get(web.url("/cookies/set", "localhost"), params={"name": "n", "value": "v"}) == "ok"
        assert (await client.get_json(web.url("/echo", "localhost")))["cookie"] == "n=v"


async def test_retry_after_of_nginx(web: Any) -> None:
    async with HTTPClient(HTTPConfig(retries=1, retry_delay=0)) as client:
        with pytest.raises(HTTPStatusError):
            await client.get(web.url("/status/503?retry_after=0"))
        with pytest.raises(HTTPStatusError):
            await client.get(web.url("/status/503?retry_after=100"))
        assert [r.uri[-1] for r in web.requests()] == ["0", "0", "0"]
        assert len(web.requests()) == 3


# ---- Proxies ----


async def test_through_a_proxy_plain_and_tls(web: Any, proxy: Any) -> None:
    async with HTTPClient(TRUSTING) as client:
        echo = await client.get_json(web.url("/echo"), proxy=proxy.url)
        assert "pepperpy-tinyproxy" in echo["via"]
        before = len(proxy.requests())
        assert await client.get(web.https_url("/text"), proxy=proxy.url) == TEXT
        assert proxy.requests()[before:] == [f"CONNECT 127.0.0.1:{web.https_port} HTTP/1.1"]
        # A tunnel is kept, and is not used without the proxy.
        assert await client.get(web.https_url("/text"), proxy=proxy.url) == TEXT
        assert len(proxy.requests()) == before + 1
        assert await client.get(web.https_url("/text")) == TEXT
        assert {r.number for r in web.requests() if r.port == web.https_port} == {1, 2}


async def test_the_proxy_of_the_client_is_for_all_its_requests(web: Any, proxy: Any) -> None:
    async with HTTPClient(HTTPConfig(proxy=proxy.url)) as client:
        before = len(proxy.requests())
        await client.get(web.url("/text"))
        async with client.stream("GET", web.url("/text")) as stream:
            await stream.read()
        assert len(proxy.requests()) == before + 2


async def test_a_proxy_with_credentials(web: Any, locked_proxy: Any) -> None:
    url = locked_proxy.url.replace("//", f"//{LOCKED}@")
    async with HTTPClient(TRUSTING) as client:
        assert await client.get(web.url("/text"), proxy=url) == TEXT
        assert await client.get(web.https_url("/text"), proxy=url) == TEXT
        wrong = locked_proxy.url.replace("//", "//proxy-user:canary@")
        with pytest.raises(ProxyError, match="the proxy answered") as caught:
            await client.get(web.https_url("/text"), proxy=wrong)
        assert "canary" not in f"{caught.value!r}"
        with pytest.raises(HTTPStatusError):
            await client.get(web.url("/text"), proxy=wrong)


async def test_the_credentials_of_a_proxy_and_of_a_server_go_each_to_its_own(web: Any, locked_proxy: Any) -> None:
    url = locked_proxy.url.replace("//", f"//{LOCKED}@")
    async with HTTPClient(TRUSTING) as client:
        for target in (web.url("/echo"), web.https_url("/echo")):
            echo = await client.get_json(target, proxy=url, headers={"Authorization": "Bearer mine"})
            assert echo["authorization"] == "Bearer mine"
        assert "mine" not in locked_proxy.log() and PROXY_CREDENTIALS[1] not in locked_proxy.log()


async def test_the_environment_is_no_configuration_unless_asked_for(
    web: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    before = len(proxy.requests())
    async with HTTPClient() as client:
        await client.get(web.url("/text"))
    assert len(proxy.requests()) == before
    async with HTTPClient(HTTPConfig(trust_env=True)) as client:
        await client.get(web.url("/text"))
    assert len(proxy.requests()) == before + 1


async def test_a_failed_tunnel_leaves_nothing_to_wait_for(web: Any, proxy: Any) -> None:
    """The certificate is not trusted: TLS ends inside of a tunnel that stands."""
    client = HTTPClient(HTTPConfig(close_timeout=60))
    with pytest.raises(ConnectionError) as caught:
        await client.get(web.https_url("/text"), proxy=proxy.url)
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    async with asyncio.timeout(20):
        await client.close()
