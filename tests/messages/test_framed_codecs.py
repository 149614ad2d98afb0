"""A codec in Python: when it is asked, and what is said of one that answers wrongly."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.cancelling import arrived
from support.servers import client_of, peer_and_client

from pepperpy.network import Fixed, LengthPrefixed, MessageTooLargeError, NetworkTimeoutError, ProtocolError, UsageError


class Scripted:
    """Answers as it is told and notes what it was shown."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.shown: list[tuple[bytes, int]] = []

    def encode(self, message: Any) -> Any:
        return message

    def decode(self, data: bytes, start: int) -> Any:
        self.shown.append((data, start))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer(data, start) if callable(answer) else answer


async def test_a_codec_is_asked_again_only_when_the_bytes_that_it_wants_are_there() -> None:
    async with peer_and_client() as (peer, client):
        codec = Scripted(4, ("four", 4), None, ("one", 2))
        framed = client.framed(codec)
        receiving = asyncio.create_task(framed.receive())
        for number in range(4):
            await peer.send(b"abcd"[number : number + 1])
            await arrived(client, number + 1)
        assert await receiving == "four"
        receiving = asyncio.create_task(framed.receive())
        for number in range(2):
            await peer.send(b"ef"[number : number + 1])
            await arrived(client, number + 5)
        assert await receiving == "one"
        assert codec.shown == [(b"a", 0), (b"abcd", 0), (b"e", 0), (b"ef", 0)]
        assert client.stats.bytes_buffered == 0


async def test_one_copy_serves_all_messages_in_it_and_no_stale_one_does() -> None:
    def byte(data: bytes, start: int) -> tuple[bytes, int]:
        return data[start : start + 1], start + 1

    async with peer_and_client() as (peer, client):
        codec = Scripted(byte, byte, byte, byte, byte, None, byte)
        framed = client.framed(codec)
        await peer.send(b"abcdef")
        await arrived(client, 6)
        assert [await framed.receive(), await framed.receive()] == [b"a", b"b"]
        assert codec.shown[0][0] is codec.shown[1][0]
        assert await client.receive(1) == b"c"
        assert await framed.receive() == b"d"
        assert codec.shown[2][0] is codec.shown[0][0]
        assert await client.receive_until(b"f") == b"ef"
        await peer.send(b"gh")
        await arrived(client, 8)
        assert await framed.receive() == b"g"
        assert await client.receive() == b"h"
        await peer.send(b"ij")
        await arrived(client, 10)
        assert await framed.receive() == b"i"
        with pytest.raises(NetworkTimeoutError):
            await framed.receive(timeout=0.02)
        await peer.send(b"k")
        await arrived(client, 11)
        assert await framed.receive() == b"j"
        assert codec.shown[-1] == (b"jk", 0)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (("message", 4), TypeError, "end from 1 to 3, not 4"),
        (("message", 0), TypeError, "not 0"),
        (("message", "1"), TypeError, "not '1'"),
        (("message",), TypeError, r"\('message',\)"),
        (b"message", TypeError, "b'message'"),
        (3, TypeError, "above the 3 bytes"),
        (-1, TypeError, "not -1"),
        (1 << 70, MessageTooLargeError, "1180591620717411303424 bytes"),
        (101, MessageTooLargeError, "message of 101 bytes exceeds the limit of 100 bytes"),
        (ValueError("bad magic"), ProtocolError, "malformed message: decode.. of the codec: bad magic"),
        (ValueError(), ProtocolError, "ValueError"),
        (KeyError("bug"), ProtocolError, "decode.. of the codec: KeyError: 'bug'"),
        (RecursionError("deep"), ProtocolError, "RecursionError: deep"),
        (MemoryError(), ProtocolError, "of the codec: MemoryError"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
async def test_what_a_codec_does_wrong_consumes_nothing(answer: Any, error: type[BaseException], words: str) -> None:
    def first(data: bytes, start: int) -> tuple[str, int]:
        return "first", start + 1

    async with peer_and_client(max_message_size=100) as (peer, client):
        await peer.send(b"abc")
        await arrived(client, 3)
        for method in ("receive", "receive_batch"):
            with pytest.raises(error, match=words) as caught:
                await getattr(client.framed(Scripted(answer)), method)()
            assert client.stats.bytes_buffered == 3
            if error is ProtocolError:
                assert caught.value.__cause__ is answer
        if error is not KeyboardInterrupt and not isinstance(answer, (tuple, int)):
            framed = client.framed(Scripted(first, answer, answer))
            assert await framed.receive_batch() == ["first"]
            with pytest.raises(error, match=words):
                await framed.receive_batch()
            assert await client.receive() == b"bc"


async def test_a_codec_that_takes_the_bytes_itself_is_found_out() -> None:
    async with peer_and_client() as (peer, client):

        def meddle(data: bytes, start: int) -> tuple[str, int]:
            with pytest.raises(StopIteration):
                client.receive(2).send(None)
            return "message", start + 1

        await peer.send(b"abcdef")
        await arrived(client, 6)
        with pytest.raises(UsageError, match="other bytes"):
            await client.framed(Scripted(meddle)).receive()
        with pytest.raises(UsageError, match="other bytes"):
            await client.framed(Scripted(("first", 1), meddle)).receive_batch()
        assert await client.receive() == b"ef"


@pytest.mark.parametrize("encoded", [b"ab", bytearray(b"ab"), memoryview(b"ab"), [b"a", b"b"], (bytearray(b"ab"),)])
async def test_a_codec_may_encode_into_one_piece_or_several(encoded: Any) -> None:
    async with peer_and_client() as (peer, client):
        await client.framed(Scripted()).send(encoded)
        assert await peer.receive(2) == b"ab"
        for wrong in ("ab", [1], 5):
            with pytest.raises(
                TypeError, match=f"encode.. of the codec must return bytes .*, not {type(wrong).__name__}"
            ):
                await client.framed(Scripted()).send(wrong)
        assert client.stats.bytes_sent == 2


@pytest.mark.parametrize("codec", [None, object(), "lines", LengthPrefixed])
def test_what_is_no_codec_is_refused(codec: Any) -> None:
    with pytest.raises(TypeError, match="codec"):
        client_of(1).framed(codec)


def test_it_says_what_it_is() -> None:
    framed = client_of(1).framed(Fixed(2))
    assert repr(framed) == "Framed(NetworkClient(host='127.0.0.1', port=1), Fixed(size=2))"
    assert framed.codec == Fixed(2)
