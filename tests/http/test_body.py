"""What a request carries arrives byte for byte, each time it is sent, and to each place that a redirect names."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from support.upload_site import BIG, FORM, OCTETS, REPLAYABLE, make, once, site

from pepperpy.network import InvalidRequestError
from pepperpy.network.http.body import make_body
from pepperpy.network.http.sources import CHUNK
from pepperpy.network.json_codec import JSONCodec, default_codec


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(BIG)
    return path


@contextlib.contextmanager
def closed_later(value: Any) -> Any:
    try:
        yield value
    finally:
        if hasattr(value, "read"):
            assert not value.closed, "the caller's file was closed"
            value.close()


async def test_what_is_in_memory_arrives_with_its_type_and_length() -> None:
    every_second = memoryview(bytes(range(10)))[::2]
    cases: list[tuple[Any, bytes, str]] = [
        (b"a\0b", b"a\0b", OCTETS),
        (b"", b"", OCTETS),
        (bytearray(b"ab"), b"ab", OCTETS),
        (every_second, b"\0\2\4\6\x08", OCTETS),
        ("größe €", "größe €".encode(), "text/plain; charset=utf-8"),
        ("", b"", "text/plain; charset=utf-8"),
        ({}, b"", FORM),
    ]
    async with site() as it:
        for data, content, content_type in cases:
            body = make(data)
            got = await it.post(body)
            assert (got.content, got.content_type, got.length) == (content, content_type, len(content))
            assert body.size == len(content) and body.replayable


async def test_form_fields_arrive_as_they_were_meant() -> None:
    data = {
        "a": "ü &=+%",
        "b": 1,
        "c": 1.5,
        "d": True,
        "e": False,
        "f": None,
        "g": ["x", 2, None, False],
        "a b": "\r\n",
    }
    expected = [("a", "ü &=+%"), ("b", "1"), ("c", "1.5"), ("d", "true"), ("e", "false")]
    expected += [("g", "x"), ("g", "2"), ("g", "false"), ("a b", "\r\n")]
    async with site() as it:
        for form in (data, list(data.items()), tuple([name, value] for name, value in data.items())):
            got = await it.post(make(form))
            assert got.content_type == FORM
            assert parse_qsl(got.content.decode(), strict_parsing=True) == expected


async def test_json_is_encoded_once() -> None:
    encoded = []

    def dumps(value: Any) -> bytes:
        encoded.append(value)
        return default_codec().dumps(value)

    async with site() as it:
        body = make_body(None, {"a": [1, "ü", None]}, None, JSONCodec("spy", dumps, default_codec().loads))
        for _ in range(2):
            got = await it.post(body)
            assert got.content_type == "application/json"
            assert default_codec().loads(got.content) == {"a": [1, "ü", None]}
        assert encoded == [{"a": [1, "ü", None]}]
        for falsy in (0, False, "", [], {}):
            got = await it.post(make(json=falsy))
            assert default_codec().loads(got.content) == falsy


@pytest.mark.parametrize("kind", REPLAYABLE)
async def test_a_replayable_body_arrives_whole_each_time(kind: str, path: Path) -> None:
    with closed_later(REPLAYABLE[kind](path)) as data:
        content = data if isinstance(data, bytes) else BIG
        async with site() as it:
            body = make(data)
            assert body.replayable
            for _ in range(2):
                assert (await it.post(body)).content == content
            # Of the others nobody knows the size without reading all of it.
            sized = kind not in ("a compressed file", "an async iterable")
            assert body.size == it.got[-1].length == (len(content) if sized else None)


@pytest.mark.parametrize("kind", REPLAYABLE)
async def test_a_redirect_gets_the_whole_body_again(kind: str, path: Path) -> None:
    with closed_later(REPLAYABLE[kind](path)) as data:
        content = data if isinstance(data, bytes) else BIG
        async with site() as it:
            await it.post(make(data), "/redirect")
            assert [got.content == content for got in it.got] == [True, True]
            if hasattr(data, "seek"):
                data.seek(0)
            # Without progress this would be aiohttp's own payload for some.
            await it.post(make(data, progress=lambda sent, total: None), "/redirect")
            assert [got.content == content for got in it.got] == [True] * 4


@pytest.mark.slow
async def test_a_redirect_while_the_body_is_sent_gets_the_whole_body(tmp_path: Path) -> None:
    # Too much for the buffers of a socket: the first write is cancelled in its midst.
    path = tmp_path / "huge"
    path.write_bytes(BIG * 50)
    async with site() as it:
        with path.open("rb") as file:
            for data in (path, file, BIG * 50):
                got = await it.post(make(data), "/early")
                assert got.content == BIG * 50
        got = await it.post(make(files={"a": path}), "/early")
        assert got.content.count(BIG * 50) == 1


async def test_a_file_is_sent_from_where_it_stands() -> None:
    file = io.BytesIO(BIG)
    file.seek(1000)
    async with site() as it:
        body = make(file)
        assert body.size == len(BIG) - 1000
        for _ in range(2):
            assert (await it.post(body)).content == BIG[1000:]
        file.seek(0, os.SEEK_END)
        assert (await it.post(make(file))).content == b""
        file.seek(10, os.SEEK_END)
        assert (await it.post(make(file))).content == b""


async def test_what_is_read_only_once_is_sent_only_once() -> None:
    reader = asyncio.StreamReader(limit=16)
    reader.feed_data(BIG)  # with no line in it, so that lines could not be what is read
    reader.feed_eof()
    form = aiohttp.FormData({"a": "1"})
    for data, content in ((once(BIG, b"", b"end"), BIG + b"end"), (reader, BIG), (form, b"a=1")):
        async with site() as it:
            body = make(data)
            assert not body.replayable
            assert (await it.post(body)).content == content
            with pytest.raises(InvalidRequestError, match="cannot be sent again"):
                body.payload()


async def test_a_pipe_is_sent_only_once() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reading:
        with open(write_end, "wb") as writing:
            writing.write(BIG[:5000])
        async with site() as it:
            body = make(reading)
            assert not body.replayable and body.size is None
            got = await it.post(body)
            assert (got.content, got.length) == (BIG[:5000], None)
            with pytest.raises(InvalidRequestError):
                body.payload()
        assert not reading.closed


async def test_a_response_can_be_sent_on() -> None:
    async with site() as it, it.session.post(it.url + "/answer", data=BIG) as response:
        got = await it.post(make(response.content))
        assert got.content == b"begun"


async def test_chunks_that_are_changed_after_they_were_given_arrive_as_they_were() -> None:
    async def reuse_buffer() -> AsyncIterator[bytearray]:
        buffer = bytearray(CHUNK)
        for number in range(100):
            buffer[:] = bytes([number]) * CHUNK
            yield buffer

    mutable = bytearray(b"before")
    async with site() as it:
        got = await it.post(make(reuse_buffer()))
        assert got.content == b"".join(bytes([number]) * CHUNK for number in range(100))
        body = make(mutable)
        mutable[:] = b"after!"
        assert (await it.post(body)).content == b"before"


def test_bytes_go_out_as_they_are() -> None:
    assert make(data := b"x" * 10_000_000).payload() is data
    assert not isinstance(make(data, progress=print).payload(), bytes)


async def test_no_arguments_are_no_body() -> None:
    assert make_body(None, None, None, default_codec()) is None
    assert make_body(None, None, {}, default_codec()) is None
    assert make({"a": "1"}, files={}).headers == {"Content-Type": FORM}


async def test_files_are_read_in_a_thread() -> None:
    threads = set()

    class Spy(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            threads.add(threading.get_ident())
            return super().read(size)

    async with site() as it:
        assert (await it.post(make(Spy(BIG)))).content == BIG
    assert threading.get_ident() not in threads


async def test_the_callers_content_length_makes_a_stream_one_of_known_size() -> None:
    async with site() as it:
        got = await it.post(make(once(b"ab", b"cde")), headers={"Content-Length": "5"})
        assert (got.content, got.length) == (b"abcde", 5)
        for data in (once(b"ab"), once(b"abc", b"def"), io.BytesIO(b"abc")):
            body = make(data)
            with pytest.raises(aiohttp.ClientConnectionError):
                await it.post(body, headers={"Content-Length": "5"})
            assert "5" in str(body.failure)
        assert len(it.got) == 1
