"""Answers spoiled at random: those of `support/behaviours`, cut, doubled, mixed, with bytes that parsers trip over."""

from __future__ import annotations

import random
from typing import Any

from support.behaviours import ALL
from support.behaviours.model import MALFORMED, Behaviour

# Not the endless ones, nor those that only cost time.
_BASES = [one.sent for one in ALL.values() if one.then != "repeat" and len(one.sent) < 3000]
_PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0",
    b"\xff",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 ",
]
_PIECES += [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 X\r\n\r\n",
    b"HTTP/1.1 204 X\r\n\r\n",
    b"Content-Length: 2\r\n",
    b"Content-Length: 0\r\n",
]
_PIECES += [
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: br\r\n",
    b"Connection: close\r\n",
]
_PIECES += [
    b"ffffffffffffffff",
    b"-1",
    b"1" * 30,
    b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    b"a" * 9000,
    b"X: y\r\n" * 150,
    b"EVIL",
]


def spoiled(number: int) -> tuple[Behaviour, tuple[int, ...]]:
    """The spoiled answer of this number, and where it is cut; what is right for it nobody knows."""
    chance = random.Random(number)
    data = chance.choice(_BASES)
    for _ in range(chance.randint(1, 4)):
        data = edited(chance, data)
    then: Any = chance.choice(["settle", "settle", "settle", "close", "reset"])
    size = len(data)
    cuts = sorted(chance.sample(range(1, size), min(size - 1, chance.choice([0, 0, 1, 3])))) if size > 1 else []
    rest = chance.choice([None, None, None, b"x", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"])
    method = chance.choice(["GET", "GET", "GET", "HEAD", "POST"])
    later = rest if then == "settle" else None
    return Behaviour(f"spoiled: {number}", "Nobody knows.", data, MALFORMED, method, then, later=later), tuple(cuts)


def edited(chance: random.Random, data: bytes) -> bytes:
    """With one change: something is gone, doubled, put in, or comes from another answer."""
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.choice([0, 0, 1, 1, 2, 5, 30]))
    kind = chance.randrange(7)
    if kind == 0:
        return data[:start] + data[end:]
    if kind == 1:
        return data[:start] + chance.choice(_PIECES) + data[end:]
    if kind == 2:
        return data[:start] + bytes([chance.randrange(256)]) + data[start + 1 :]
    if kind == 3:
        return data[:end] + data[start:]
    if kind == 4:
        return data[:start] + chance.choice(_BASES)[-start - 1 :]
    if kind == 5:
        return data + chance.choice(_BASES)
    return data[:start]
