"""`ResponseLimits`: what a server may send is set by its fields, over both transports; each error names its limit."""

from __future__ import annotations

import contextlib
import functools
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from support.http_faults import response
from support.http_lab import TRANSPORTS
from support.http_peer import Connection, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, ProtocolError, ResponseLimits, ResponseTooLargeError
from pepperpy.network._core.http_head import ResponseRules
from pepperpy.network.http.h1 import decoding
from pepperpy.network.http.h1.transport import rules_of

MIB = 1 << 20
each_transport = pytest.mark.parametrize("transport", TRANSPORTS)


@contextlib.asynccontextmanager
async def client_of(
    answer: bytes, transport: str, limits: ResponseLimits | None = None, **settings: Any
) -> AsyncIterator[HTTPClient]:
    """A client with these limits, and a server with one answer to all."""

    async def handle(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.send(answer)

    async with http_peer(handle) as peer:
        given: dict[str, Any] = {"retries": 0, "limits": limits or ResponseLimits()}
        async with HTTPClient(HTTPConfig(peer.url, **TRANSPORTS[transport] | given | settings)) as client:
            yield client


# ---- The head ----

LINES: dict[str, tuple[list[str], dict[str, int], str]] = {
    "a long field": (["X-A: " + "a" * 90_000], {"max_field_size": 100_000}, "max_field_size"),
    "a long name": (["X" * 90_000 + ": a"], {"max_field_size": 100_000}, "max_field_size"),
    "many fields": ([f"X-{n}: a" for n in range(1500)], {"max_fields": 2000}, "max_fields"),
    "a long head": ([f"X-{n}: " + "a" * 30_000 for n in range(10)], {"max_head_size": 400_000}, "max_head_size"),
}


@pytest.mark.parametrize("case", LINES)
async def test_a_head_past_a_limit_is_refused_by_the_name_of_the_limit_which_can_be_set(case: str) -> None:
    lines, fields, limit = LINES[case]
    answer = response(b"ok", *lines)
    async with client_of(answer, "h1") as client:
        with pytest.raises(ProtocolError, match=f" than {limit}=") as raised:
            await client.get("/")
        default = getattr(ResponseLimits(), limit)
        assert (raised.value.details["limit"], raised.value.details["size"]) == (limit, default)
        assert client.stats.open_connections == 0
    async with client_of(answer, "h1", ResponseLimits(**fields)) as client:  # type: ignore[arg-type]
        assert await client.get("/") == "ok"


@pytest.mark.parametrize("case", ["a long field", "a long name"])
async def test_aiohttp_names_the_limit_of_a_field(case: str) -> None:
    lines, fields, limit = LINES[case]
    async with client_of(response(b"ok", *lines), "aiohttp") as client:
        with pytest.raises(ProtocolError, match=rf"a line of the head is longer than {limit}=65536 bytes") as raised:
            await client.get("/")
        assert (raised.value.details["limit"], raised.value.details["size"]) == (limit, 65536)
    async with client_of(response(b"ok", *lines), "aiohttp", ResponseLimits(**fields)) as client:  # type: ignore[arg-type]
        assert await client.get("/") == "ok"


async def test_aiohttp_takes_as_many_fields_as_the_limit_says() -> None:
    lines, _, _ = LINES["many fields"]
    async with client_of(response(b"ok", *lines), "aiohttp") as client:
        with pytest.raises(ProtocolError, match="Too many headers"):
            await client.get("/")
    async with client_of(response(b"ok", *lines), "aiohttp", ResponseLimits(max_fields=2000)) as client:
        assert await client.get("/") == "ok"
        # The user's own session has the same limits.
        async with client.session.get(f"{client.config.base_url}/") as answer:
            assert await answer.text() == "ok"


@each_transport
@pytest.mark.parametrize("most", [0, 3])
async def test_interim_responses_are_limited_as_the_setting_says(transport: str, most: int) -> None:
    limits = ResponseLimits(max_interim=most)
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    async with client_of(interim * most + response(b"ok"), transport, limits) as client:
        for _ in range(2):
            assert await client.get("/") == "ok"
    async with client_of(interim * (most + 1) + response(b"ok"), transport, limits) as client:
        with pytest.raises(ProtocolError, match=f"more than max_interim={most} interim") as raised:
            await client.get("/")
        assert raised.value.details["limit"] == "max_interim"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nX-A: a,\r\n b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n",
    ],
    ids=["LF", "folded", "blanks behind the size of a chunk"],
)
async def test_what_embedded_servers_send_is_taken_unless_the_setting_says_no(answer: bytes) -> None:
    async with client_of(answer, "h1") as client:
        assert await client.get("/") == "ok"
    async with client_of(answer, "h1", ResponseLimits(lenient=False)) as client:
        with pytest.raises(ProtocolError, match="the server's answer is not HTTP"):
            await client.get("/")


