"""Feeds an HTTP response to the core's reader, in pieces, as a connection does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pepperpy.network._core.http_head import ResponseRules
from pepperpy.network._core.http_reader import ResponseReader

STRICT = ResponseRules(lenient=False)
LENIENT = ResponseRules()


@dataclass
class Read:
    """What came of it; `left` is what the reader has not used."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]
    whole: bool
    reusable: bool
    left: bytes


def read(
    pieces: Iterable[bytes], *, rules: ResponseRules = LENIENT, head_only: bool = False, ends: bool = False
) -> Read:
    """All that the reader makes of the pieces; with `ends`, the stream ends behind them."""
    reader = ResponseReader(rules, head_only)
    body = b""
    on_hand = b""
    for piece in pieces:
        on_hand += piece
        if not reader.has_head:
            on_hand = on_hand[reader.read_head(on_hand) :]
        while reader.has_head:
            data, used = reader.read_body(on_hand)
            body += data
            on_hand = on_hand[used:]
            if not used:
                break
    if ends:
        reader.note_end()
    return Read(
        reader.status,
        list(reader.headers.items()),
        body,
        list(reader.trailers.items()),
        reader.is_whole,
        reader.reusable,
        on_hand,
    )


def each_cut(data: bytes) -> Iterator[list[bytes]]:
    """The data whole, cut in two at every byte, and byte by byte."""
    yield [data]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    yield [data[at : at + 1] for at in range(len(data))]
