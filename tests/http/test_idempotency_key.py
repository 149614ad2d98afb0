"""`idempotency_key`: one key for all attempts of a call, which may then be repeated; of a request or for a client."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import Connection, HTTPPeer, http_peer

from pepperpy.network import ConnectionLostError, HTTPClient, HTTPConfig, InvalidRequestError

OK = response(b"ok")


async def breaks_each_other_time(connection: Connection) -> None:
    await connection.read_request()
    if connection.number % 2 == 0:
        await connection.send(response(b"ok", "Connection: close"))


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_call_has_one_key_for_all_attempts_and_the_next_has_another(method: str) -> None:
    async with http_peer(breaks_each_other_time) as peer, HTTPClient(HTTPConfig(retry_delay=0)) as client:
        for _ in range(2):
            got = await client.request(method, peer.url, json=1, idempotency_key=True)
            assert (got.text, got.attempts) == ("ok", 2)
        with pytest.raises(ConnectionLostError):
            await client.request(method, peer.url, json=1, idempotency_key=False)
    keys = [request.headers.get("Idempotency-Key") for request in peer.requests]
    assert keys[0] == keys[1] != keys[2] == keys[3] and keys[4] is None
    assert uuid.UUID(keys[0]).version == uuid.UUID(keys[2]).version == 4


async def test_a_key_of_ones_own_is_sent_as_it_is_and_a_callable_is_asked_once_a_call() -> None:
    made = iter(["k1", "k2"])
    busy = response(b"", status="503 x")
    async with http_peer(answering(busy, OK)) as peer, HTTPClient(HTTPConfig(retry_delay=0)) as client:
        await client.post(peer.url, idempotency_key='"order-4711"')
        await client.post(peer.url, idempotency_key=lambda: next(made))
        assert [request.headers["Idempotency-Key"] for request in peer.requests] == ['"order-4711"'] * 2 + ["k1"]


@pytest.mark.parametrize(("key", "error"), [(1, TypeError), ("", InvalidRequestError), ("a\nb", InvalidRequestError)])
async def test_what_is_no_key_is_refused(key: Any, error: type[Exception]) -> None:
    async with http_peer(answering(OK)) as peer, HTTPClient() as client:
        for given in (key, lambda: key):
            with pytest.raises(error, match="idempotency_key must be"):
                await client.post(peer.url, idempotency_key=given)
        with pytest.raises(InvalidRequestError, match="idempotency_key is given as well"):
            await client.post(peer.url, headers={"idempotency-key": "a"}, idempotency_key=True)
        assert not peer.requests


# ---- For all calls of a client ----


def keys_of(peer: HTTPPeer, name: str = "Idempotency-Key") -> list[str | None]:
    return [request.headers.get(name) for request in peer.requests]


@pytest.mark.parametrize("setting", [True, "PayPal-Request-Id"])
async def test_a_client_gives_a_key_to_each_call_that_may_do_twice_what_is_asked_twice(setting: Any) -> None:
    name = setting if isinstance(setting, str) else "Idempotency-Key"
    config = HTTPConfig(retry_delay=0, idempotency_key=setting)
    async with http_peer(breaks_each_other_time) as peer, HTTPClient(config) as client:
        for method in ("POST", "PATCH"):
            assert (await client.request(method, peer.url, json=1)).attempts == 2
        async with client.stream("POST", peer.url) as stream:
            assert await stream.read() == b"ok"
        first = keys_of(peer, name)
        assert all(first) and first[0::2] == first[1::2] and len(set(first)) == 3
        for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
            await client.request(method, peer.url)
        assert keys_of(peer, name)[6:] == [None] * (len(peer.requests) - 6)
        assert name == "Idempotency-Key" or not any(keys_of(peer))


async def test_a_request_goes_before_the_client() -> None:
    config = HTTPConfig(idempotency_key="X-Id", retry_delay=0)
    async with http_peer(answering(OK)) as peer, HTTPClient(config) as client:
        await client.post(peer.url, idempotency_key=False)
        await client.post(peer.url, idempotency_key="order-1")
        await client.post(peer.url, headers={"x-id": "mine"})
        await client.post(peer.url, headers={"x-id": None})
        await client.get(peer.url, idempotency_key=True)
        keys = keys_of(peer, "X-Id")
        assert keys[:4] == [None, "order-1", "mine", None] and keys[4] and not any(keys_of(peer))
        with pytest.raises(InvalidRequestError, match="headers has X-Id, and idempotency_key is given as well"):
            await client.post(peer.url, headers={"x-id": "mine"}, idempotency_key=True)
    async with http_peer(breaks_each_other_time) as peer, HTTPClient(config) as client:
        with pytest.raises(ConnectionLostError):
            await client.post(peer.url, idempotency_key=False)


@pytest.mark.parametrize(
    ("value", "error"),
    [(1, TypeError), (None, TypeError), ("", ValueError), ("a b", ValueError), ("Content-Length", ValueError)],
)
def test_what_names_no_header_is_refused(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="idempotency_key must be"):
        HTTPConfig(idempotency_key=value)


def test_one_key_for_all_calls_is_refused_and_a_url_can_set_it() -> None:
    with pytest.raises(ValueError, match="headers must not have 'Idempotency-Key' with idempotency_key"):
        HTTPConfig(idempotency_key=True, headers={"idempotency-key": "a"})
    assert HTTPConfig(headers={"idempotency-key": "a"}).idempotency_key is False
    assert HTTPConfig.from_url("https://a.test/?idempotency_key=true").idempotency_key is True
    assert HTTPConfig.from_url("https://a.test/?idempotency_key=X-Id").idempotency_key == "X-Id"


# ---- Redirects ----


async def test_a_redirect_within_the_origin_keeps_the_key_and_another_origin_gets_none() -> None:
    async with http_peer(answering(OK)) as other:
        away = response(b"", f"Location: {other.url}", status="307 x")
        here = response(b"", "Location: /b", status="308 x")
        async with http_peer(answering(here, away)) as peer, HTTPClient(HTTPConfig(idempotency_key="X-Id")) as client:
            await client.post(peer.url, json=1)
            await client.post(peer.url, json=1, headers={"Idempotency-Key": "a"}, idempotency_key=False)
        keys = keys_of(peer, "X-Id")
        assert keys[0] and keys[0] == keys[1] and keys_of(peer)[2] == "a"
        assert [request.method for request in other.requests] == ["POST"] * 2
        assert keys_of(other, "X-Id") == keys_of(other) == [None] * 2


@pytest.mark.parametrize("status", [307, 303])
async def test_a_call_that_went_on_without_its_key_is_tried_again_only_if_that_does_no_harm(status: int) -> None:
    """A 307 has the other server carry out the POST, without a key. A 303 makes it a GET, which may be repeated."""
    async with http_peer(breaks_each_other_time) as other:
        away = answering(response(b"", f"Location: {other.url}", status=f"{status} x"))
        async with http_peer(away) as peer, HTTPClient(HTTPConfig(idempotency_key=True, retry_delay=0)) as client:
            if status == 303:
                assert await client.post(peer.url, json=1) == "ok"
            else:
                with pytest.raises(ConnectionLostError):
                    await client.post(peer.url, json=1)
        assert len(other.requests) == len(peer.requests) == (2 if status == 303 else 1)
