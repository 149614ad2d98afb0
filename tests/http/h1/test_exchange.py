"""Exchanges over our own transport with a real nginx: bodies of all kinds, TLS, what is used again and what is not."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest
from support.cancelling import until
from support.certificates import ca_file, client_cert
from support.exchanges import exchanges
from support.http_peer import http_peer
from support.nginx import BIG, JSON, TEXT, Nginx

from pepperpy.network import TLSConfig
from pepperpy.network.http.request import Limits
from pepperpy.network.http.transport import WireError

TRUST = TLSConfig(ca_file=ca_file())


async def test_a_small_body_a_large_one_and_none_at_all(web: Nginx) -> None:
    async with exchanges() as one:
        assert await one.get(web.url("/text")) == (200, TEXT.encode())
        assert not one.trip.reused
        assert await one.get(web.url("/files/big.bin")) == (200, BIG)
        assert one.trip.reused
        answer = await one.ask("HEAD", web.url("/files/big.bin"))
        assert answer.headers["Content-Length"] == str(len(BIG))
        assert await answer.read() == b""
        assert await one.get(web.url("/settle")) == (204, b"")
        assert one.pool.open_connections == 1


async def test_a_body_comes_in_pieces_too(web: Nginx) -> None:
    async with exchanges() as one:
        answer = await one.ask("GET", web.url("/files/big.bin"))
        pieces = []
        while piece := await answer.read_some():
            pieces.append(piece)
        assert b"".join(pieces) == BIG
        assert answer.ended
        assert answer.wire_bytes == len(BIG)
        assert await answer.read_some() == b""
        assert await one.get(web.url("/text")) == (200, TEXT.encode())
        assert one.trip.reused


async def test_a_compressed_body_is_decompressed(web: Nginx) -> None:
    async with exchanges() as one:
        plain = (await one.get(web.url("/files/data.json")))[1]
        answer = await one.ask("GET", web.url("/gzip/data.json"))
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.whole_size is None
        assert await answer.read() == plain
        assert 0 < answer.wire_bytes < len(plain)


async def test_what_is_sent_arrives(web: Nginx) -> None:
    async with exchanges() as one:
        answer = await one.ask("PUT", web.url("/echo?a=%2F"), payload=b"x" * 100_000, headers={"X-Test": "yes"})
        echo = json.loads(await answer.read())
        assert (echo["method"], echo["uri"], echo["size"], echo["x_test"]) == ("PUT", "/echo?a=%2F", 100_000, "yes")
        assert echo["host"] == web.url("").removeprefix("http://")
        assert json.loads((await one.get(web.url("/json")))[1]) == JSON


async def test_over_tls(web: Nginx) -> None:
    async with exchanges(tls=TRUST) as one:
        for reused in (False, True):
            assert await one.get(web.https_url("/text")) == (200, TEXT.encode())
            assert one.trip.reused is reused
        assert await one.get(web.https_url("/files/big.bin")) == (200, BIG)
    async with exchanges(tls=TRUST.replace(client_cert=client_cert())) as one:
        assert await one.get(web.mtls_url("/text")) == (200, TEXT.encode())


async def test_a_certificate_that_is_not_trusted_is_refused_and_no_slot_is_taken(web: Nginx) -> None:
    async with exchanges(max_connections=1) as one:
        for _ in range(2):
            with pytest.raises(WireError) as caught:
                await one.get(web.https_url("/text"))
            assert caught.value.kind == "tls"
            assert not one.trip.request_left
        assert one.pool.slots_taken == 0
        # Connections that check nothing are others than those that do.
        assert await one.get(web.https_url("/text"), verify=False) == (200, TEXT.encode())
        with pytest.raises(WireError):
            await one.get(web.https_url("/text"))


@pytest.mark.parametrize("path", ["/keepalive-0", "/text"])
async def test_a_connection_that_either_side_ends_is_not_used_again(web: Nginx, path: str) -> None:
    headers = {"Connection": "close"} if path == "/text" else None
    async with exchanges() as one:
        for _ in range(2):
            assert await one.get(web.url(path), headers=headers) == (200, TEXT.encode())
            assert not one.trip.reused
            assert one.pool.open_connections == 0
        assert one.transport.discarded == 0


async def test_a_connection_is_used_as_often_as_the_server_allows(web: Nginx) -> None:
    async with exchanges() as one:
        reused = []
        for _ in range(5):
            assert (await one.get(web.url("/keepalive-3")))[0] == 200
            reused.append(one.trip.reused)
        assert reused == [False, True, True, False, True]


async def test_who_cannot_be_connected_to() -> None:
    async with exchanges() as one:
        for url, kind in (
            ("http://127.0.0.1:1/", "refused"),
            ("http://name.invalid/", "dns"),
            ("http://127.1/", "bad_url"),
            ("http://0x7f.0.0.1/", "bad_url"),
        ):
            with pytest.raises(WireError) as caught:
                await one.get(url)
            assert caught.value.kind == kind
            assert caught.value.text
            assert not one.trip.request_left
        assert one.pool.slots_taken == 0


async def test_a_server_that_accepts_no_tls_in_time() -> None:
    async def silent(connection: object) -> None:
        await asyncio.Event().wait()

    async with http_peer(silent) as peer:
        async with exchanges(tls=TRUST) as one:
            with pytest.raises(WireError) as caught:
                await one.get(peer.url.replace("http", "https"), limits=Limits(connect=0.05))
            assert caught.value.kind == "connect_timeout"
            assert one.pool.slots_taken == 0


async def test_a_header_that_would_be_another_request_is_not_sent(web: Nginx) -> None:
    async with exchanges() as one:
        for value in ("a\r\nX: y", "a\nb", "a\rb", "a\0b"):
            with pytest.raises(WireError) as caught:
                await one.get(web.url("/text"), headers={"X-Test": value})
            assert caught.value.kind == "unsendable"
        assert one.pool.slots_taken == 0


@pytest.mark.slow
async def test_silence_ends_the_wait_for_a_body_of_which_some_came_at_the_last_moment() -> None:
    loop = asyncio.get_running_loop()
    ready, wakes = socket.socketpair()
    with ready, wakes, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        ready.setblocking(False)
        async with exchanges() as one:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            task = asyncio.create_task(one.get(url, limits=Limits(connect=10.0, read=0.2)))
            server, _ = await loop.sock_accept(listener)
            with server:
                await loop.sock_recv(server, 10_000)
                await loop.sock_sendall(server, b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n")
                await until(lambda: one.trip.phase == "response" and one.pool.open_connections == 1, "the head came")

                def hold_up() -> None:
                    # uvloop looks at its timers after this, and then reads what has come.
                    ready.recv(1)
                    time.sleep(0.3)  # past the limit
                    server.send(b"some")

                loop.add_reader(ready, hold_up)
                wakes.send(b"x")
                with pytest.raises(WireError) as caught:
                    async with asyncio.timeout(20):
                        await task
                loop.remove_reader(ready)
                assert caught.value.kind == "read_timeout"
