"""Fuzzing of the reader of responses: the corpus and spoiled answers, which are read alike however they are cut.

Every day the same answers, in seconds; NIGHTLY=1 plays a hundred times as many that nobody has played before. Of one
that finds something, the message has the bytes: mend what it found, and keep them as a file in tests/core/corpus.
"""

from __future__ import annotations

import gzip
import random
import sys
import zlib
from pathlib import Path

import pytest
from support.http_fuzz import CORPUS, RULES, alone, cut, decoded, on_a_connection, streams
from support.http_responses import each_cut
from support.http_spoiled import edited
from support.tiers import NIGHTLY, by_tier

from pepperpy.network.http.h1.decoding import decoder_of

START = random.SystemRandom().randrange(1 << 40) if NIGHTLY else 0
TEXT = b"".join(b"%d hello world " % number for number in range(40))


@pytest.mark.parametrize("seed", CORPUS, ids=lambda path: path.stem)
def test_what_was_found_once_is_read_alike_cut_at_any_byte(seed: Path) -> None:
    data = seed.read_bytes()
    for rules in RULES:
        for without_body in (False, True):
            whole = alone([data], rules, without_body)
            for pieces in each_cut(data):
                assert alone(pieces, rules, without_body) == whole


@pytest.mark.timeout(by_tier(300, nightly=3600))
def test_any_bytes_are_read_alike_however_they_are_cut() -> None:
    for name, data, chance in streams(START, by_tier(2000, nightly=200_000)):
        rules, without_body = chance.choice(RULES), chance.random() < 0.1
        whole = alone([data], rules, without_body)
        assert whole.used <= len(data)
        cuts = [cut(data, chance) for _ in range(3)]
        if len(data) < 3000:
            cuts.append([data[at : at + 1] for at in range(len(data))])
        for pieces in cuts:
            assert alone(pieces, rules, without_body) == whole, f"{name}: {data!r} in {shown(pieces)}"


@pytest.mark.timeout(by_tier(300, nightly=3600))
async def test_any_bytes_are_read_alike_from_a_connection() -> None:
    for name, data, chance in streams(START, by_tier(300, nightly=30_000)):
        rules, without_body = chance.choice(RULES), chance.random() < 0.1
        expected = alone([data], rules, without_body)
        for pieces in ([data], cut(data, chance)):
            got = await on_a_connection(pieces, rules, without_body, chance)
            if expected.error:
                # Who takes the rest in one piece gets nothing of one that is cut off.
                assert expected.body.startswith(got.body), f"{name}: {data!r}"
                got.body = expected.body
            assert got == expected, f"{name}: {data!r} in {shown(pieces)}"


def shown(pieces: list[bytes]) -> str:
    return f"{len(pieces)} pieces of {[*map(len, pieces)][:10]} bytes"


def _packed() -> dict[bytes, list[bytes]]:
    raw = zlib.compressobj(wbits=-15)
    packed = {
        b"gzip": [gzip.compress(TEXT), gzip.compress(b"") + gzip.compress(TEXT) * 2, gzip.compress(TEXT) + b"\r\n"],
        b"deflate": [zlib.compress(TEXT), raw.compress(TEXT) + raw.flush()],
        b"gzip, gzip": [gzip.compress(gzip.compress(TEXT))],
    }
    brotli = pytest.importorskip("brotli")
    zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    packed[b"br"] = [brotli.compress(TEXT)]
    packed[b"zstd"] = [zstd.compress(TEXT), zstd.compress(b"") + zstd.compress(TEXT)]
    return packed


@pytest.mark.timeout(by_tier(300, nightly=3600))
def test_any_compressed_bytes_are_decoded_alike_however_they_are_cut() -> None:
    packed = _packed()
    for number in range(START, START + by_tier(1000, nightly=100_000)):
        chance = random.Random(number)
        coding = chance.choice(sorted(packed))
        data = chance.choice(packed[coding])
        for _ in range(chance.randint(0, 3)):
            data = edited(chance, data)

        def make(coding: bytes = coding) -> object:
            return decoder_of(coding)

        error, whole = decoded(make, [data] if data else [])
        for pieces in (cut(data, chance), [data[at : at + 1] for at in range(len(data))]):
            got, output = decoded(make, filter(None, pieces))
            assert got == error, f"{coding!r}: {data!r} in {shown(pieces)}"
            # What a step has made before its error is lost with it.
            assert output == whole if not error else output[: len(whole)] == whole[: len(output)], (
                f"{coding!r}: {data!r}"
            )