def test_the_core_has_the_same_limits_as_the_settings() -> None:
    names = [name for name in dir(ResponseRules) if not name.startswith("_")]
    assert len(names) == 5
    for limits in (
        ResponseLimits(),
        ResponseLimits(max_head_size=11, max_field_size=12, max_fields=13, max_interim=14),
    ):
        assert {name: getattr(rules_of(limits), name) for name in names} == {
            name: getattr(limits, name) for name in names
        }
    assert {name: getattr(ResponseRules(), name) for name in names} == {
        name: getattr(ResponseLimits(), name) for name in names
    }
    assert rules_of(ResponseLimits(lenient=False)).lenient is False


# ---- Bombs ----


def _brotli(data: bytes) -> bytes:
    return bytes(pytest.importorskip("brotli").compress(data, quality=1))


def _zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("backports.zstd").compress(data))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": functools.partial(gzip.compress, compresslevel=1),
    "deflate": zlib.compress,
    "br": _brotli,
    "zstd": _zstd,
}


@functools.cache
def bomb(coding: str) -> bytes:
    packed = PACKERS[coding](bytes(48 * MIB))
    assert len(packed) * 200 < 48 * MIB
    return response(packed, f"Content-Encoding: {coding}")


@each_transport
@pytest.mark.parametrize("coding", PACKERS)
async def test_a_bomb_is_ended_by_its_ratio_soon_after_it_begins_to_count(transport: str, coding: str) -> None:
    async with client_of(bomb(coding), transport) as client:
        with pytest.raises(ResponseTooLargeError, match=r"goes past max_ratio=200: \d+ bytes received") as raised:
            await client.get("/")
        details = raised.value.details
        assert (details["ratio"], details["limit"]) == (200, 200 * details["received"])
        assert details["limit"] < details["decoded"]
        # No more than a piece or two past the limit; more than that was never decompressed.
        assert 16 * MIB < details["decoded"] < max(16 * MIB, details["limit"]) + MIB
        # Our own core decompresses 16 KiB of what came at once; aiohttp counts all that it has read.
        assert transport == "aiohttp" or details["decoded"] < 17 * MIB
        assert client.stats.open_connections == 0


@each_transport
async def test_the_ratio_holds_for_streams_and_downloads_and_where_the_size_has_no_limit(
    transport: str, tmp_path: Path
) -> None:
    async with client_of(bomb("gzip"), transport, max_response_size=None) as client:
        received = 0
        with pytest.raises(ResponseTooLargeError, match="max_ratio=200"):
            async with client.stream("GET", "/") as stream:
                async for chunk in stream:
                    received += len(chunk)
        assert 15 * MIB < received < 32 * MIB
        with pytest.raises(ResponseTooLargeError, match="max_ratio=200"):
            await client.download("/", tmp_path / "file", decompress=True)
        assert not list(tmp_path.iterdir())
        with pytest.raises(ResponseTooLargeError, match="max_ratio=200"):
            await client.get("/")


@each_transport
async def test_a_ratio_of_ones_own_or_none_and_what_is_not_decompressed(transport: str) -> None:
    for limits in (ResponseLimits(max_ratio=2000), ResponseLimits(max_ratio=None)):
        async with client_of(bomb("gzip"), transport, limits) as client:
            assert len(await client.get("/")) == 48 * MIB
    async with client_of(bomb("gzip"), transport) as client:
        assert len((await client.request("GET", "/", decompress=False)).content) < MIB


@each_transport
async def test_a_body_that_a_client_can_hold_may_have_any_ratio(transport: str) -> None:
    packed = response(gzip.compress(bytes(16 * MIB)), "Content-Encoding: gzip")
    async with client_of(packed, transport, ResponseLimits(max_ratio=1)) as client:
        assert len(await client.get("/")) == 16 * MIB


async def test_a_body_of_codings_that_makes_nothing_of_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "INNER_RATIO_FROM", MIB)
    packed = gzip.compress(gzip.compress(b"") * (2 * MIB // 20))
    async with client_of(response(packed, "Content-Encoding: gzip, gzip"), "h1") as client:
        with pytest.raises(ProtocolError, match="a content coding of several makes more than 200 bytes of one"):
            await client.get("/")
        assert client.stats.open_connections == 0
