"""Lines that end with CR, LF or CR LF, whichever comes: `Delimited((b"\\r\\n", b"\\r", b"\\n"))`."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from support.cancelling import arrived
from support.servers import peer_and_client

from pepperpy.network import DecodeError, Delimited, IncompleteReadError, Mapped, NetworkTimeoutError

ANY = Delimited((b"\r\n", b"\r", b"\n"))
WIRE = b"one\r\ntwo\rthree\n\r\n\r\r\n\n\rlast\r\n"
LINES = [b"one", b"two", b"three", b"", b"", b"", b"", b"", b"last"]
KEPT = [b"one\r", b"two\r", b"three\n", b"\r", b"\r", b"\r", b"\n", b"\r", b"last\r"]
assert WIRE.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1] == LINES


@pytest.mark.parametrize("method", ["one", "batch"])
@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize(
    ("codec", "lines"),
    [
        (ANY, LINES),
        (Delimited((b"\n", b"\r", b"\r\n"), keep=True), KEPT),
        (Mapped(ANY, str.encode, bytes.decode), [line.decode() for line in LINES]),
    ],
    ids=["lines", "kept", "text"],
)
async def test_all_three_give_the_same_lines_however_they_are_cut(
    codec: Any, lines: list[Any], piece: int, method: str
) -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(codec)
        received: list[Any] = []

        async def read() -> None:
            if method == "one":
                received.extend([line async for line in framed])
            while batch := await framed.receive_batch():
                received.extend(batch)

        reading = asyncio.create_task(read())
        for start in range(0, len(WIRE), piece):
            await peer.send(WIRE[start : start + piece])
            await arrived(client, min(start + piece, len(WIRE)))
        peer.send_eof()
        await reading
        assert received == lines
        assert client.stats.bytes_buffered == 0


async def test_a_cr_gives_its_line_at_once_and_the_lf_behind_it_is_no_line_whenever_it_comes() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(ANY)
        await peer.send(b"one\r")
        assert await framed.receive() == b"one"
        with pytest.raises(NetworkTimeoutError):
            await framed.receive(timeout=0.02)
        task = asyncio.create_task(framed.receive())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await peer.send(b"\n")
        with pytest.raises(NetworkTimeoutError):
            await framed.receive(timeout=0.02)
        await peer.send(b"\ntwo\r")
        assert await framed.receive() == b""
        assert await framed.receive() == b"two"
        # Somebody else takes it; then it is nobody's.
        await peer.send(b"\n\nthree\r")
        assert await client.receive(1) == b"\n"
        assert await framed.receive() == b""
        assert await framed.receive() == b"three"
        await peer.send(b"\nfour")
        await arrived(client, 21)
        peer.send_eof()
        with pytest.raises(IncompleteReadError) as caught:
            await framed.receive()
        assert caught.value.partial == b"four"
        assert await framed.receive() is None


async def test_the_lf_behind_a_line_that_cannot_be_decoded_is_no_line_either() -> None:
    async with peer_and_client() as (peer, client):
        framed = client.framed(Mapped(ANY, str.encode, int))  # type: ignore[arg-type, type-var]
        await peer.send(b"x\r")
        with pytest.raises(DecodeError):
            await framed.receive()
        await peer.send(b"\n5\r")
        assert await framed.receive() == 5


def test_without_a_connection_the_lf_of_the_line_before_is_known_by_the_cr_in_front_of_it() -> None:
    for cut in range(len(WIRE) + 1):
        lines, at = [], 0
        for data in (WIRE[:cut], WIRE):
            while isinstance(found := ANY.decode(data, at), tuple):
                line, at = found
                lines.append(line)
            assert found == len(data) - at + 1
        assert lines == LINES


def test_no_message_may_hold_a_part_of_any_of_them() -> None:
    assert ANY.encode(b"line") == [b"line\r\n"]
    assert Delimited((b"\r", b"\n", b"\r\n")).encode(b"") == [b"\r"]
    for message in (b"a\r", b"\na", b"a\r\nb"):
        with pytest.raises(ValueError, match="contains the separator"):
            ANY.encode(message)


def test_only_these_three_may_end_in_one_another() -> None:
    for separators in itertools.permutations([b"\r\n", b"\r", b"\n"]):
        assert Delimited(separators).decode(b"a\r\n") == (b"a", 3)
    for wrong in ((b"\r\n", b"\r"), (b"\r\n", b"\r", b"\n", b";"), (b"\r\n", b"\r", b"\r")):
        with pytest.raises(ValueError, match="would never be found"):
            Delimited(wrong)
