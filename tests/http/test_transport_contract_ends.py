"""The contract of a transport: how an exchange fails, of what kind that is, how far it had got; what the limits end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from time import monotonic

import pytest
from support.cancelling import until
from support.certificates import server_cert, server_context
from support.http_contract import NEVER, SOON, Fail, Raw, Say, contract, world
from support.http_peer import Connection, http_peer
from support.limits import longer_and_longer
from support.servers import full_listener

from pepperpy.network.http.request import Limits
from pepperpy.network.http.transport import Trip, WireError


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def checked(error: WireError, kind: str) -> None:
    """Each error has a kind, words that may be shown, and no raw text of the peer's."""
    assert (error.kind, str(error)) == (kind, error.text)
    assert error.text and error.text.isprintable() and len(error.text) < 1000
    assert "hello" not in error.text


@contextlib.asynccontextmanager
async def tls_server() -> AsyncIterator[int]:
    """The port of a server whose certificate this process does not trust."""

    # In a thread: a handshake that fails is none of the loop's business.
    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                server_context(server_cert()).wrap_socket(sock, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.close()
        await asyncio.to_thread(thread.join)


# ---- Of what kind a failure is, and how far it had got ----


@contract
async def test_no_such_name(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Fail("dns")]
        checked(await w.fails(url="http://nobody.invalid/"), "dns")
        assert (w.trip.phase, w.trip.request_left, w.trip.connected_at) == ("dns", False, 0)


@contract
async def test_nobody_listens(transport: str, closed_port: int) -> None:
    async with world(transport) as w:
        w.does = [Fail("connect")]
        checked(await w.fails(url=f"http://127.0.0.1:{closed_port}/"), "refused")
        assert (w.trip.phase, w.trip.request_left, w.trip.connected_at) == ("connect", False, 0)
        assert w.transport.open_connections == 0


@pytest.mark.slow
@contract
async def test_nobody_speaks_tls(transport: str) -> None:
    async with world(transport) as w:
        error = await w.fails(url=w.url.replace("http:", "https:"), limits=Limits(None, SOON, None))
        assert error.kind in ("tls", "refused", "connect_timeout")
        assert (w.trip.phase, w.trip.request_left) == ("connect", False)


@contract
async def test_a_certificate_that_nobody_trusts(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Fail("tls")]
        if transport == "mock":
            checked(await w.fails(url="https://127.0.0.1/"), "tls")
        else:
            async with tls_server() as port:
                checked(await w.fails(url=f"https://127.0.0.1:{port}/"), "tls")
        assert (w.trip.phase, w.trip.request_left) == ("connect", False)


@contract
async def test_a_proxy_that_is_not_there(transport: str, closed_port: int) -> None:
    async with world(transport) as w:
        w.does = [Fail("proxy")]
        checked(await w.fails(url="http://nobody.invalid/", proxy=f"http://127.0.0.1:{closed_port}"), "proxy")
        assert (w.trip.phase, w.trip.request_left) == ("connect", False)


@contract
async def test_a_proxy_that_refuses(transport: str) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nhello")

    async with world(transport) as w, http_peer(refuse) as peer:
        error = await w.fails(url="https://nobody.invalid/", proxy=peer.url)
        checked(error, "proxy")
        assert error.details["status"] == 403
        assert (w.trip.phase, w.trip.request_left) == ("connect", False)


@contract
async def test_no_byte_of_an_answer(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Fail("disconnect")]
        checked(await w.fails(), "no_answer")
        assert (w.trip.phase, w.trip.request_left, w.trip.reused) == ("response", True, False)
        assert w.trip.connected_at > 0
        await w.still_works()


@contract
async def test_a_reset_instead_of_an_answer(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Fail("reset")]
        checked(await w.fails(), "reset")
        assert (w.trip.phase, w.trip.request_left) == ("response", True)
        await w.still_works()


@contract
async def test_an_answer_that_is_not_http(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Fail("protocol")]
        checked(await w.fails(), "malformed")
        assert (w.trip.phase, w.trip.request_left) == ("response", True)
        await w.still_works()


MALFORMED = {
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhello",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nhello\r\nContent-Length: 2\r\n\r\nok",
    "a NUL": b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "nine interim answers": b"HTTP/1.1 103 X\r\n\r\n" * 9 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"HTTP/1.1 101 X\r\nUpgrade: hello\r\nConnection: Upgrade\r\n\r\nhello",
    "a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
}


@contract
@pytest.mark.parametrize("which", MALFORMED)
async def test_what_is_malformed_ends_the_connection(transport: str, which: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(MALFORMED[which])]
        checked(await w.fails(), "malformed")
        await until(lambda: w.transport.open_connections == 0, "the connection is closed")
        await w.still_works()
        assert w.requests[-1].connection == 2


@contract
async def test_half_a_head(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(b"HTTP/1.1 200 OK\r\nX-A", "close")]
        assert (await w.fails()).kind in ("no_answer", "reset")
        await w.still_works()


@contract
async def test_a_body_that_is_cut_off(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"hello", cut=True)]
        answer = await w.exchange()
        with pytest.raises(WireError) as caught:
            while await answer.read_some():
                pass
        checked(caught.value, "truncated")
        assert not answer.ended
        await w.still_works()


