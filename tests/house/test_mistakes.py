"""Mistakes that new users make: each error says what to write instead, and none costs a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.http_faults import answering, response
from support.http_peer import http_peer

from pepperpy.network import (
    BusyError,
    Delimited,
    HTTPClient,
    HTTPConfig,
    NetworkClient,
    NetworkConfig,
    NetworkPool,
    UsageError,
)
from pepperpy.network.testing import memory_pair


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (lambda: NetworkClient(host="localhost", port=1), "it is a setting, NetworkClient(NetworkConfig(host=...))"),  # type: ignore[call-arg]
        (lambda: NetworkPool(size=3), "unknown argument 'size': write max_size=..."),  # type: ignore[call-arg]
        (lambda: NetworkPool(timeout=3), "it is a setting, NetworkPool(NetworkConfig(timeout=...))"),  # type: ignore[call-arg]
        (lambda: NetworkPool(max_siz=3), "did you mean 'max_size'?"),  # type: ignore[call-arg]
        (lambda: NetworkConfig("h", 1, heartbeat=20), "a function of a client or Heartbeat(function, ...), not 20"),  # type: ignore[arg-type]
        (lambda: HTTPConfig(timeout=(3, 10)), "HTTPConfig(connect_timeout=..., read_timeout=...) sets both for all"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_setting_is_answered_with_the_right_one(mistake: Callable[[], object], text: str) -> None:
    with pytest.raises(TypeError) as raised:
        mistake()
    assert text in str(raised.value)


def test_the_transport_for_httpx_names_what_it_takes() -> None:
    httpx = pytest.importorskip("httpx")
    transport: Any = pytest.importorskip("pepperpy.network.httpx").AsyncHTTPTransport
    with pytest.raises(TypeError, match="config must be an HTTPConfig, not str"):
        transport(config="http://host")
    with pytest.raises(TypeError, match=r"limits must be a httpx\.Limits, not int"):
        transport(limits=5)
    assert transport(limits=httpx.Limits(max_connections=5), config=None)


def test_a_proxy_without_a_scheme_is_answered_with_one() -> None:
    with pytest.raises(ValueError, match="as in http://host:port") as raised:
        NetworkConfig("h", 1, proxy="user:secret@proxy.local:3128")
    assert "secret" not in str(raised.value)


async def test_text_is_encoded_by_whoever_sends_it() -> None:
    async with memory_pair() as (client, _):
        for send in (lambda: client.send("text"), lambda: client.send_many(["text"])):  # type: ignore[arg-type, list-item]
            with pytest.raises(TypeError, match=r"data must be bytes-like, not str: send data\.encode\(\)"):
                await send()


async def test_a_request_that_could_not_be_received_is_not_sent() -> None:
    """`receive` gets the client: a method that has it already would fail when the request is out."""
    async with memory_pair() as (client, server):
        with pytest.raises(TypeError, match=r"write NetworkClient\.receive_line, not client\.receive_line"):
            await client.request(b"lost\n", client.receive_line)  # type: ignore[arg-type]
        reply = asyncio.create_task(client.request(b"sent\n", NetworkClient.receive_line))
        assert await server.receive_line() == b"sent\n"
        await server.send(b"reply\n")
        assert await reply == b"reply\n"


async def test_a_pipeline_is_refused_while_another_task_receives() -> None:
    async with memory_pair() as (client, server):
        receiving = asyncio.create_task(client.receive_line())
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="a pipeline does all receiving itself"):
            async with client.pipeline(Delimited(b"\n")):
                pass
        await server.send(b"line\n")
        assert await receiving == b"line\n"


async def test_names_of_other_libraries_are_answered_with_ours() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        whole: Any = await client.request("GET", peer.url)
        with pytest.raises(AttributeError, match=r"object has no attribute 'status_code': write response\.status"):
            assert whole.status_code
        async with client.stream("GET", peer.url) as opened:
            stream: Any = opened
            with pytest.raises(AttributeError, match=r"write async for line in stream\.lines\(\)"):
                assert stream.aiter_lines
        async for found in client.map([peer.url]):
            result: Any = found
            with pytest.raises(AttributeError, match=r"write result\.unwrap\(\)\.text"):
                assert result.text
        for response_of_ours in (whole, stream, result):
            with pytest.raises(AttributeError, match=r"has no attribute 'other'$"):
                assert response_of_ours.other


async def test_a_stream_that_was_not_entered_says_so() -> None:
    async with HTTPClient() as client:
        stream = client.stream("GET", "http://127.0.0.1:1/")
        with pytest.raises(UsageError, match="enter the stream first"):
            assert stream.status
        assert not hasattr(stream, "status")
