"""The contract of a transport: what it sends, and what it makes of heads and bodies. Each transport plays each case."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from support.http_contract import Raw, Say, contract, world

from pepperpy.network.http.transport import WireError

# ---- What is sent ----


@contract
async def test_the_request_arrives_as_it_is(transport: str) -> None:
    async with world(transport) as w:
        await w.body("PATCH", "/a%2Fb?c=%20d&e", headers={"X-A": "v"})
        assert [(one.method, one.target) for one in w.requests] == [("PATCH", "/a%2Fb?c=%20d&e")]
        assert w.requests[0].headers["X-A"] == "v"


@contract
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X-OWN"])
async def test_each_method_is_sent(transport: str, method: str) -> None:
    async with world(transport) as w:
        await w.body(method)
        assert w.requests[0].method == method


@contract
async def test_the_headers_are_those_of_the_request_and_host_is_one(transport: str) -> None:
    async with world(transport, headers={"X-All": "1", "X-Both": "all"}) as w:
        request = w.request(headers={"X-Both": "own"})
        await (await w.transport.exchange(request, w.trip)).read()
        seen = w.requests[0].headers
        assert sorted(seen.items()) == sorted(request.headers.items())
        assert (seen["X-All"], seen.getall("X-Both"), seen["Host"]) == (
            "1",
            ["own"],
            request.url.host_port_subcomponent,
        )


@contract
async def test_a_header_may_come_twice(transport: str) -> None:
    async with world(transport) as w:
        request = w.request()
        request.own = request.defaults.headers.copy()
        request.own.add("X-A", "1")
        request.own.add("X-A", "2")
        await (await w.transport.exchange(request, w.trip)).read()
        assert w.requests[0].headers.getall("X-A") == ["1", "2"]


@contract
@pytest.mark.parametrize("name", ["accept", "User-Agent", "Accept-Encoding", "X-All", "Host"])
async def test_what_is_left_out_is_not_sent(transport: str, name: str) -> None:
    async with world(transport, headers={"X-All": "1"}) as w:
        await w.body(left_out=(name,))
        assert name not in w.requests[0].headers


@contract
async def test_the_cookie_of_the_request_is_sent_and_no_other(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(headers=[("Set-Cookie", "from=server")])]
        answer = await w.exchange(cookie="a=1; b=2")
        assert answer.headers["Set-Cookie"] == "from=server"
        await answer.read()
        await w.body()
        assert [one.headers.get("Cookie") for one in w.requests] == ["a=1; b=2", None]


@contract
@pytest.mark.parametrize(
    ("method", "length"), [("GET", None), ("HEAD", None), ("POST", "0"), ("PUT", "0"), ("DELETE", "0")]
)
async def test_a_request_without_a_body_has_a_length_where_its_method_has_bodies(
    transport: str, method: str, length: str | None
) -> None:
    async with world(transport) as w:
        await w.body(method)
        assert w.requests[0].headers.get("Content-Length") == length
        assert "Content-Type" not in w.requests[0].headers


# ---- Heads ----


@contract
async def test_one_header_is_its_first_value_or_none(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(headers=[("SET-Cookie", "a=1"), ("Set-cookie", "b=\u00e9"), ("X-Empty", "")])]
        answer = await w.exchange()
        assert [answer.header(name) for name in ("set-cookie", "x-empty", "set-cooki")] == ["a=1", "", None]
        assert answer.headers.getall("set-cookie") == ["a=1", "b=\u00e9"]
        await answer.read()


@contract
@pytest.mark.parametrize("status", [200, 201, 206, 299, 301, 302, 307, 400, 401, 404, 407, 417, 429, 500, 503, 599])
async def test_any_status_is_an_answer(transport: str, status: int) -> None:
    async with world(transport) as w:
        w.does = [Say(status, b"ok", [("Location", "/elsewhere"), ("Retry-After", "1")])]
        answer = await w.exchange()
        assert (answer.status, await answer.read(), len(w.requests)) == (status, b"ok", 1)


@contract
async def test_headers_keep_their_order_and_are_found_by_any_case(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"ok", [("X-A", "1"), ("X-B", "2"), ("X-A", "3")])]
        answer = await w.exchange()
        assert answer.headers.getall("x-a") == ["1", "3"]
        assert [name for name, _ in answer.headers.items() if name.startswith("X-")] == ["X-A", "X-B", "X-A"]
        fields = [(name, value) for name, value in answer.fields if name.startswith(b"X-")]
        assert fields == [(b"X-A", b"1"), (b"X-B", b"2"), (b"X-A", b"3")]
        assert await answer.read() == b"ok"


@contract
async def test_bytes_of_a_header_that_are_no_utf8_are_surrogates(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(b"HTTP/1.1 200 OK\r\nX-A: caf\xe9\r\nX-B: \xc3\xa9\r\nContent-Length: 0\r\n\r\n")]
        answer = await w.exchange()
        assert (answer.headers["X-A"], answer.headers["X-B"]) == ("caf\udce9", "é")


@contract
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_the_version_is_told(transport: str, version: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(f"HTTP/{version} 200 Fine, thank you\r\nContent-Length: 0\r\n\r\n".encode())]
        answer = await w.exchange()
        assert (answer.version, answer.reason) == (version, "Fine, thank you")


@contract
@pytest.mark.parametrize("status", [204, 304])
async def test_some_answers_have_no_body(transport: str, status: int) -> None:
    async with world(transport) as w:
        w.does = [Say(status)]
        answer = await w.exchange()
        assert (answer.status, await answer.read_some(), answer.ended) == (status, b"", True)
        await w.still_works()


@contract
async def test_an_answer_to_head_has_no_body(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"12345")]
        answer = await w.exchange("HEAD")
        assert answer.headers["Content-Length"] == "5"
        assert (await answer.read(), answer.ended, answer.wire_bytes) == (b"", True, 0)
        await w.still_works()


@contract
async def test_interim_answers_are_skipped(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(b"HTTP/1.1 103 X\r\nX-A: early\r\n\r\n" * 8 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]
        answer = await w.exchange()
        assert (answer.status, "X-A" in answer.headers, await answer.read()) == (200, False, b"ok")
        await w.still_works()


# ---- Bodies ----


@contract
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("size", [0, 1, 1000, 100_000, 1_000_000])
async def test_a_body_is_read_in_one_piece(transport: str, size: int, chunked: bool) -> None:
    async with world(transport) as w:
        w.does = [Say(200, bytes(size), chunked=chunked)]
        answer = await w.exchange()
        assert await answer.read() == bytes(size)
        assert (answer.ended, answer.whole_size, answer.wire_bytes) == (True, size, size)
        await w.still_works()


@contract
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_a_body_is_read_in_pieces(transport: str, chunked: bool) -> None:
    async with world(transport) as w:
        w.does = [Say(200, bytes(range(256)) * 2000, chunked=chunked)]
        answer = await w.exchange()
        pieces = []
        while piece := await answer.read_some():
            pieces.append(piece)
        assert b"".join(pieces) == bytes(range(256)) * 2000
        assert answer.ended
        await w.still_works()


@contract
async def test_a_piece_is_there_when_it_has_come_and_not_later(transport: str) -> None:
    async with world(transport) as w:
        more, end = asyncio.Event(), asyncio.Event()
        w.does = [Say(200, [b"one", more, b"two", end])]
        answer = await w.exchange()
        assert await answer.read_some() == b"one"
        assert not answer.ended and answer.whole_size is None
        more.set()
        assert await answer.read_some() == b"two"
        assert (answer.wire_bytes, answer.ended) == (6, False)
        end.set()
        assert await answer.read_some() == b""
        assert answer.ended


@contract
async def test_read_gives_the_rest(transport: str) -> None:
    async with world(transport) as w:
        more = asyncio.Event()
        w.does = [Say(200, [b"one", more, b"two", b"three"])]
        answer = await w.exchange()
        assert await answer.read_some() == b"one"
        more.set()
        assert await answer.read() == b"twothree"
        await w.still_works()


@contract
async def test_behind_its_end_a_body_is_empty(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"ok")]
        answer = await w.exchange()
        assert await answer.read() == b"ok"
        assert [await answer.read_some(), await answer.read(), await answer.read_some()] == [b"", b"", b""]
        assert answer.ended


@contract
async def test_a_head_is_there_before_its_body(transport: str) -> None:
    async with world(transport) as w:
        body = asyncio.Event()
        w.does = [Say(200, [body, b"ok"])]
        answer = await w.exchange()
        assert (answer.status, answer.ended, answer.whole_size) == (200, False, None)
        body.set()
        assert await answer.read() == b"ok"


@contract
async def test_a_body_without_a_length_ends_with_its_connection(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(b"HTTP/1.1 200 OK\r\n\r\nhello", "close")]
        answer = await w.exchange()
        assert (await answer.read(), answer.ended) == (b"hello", True)
        await w.still_works()
        assert w.requests[-1].connection == 2


@contract
async def test_trailers_are_kept_apart(transport: str) -> None:
    async with world(transport) as w:
        chunks = b"2\r\nok\r\n0\r\nX-A: tail\r\n\r\n"
        w.does = [Raw(b"HTTP/1.1 200 OK\r\nX-A: head\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)]
        answer = await w.exchange()
        assert await answer.read() == b"ok"
        assert (answer.headers.getall("X-A"), answer.trailers.getall("X-A")) == (["head"], ["tail"])


@contract
async def test_there_are_no_trailers_where_none_came(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Say(200, b"ok", chunked=True)]
        answer = await w.exchange()
        await answer.read()
        assert not answer.trailers


@contract
@pytest.mark.parametrize(("coding", "wbits"), [("gzip", 31), ("deflate", 15), ("deflate", -15)])
async def test_a_compressed_body_is_unpacked_and_what_came_is_counted(transport: str, coding: str, wbits: int) -> None:
    packer = zlib.compressobj(9, wbits=wbits)
    packed = packer.compress(bytes(100_000)) + packer.flush()
    async with world(transport) as w:
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
        w.does = [Raw(head + packed)]
        answer = await w.exchange()
        assert await answer.read() == bytes(100_000)
        assert (answer.wire_bytes, answer.headers["Content-Encoding"]) == (len(packed), coding)
        await w.still_works()


@contract
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_body_that_is_not_to_be_decompressed_is_given_as_it_came(transport: str, coding: str) -> None:
    async with world(transport) as w:
        w.does = [Say(body=[b"not ", b"compressed"], headers=[("Content-Encoding", coding)])]
        answer = await w.exchange(decompress=False)
        assert await answer.read() == b"not compressed"
        assert (answer.wire_bytes, answer.headers["Content-Encoding"]) == (14, coding)
        answer = await w.exchange(decompress=False)
        assert await answer.read_some() in (b"not ", b"not compressed")
        answer.abort()
        await w.still_works()


@contract
async def test_a_body_that_is_not_compressed_as_announced_is_an_error(transport: str) -> None:
    async with world(transport) as w:
        w.does = [Raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello")]
        assert (await w.fails()).kind == "bad_encoding"
        await w.still_works()
        assert w.requests[-1].connection == 2


@contract
async def test_one_who_reads_slowly_holds_the_server_up(transport: str) -> None:
    """What has arrived and is not read is bounded, so that memory is."""
    async with world(transport) as w:
        stopped = []

        async def endless(connection: object) -> None:
            await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")  # type: ignore[attr-defined]
            try:
                while True:
                    await connection.send(bytes(1 << 20))  # type: ignore[attr-defined]
            finally:
                stopped.append(connection.bytes_sent)  # type: ignore[attr-defined]

        w.does = [endless]
        answer = await w.exchange()
        await answer.read_some()
        for _ in range(2000):
            await asyncio.sleep(0)
        answer.abort()
        while not stopped:
            await asyncio.sleep(0)
        assert stopped[0] < 64 << 20


@contract
async def test_an_answer_that_was_given_back_is_not_read(transport: str) -> None:
    async with world(transport) as w:
        held = asyncio.Event()
        w.does = [Say(200, [b"one", held])]
        for give_back in ("release", "abort"):
            answer = await w.exchange()
            getattr(answer, give_back)()
            with pytest.raises(WireError) as caught:
                await answer.read_some()
            assert caught.value.kind == "closed"
        held.set()
