"""Checksums of downloads, and the progress that they report."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from support.file_server import DATA, Answer, rest, served, untouched, whole
from support.http_faults import chunked_response

from pepperpy.network import ConnectionLostError, IntegrityError, InvalidRequestError

pytestmark = pytest.mark.usefixtures("no_waits")

MIB = 1 << 20


# ---- Checksums ----


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha512", "blake2b", "sha3_256"])
async def test_the_checksum_may_be_any_of_hashlib(target: Path, algorithm: str) -> None:
    digest = hashlib.new(algorithm, DATA).hexdigest().upper()
    async with served(whole()) as it:
        await it.download(target, checksum=f"{algorithm}:{digest}")
    assert target.read_bytes() == DATA


async def test_a_file_with_another_checksum_is_not_put_in_place(target: Path) -> None:
    expected = "0" * 64
    async with served(whole(cut=100), rest(100)) as it:
        with pytest.raises(IntegrityError) as raised:
            await it.download(target, checksum=f"sha256:{expected}")
    actual = hashlib.sha256(DATA).hexdigest()
    assert f"sha256 is {actual}, not {expected}" in str(raised.value)
    assert (raised.value.details["expected"], raised.value.details["actual"]) == (expected, actual)
    assert untouched(target)


@pytest.mark.parametrize(
    "checksum, error",
    [
        ("", InvalidRequestError),
        ("0" * 64, InvalidRequestError),
        ("sha256", InvalidRequestError),
        ("sha256:", InvalidRequestError),
        ("sha256:" + "0" * 63, InvalidRequestError),
        ("sha256:" + "g" * 64, InvalidRequestError),
        ("crc32:00000000", InvalidRequestError),
        ("shake_128:00", InvalidRequestError),
        (b"sha256:" + b"0" * 64, TypeError),
    ],
)
async def test_a_checksum_that_cannot_be_is_refused_before_anything_is_sent(
    target: Path, checksum: Any, error: type[Exception]
) -> None:
    async with served(whole()) as it:
        with pytest.raises(error, match="checksum must"):
            await it.download(target, checksum=checksum)
        assert not it.peer.connections
    assert untouched(target)


# ---- Progress ----


async def test_progress_goes_from_nothing_to_the_size(target: Path) -> None:
    async with served(whole(bytes(MIB))) as it:
        await it.download(target)
    sizes = [size for size, _ in it.server.reports]
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (0, MIB)
    assert {total for _, total in it.server.reports} == {MIB}


async def test_an_empty_file_is_a_file(target: Path) -> None:
    async with served(whole(b"")) as it:
        result = await it.download(target)
    assert it.server.reports == [(0, 0)]
    assert (target.read_bytes(), result.size) == (b"", 0)


async def test_progress_begins_again_with_the_file(target: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    async with served(whole(cut=100), whole(b"new", etag='"2"')) as it:

        def progress(size: int, total: int | None) -> None:
            it.server.progress(size, total)
            reports.append((size, total))

        await it.client.download("/file", target, progress=progress)
    assert reports == [(0, 5000), (100, 5000), (0, 3), (3, 3)]


async def test_the_total_of_a_file_in_chunks_is_not_known(target: Path) -> None:
    async with served(Answer(chunked_response([b"ab", b"cde"]))) as it:
        await it.download(target)
    assert target.read_bytes() == b"abcde"
    assert {total for _, total in it.server.reports} == {None}


async def test_progress_may_be_a_coroutine_function(target: Path) -> None:
    sizes: list[int] = []

    async def progress(size: int, total: int | None) -> None:
        await asyncio.sleep(0)
        sizes.append(size)

    async with served(whole()) as it:
        await it.client.download("/file", target, progress=progress)
    assert sizes[-1] == 5000


@pytest.mark.parametrize("error", [LookupError("mine"), OSError("mine"), ConnectionLostError("mine")])
async def test_what_progress_raises_ends_the_download_as_it_is(target: Path, error: Exception) -> None:
    async def progress(size: int, total: int | None) -> None:
        if size:
            raise error

    async with served(whole(bytes(2 * MIB))) as it:
        with pytest.raises(type(error)) as raised:
            await it.client.download("/file", target, progress=progress)
        assert raised.value is error
        assert len(it.peer.requests) == 1
    assert untouched(target)


async def test_progress_must_be_callable(target: Path) -> None:
    async with served(whole()) as it:
        with pytest.raises(TypeError, match="progress must be callable, not int"):
            await it.client.download("/file", target, progress=1)  # type: ignore[typeddict-item]
        assert not it.peer.connections
