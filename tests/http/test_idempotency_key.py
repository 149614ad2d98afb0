"""`idempotency_key=`: one key for all attempts of a call, which may then be repeated; another one for the next call."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer

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
