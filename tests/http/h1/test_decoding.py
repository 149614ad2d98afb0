"""Content codings: what comes out, in what pieces, and what is refused; each stream cut at many places."""

from __future__ import annotations

import gzip
import random
import sys
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest

from pepperpy.network.http.h1 import decoding
from pepperpy.network.http.h1.decoding import MAX_PIECE, BadEncoding, Truncated, decoder_of

TEXT = b"".join(b"%d hello world " % n for n in range(300))
NOISE = random.Random(1).randbytes(1000)

brotli = pytest.importorskip("brotli")
zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


PACKED = {
    b"gzip": gzip.compress,
    b"X-GZip": gzip.compress,
    b"deflate": zlib.compress,
    b"deflate ": raw_deflate,
    b"br": brotli.compress,
    b"zstd": zstd.compress,
    b"gzip, br": lambda data: brotli.compress(gzip.compress(data)),
    b"identity, zstd ,gzip": lambda data: gzip.compress(zstd.compress(data)),
}


def decoded(coding: bytes, pieces: list[bytes]) -> Iterator[bytes]:
    decoder = decoder_of(coding)
    assert decoder is not None
    for piece in pieces:
        assert decoder.wants_input
        yield decoder.decode(piece)
        while not decoder.wants_input:
            yield decoder.decode(b"")
    decoder.finish()


@pytest.mark.parametrize("coding", PACKED, ids=repr)
@pytest.mark.parametrize("data", [b"", b"x", TEXT, NOISE], ids=["empty", "a byte", "text", "noise"])
def test_a_body_is_decoded_however_it_is_cut(coding: bytes, data: bytes) -> None:
    packed = PACKED[coding](data)
    assert b"".join(decoded(coding, [packed])) == data
    assert b"".join(decoded(coding, [packed[at : at + 1] for at in range(len(packed))])) == data
    for at in range(0, len(packed), 7):
        assert b"".join(decoded(coding, [packed[:at], packed[at:]])) == data


@pytest.mark.parametrize("coding", PACKED, ids=repr)
def test_a_body_that_was_cut_off_is_never_whole(coding: bytes) -> None:
    packed = PACKED[coding](TEXT)
    for size in range(1, len(packed)):
        with pytest.raises(Truncated):
            list(decoded(coding, [packed[:size]]))


@pytest.mark.parametrize("coding", PACKED, ids=repr)
def test_no_body_at_all_is_no_error(coding: bytes) -> None:
    assert list(decoded(coding, [])) == []


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_what_is_not_compressed_is_refused(coding: bytes) -> None:
    with pytest.raises((BadEncoding, Truncated)) as caught:
        list(decoded(coding, [b"secret, and not compressed at all, but some sentence " * 3]))
    assert "secret" not in str(caught.value)


def test_a_checksum_that_does_not_fit_is_refused() -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[-6] ^= 1
    with pytest.raises(BadEncoding):
        list(decoded(b"gzip", [bytes(packed)]))


@pytest.mark.parametrize(("coding", "compress"), [(b"gzip", gzip.compress), (b"zstd", zstd.compress)])
def test_several_members_are_one_body(coding: bytes, compress: object) -> None:
    packed = b"".join(PACKED[coding](part) for part in (b"hello ", b"", TEXT, b"world"))
    for pieces in ([packed], [packed[at : at + 1] for at in range(len(packed))]):
        assert b"".join(decoded(coding, pieces)) == b"hello " + TEXT + b"world"
    with pytest.raises(Truncated):
        list(decoded(coding, [packed[:-1]]))


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"deflate ", b"zstd"])
@pytest.mark.parametrize("rest", [bytes(8), b"\r\n", b"<!-- cached -->", b"\x1f", b"\x28\xb5"])
def test_bytes_behind_the_stream_are_left_out(coding: bytes, rest: bytes) -> None:
    packed = PACKED[coding](TEXT)
    assert b"".join(decoded(coding, [packed + rest])) == TEXT
    assert b"".join(decoded(coding, [packed, *(rest[at : at + 1] for at in range(len(rest)))])) == TEXT


def test_bytes_behind_brotli_are_refused_together_with_its_end_or_later() -> None:
    packed = brotli.compress(TEXT)
    for pieces in ([packed + b"x"], [packed, b"x"]):
        with pytest.raises(BadEncoding):
            list(decoded(b"br", pieces))


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"deflate ", b"br", b"zstd", b"gzip, br", b"gzip, gzip"])
def test_a_bomb_comes_in_pieces_of_bounded_memory(coding: bytes) -> None:
    size = 48 * MAX_PIECE + 12345
    packed = {**PACKED, b"gzip, gzip": lambda data: gzip.compress(gzip.compress(data))}[coding](bytes(size))
    tracemalloc.start()
    try:
        total = 0
        for piece in decoded(coding, [packed[at : at + 65536] for at in range(0, len(packed), 65536)]):
            # Brotli's grows by blocks, so it is past its limit by as much.
            assert len(piece) <= 2 * MAX_PIECE
            total += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == size
    assert peak < 24 * MAX_PIECE


@pytest.mark.parametrize("layers", [2, 3])
def test_a_coding_that_makes_much_for_the_next_one_which_makes_nothing_of_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    """Of a gigabyte of empty members nothing comes out in the end, but hours of work go in."""
    monkeypatch.setattr(decoding, "INNER_RATIO_FROM", 1 << 20)
    packed = gzip.compress(b"") * ((2 << 20) // 20)
    for _ in range(layers - 1):
        packed = gzip.compress(packed)
    decoder = decoder_of(b", ".join([b"gzip"] * layers))
    assert decoder is not None
    steps = 0
    with pytest.raises(BadEncoding, match="of several makes more than 200 bytes of one"):
        while decoder.decode(b"" if steps else packed) == b"":
            assert not decoder.wants_input
            steps += 1
    # Each step is a small one, after which others have a turn of the loop.
    assert steps >= (1 << 20) // decoding.MAX_INNER_PIECE - 1


def test_codings_that_change_nothing_need_no_decoder() -> None:
    assert decoder_of(b"") is None
    assert decoder_of(b" identity ,, IDENTITY") is None


@pytest.mark.parametrize("coding", [b"utf-8", b"gzip, binary", b"none, gzip", b"\xff"])
def test_a_body_of_what_is_no_coding_is_left_as_it_is(coding: bytes) -> None:
    assert decoder_of(coding) is None


def test_too_many_codings_are_refused() -> None:
    with pytest.raises(BadEncoding):
        decoder_of(b", ".join([b"gzip"] * 6))


def test_a_coding_whose_package_is_missing_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoding.accepted_codings() == "gzip, deflate, br, zstd"
    monkeypatch.setattr(decoding, "_brotli", lambda: None)
    monkeypatch.setattr(decoding, "_zstd", lambda: None)
    assert decoding.accepted_codings() == "gzip, deflate"
    with pytest.raises(BadEncoding, match="pip install brotli"):
        decoder_of(b"br")
    with pytest.raises(BadEncoding, match=r"pip install backports\.zstd"):
        decoder_of(b"zstd")
