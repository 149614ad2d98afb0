"""Downloads with `resume=True`: a later call, also of another program, goes on where an earlier one broke off."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import json
import os
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import until
from support.file_server import DATA, OLD, Answer, FileServer, Served, answer, rest, untouched, whole
from support.http_peer import http_peer

from pepperpy.network import (
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    IncompleteReadError,
    IntegrityError,
    NetworkError,
    ResponseTooLargeError,
)
from pepperpy.network.http import kept_file
from pepperpy.network.http.download import BATCH
from pepperpy.network.http.part_file import PartFile

pytestmark = pytest.mark.usefixtures("no_waits")

CUT = 3000
CHECKSUM = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
WHOLE, HALF = whole(), whole(cut=CUT)


@contextlib.asynccontextmanager
async def site(*answers: Answer) -> AsyncIterator[Served]:
    server = FileServer(*answers)
    async with http_peer(server.handle) as peer, HTTPClient(HTTPConfig(peer.url, retries=0)) as client:
        yield Served(peer, client, server)


async def break_off(it: Served, target: Path, **options: Any) -> None:
    """A download of which the first bytes come."""
    with pytest.raises(IncompleteReadError):
        await it.download(target, resume=True, **options)
    assert target.read_bytes() == OLD


def left_of(target: Path) -> list[Path]:
    return sorted((path for path in target.parent.iterdir() if path != target), key=lambda path: len(path.name))


def on_disk(target: Path) -> int:
    """How many bytes of an unfinished download are in its file."""
    return sum(path.stat().st_size for path in target.parent.glob(".*.part"))


@pytest.mark.parametrize("checksum", [None, CHECKSUM])
async def test_a_later_download_goes_on_behind_what_came(target: Path, checksum: str | None) -> None:
    async with site(HALF, rest(CUT, cut=1000), rest(CUT + 1000)) as it:
        await break_off(it, target, checksum=checksum)
        part, notes = left_of(target)
        assert part.read_bytes() == DATA[:CUT] and notes.name == f"{part.name}.json"
        assert "/file" not in notes.read_text()  # a URL may hold secrets
        await break_off(it, target, checksum=checksum)
        result = await it.download(target, checksum=checksum, resume=True)
        assert target.read_bytes() == DATA and left_of(target) == []
        assert it.asked("Range") == [None, "bytes=3000-", "bytes=4000-"]
        assert it.asked("If-Range") == [None, '"1"', '"1"']
        assert (result.size, result.resumed, result.attempts, result.headers["ETag"]) == (len(DATA), 1, 1, '"1"')
        assert result.url == f"{it.peer.url}/file"


PROGRAM = """
import asyncio, sys
from pepperpy.network import HTTPClient

async def main():
    async with HTTPClient() as client:
        await client.download(sys.argv[1], sys.argv[2], resume=True)

