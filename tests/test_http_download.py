"""Downloads: the file is there whole or not at all, whatever breaks off, and nothing else is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import hashlib
import os
import random
import resource
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.http_faults import chunked_response, response
from support.http_peer import Connection, HTTPPeer, http_peer
from support.nginx import BIG_SHA256, BIG_SIZE, Nginx

from pepperpy.network import (
    ClosedError,
    ConnectionLostError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    IncompleteReadError,
    IntegrityError,
    InvalidRequestError,
    NetworkError,
    NetworkTimeoutError,
    ProtocolError,
    ResponseTooLargeError,
)
from pepperpy.network.backoff import without_waits
from pepperpy.network.http.download import DownloadResult, strong_validator
from pepperpy.network.http.part_file import PartFile

MIB = 1 << 20
DATA = random.Random(5).randbytes(5000)
OLD = b"what was there before"


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    with without_waits():
        yield


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file that a download replaces."""
    path = tmp_path / "file.bin"
    path.write_bytes(OLD)
    return path


def untouched(target: Path) -> bool:
    """Whether the file is as it was, and alone in its folder."""
    return target.read_bytes() == OLD and os.listdir(target.parent) == [target.name]


@dataclass(frozen=True)
class Answer:
    """One response; it breaks off after `cut` bytes of its body, once the client has reported that it has them."""

    sent: bytes
    start: int = 0  # where in the file its body begins
    cut: int | None = None


def answer(body: bytes, *headers: str, status: str = "200 OK", start: int = 0, cut: int | None = None) -> Answer:
    return Answer(response(body, *headers, status=status), start, cut)


def whole(data: bytes = DATA, *, etag: str = '"1"', cut: int | None = None) -> Answer:
    return answer(data, f"ETag: {etag}", cut=cut)


def rest(start: int, data: bytes = DATA, *, cut: int | None = None, headers: tuple[str, ...] = ('ETag: "1"',)) -> Answer:
    content_range = f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}"
    return answer(data[start:], content_range, *headers, status="206 Partial Content", start=start, cut=cut)


class FileServer:
    """Gives the n-th request the n-th answer, and later ones the last; knows how far the client has got."""

    def __init__(self, *answers: Answer) -> None:
        self.reports: list[tuple[int, int | None]] = []
        self._answers = list(answers)

    def progress(self, size: int, total: int | None) -> None:
        self.reports.append((size, total))

    async def handle(self, connection: Connection) -> None:
        while True:
            await connection.read_request()
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if answer.cut is None:
                await connection.send(answer.sent)
                continue
            self.reports.clear()
            end = answer.sent.index(b"\r\n\r\n") + 4 + answer.cut
            await connection.send(answer.sent[:end])
            # Otherwise what the client has not yet taken would be lost with the connection, or not.
            if answer.cut or not answer.start:
                await until(lambda: self._has(answer.start + answer.cut), "the client has got all before the cut")
            return

    def _has(self, size: int) -> bool:
        return bool(self.reports) and self.reports[-1][0] >= size


@dataclass
class Served:
    peer: HTTPPeer
    client: HTTPClient
    server: FileServer

    async def download(self, path: Path, **options: Any) -> DownloadResult:
        return await self.client.download("/file", path, progress=self.server.progress, **options)

    def asked(self, name: str) -> list[str | None]:
        """That header of each request."""
        return [request.headers.get(name) for request in self.peer.requests]


@contextlib.asynccontextmanager
async def served(*answers: Answer, **settings: Any) -> AsyncIterator[Served]:
    server = FileServer(*answers)
    async with http_peer(server.handle) as peer, HTTPClient(HTTPConfig(peer.url, **settings)) as client:
        yield Served(peer, client, server)
        assert client.stats.in_flight == 0
        assert client.stats.calls <= 1


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
            web.url("/files/big.bin"), target, progress=lambda *_: pytest.fail("gone") if target.read_bytes() != OLD else None
        )
    assert target.stat().st_size == BIG_SIZE


async def test_a_new_file_has_the_mode_that_any_new_file_has(tmp_path: Path) -> None:
    async with served(whole()) as it:
        before = os.umask(0o027)
        try:
            await it.download(tmp_path / "new")
        finally:
            os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


async def test_a_replaced_file_hands_down_its_mode(target: Path) -> None:
    target.chmod(0o606)
    async with served(whole()) as it:
        await it.download(target)
    assert target.read_bytes() == DATA
    assert stat.S_IMODE(target.stat().st_mode) == 0o606


async def test_a_link_is_followed_and_the_name_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real = tmp_path / "folder" / ("ä" * 127)
    (tmp_path / "link").symlink_to(real)
    async with served(whole()) as it:
        await it.client.download("/file", str(tmp_path / "link"))
    assert real.read_bytes() == DATA
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(real.parent) == [real.name]


async def test_the_file_is_asked_for_uncompressed(web: Nginx, target: Path) -> None:
    async with HTTPClient() as client:
        result = await client.download(web.url("/gzip/data.json"), target)
    assert target.read_bytes() == (web.root / "data.json").read_bytes()
    assert "Content-Encoding" not in result.headers


async def test_a_server_that_compresses_all_the_same_is_understood_but_not_resumed(target: Path) -> None:
    compressed = gzip.compress(DATA)
    headers = ("Content-Encoding: gzip", 'ETag: "1"')
    # What has been decompressed when the connection ends is not known: the cut is before the body's first byte.
    async with served(answer(compressed, *headers, cut=0), answer(compressed, *headers)) as it:
        await it.download(target)
        assert it.asked("Range") == [None, None]
        assert it.asked("Accept-Encoding") == ["identity", "identity"]
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
    assert result.resumed == (1 if place == "files" else 0)
    assert [request.bytes_sent for request in web.requests()][-1] == (BIG_SIZE - cut if place == "files" else BIG_SIZE)


