"""What the tests of framing share: one case in three ways, and a user's codec for a real protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from pepperpy.network import Codec
from support.cancelling import arrived
from support.servers import peer_and_client


def encoded(codec: Codec[Any], messages: list[Any]) -> bytes:
    pieces = [codec.encode(message) for message in messages]
    return b"".join(piece if isinstance(piece, bytes) else b"".join(piece) for piece in pieces)


async def three_ways(codec: Codec[Any], wire: bytes, messages: list[Any], rest: bytes) -> None:
    """`wire` gives `messages`: at once, byte by byte, and with a `rest` behind it that must be left."""
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        await peer.send(wire)
        await arrived(client, len(wire))
        assert await framed.receive_batch() == messages
        peer.send_eof()
        assert await framed.receive_batch() == []
        assert await framed.receive() is None
        assert [message async for message in framed] == []
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        first = asyncio.create_task(framed.receive())
        for number in range(len(wire)):
            await peer.send(wire[number : number + 1])
            await arrived(client, number + 1)
        assert [await first] + [await framed.receive() for _ in messages[1:]] == messages
        peer.send_eof()
        assert await framed.receive() is None
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        await peer.send(wire + rest)
        assert [await framed.receive() for _ in messages] == messages
        assert await client.receive() == rest


class RESP:
    """Redis's wire format, version 2, as a codec of a user's own: replies are read, commands are written.

    https://redis.io/docs/latest/develop/reference/protocol-spec/
    """

    def encode(self, message: Iterable[bytes]) -> list[bytes]:
        words = list(message)
        pieces = [b"*%d\r\n" % len(words)]
        for word in words:
            pieces += [b"$%d\r\n" % len(word), word, b"\r\n"]
        return pieces

    def decode(self, data: bytes, start: int) -> tuple[Any, int] | int | None:
        end = data.find(b"\r\n", start)
        if end < 0:
            return None
        kind, line = data[start : start + 1], data[start + 1 : end]
        end += 2
        if kind == b"+":
            return line, end
        if kind == b":":
            return int(line), end
        if kind == b"$":
            size = int(line)
            if size < 0:
                return None, end
            if len(data) < end + size + 2:
                return end + size + 2 - start
            return data[end : end + size], end + size + 2
        if kind == b"*":
            items = []
            for _ in range(int(line)):
                if end == len(data):
                    return None
                found = self.decode(data, end)
                if not isinstance(found, tuple):
                    return found if found is None else found + end - start
                item, end = found
                items.append(item)
            return items, end
        raise ValueError(f"a reply begins with {kind!r}")
