"""A server that switches to another protocol unasked: an error, and the connection is gone, whose slot would be lost.

aiohttp gives back no connection that was upgraded, to whomever.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib

import aiohttp
import pytest
from support.cancelling import until
from support.http_faults import by_connection, response
from support.http_peer import Connection, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, PoolTimeoutError, ProtocolError

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
ONE_SLOT = HTTPConfig(retries=0, timeout=5, max_connections=1)


async def switching(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(SWITCH + b"bytes of another protocol")
    await connection.wait_closed()


async def answering_ok(connection: Connection) -> None:
    while True:
        await connection.read_request()
        await connection.send(response())


async def test_a_switch_that_nobody_asked_for_is_an_error_and_leaves_its_slot() -> None:
    async with http_peer(by_connection(switching, switching, switching, answering_ok)) as peer:
        async with HTTPClient(ONE_SLOT) as client:
            with pytest.raises(ProtocolError, match=r"another protocol \(101\)"):
                await client.get(peer.url, headers={"Upgrade": "x", "Connection": "upgrade"})
            with pytest.raises(ProtocolError, match=r"another protocol \(101\)"):
                async with client.stream("GET", peer.url):
                    pass
            with pytest.raises(ProtocolError, match=r"another protocol \(101\)"):
                await client.post(peer.url, data=b"x")
            assert await client.get(peer.url) == "ok"


@pytest.mark.parametrize("pieces", [[response() + SWITCH], [response(), SWITCH]], ids=["one piece", "two"])
async def test_a_switch_behind_a_whole_answer_leaves_the_answer_and_ends_the_connection(pieces: list[bytes]) -> None:
    sent = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.read_request()
        for piece in pieces:
            await connection.send(piece)
            await asyncio.sleep(0.01)  # so that most often they are two reads of the client
        sent.set()
        await connection.wait_closed()

    async with http_peer(by_connection(handler, answering_ok)) as peer, HTTPClient(ONE_SLOT) as client:
        kept = await client.request("GET", peer.url)
        assert kept.text == "ok"
        await sent.wait()
        # The connection is closed at once, or when it would be used again.
        assert await client.get(peer.url) == "ok"
        await until(lambda: peer.handlers[0].done(), "the connection is closed")
        assert [request.connection for request in peer.requests] == [1, 2]


async def test_the_session_may_ask_for_another_protocol_and_its_connection_is_not_mistaken_later() -> None:
    async def websocket(connection: Connection) -> None:
        request = await connection.read_request()
        await connection.send(response(status="404 No", body=b""))
        request = await connection.read_request()
        key = request.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        await connection.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n\x81\x05hello\x88\x02\x03\xe8" % accept.encode()
        )
        await connection.wait_closed()

    async def refused_first(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response(status="404 No", body=b""))
        await switching(connection)

    config = ONE_SLOT.replace(transport="aiohttp")
    async with http_peer(by_connection(websocket, refused_first)) as peer, HTTPClient(config) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.session.ws_connect(peer.url)
        async with client.session.ws_connect(peer.url) as socket:
            assert await socket.receive_str() == "hello"
            with pytest.raises(PoolTimeoutError):
                await client.get(peer.url, timeout=0.01)
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.session.ws_connect(peer.url)
        # The connection on which a WebSocket was refused.
        with pytest.raises(ProtocolError, match=r"another protocol \(101\)"):
            await client.get(peer.url)