asyncio.run(main())
"""


async def killed(it: Served, target: Path) -> None:
    """A program that is killed while it downloads."""
    command = (sys.executable, "-c", PROGRAM, f"{it.peer.url}/file", str(target))
    program = await asyncio.create_subprocess_exec(*command)
    try:
        await until(lambda: on_disk(target) >= CUT, "a part is on the disk")
    finally:
        program.send_signal(signal.SIGKILL)
        await program.wait()


# More than what is given to a thread at once.
LARGE = os.urandom(3 << 20)


def large(cut: int | None = None) -> Answer:
    return whole(LARGE, cut=cut)


@pytest.mark.needs_server
async def test_a_program_goes_on_where_another_one_was_killed(target: Path) -> None:
    async with hanging_site() as it:
        await killed(it, target)
        size = left_of(target)[0].stat().st_size
        assert CUT <= size < len(LARGE)
        result = await it.download(target, resume=True)
        assert target.read_bytes() == LARGE and left_of(target) == []
        assert (it.asked("Range"), result.resumed) == ([None, f"bytes={size}-"], 1)


@pytest.mark.needs_server
async def test_after_a_start_of_the_system_only_what_was_surely_on_the_disk_counts(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hanging_site() as it:
        await killed(it, target)
        monkeypatch.setattr(kept_file, "_boot_id", lambda: "another")
        await it.download(target, resume=True)
        assert it.asked("Range") == [None, None] and target.read_bytes() == LARGE
    target.write_bytes(OLD)
    async with site(HALF, rest(CUT)) as it:
        await break_off(it, target)
        monkeypatch.setattr(kept_file, "_boot_id", lambda: "a third one")
        await it.download(target, resume=True)
        assert it.asked("Range") == [None, "bytes=3000-"] and target.read_bytes() == DATA


@contextlib.asynccontextmanager
async def hanging_site() -> AsyncIterator[Served]:
    """Sends two thirds of LARGE to the first connection, then nothing; to further ones what they ask for."""

    async def handle(connection: Any) -> None:
        request = await connection.read_request()
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        if connection.number == 1:
            await connection.send(large().sent[: 2 << 20])
            await connection.wait_closed()
        else:
            await connection.send(rest(start, LARGE).sent if start else large().sent)

    async with http_peer(handle) as peer, HTTPClient(HTTPConfig(peer.url, retries=0)) as client:
        yield Served(peer, client, FileServer(WHOLE))


async def test_a_file_that_came_whole_but_was_not_put_in_place_needs_its_last_byte(target: Path) -> None:
    async with site(WHOLE, rest(len(DATA) - 1)) as it:

        def stops(size: int, total: int | None) -> None:
            if size == total:
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError):
            await it.client.download("/file", target, progress=stops, resume=True)
        await it.download(target, checksum=CHECKSUM, resume=True)
        assert it.asked("Range") == [None, f"bytes={len(DATA) - 1}-"]
        assert target.read_bytes() == DATA and left_of(target) == []


async def test_a_cancelled_download_is_gone_on_with(target: Path) -> None:
    async with hanging_site() as it:
        task = asyncio.ensure_future(it.download(target, resume=True))
        await until(lambda: on_disk(target) >= CUT, "a part is on the disk")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await it.download(target, resume=True)
        assert target.read_bytes() == LARGE and left_of(target) == []


@pytest.mark.parametrize("step", ["_create", "_find", "_add_to_hash"])
async def test_one_that_is_cancelled_before_it_asks_for_the_rest_loses_nothing(
    target: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, goes_on = threading.Event(), threading.Event()
    begin = getattr(kept_file.KeptFile, step)

    def slow(self: Any, *arguments: Any) -> Any:
        reached.set()
        assert goes_on.wait(20)
        return begin(self, *arguments)

    async with site(HALF, rest(CUT)) as it:
        await break_off(it, target)
        with monkeypatch.context() as patch:
            patch.setattr(kept_file.KeptFile, step, slow)
            task = asyncio.ensure_future(it.download(target, checksum=CHECKSUM, resume=True))
            await until(reached.is_set, "the step is under way")
            task.cancel()
            goes_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert on_disk(target) == CUT and len(left_of(target)) == 2
        await it.download(target, checksum=CHECKSUM, resume=True)
        assert it.asked("Range") == [None, "bytes=3000-"] and left_of(target) == []


OTHERS = [
    (whole(DATA[::-1], etag='"2"'), "/file", [None, "bytes=3000-"]),  # the file has changed
    (whole(DATA[::-1]), "/other", [None, None]),  # another file
]


@pytest.mark.parametrize(("second", "path", "asked"), OTHERS)
async def test_another_version_or_another_file_begins_anew(
    target: Path, second: Answer, path: str, asked: list[str | None]
) -> None:
    async with site(HALF, second) as it:
        await break_off(it, target)
        await it.client.download(path, target, resume=True)
        assert (it.asked("Range"), target.read_bytes()) == (asked, DATA[::-1])
        assert left_of(target) == []


INFINITE = b'{"headers": [], "resource": "", "total": null, "boot": null, "written": Infinity}'
BROKEN = [b"", b"{", b"[]", b"[" * 100_000, b'{"resource": 1}', b"\xff", b'{"headers": [["ETag"]]}', INFINITE]


@pytest.mark.parametrize("notes", BROKEN)
async def test_notes_that_nobody_can_read_are_left_out(target: Path, notes: bytes) -> None:
    async with site(HALF, WHOLE) as it:
        await break_off(it, target)
        left_of(target)[1].write_bytes(notes)
        await it.download(target, resume=True)
        assert it.asked("Range") == [None, None] and target.read_bytes() == DATA


async def test_a_version_without_a_name_is_not_kept(target: Path) -> None:
    async with site(answer(DATA, cut=CUT)) as it:
        await break_off(it, target)
        assert untouched(target)


async def test_a_file_that_is_wrong_is_not_kept(target: Path) -> None:
    async with site(WHOLE) as it:
        with pytest.raises(IntegrityError):
            await it.download(target, checksum=f"sha256:{'0' * 64}", resume=True)
        assert untouched(target)
        with pytest.raises(ResponseTooLargeError):
            await it.download(target, max_response_size=100, resume=True)
        assert untouched(target)


async def test_a_server_that_fails_for_a_while_costs_nothing_of_what_came(target: Path) -> None:
    async with site(HALF, answer(b"", status="503 Busy"), rest(CUT)) as it:
        await break_off(it, target)
        with pytest.raises(HTTPStatusError):
            await it.download(target, resume=True)
        await it.download(target, resume=True)
        assert it.asked("Range") == [None, "bytes=3000-", "bytes=3000-"] and target.read_bytes() == DATA


async def test_only_one_download_at_a_time_uses_what_came(target: Path) -> None:
    async with hanging_site() as it:
        first = asyncio.ensure_future(it.download(target, resume=True))
        await until(lambda: bool(it.peer.requests), "the first download has begun")
        with pytest.raises(NetworkError, match=r"cannot write .*file\.bin': another download of it is under way"):
            await it.download(target, resume=True)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await it.download(target, resume=True)
        assert target.read_bytes() == LARGE and left_of(target) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links are files there")
@pytest.mark.parametrize("link", [os.symlink, os.link])
async def test_a_link_that_somebody_else_has_put_there_is_not_written_to(target: Path, link: Any) -> None:
    async with site(HALF, WHOLE) as it:
        await break_off(it, target)
        part, notes = left_of(target)
        victim = target.parent / "victim"
        victim.write_bytes(b"mine")
        part.unlink()
        link(victim, part)
        with pytest.raises(NetworkError, match="cannot write"):
            await it.download(target, resume=True)
        assert victim.read_bytes() == b"mine" and target.read_bytes() == OLD
        part.unlink()
        notes.unlink()
        (target.parent / f"{notes.name}.new").symlink_to(victim)
        await it.download(target, resume=True)
        assert victim.read_bytes() == b"mine" and target.read_bytes() == DATA


def test_notes_are_of_the_owner_only(target: Path) -> None:
    async def main() -> None:
        async with site(HALF) as it:
            await break_off(it, target)

    asyncio.run(main())
    notes = left_of(target)[1]
    assert notes.stat().st_mode & 0o777 == 0o600
    assert json.loads(notes.read_text())["written"] == CUT


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")
@pytest.mark.parametrize("checksum", [CHECKSUM, f"sha256:{'0' * 64}"])
async def test_what_is_left_is_put_away_before_another_download_may_lock_it(
    target: Path, checksum: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[list[Path]] = []

    class File(io.FileIO):
        def close(self) -> None:
            if not self.closed and self.name == str(part):
                left.append(left_of(target))
            super().close()

    async with site(HALF, rest(CUT)) as it:
        await break_off(it, target)
        part, _ = left_of(target)
        monkeypatch.setattr(kept_file.io, "FileIO", File)
        with contextlib.suppress(IntegrityError):
            await it.download(target, checksum=checksum, resume=True)
    assert left == [[]]


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[Callable[[], None]]:
    """The nearest to a full disk that needs no rights. What it gives lifts the limit before the end of the block.

    It ends within the test: pytest writes what came of a test, often to a file, before the fixtures of the test end.
    """
    resource = pytest.importorskip("resource", reason="Windows has none")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield lift
    finally:
        lift()


async def full_disk(it: Served, target: Path) -> None:
    with pytest.raises(NetworkError, match=r"cannot write .*: File too large") as raised:
        await it.download(target, resume=True)
    assert raised.value.errno == errno.EFBIG and target.read_bytes() == OLD


@pytest.mark.parametrize("came", [BATCH // 2, BATCH, 2 * BATCH, 2 * BATCH + 1])
async def test_what_came_until_the_disk_was_full_is_gone_on_with(target: Path, came: int) -> None:
    data = random.Random(came).randbytes(2 * BATCH + 5)
    async with site(whole(data), rest(came, data)) as it:
        with no_file_larger_than(came):
            await full_disk(it, target)
        assert on_disk(target) == came and len(left_of(target)) == 2
        result = await it.download(target, resume=True)
        assert result.resumed == 1 and target.read_bytes() == data


async def test_nothing_follows_what_could_not_be_written_when_there_is_room_again(target: Path) -> None:
    """What is received by then comes behind it, so the file would have a hole that no later download can see."""
    data = random.Random(5).randbytes(4 * BATCH)
    came = BATCH // 2
    failed = threading.Event()

    def write(self: PartFile, pieces: list[bytes]) -> None:
        try:
            write_pieces(self, pieces)
        except OSError:
            lift()
            failed.set()
            raise

    write_pieces = PartFile._write
    async with site(whole(data), rest(came, data)) as it:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PartFile, "_write", write)
            with no_file_larger_than(came) as lift:
                await full_disk(it, target)
        assert failed.is_set() and on_disk(target) == came
        await it.download(target, resume=True)
        assert target.read_bytes() == data


async def test_a_disk_without_room_for_the_notes_is_left_as_it_was(target: Path) -> None:
    async with site(WHOLE) as it:
        with no_file_larger_than(0):
            await full_disk(it, target)
        assert left_of(target) == []
