"""Downloads and their file: modes and links, cancellation, slow and full disks, answers that are not the file."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, until
from support.file_server import DATA, Answer, answer, rest, served, untouched, whole
from support.http_faults import chunked_response

from pepperpy.network import HTTPStatusError, InvalidRequestError, NetworkError, ResponseTooLargeError
from pepperpy.network.http.part_file import PartFile

pytestmark = pytest.mark.usefixtures("no_waits")

MIB = 1 << 20
NO_MODES = not hasattr(os, "geteuid") or os.geteuid() == 0


# ---- The file ----


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


# ---- Cancellation, and the thread that writes ----


@pytest.mark.slow
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
            assert self.go.wait(30), "nobody let the write go on"
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


async def test_a_cancellation_waits_for_the_write_that_is_under_way(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


# ---- Paths that cannot be written ----


@pytest.mark.parametrize("limit", [MIB + 5, 3 * MIB - 1])
async def test_a_full_disk_ends_the_download_with_its_own_error(target: Path, limit: int) -> None:
    resource = pytest.importorskip("resource", reason="Windows has none")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with served(whole(bytes(3 * MIB))) as it:
        try:
            # The nearest to a full disk that needs no rights: no file may be larger.
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OSError) as raised:
                await it.download(target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert len(it.peer.requests) == 1
    error: Any = raised.value
    assert error.errno == errno.EFBIG
    assert isinstance(error, NetworkError) and not isinstance(error, InvalidRequestError)
    assert f"cannot write '{target}': File too large (phase body" in str(error)
    assert untouched(target)


async def test_what_cannot_be_written_is_known_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to(os.devnull)
    (tmp_path / "folder").mkdir()
    before = sorted(os.listdir(tmp_path))
    cases = {
        "missing/file.bin": errno.ENOENT,
        "file/file.bin": errno.ENOTDIR,
        "folder": errno.EISDIR,
        "pipe": errno.EINVAL,
        "device": errno.EINVAL,
    }
    async with served(whole()) as it:
        for name, number in cases.items():
            with pytest.raises(InvalidRequestError, match=f"cannot write '{tmp_path / name}': .* attempt 0") as raised:
                await it.download(tmp_path / name)
            error: Any = raised.value
            assert isinstance(error, type(OSError(number, ""))) and error.errno == number, name
        message = r"cannot write '.*\\x00b': (lstat: )?embedded null (byte|character)"
        with pytest.raises(InvalidRequestError, match=message):
            await it.download(tmp_path / "a\0b")
        with pytest.raises(TypeError):
            await it.client.download("/file", None)  # type: ignore[arg-type]
        assert not it.peer.connections
    assert sorted(os.listdir(tmp_path)) == before
    assert os.listdir(tmp_path / "folder") == []


@pytest.mark.skipif(NO_MODES, reason="root may write everywhere; Windows has no such mode")
async def test_a_folder_that_must_not_be_written_is_known_before_anything_is_sent(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    async with served(whole()) as it:
        with pytest.raises(PermissionError):
            await it.download(tmp_path / "file.bin")
        assert not it.peer.connections


async def test_a_path_that_becomes_a_folder_meanwhile_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "new"
    async with served(whole()) as it:
        with pytest.raises(IsADirectoryError):
            await it.client.download("/file", path, progress=lambda size, _: path.mkdir() if size == 0 else None)
    assert os.listdir(tmp_path) == ["new"]
    assert os.listdir(path) == []


# ---- Answers that are not the file; options ----


@pytest.mark.parametrize(
    "status",
    [
        "404 Not Found",
        "416 Range Not Satisfiable",
        "500 Oops",
        "202 Accepted",
        "204 No Content",
        "304 Same",
        "302 Found",
    ],
)
async def test_an_answer_that_is_not_the_file_raises(target: Path, status: str) -> None:
    code = int(status[:3])
    body = b"" if code in (204, 304) else b"why"
    async with served(answer(body, "Location: /elsewhere", status=status)) as it:
        with pytest.raises(HTTPStatusError) as raised:
            await it.download(target, raise_for_status=False, allow_redirects=False)
        assert len(it.peer.requests) == 1
    assert (raised.value.status, raised.value.body) == (code, body)
    assert untouched(target)


async def test_a_file_has_no_limit_but_a_given_one(target: Path) -> None:
    async with served(whole(), max_response_size=10) as it:
        await it.download(target)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("large", [whole(), Answer(chunked_response([DATA]))], ids=["announced", "in chunks"])
async def test_a_file_beyond_the_given_limit_is_not_put_in_place(target: Path, large: Answer) -> None:
    async with served(large) as it:
        with pytest.raises(ResponseTooLargeError, match="max_response_size=4999"):
            await it.download(target, max_response_size=4999)
        assert all(total is None for _, total in it.server.reports), "an announced size is refused at once"
    assert untouched(target)


@pytest.mark.parametrize("name", ["Range", "if-range"])
async def test_a_range_cannot_be_asked_for(target: Path, name: str) -> None:
    async with served(whole()) as it:
        with pytest.raises(InvalidRequestError, match=r"the header (If-)?Range cannot be given"):
            await it.download(target, headers={name: "bytes=0-9"})
        assert not it.peer.connections
    assert untouched(target)


async def test_a_download_sends_what_every_request_may_have(target: Path) -> None:
    seen: list[str] = []

    class Stamp:
        def pre_request(self, method: str, url: str, **arguments: Any) -> None:
            seen.append(f"{method} {url}")
            arguments["headers"]["X-Stamp"] = "7"

    async with served(whole(cut=100), rest(100), interceptors=[Stamp()]) as it:
        await it.download(target, params={"a": 1}, headers={"X-Mine": "8"}, auth=("user", "word"), data=b"body")
        assert [request.target for request in it.peer.requests] == ["/file?a=1"] * 2
        for name, value in {"X-Stamp": "7", "X-Mine": "8", "Authorization": "Basic dXNlcjp3b3Jk"}.items():
            assert it.asked(name) == [value] * 2
    assert seen == ["GET /file"]
    assert {total for _, total in it.server.reports} == {5000}, (
        "progress is that of the file, not of the body that was sent"
    )


async def test_an_unknown_argument_is_refused(target: Path) -> None:
    async with served(whole()) as it:
        with pytest.raises(TypeError, match="unknown argument 'json'"):
            await it.download(target, json={})
    assert untouched(target)
