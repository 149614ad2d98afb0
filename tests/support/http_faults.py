"""Responses no server should give, and handlers for `http_peer` that give them.

What is only bytes is data: `TRUNCATED`, `ENDLESS` and `MALFORMED` are there to parametrize tests with. None of them
depends on time.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Literal

from support.http_peer import Connection, Handler

OK_HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED_HEAD = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def response(body: bytes = b"ok", *headers: str, status: str = "200 OK") -> bytes:
    """A right response with its Content-Length: `response(b"{}", "Content-Type: application/json")`."""
    fields = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked_response(chunks: Iterable[bytes], *headers: str) -> bytes:
    """A right response in chunks."""
    fields = "".join(f"{header}\r\n" for header in headers).encode()
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return OK_HEAD + fields + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


def informational_flood(count: int, final: bytes = response()) -> bytes:
    """`count` responses 103 before the final one."""
    return b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" * count + final


def gzip_bomb(megabytes: int) -> bytes:
    """A chunked response of a thousandth of the mebibytes of zeros that it unpacks to."""
    return chunked_response(gzip_of_zeros(megabytes), "Content-Encoding: gzip")


def gzip_of_zeros(megabytes: int) -> Iterator[bytes]:
    """One gzip member, in pieces, of that many mebibytes of zeros."""
    zeros = bytes(1 << 20)
    compressor = zlib.compressobj(9, wbits=-15)
    # A full flush ends on a whole byte and refers to nothing before it: the same piece serves for each mebibyte.
    piece = compressor.compress(zeros) + compressor.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for _ in range(megabytes):
        checksum = zlib.crc32(zeros, checksum)
        yield piece
    yield b"\x03\0" + struct.pack("<LL", checksum, (megabytes << 20) & 0xFFFFFFFF)


# What arrives of a response before the connection ends.
TRUNCATED: dict[str, bytes] = {
    "before the response": b"",
    "in the status line": b"HTTP/1.1 20",
    "in the head": OK_HEAD + b"Content-Le",
    "before a Content-Length body": OK_HEAD + b"Content-Length: 10\r\n\r\n",
    "in a Content-Length body": OK_HEAD + b"Content-Length: 10\r\n\r\nhello",
    "in a chunk size": CHUNKED_HEAD + b"5\r\nhello\r\n1",
    "in a chunk": CHUNKED_HEAD + b"5\r\nhel",
    "between chunks": CHUNKED_HEAD + b"5\r\nhello\r\n",
    "before the end of the trailers": CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n",
    "in a gzip body in chunks": OK_HEAD
    + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\x1f\x8b\x08\0\0\r\n",
}

# How a response begins, and what is then repeated until the client closes the connection.
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (OK_HEAD, b"X-Filler: filler\r\n" * 1000),
    "one header": (OK_HEAD + b"X-Filler: ", b"a" * 65536),
    "status line": (b"HTTP/1.1 200 ", b"a" * 65536),
    "informational responses": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000),
    "body until the connection ends": (OK_HEAD + b"\r\n", bytes(65536)),
    "Content-Length body": (OK_HEAD + b"Content-Length: 1000000000000000\r\n\r\n", bytes(65536)),
    "chunks": (CHUNKED_HEAD, b"10000\r\n" + bytes(65536) + b"\r\n"),
    "chunks of one byte": (CHUNKED_HEAD, b"1\r\nx\r\n" * 10000),
    "chunk extension": (CHUNKED_HEAD + b"1;", b"a" * 65536),
    "trailers": (CHUNKED_HEAD + b"2\r\nok\r\n0\r\n", b"X-Filler: filler\r\n" * 1000),
}

# Whole responses, each followed by nothing: a client that waits for more of one has not understood it.
MALFORMED: dict[str, bytes] = {
    "Content-Length and Transfer-Encoding": OK_HEAD
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two Content-Lengths that differ": OK_HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "negative Content-Length": OK_HEAD + b"Content-Length: -2\r\n\r\nok",
    "Content-Length with a plus sign": OK_HEAD + b"Content-Length: +2\r\n\r\nok",
    "Content-Length of 2**64": OK_HEAD + b"Content-Length: 18446744073709551616\r\n\r\nok",
    "Content-Length that is no number": OK_HEAD + b"Content-Length: two\r\n\r\nok",
    "chunk size that is no number": CHUNKED_HEAD + b"zz\r\nok\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED_HEAD + b"-2\r\nok\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED_HEAD + b"0x2\r\nok\r\n0\r\n\r\n",
    "chunk size of 17 digits": CHUNKED_HEAD + b"10000000000000002\r\nok\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED_HEAD + b"2\r\nokay\r\n0\r\n\r\n",
    "status line without a status": b"HTTP/1.1\r\nContent-Length: 2\r\n\r\nok",
    "status that is no number": b"HTTP/1.1 OK 200\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "version that is no number": b"HTTP/one.one 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a header": OK_HEAD + b"X-Zero: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": OK_HEAD + b"Content-Length : 2\r\n\r\nok",
    "header without a colon": OK_HEAD + b"Content-Length 2\r\n\r\nok",
    "header without a name": OK_HEAD + b": value\r\nContent-Length: 2\r\n\r\nok",
    "body that is not the gzip it says": response(b"plain text", "Content-Encoding: gzip"),
}


def answering(*responses: bytes) -> Handler:
    """The n-th request, of all connections together, gets the n-th response, later ones the last; keeps alive."""
    remaining = iter(responses[:-1])

    async def handle(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.send(next(remaining, responses[-1]))

    return handle


def by_connection(*handlers: Handler) -> Handler:
    """The n-th connection gets the n-th handler, later ones the last."""

    async def handle(connection: Connection) -> None:
        await handlers[min(connection.number, len(handlers)) - 1](connection)

    return handle


async def silent(connection: Connection) -> None:
    """Reads the request and never answers."""
    await connection.read_request()
    await connection.wait_closed()


def closing_at_once(*, reset: bool = False) -> Handler:
    """Closes before it has read anything."""

    async def handle(connection: Connection) -> None:
        if reset:
            connection.reset()

    return handle


def closing_after(sent: bytes, *, reset: bool = False) -> Handler:
    """Reads a request, sends `sent` (one of `TRUNCATED`, say) and closes, without saying that it would."""

    async def handle(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(sent)
        if reset:
            connection.reset()

    return handle


def closing_when_reused(first: bytes = response(), *, reset: bool = False) -> Handler:
    """Answers the first request on a connection and closes on the second, unanswered: a stale connection of a pool."""

    async def handle(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(first)
        await connection.read_request()
        if reset:
            connection.reset()

    return handle


def sending_without_end(start: bytes, block: bytes) -> Handler:
    """Sends `start`, then `block` again and again until the client closes; `ENDLESS` has pairs of these."""

    async def handle(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(start)
        while True:
            await connection.send(block)

    return handle


def dripping(data: bytes, steps: asyncio.Semaphore) -> Handler:
    """Sends one byte of `data` for each `steps.release()` of the test; then keeps the connection open."""

    async def handle(connection: Connection) -> None:
        await connection.read_request()
        for position in range(len(data)):
            await steps.acquire()
            await connection.send(data[position : position + 1])
        await connection.wait_closed()

    return handle


def answering_early(data: bytes, then: Literal["close", "reset", "wait"] = "wait") -> Handler:
    """Answers when it has the head, and never reads the body; then closes, resets, or leaves the connection open."""

    async def handle(connection: Connection) -> None:
        await connection.read_head()
        await connection.send(data)
        if then == "reset":
            connection.reset()
        elif then == "wait":
            await asyncio.Event().wait()

    return handle
