"""Downloads: what is asked for, and what becomes of the answers; the file is there whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import until
from support.file_server import DATA, OLD, PARTIAL, Answer, FileServer, answer, rest, served, untouched, whole
from support.http_faults import chunked_response
from support.http_peer import Connection, http_peer
from support.limits import longer_and_longer
from support.nginx import BIG_SHA256, BIG_SIZE, Nginx

from pepperpy.network import (
    ClosedError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    IncompleteReadError,
    NetworkTimeoutError,
    ProtocolError,
)
from pepperpy.network.http.download import strong_validator

pytestmark = pytest.mark.usefixtures("no_waits")

MIB = 1 << 20


# ---- A whole file ----


async def test_a_file_is_downloaded_with_its_checksum(web: Nginx, target: Path) -> None:
    async with HTTPClient() as client:
        result = await client.download(web.url("/files/big.bin"), target, checksum=f"sha256:{BIG_SHA256}")
    assert hashlib.sha256(target.read_bytes()).hexdigest() == BIG_SHA256
    assert (result.path, result.size, result.attempts, result.resumed) == (target, BIG_SIZE, 1, 0)
    assert result.url == web.url("/files/big.bin")
    assert result.headers["ETag"]
    assert result.elapsed > 0
    assert os.listdir(target.parent) == [target.name]


async def test_the_result_shows_no_secret(web: Nginx, target: Path) -> None:
    async with HTTPClient() as client:
        result = await client.download(web.url("/text?token=hunter2"), target)
    assert "hunter2" not in repr(result)


async def test_what_is_at_the_path_stays_until_the_file_is_whole(web: Nginx, target: Path) -> None:
    async with HTTPClient() as client:
        await client.download(
            web.url("/files/big.bin"),
            target,
            progress=lambda *_: pytest.fail("gone") if target.read_bytes() != OLD else None,
        )
    assert target.stat().st_size == BIG_SIZE


async def test_the_file_is_asked_for_uncompressed(web: Nginx, target: Path) -> None:
    async with HTTPClient() as client:
        result = await client.download(web.url("/gzip/data.json"), target)
    assert target.read_bytes() == (web.root / "data.json").read_bytes()
    assert "Content-Encoding" not in result.headers


GZIPPED = gzip.compress(DATA)
AS_GZIP = ("Content-Encoding: gzip", 'ETag: "1"')


async def test_a_file_has_the_bytes_that_came_and_resumes_whatever_its_content_encoding_says(target: Path) -> None:
    half = len(GZIPPED) // 2
    span = f"Content-Range: bytes {half}-{len(GZIPPED) - 1}/{len(GZIPPED)}"
    part = answer(GZIPPED[half:], span, *AS_GZIP, status=PARTIAL)
    async with served(answer(GZIPPED, *AS_GZIP, cut=half), part) as it:
        result = await it.download(target, checksum=f"sha256:{hashlib.sha256(GZIPPED).hexdigest()}")
        assert it.asked("Range") == [None, f"bytes={half}-"]
        assert it.asked("Accept-Encoding") == ["identity", "identity"]
    assert target.read_bytes() == GZIPPED
    assert result.headers["Content-Encoding"] == "gzip"
    assert {total for _, total in it.server.reports} == {len(GZIPPED)}


async def test_a_rest_in_another_coding_is_not_the_rest(target: Path) -> None:
    part = answer(DATA[100:], "Content-Range: bytes 100-4999/5000", 'ETag: "1"', status=PARTIAL)
    async with served(answer(GZIPPED, *AS_GZIP, cut=10), part, answer(GZIPPED, *AS_GZIP)) as it:
        await it.download(target)
        assert it.asked("Range") == [None, "bytes=10-", None]
    assert target.read_bytes() == GZIPPED


async def test_a_file_that_is_decompressed_on_request_starts_again(target: Path) -> None:
    # What has been decompressed when the connection ends is not known: the cut is before the body's first byte.
    async with served(answer(GZIPPED, *AS_GZIP, cut=0), answer(GZIPPED, *AS_GZIP)) as it:
        await it.download(target, decompress=True)
        assert it.asked("Range") == [None, None]
    assert target.read_bytes() == DATA
    assert {total for _, total in it.server.reports} == {None}


# ---- Breaking off, and going on ----


@pytest.mark.parametrize("cut", [1, 2, 1234, 4999])
async def test_a_download_goes_on_where_it_broke_off(target: Path, cut: int) -> None:
    async with served(whole(cut=cut), rest(cut)) as it:
        result = await it.download(target, checksum=f"sha256:{hashlib.sha256(DATA).hexdigest()}")
        assert it.asked("Range") == [None, f"bytes={cut}-"]
        assert it.asked("If-Range") == [None, '"1"']
    assert target.read_bytes() == DATA
    assert (result.size, result.attempts, result.resumed) == (5000, 2, 1)


async def test_a_download_may_break_off_again_and_again(target: Path) -> None:
    async with served(whole(cut=10), rest(10, cut=20), rest(30, cut=40), rest(70), retries=3) as it:
        result = await it.download(target)
        assert it.asked("Range") == [None, "bytes=10-", "bytes=30-", "bytes=70-"]
        assert it.client.stats.retries == 3
    assert target.read_bytes() == DATA
    assert (result.attempts, result.resumed) == (4, 3)


async def test_a_download_that_brought_nothing_begins_again(target: Path) -> None:
    async with served(whole(cut=0), whole()) as it:
        await it.download(target)
        assert it.asked("Range") == [None, None]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("place", ["files", "no-ranges", "no-validators"])
async def test_nginx_goes_on_where_its_connection_broke_off(web: Nginx, target: Path, place: str) -> None:
    cut = 3_000_000
    received = 0

    def progress(size: int, total: int | None) -> None:
        nonlocal received
        received = size

    async def broken_line(connection: Connection) -> None:
        request = await connection.read_request()
        reader, writer = await asyncio.open_connection("127.0.0.1", web.http_port)
        try:
            fields = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            writer.write(f"GET {request.target} HTTP/1.1\r\n{fields}\r\n".encode())
            await connection.send(await reader.readuntil(b"\r\n\r\n"))
            left = cut if connection.number == 1 else BIG_SIZE
            while left and (data := await reader.read(min(left, 65536))):
                await connection.send(data)
                left -= len(data)
            if connection.number == 1:
                await until(lambda: received == cut, "the client has got all before the cut")
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with http_peer(broken_line) as peer, HTTPClient(HTTPConfig(peer.url, read_timeout=5)) as client:
        # The relay does not know where a body ends.
        options: Any = {"headers": {"Connection": "close"}, "progress": progress}
        result = await client.download(f"/{place}/big.bin", target, checksum=f"sha256:{BIG_SHA256}", **options)
    ranges = [request.headers.get("Range") for request in peer.requests]
    assert ranges == [None, None if place == "no-validators" else f"bytes={cut}-"]
    assert hashlib.sha256(target.read_bytes()).hexdigest() == BIG_SHA256
    assert result.resumed == (1 if place == "files" else 0)
    assert [request.bytes_sent for request in web.requests()][-1] == (BIG_SIZE - cut if place == "files" else BIG_SIZE)


async def test_a_file_that_has_changed_meanwhile_is_the_new_one_from_its_start(target: Path) -> None:
    old, new = bytes(2 * MIB), b"new" * 1000
    async with served(
        whole(old, cut=2 * MIB - 1), whole(new, etag='"2"', cut=100), rest(100, new, headers=('ETag: "2"',))
    ) as it:
        result = await it.download(target, checksum=f"md5:{hashlib.md5(new).hexdigest()}")
        assert it.asked("If-Range") == [None, '"1"', '"2"']
    assert target.read_bytes() == new
    assert (result.size, result.resumed, result.headers["ETag"]) == (3000, 1, '"2"')


DATES = {"Last-Modified": "Fri, 02 Jan 2026 10:00:00 GMT", "Date": "Fri, 02 Jan 2026 10:01:00 GMT"}


async def test_a_date_is_used_where_there_is_no_etag(target: Path) -> None:
    headers = tuple(f"{name}: {value}" for name, value in DATES.items())
    changed = rest(7, headers=("Last-Modified: Fri, 02 Jan 2026 10:00:01 GMT",))
    async with served(
        answer(DATA, *headers, cut=7), changed, answer(DATA, *headers, cut=9), rest(9, headers=headers)
    ) as it:
        await it.download(target)
        assert it.asked("If-Range") == [None, DATES["Last-Modified"], None, DATES["Last-Modified"]]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    "headers, expected",
    [
        ({"ETag": '"a"'} | DATES, '"a"'),
        ({"ETag": '""'}, '""'),
        ({"ETag": 'W/"a"'} | DATES, None),
        ({"ETag": "a"} | DATES, None),
        ({"ETag": '"a" "b"'} | DATES, None),
        ({"ETag": '"\udce4"'} | DATES, None),
        (DATES, DATES["Last-Modified"]),
        (DATES | {"Date": "Fri, 02 Jan 2026 10:00:59 GMT"}, None),
        ({"Last-Modified": DATES["Last-Modified"]}, None),
        (DATES | {"Date": "soon"}, None),
        (DATES | {"Last-Modified": "Fri, 02 Jan 2026 10:00:00 +99999999999999"}, None),
        ({}, None),
    ],
)
def test_only_what_names_one_version_for_certain_is_a_strong_validator(
    headers: dict[str, str], expected: str | None
) -> None:
    assert strong_validator(headers) == expected


WRONG_PARTS = {
    "another start": answer(DATA[99:], "Content-Range: bytes 99-4999/5000", status=PARTIAL),
    "another total": answer(DATA[100:], "Content-Range: bytes 100-4999/5001", status=PARTIAL),
    "an end beyond the total": answer(DATA[100:], "Content-Range: bytes 100-5000/5000", status=PARTIAL),
    "an end before the start": answer(b"", "Content-Range: bytes 100-99/5000", status=PARTIAL),
    "another unit": answer(DATA[100:], "Content-Range: lines 100-4999/5000", status=PARTIAL),
    "no range": answer(DATA[100:], status=PARTIAL),
    "a version that is not the one asked for": rest(100, headers=('ETag: "2"',)),
    "no version": rest(100, headers=()),
    "a compressed part": rest(100, headers=("Content-Encoding: gzip",)),
    "416": answer(b"", "Content-Range: bytes */50", status="416 Range Not Satisfiable"),
}


@pytest.mark.parametrize("wrong", WRONG_PARTS.values(), ids=WRONG_PARTS.keys())
async def test_a_part_that_does_not_fit_makes_the_download_start_again(target: Path, wrong: Answer) -> None:
    async with served(whole(cut=100), wrong, whole(), retries=1) as it:
        await it.download(target)
        assert it.asked("Range") == [None, "bytes=100-", None]
        assert it.asked("If-Range") == [None, '"1"', None]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("wrong", WRONG_PARTS.values(), ids=WRONG_PARTS.keys())
async def test_a_download_starts_again_for_such_a_part_only_once(target: Path, wrong: Answer) -> None:
    async with served(whole(cut=100), wrong, whole(cut=100), wrong, whole(), retries=9) as it:
        with pytest.raises((ProtocolError, HTTPStatusError)) as raised:
            await it.download(target)
        assert len(it.peer.requests) == 4
    assert isinstance(raised.value, HTTPStatusError) == (wrong is WRONG_PARTS["416"])
    assert untouched(target)


async def test_a_part_that_nobody_asked_for_is_refused(target: Path) -> None:
    async with served(rest(100)) as it:
        with pytest.raises(ProtocolError, match="bytes 100-4999/5000"):
            await it.download(target)
    assert untouched(target)


async def test_a_server_may_give_the_rest_in_parts(target: Path) -> None:
    part = answer(DATA[10:50], "Content-Range: bytes 10-49/5000", 'ETag: "1"', status=PARTIAL)
    async with served(whole(cut=10), part, rest(50)) as it:
        await it.download(target)
        assert it.asked("Range") == [None, "bytes=10-", "bytes=50-"]
    assert target.read_bytes() == DATA


async def test_the_total_may_be_unknown_at_first(target: Path) -> None:
    # The cut is in bytes of the body as it is sent: 5 of the chunk's frame come before its data.
    start = Answer(chunked_response([DATA[:500]], 'ETag: "1"'), start=-5, cut=505)
    unknown = answer(DATA[500:], "Content-Range: bytes 500-4999/*", 'ETag: "1"', status=PARTIAL)
    async with served(start, unknown) as it:
        result = await it.download(target)
        assert it.asked("Range") == [None, "bytes=500-"]
    assert target.read_bytes() == DATA
    assert result.resumed == 1
    assert it.server.reports[-1] == (5000, 5000)


# ---- How often ----


async def test_a_download_that_always_breaks_off_ends_with_that_error(target: Path) -> None:
    async with served(whole(cut=100), rest(100, cut=0), retries=2) as it:
        with pytest.raises(IncompleteReadError) as raised:
            await it.download(target)
        assert len(it.peer.requests) == 3
    assert raised.value.details["attempt"] == 3
    assert raised.value.details["phase"] == "body"
    assert untouched(target)


async def test_without_retries_a_download_does_not_go_on(target: Path) -> None:
    data = bytes(2 * MIB)
    async with served(whole(data, cut=MIB), rest(MIB, data), retries=0) as it:
        with pytest.raises(IncompleteReadError):
            await it.download(target)
        assert len(it.peer.requests) == 1
    assert untouched(target)


async def test_attempts_that_brought_a_mebibyte_do_not_count_against_the_retries(target: Path) -> None:
    data = random.Random(6).randbytes(MIB) * 3 + b"end"
    answers = [whole(data, cut=MIB), rest(MIB, data, cut=MIB), rest(2 * MIB, data, cut=10)]
    async with served(*answers, rest(2 * MIB + 10, data), retries=1) as it:
        result = await it.download(target)
    assert target.read_bytes() == data
    assert result.attempts == 4


async def test_the_same_mebibyte_again_counts(target: Path) -> None:
    async with served(answer(bytes(2 * MIB), cut=MIB), retries=1) as it:
        with pytest.raises(IncompleteReadError):
            await it.download(target)
        assert len(it.peer.requests) == 3
    assert untouched(target)


async def test_the_retry_budget_limits_what_goes_on(target: Path) -> None:
    async with served(whole(cut=1), rest(1, cut=0), retries=99, retry_budget=0) as it:
        with pytest.raises(IncompleteReadError):
            await it.download(target)
        assert it.client.stats.budget_refusals == 1
        assert len(it.peer.requests) == 11
    assert untouched(target)


async def silent_after(connection: Connection, sent: bytes) -> None:
    await connection.read_request()
    await connection.send(sent)
    await connection.wait_closed()


async def test_a_silent_server_is_asked_again_after_the_read_timeout(target: Path) -> None:
    server = FileServer(rest(100))

    async def handle(connection: Connection) -> None:
        if connection.number == 1:
            await silent_after(connection, whole().sent[:-4900])
        else:
            await server.handle(connection)

    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(read_timeout=0.2)) as client:
        await client.download(peer.url, target)
        assert [request.headers.get("Range") for request in peer.requests] == [None, "bytes=100-"]
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("limit", ["deadline", "timeout"])
async def test_the_limits_on_the_whole_end_a_download(target: Path, limit: Any) -> None:
    for seconds in longer_and_longer(0.2):
        async with (
            http_peer(lambda connection: silent_after(connection, whole().sent[:-1])) as peer,
            HTTPClient() as client,
        ):
            with pytest.raises(NetworkTimeoutError) as raised:
                await client.download(peer.url, target, **{limit: seconds})
        assert raised.value.details["limit"] == limit
        assert untouched(target)
        if peer.requests:
            break
    assert len(peer.requests) == 1


async def test_closing_the_client_ends_a_download(target: Path) -> None:
    async with http_peer(lambda connection: silent_after(connection, whole().sent[:-1])) as peer:
        client = HTTPClient()
        sizes: list[int] = []
        download = asyncio.create_task(client.download(peer.url, target, progress=lambda size, _: sizes.append(size)))
        await until(lambda: 4999 in sizes, "the client has got all but the last byte")
        await client.close()
        with pytest.raises(ClosedError):
            await download
    assert untouched(target)
