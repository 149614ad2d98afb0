"""Codecs against a peer that shares no code with them: a blocking server that frames by `struct` and by hand."""

from __future__ import annotations

import contextlib
import json
import socketserver
import struct
import threading
from collections.abc import Iterator
from typing import BinaryIO

import pytest
from support.servers import client_of

from pepperpy.network import (
    DecodeError,
    Delimited,
    JSONLines,
    LengthPrefixed,
    Mapped,
    MsgPack,
    Netstring,
    NetworkClient,
)


def answer_u32(stream: BinaryIO, write: BinaryIO) -> None:
    """Each message comes back reversed."""
    while header := stream.read(4):
        (size,) = struct.unpack("!I", header)
        write.write(struct.pack("!I", size) + stream.read(size)[::-1])
        write.flush()


def answer_netstrings(stream: BinaryIO, write: BinaryIO) -> None:
    digits = b""
    while byte := stream.read(1):
        if byte != b":":
            digits += byte
            continue
        message = stream.read(int(digits))
        assert stream.read(1) == b","
        write.write(str(len(message)).encode() + b":" + message[::-1] + b",")
        write.flush()
        digits = b""


def answer_lines(stream: BinaryIO, write: BinaryIO) -> None:
    for line in stream:
        write.write(line.rstrip(b"\r\n")[::-1] + b"\r\n")
        write.flush()


def answer_json(stream: BinaryIO, write: BinaryIO) -> None:
    for line in stream:
        write.write(b"\n" + json.dumps([json.loads(line)], indent=None).encode() + b"\n")
        write.flush()


def answer_msgpack(stream: BinaryIO, write: BinaryIO) -> None:
    """A one-element array around each value: one byte in front of it, says the format."""
    while header := stream.read(4):
        value = stream.read(int.from_bytes(header, "big"))
        write.write((len(value) + 1).to_bytes(4, "big") + b"\x91" + value)
        write.flush()


@contextlib.contextmanager
def served(answer: object) -> Iterator[NetworkClient]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            answer(self.rfile, self.wfile)  # type: ignore[operator]

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = False
        block_on_close = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield client_of(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


MESSAGES = [b"one", b"", b"\0\xff" * 9, b"x" * 70_000, b"three"]


@pytest.mark.parametrize(
    ("answer", "codec", "messages"),
    [
        (answer_u32, LengthPrefixed(4), MESSAGES),
        (answer_netstrings, Netstring(), MESSAGES),
        (answer_lines, Delimited((b"\n", b"\r\n")), MESSAGES),
    ],
    ids=["struct", "netstrings", "lines"],
)
async def test_bytes_go_there_and_back(answer: object, codec: object, messages: list[bytes]) -> None:
    with served(answer) as client:
        async with client:
            framed = client.framed(codec)  # type: ignore[arg-type]
            for message in messages:
                await framed.send(message)
                assert await framed.receive() == message[::-1]
            await framed.send_many(messages)
            await client.send_eof()
            assert [message async for message in framed] == [message[::-1] for message in messages]


@pytest.mark.parametrize(
    ("answer", "codec"), [(answer_json, JSONLines()), (answer_msgpack, MsgPack())], ids=["json", "msgpack"]
)
async def test_values_go_there_and_back(answer: object, codec: object) -> None:
    values = [None, True, -1, 2**40, 1.5, "h\u00e4\n", [1, [2]], {"a": {"b": []}}, "x" * 100_000]
    with served(answer) as client:
        async with client:
            framed = client.framed(codec)  # type: ignore[arg-type]
            await framed.send_many(values)
            await client.send_eof()
            assert [value async for value in framed] == [[value] for value in values]


async def test_what_a_codec_quotes_of_the_peer_is_printable_and_bounded() -> None:
    def loads(data: bytes) -> str:
        raise ValueError(f"cannot read {data.decode('latin-1')}")

    def answer(stream: BinaryIO, write: BinaryIO) -> None:
        write.write(b"\x1b[2J" + b"x" * 1000 + b"\n")
        write.flush()
        stream.read(1)

    with served(answer) as client:
        async with client:
            with pytest.raises(DecodeError, match=r"decoded: cannot read \\x1b\[2Jxxx.*\.\.\.$") as caught:
                await client.framed(Mapped(Delimited(), str.encode, loads)).receive()
    assert len(str(caught.value)) < 700