async def test_a_file_that_has_changed_meanwhile_is_the_new_one_from_its_start(target: Path) -> None:
    new = b"new" * 1000
    async with served(whole(cut=4000), whole(new, etag='"2"', cut=100), rest(100, new, headers=('ETag: "2"',))) as it:
        result = await it.download(target, checksum=f"md5:{hashlib.md5(new).hexdigest()}")
        assert it.asked("If-Range") == [None, '"1"', '"2"']
    assert target.read_bytes() == new
    assert (result.size, result.resumed, result.headers["ETag"]) == (3000, 1, '"2"')


DATES = {"Last-Modified": "Fri, 02 Jan 2026 10:00:00 GMT", "Date": "Fri, 02 Jan 2026 10:01:00 GMT"}


async def test_a_date_is_used_where_there_is_no_etag(target: Path) -> None:
    headers = tuple(f"{name}: {value}" for name, value in DATES.items())
    changed = rest(7, headers=("Last-Modified: Fri, 02 Jan 2026 10:00:01 GMT",))
    async with served(answer(DATA, *headers, cut=7), changed, answer(DATA, *headers, cut=9), rest(9, headers=headers)) as it:
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


PARTIAL = "206 Partial Content"
WRONG_PARTS = {
    "another start": answer(DATA[99:], "Content-Range: bytes 99-4999/5000", status=PARTIAL),
    "another total": answer(DATA[100:], "Content-Range: bytes 100-4999/5001", status=PARTIAL),
    "an end beyond the total": answer(DATA[100:], "Content-Range: bytes 100-5000/5000", status=PARTIAL),
    "an end before the start": answer(b"", "Content-Range: bytes 100-99/5000", status=PARTIAL),
    "another unit": answer(DATA[100:], "Content-Range: lines 100-4999/5000", status=PARTIAL),
    "no range": answer(DATA[100:], status=PARTIAL),
    "a version that is not the one asked for": rest(100, headers=('ETag: "2"',)),
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
    part = answer(DATA[10:50], "Content-Range: bytes 10-49/5000", status=PARTIAL)
    async with served(whole(cut=10), part, rest(50)) as it:
        await it.download(target)
        assert it.asked("Range") == [None, "bytes=10-", "bytes=50-"]
    assert target.read_bytes() == DATA


async def test_the_total_may_be_unknown_at_first(target: Path) -> None:
    # The cut is in bytes of the body as it is sent: 5 of the chunk's frame come before its data.
    start = Answer(chunked_response([DATA[:500]], 'ETag: "1"'), start=-5, cut=505)
    unknown = answer(DATA[500:], "Content-Range: bytes 500-4999/*", status=PARTIAL)
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
    async with http_peer(lambda connection: silent_after(connection, whole().sent[:-1])) as peer, HTTPClient() as client:
        with pytest.raises(NetworkTimeoutError) as raised:
            await client.download(peer.url, target, **{limit: 0.2})
        assert len(peer.requests) == 1
    assert raised.value.details["limit"] == limit
    assert untouched(target)


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


# ---- Cancellation, and the thread that writes ----


@pytest.mark.parametrize("mode", Mode)
async def test_a_cancelled_download_leaves_nothing_behind_wherever_it_was(target: Path, mode: Mode) -> None:
    data = random.Random(7).randbytes(3 * MIB)
    number = 0
    cancelled = True
    while cancelled:
        number += 1
        # It waits for the server, for the thread, and before it goes on where it was.
        async with served(whole(data, cut=2 * MIB), rest(2 * MIB, data)) as it:
            cancelled = (await cancelled_at(it.download(target), number, mode)).cancelled
            assert untouched(target) if cancelled else target.read_bytes() == data
    assert number > 10
    assert os.listdir(target.parent) == [target.name]


class SlowDisk:
    """Holds each write up until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writing = threading.Event()
        self.go = threading.Event()
        write = PartFile._write

        def slow_write(file: PartFile, pieces: list[bytes]) -> None:
            self.writing.set()
            assert self.go.wait(10), "nobody let the write go on"
            write(file, pieces)

        monkeypatch.setattr(PartFile, "_write", slow_write)


async def test_a_slow_disk_does_not_hold_the_loop_up(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    data = random.Random(8).randbytes(4 * MIB)
    async with served(whole(data)) as it:
        download = asyncio.create_task(it.download(target, checksum=f"sha1:{hashlib.sha1(data).hexdigest()}"))
        await until(disk.writing.is_set, "the first write")
        # Enough for more of the body to come, if it were not held back.
        for _ in range(1000):
            await asyncio.sleep(0)
        assert it.server.reports[-1][0] <= 3 * MIB, "what is not written is limited"
        disk.go.set()
        await download
    assert target.read_bytes() == data


async def test_a_cancellation_waits_for_the_write_that_is_under_way(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    async with served(whole()) as it:
        download = asyncio.create_task(it.download(target))
        await until(disk.writing.is_set, "the write")
        for _ in range(3):
            download.cancel()
            await asyncio.sleep(0)
        assert not download.done()
        assert len(os.listdir(target.parent)) == 2
        disk.go.set()
        with pytest.raises(asyncio.CancelledError):
            await download
    assert untouched(target)
