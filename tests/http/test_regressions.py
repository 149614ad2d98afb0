"""What an adversarial review of the HTTP client found, each as the test that would have found it."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientTimeout
from support.cancelling import until
from support.http_faults import answering, closing_when_reused, response, silent
from support.http_peer import Connection, http_peer

from pepperpy.network import (
    BusyError,
    ClosedError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    InvalidRequestError,
    NetworkError,
    NetworkTimeoutError,
    ProtocolError,
    RefreshingAuth,
    UsageError,
)
from pepperpy.network.http.auth import Auth

# ---- Twice, or to the wrong one ----


async def test_a_post_whose_redirect_is_refused_is_not_carried_out_again() -> None:
    async with http_peer(answering(response(b"", status="401 x"))) as other:
        moved = response(b"", f"Location: {other.url}", status="303 x")
        async with http_peer(answering(moved)) as peer:
            async with HTTPClient(HTTPConfig(peer.url, auth=lambda: "t")) as client:
                with pytest.raises(HTTPStatusError, match="401"):
                    await client.post("/pay", data=b"money")
            assert (len(peer.requests), len(other.requests)) == (1, 1)


async def test_cookies_of_the_config_go_only_where_a_request_goes() -> None:
    async with http_peer(answering(response())) as other:
        # Another host: to cookies, a port makes no difference.
        away = other.url.replace("127.0.0.1", "localhost")
        moved = response(b"", f"Location: {away}", status="302 x")
        async with http_peer(answering(moved)) as peer:
            for base_url in (peer.url, None):
                async with HTTPClient(HTTPConfig(base_url, cookies={"session": "canary"})) as client:
                    await client.get(peer.url)
                    assert peer.requests[-1].headers["Cookie"] == "session=canary"
                    assert "Cookie" not in other.requests[-1].headers
                    await client.get(away)
                    assert ("Cookie" in other.requests[-1].headers) == (base_url is None)


async def test_a_cookie_of_the_config_does_not_come_back_over_what_the_server_has_set() -> None:
    async with http_peer(answering(response(b"", "Set-Cookie: c=new"), response())) as peer:
        async with HTTPClient(HTTPConfig(cookies={"c": "old"})) as client:
            await client.get(peer.url)
            await client.get(peer.url)
        assert [r.headers["Cookie"] for r in peer.requests] == ["c=old", "c=new"]


@pytest.mark.parametrize("name", ["X-Auth-Key", "Ocp-Apim-Subscription-Key", "X-Shopify-Access-Token", "X-Secret"])
async def test_whatever_looks_like_a_secret_stays_at_its_origin(name: str) -> None:
    async with http_peer(answering(response())) as other:
        moved = response(b"", f"Location: {other.url}", status="302 x")
        async with http_peer(answering(moved)) as peer, HTTPClient() as client:
            await client.get(peer.url, headers={name: "canary", "X-Author": "k"})
        assert name not in other.requests[0].headers
        assert other.requests[0].headers["X-Author"] == "k"


async def test_a_stale_retry_follows_an_answer_so_these_cannot_pile_up() -> None:
    async with http_peer(closing_when_reused(reset=True)) as peer:
        async with HTTPClient(HTTPConfig(retry_budget=0, retry_delay=0)) as client:
            for _ in range(60):
                assert await client.get(peer.url) == "ok"
            assert client.stats.retries == 0
            assert len(peer.requests) == 60 + client.stats.stale_retries <= 2 * 60


# ---- Secrets ----


async def test_a_timeout_shows_no_url_in_its_cause() -> None:
    async with http_peer(silent) as peer, HTTPClient(HTTPConfig(max_connections=1, retries=0)) as client:
        first = asyncio.create_task(client.get(peer.url))
        await until(lambda: bool(peer.requests), "the first request has the only connection")
        url = peer.url + "?token=" + "yranac"[::-1]  # not in this line, which tracebacks show
        with pytest.raises(NetworkTimeoutError) as caught:
            await client.get(url, timeout=ClientTimeout(connect=0.02))
        assert "canary" not in "".join(traceback.format_exception(caught.value))
        first.cancel()
        await asyncio.wait([first])


async def test_the_repr_of_a_map_result_shows_no_url() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        (result,) = [result async for result in client.map([peer.url + "?token=canary"])]
        assert "canary" not in repr(result) and result.url.endswith("canary")  # type: ignore[union-attr]


# ---- Waiting for ever ----


async def test_a_retry_after_of_decades_does_not_stop_the_client() -> None:
    refusal = response(b"", "Retry-After: 1000000000", status="429 x")
    async with http_peer(answering(refusal, response())) as peer:
        config = HTTPConfig(rate_limit=1000, retries=0, max_retry_delay=0.05, retry_delay=0)
        async with HTTPClient(config) as client, asyncio.timeout(20):
            with pytest.raises(HTTPStatusError):
                await client.get(peer.url)
            assert await client.get(peer.url) == "ok"


async def test_a_token_that_does_not_come_is_waited_for_as_long_as_an_answer() -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    async with HTTPClient(HTTPConfig(auth=never, timeout=0.05)) as client:
        with pytest.raises(NetworkTimeoutError, match=r"no token in time \(timeout\)") as caught:
            await client.get("http://127.0.0.1:1")
        assert (caught.value.details["phase"], caught.value.details["limit"]) == ("auth", "timeout")
        with pytest.raises(NetworkTimeoutError, match=r"no token in time \(deadline\)"):
            await client.get("http://127.0.0.1:1", timeout=10, deadline=0.05)


async def test_a_call_that_ends_before_its_first_request_says_why_though_it_has_a_body() -> None:
    def no_token() -> str:
        raise LookupError("no token")

    async with HTTPClient(HTTPConfig(auth=no_token)) as client:
        with pytest.raises(NetworkError, match="no token could be fetched") as caught:
            await client.post("http://127.0.0.1:1/", json={"a": 1})
        assert type(caught.value) is NetworkError


async def test_the_head_of_a_stream_comes_in_time_or_not_at_all() -> None:
    async with http_peer(silent) as peer:
        async with HTTPClient(HTTPConfig(timeout=0.05, read_timeout=None, max_connections=1)) as client:
            with pytest.raises(NetworkTimeoutError, match=r"\(timeout\)"):
                async with client.stream("GET", peer.url):
                    pass
            async with http_peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")) as other:
                async with client.stream("GET", other.url):
                    # The only connection is this one, so another one has to be waited for.
                    with pytest.raises(NetworkTimeoutError, match="no connection became free"):
                        async with client.stream("GET", other.url):
                            pass


async def test_what_a_client_timeout_leaves_open_is_as_configured() -> None:
    async def dripping(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(b"x")
            await asyncio.sleep(0.01)  # ten in the time that there is

    async with http_peer(dripping) as peer, HTTPClient(HTTPConfig(timeout=0.1)) as client:
        async with asyncio.timeout(20):
            with pytest.raises(NetworkTimeoutError, match=r"\(timeout\)"):
                await client.get(peer.url, timeout=ClientTimeout(sock_read=10))


@pytest.mark.parametrize("where", ["a retry", "the rate limit", "a token", "an answer"])
async def test_closing_ends_a_call_wherever_it_waits(where: str) -> None:
    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    settings: dict[str, Any] = {
        "a retry": {"retry_delay": 1000, "max_retry_delay": 1000, "retries": 1},
        "the rate limit": {"rate_limit": 0.001},
        "a token": {"auth": never},
        "an answer": {},
    }[where]
    refusing = response(b"", "Retry-After: 1000", status="503 x")
    handler = silent if where == "an answer" else answering(refusing if where == "a retry" else response())
    async with http_peer(handler) as peer:
        client = HTTPClient(HTTPConfig(peer.url, **settings))
        if where == "the rate limit":
            await client.get("/")
        call = asyncio.create_task(client.get("/"))
        for _ in range(30):
            # No event is common to the four places. One that is not reached yet is closed as well.
            await asyncio.sleep(0.001)
        await client.close()
        async with asyncio.timeout(30):
            with pytest.raises(ClosedError, match="the client was closed"):
                await call
        assert call.cancelling() == 0


async def test_closing_a_client_leaves_the_token_of_another_one_alone() -> None:
    go_on = asyncio.Event()

    async def fetch() -> str:
        await go_on.wait()
        return "t"

    async with http_peer(answering(response())) as peer:
        config = HTTPConfig(peer.url, auth=RefreshingAuth(fetch))
        one, two = HTTPClient(config), HTTPClient(config)
        calls = [asyncio.create_task(client.get("/")) for client in (one, two)]
        for _ in range(5):
            await asyncio.sleep(0)
        await one.close()
        go_on.set()
        with pytest.raises(ClosedError):
            await calls[0]
        assert await calls[1] == "ok"
        await two.close()


async def test_map_ends_when_something_in_a_request_was_cancelled_by_itself() -> None:
    class Cancelled:
        async def post_response(self, answer: Any) -> None:
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    async with http_peer(answering(response())) as peer:
        async with HTTPClient(HTTPConfig(interceptors=[Cancelled()])) as client, asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                async for _ in client.map([peer.url]):
                    pass


async def test_map_closes_its_source_and_refuses_what_is_none() -> None:
    closed = []

    async def urls() -> Any:
        try:
            while True:
                yield peer.url
        finally:
            closed.append(True)

    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        results = client.map(urls(), concurrency=2)
        async for _ in results:
            break
        await results.aclose()
        assert closed == [True]
        for bad in ("http://127.0.0.1", 5, None):
            with pytest.raises(TypeError, match="urls must be an iterable"):
                async for _ in client.map(bad):  # type: ignore[arg-type]
                    pass


async def test_a_server_that_speaks_first_ends_a_request_of_the_session() -> None:
    async def banner(connection: Connection) -> None:
        await connection.send(b"220 ready\r\n")
        await connection.wait_closed()

    async with http_peer(banner) as peer, HTTPClient(HTTPConfig(retries=0)) as client:
        with pytest.raises(NetworkError):
            await client.get(peer.url)
        with pytest.raises(aiohttp.ClientError):
            await client.session.get(peer.url)
        assert len(peer.connections) == 2


async def test_a_source_may_use_the_session_of_its_client() -> None:
    async with http_peer(answering(response())) as peer, http_peer(answering(response())) as other:
        async with HTTPClient() as client:

            async def source() -> Any:
                async with client.session.get(other.url, headers={"X-API-Key": "mine"}) as answer:
                    yield await answer.read()

            await client.post(peer.url, data=source())
        assert peer.requests[0].body == b"ok"
        assert other.requests[0].headers["X-API-Key"] == "mine"


# ---- Clear words ----


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "hex", "unicode_escape", "no-such"])
async def test_a_charset_that_is_none_for_a_body_is_read_as_utf_8(charset: str) -> None:
    async with http_peer(answering(response("ä".encode(), f"Content-Type: text/plain; charset={charset}"))) as peer:
        async with HTTPClient() as client:
            assert await client.get(peer.url) == "ä"


@pytest.mark.parametrize("arguments", [{"params": "ab"}, {"params": [("a",)]}, {"params": ""}, {"headers": 0}])
async def test_arguments_are_checked_alike_by_all_methods(arguments: Any, tmp_path: Any) -> None:
    (name,) = arguments

    class Interceptor:
        def pre_request(self, *args: Any, **options: Any) -> None:
            pass

    for config in (HTTPConfig(), HTTPConfig(interceptors=[Interceptor()])):
        async with HTTPClient(config) as client:
            with pytest.raises(TypeError, match=f"{name} must be a mapping"):
                await client.get("http://127.0.0.1:1", **arguments)
            with pytest.raises(TypeError, match=f"{name} must be a mapping"):
                async with client.stream("GET", "http://127.0.0.1:1", **arguments):
                    pass
            with pytest.raises(TypeError, match=f"{name} must be a mapping"):
                await client.download("http://127.0.0.1:1", tmp_path / "x", **arguments)
    async with HTTPClient() as client:
        with pytest.raises(TypeError, match=r"path must be a str or os\.PathLike, not bytes"):
            await client.download("http://127.0.0.1:1", b"/x")  # type: ignore[arg-type]


async def test_get_json_takes_params_where_the_other_verbs_do() -> None:
    async with http_peer(answering(response(b"{}"))) as peer, HTTPClient() as client:
        assert await client.get_json(peer.url, {"q": "1"}) == {}
        assert peer.requests[0].target == "/?q=1"


@pytest.mark.parametrize(("value", "kind"), [(b"x", TypeError), (None, TypeError), ("a\r\nb", InvalidRequestError)])
async def test_an_auth_of_the_users_own_is_checked_before_anything_is_sent(value: Any, kind: type[Exception]) -> None:
    class Own(Auth):
        async def header(self) -> Any:
            return value

    async with http_peer(answering(response())) as peer, HTTPClient(HTTPConfig(auth=Own())) as client:
        with pytest.raises(kind, match="auth"):
            await client.get(peer.url)
        assert not peer.connections


async def test_a_stream_says_how_it_is_used() -> None:
    async def half(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        await connection.wait_closed()

    async with http_peer(half) as peer, HTTPClient() as client:
        stream = client.stream("GET", peer.url)
        with pytest.raises(UsageError, match="async with"):
            await stream.read()
        async with stream:
            first = asyncio.create_task(stream.read())
            await asyncio.sleep(0)
            with pytest.raises(BusyError, match="another task reads"):
                await stream.read()
            assert not first.done(), "the first reader was disturbed"
            first.cancel()
            await asyncio.wait([first])


async def test_an_encoding_that_is_not_known_is_called_that() -> None:
    # Not Brotli either, so that the same comes where its package is installed.
    async with http_peer(answering(response(b"\xff" * 16, "Content-Encoding: br"))) as peer, HTTPClient() as client:
        with pytest.raises(ProtocolError, match="not compressed as announced"):
            await client.get(peer.url)


async def test_the_headers_of_a_status_error_find_any_case_after_unpickling_too() -> None:
    async with http_peer(answering(response(b"", "X-A: 1", status="404 x"))) as peer, HTTPClient() as client:
        with pytest.raises(HTTPStatusError) as caught:
            await client.get(peer.url)
    assert pickle.loads(pickle.dumps(caught.value)).headers["x-a"] == "1"


async def test_a_rate_limit_that_is_beyond_the_deadline_names_it() -> None:
    async with http_peer(answering(response())) as peer:
        async with HTTPClient(HTTPConfig(rate_limit=0.01)) as client:
            await client.get(peer.url)
            with pytest.raises(NetworkTimeoutError) as caught:
                await client.get(peer.url, deadline=1)
            assert caught.value.details["limit"] == "deadline"


async def test_a_response_does_not_keep_what_was_sent() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        answer = await client.request("POST", peer.url, data=bytes(100_000))
        assert answer._call.body is None
