"""receive_until with several separators: which one counts, however the stream is cut, and what was searched before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.cancelling import arrived
from support.servers import peer_and_client

from pepperpy.network import IncompleteReadError, MessageTooLargeError


@pytest.mark.parametrize("cut", range(1, 12))
async def test_the_separator_that_ends_first_counts_however_the_stream_is_cut(cut: int) -> None:
    wire = b"a\r\nb\nc\r\r\nd;"
    async with peer_and_client() as (peer, client):
        receiving = asyncio.create_task(client.receive_until((b"\r\n", b"\n", b";")))
        await peer.send(wire[:cut])
        await arrived(client, cut)
        await peer.send(wire[cut:])
        assert await receiving == b"a\r\n"
        separators = (b";", b"\r\n", b"\n")
        assert [await client.receive_until(separators) for _ in range(3)] == [b"b\n", b"c\r\r\n", b"d;"]


@pytest.mark.parametrize("separators", [b";", (b";", b",")])
async def test_what_another_receive_has_searched_and_what_is_put_back_are_searched(
    separators: bytes | tuple[bytes, ...],
) -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"a;b")
        await arrived(client, 3)
        for receive, put_back, found in ((client.receive_line, b"", b"a;"), (client.receive_line, b"c;", b"c;")):
            receiving = asyncio.create_task(receive())
            await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            client.unread(put_back)
            assert await client.receive_until(separators) == found
        receiving = asyncio.create_task(client.receive_until(separators))
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        client.unread(b";d")
        assert await client.receive_until(separators) == b";"
        assert await client.receive() == b"db"


async def test_each_call_searches_for_its_own_separators() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"a;b,c.d:e;")
        await arrived(client, 10)
        first, second = (b";", b","), (b".", b":")
        found = [await client.receive_until(separators) for separators in (first, second, first)]
        assert found == [b"a;", b"b,c.", b"d:e;"]


async def test_several_separators_have_the_same_limit_and_the_same_end_as_one() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"abcdef\n")
        with pytest.raises(MessageTooLargeError, match="6 bytes"):
            await client.receive_until((b"\r\n", b"\n"), max_size=6)
        assert await client.receive_until((b"\r\n", b"\n"), max_size=7) == b"abcdef\n"
        waiting = asyncio.create_task(client.receive_until((b"x", b"y"), max_size=5))
        await peer.send(b"abcd")
        await arrived(client, 11)
        assert not waiting.done()
        await peer.send(b"e")
        with pytest.raises(MessageTooLargeError):
            await waiting
        peer.send_eof()
        with pytest.raises(IncompleteReadError) as caught:
            await client.receive_until((b"x", b"y"))
        assert caught.value.partial == b"abcde"


@pytest.mark.parametrize(
    ("separator", "error", "says"),
    [
        ((), ValueError, "1 separator or more"),
        ((b"",), ValueError, "1 byte or more"),
        (("\n",), TypeError, "bytes or a tuple of bytes"),
        ([b"\n"], TypeError, "bytes or a tuple of bytes"),
        ((b"\r", b"\r\n"), ValueError, "would never be found"),
        ((b"aXb", b"X"), ValueError, "would never be found"),
    ],
)
async def test_separators_that_cannot_be_are_refused(separator: Any, error: type[Exception], says: str) -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"a\r\n")
        for receive in (client.receive_until, client.skip_until):
            with pytest.raises(error, match=says):
                await receive(separator)
        assert await client.receive() == b"a\r\n"