@contract
async def test_a_body_with_a_length_that_is_cut_off(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "close")]
        checked(await w.fails(), "truncated")
        await w.still_works()


@contract
@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked", "X-A: until the end"])
async def test_a_body_that_a_reset_ends(transport: str, framing: str) -> None:
    async with world(transport) as w:
        body = b"5\r\nhello\r\n" if "chunked" in framing else b"hello"
        w.does = [Raw(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + body, "reset")]
        assert (await w.fails()).kind in ("truncated", "reset")
        await w.still_works()


@contract
async def test_a_url_whose_host_is_none(transport: str) -> None:
    async with world(transport) as w:
        assert (await w.fails(url="http://127.1/")).kind in ("bad_url", "refused", "dns")
        assert not w.trip.request_left


# ---- What the limits end ----


@pytest.mark.slow
@contract
async def test_a_server_that_never_answers(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, b"ok", delay=held)]
        checked(await w.fails(limits=Limits(None, NEVER, SOON)), "read_timeout")
        assert (w.trip.phase, w.trip.request_left) == ("response", True)
        held.set()
        await w.still_works()


@pytest.mark.slow
@contract
async def test_a_body_that_never_ends(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held, b"two"])]
        answer = await w.exchange(limits=Limits(None, NEVER, SOON))
        assert await answer.read_some() == b"one"
        with pytest.raises(WireError) as caught:
            await answer.read_some()
        checked(caught.value, "read_timeout")
        held.set()
        await w.still_works()


@pytest.mark.slow
@contract
async def test_each_byte_begins_the_read_limit_anew(transport: str) -> None:
    for limit in longer_and_longer(1.0):
        async with world(transport) as w:
            events = [asyncio.Event() for _ in range(4)]
            w.does = [Say(200, [b"x", *(part for event in events for part in (event, b"x"))])]
            try:
                answer = await w.exchange(limits=Limits(None, NEVER, limit))
                began = monotonic()
                body = await answer.read_some()
                for event in events:
                    await asyncio.sleep(0.3 * limit)  # a limit is what is tested; four of these are longer than it
                    event.set()
                    body += await answer.read_some()
                assert monotonic() - began > 1.1 * limit
                assert (body + await answer.read()) == b"xxxxx"
            except WireError:
                continue
            break


@pytest.mark.slow
@contract
async def test_the_read_limit_does_not_outlive_its_exchange(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"ok")]
        assert await w.body(limits=Limits(None, NEVER, SOON)) == b"ok"
        await asyncio.sleep(3 * SOON)
        held = asyncio.Event()
        w.does = [Say(200, b"late", delay=held)]
        task = asyncio.ensure_future(w.body(limits=Limits(None, NEVER, None)))
        await asyncio.sleep(3 * SOON)
        held.set()
        assert await task == b"late"
        assert w.requests[-1].connection == w.requests[0].connection


@contract
async def test_a_connection_that_is_not_made_in_time(transport: str) -> None:
    with full_listener() as port:
        async with world(transport) as w:
            w.does = [Fail("connect timeout")]
            error = await w.fails(url=f"http://127.0.0.1:{port}/", limits=Limits(None, SOON, None))
            checked(error, "connect_timeout")
            assert (w.trip.phase, w.trip.request_left) == ("connect", False)


@contract
async def test_no_connection_becomes_free_in_time(transport: str) -> None:
    async with world(transport, max_connections=1) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held])]
        answer = await w.exchange()
        trip = Trip()
        with pytest.raises(WireError) as caught:
            await w.transport.exchange(w.request(limits=Limits(SOON, None, None)), trip)
        checked(caught.value, "queue_timeout")
        assert (trip.phase, trip.request_left, trip.connected_at) == ("queue", False, 0)
        held.set()
        assert await answer.read() == b"one"
        await w.still_works()


@contract
async def test_who_waits_gets_what_becomes_free_first_come_first_served(transport: str) -> None:
    async with world(transport, max_connections=1) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held]), Say(200, b"ok")]
        answer = await w.exchange("GET", "/first")
        tasks = []
        for number in range(5):
            tasks.append(asyncio.ensure_future(w.transport.exchange(w.request("GET", f"/{number}"), Trip())))
            await asyncio.sleep(0)

        async def finish() -> None:
            for task in tasks:
                await (await task).read()

        held.set()
        await answer.read()
        await finish()
        assert [one.target for one in w.requests] == ["/first", *(f"/{number}" for number in range(5))]
        assert {one.connection for one in w.requests} == {1}
