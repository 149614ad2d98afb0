"""A body that fails, or reports progress to what fails, fails its request; a cancelled one closes what it opened."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import socket
import threading
import types
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.upload_site import BIG, REPLAYABLE, Again, make, once, site

from pepperpy.network.http.aiohttp_transport.payload import data_of
from pepperpy.network.http.sources import CHUNK, ChunksSource
from pepperpy.network.http.upload import BodyFailed, UploadPayload


@types.coroutine
def suspended() -> Generator[None, None, None]:
    yield


class NoWriter:
    transport = None

    async def write(self, chunk: bytes) -> None:
        pass


def test_a_body_that_is_dropped_awaits_nothing_of_its_generator() -> None:
    """Whoever drops a task of a loop that has ended was told "aclose(): asynchronous generator is already running"."""

    async def waiting() -> AsyncIterator[bytes]:
        yield b"x"
        await suspended()

    sending = ChunksSource(waiting(), "").write(NoWriter())
    sending.send(None)
    sending.close()


class Source(io.RawIOBase):
    """A file that gives `content` and then raises `error`."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        self._file = io.BytesIO(content)
        self._error = error

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if data := self._file.read(size):
            return data
        raise self._error


class NoException(BaseException):
    """As pytest.fail() raises."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(BIG)
    return path


# ---- Progress ----


@pytest.mark.parametrize("kind", [*REPLAYABLE, "multipart", "aiohttp.FormData"])
async def test_progress_adds_up_to_the_whole_body(kind: str, path: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    async def report(sent: int, total: int | None) -> None:
        await asyncio.sleep(0)
        seen.append((sent, total))

    def note(sent: int, total: int | None) -> str:
        seen.append((sent, total))
        return "ignored"

    async with site() as it:
        for progress in (note, report):
            if kind == "multipart":
                body = make({"a": "1"}, files={"b": path}, progress=progress)
            elif kind == "aiohttp.FormData":
                form = aiohttp.FormData({"a": "1"}, default_to_multipart=True)
                body = make(form, progress=progress)
            else:
                data = REPLAYABLE[kind](path)
                body = make(data, progress=progress)
            for _ in range(1 + body.replayable):
                # A chunked body, whose end the server waits for, so the last report is not cut off by the answer.
                options: dict[str, Any] = {"chunked": True, "headers": {}}
                seen.clear()
                got = await it.post(body, **options)
                counts = [sent for sent, _ in seen]
                assert counts == sorted(set(counts)) and counts[-1] == len(got.content)
                assert {total for _, total in seen} == {body.size}
                if len(got.content) > CHUNK:
                    assert len(counts) > len(got.content) // CHUNK
            if hasattr(data if kind in REPLAYABLE else None, "close"):
                data.close()


async def test_what_progress_raises_fails_the_request() -> None:
    class Mine(Exception):
        pass

    async def fail(sent: int, total: int | None) -> None:
        raise Mine

    def cancel(sent: int, total: int | None) -> None:
        raise asyncio.CancelledError

    def no_exception(sent: int, total: int | None) -> None:
        raise NoException

    async with site() as it:
        for progress, kind in ((fail, Mine), (cancel, asyncio.CancelledError), (no_exception, NoException)):
            for data in (BIG, Again()):
                body = make(data, progress=progress)
                with pytest.raises(aiohttp.ClientConnectionError) as caught:
                    await it.post(body)
                failure = caught.value.__cause__
                assert isinstance(failure, BodyFailed) and failure is body.failure
                assert isinstance(failure.__cause__, kind) and "progress" in str(failure)
        assert not it.got


# ---- Failures ----


async def test_what_a_source_raises_is_the_cause_of_the_failure(path: Path) -> None:
    async def failing(error: BaseException) -> AsyncIterator[bytes]:
        yield BIG
        raise error

    errors = [OSError(5, "Input/output error"), BrokenPipeError(32, "x"), TimeoutError("late"), ValueError("mine")]
    async with site() as it:
        for error in (*errors, asyncio.CancelledError(), NoException("mine")):
            for source in (failing(error), Source(BIG, error)):
                if isinstance(source, Source) and isinstance(error, asyncio.CancelledError):
                    continue
                for body in (make(source), make(files={"a": b"1", "b": ("b", source)})):
                    with pytest.raises(aiohttp.ClientConnectionError) as caught:
                        await it.post(body)
                    failure = caught.value.__cause__
                    assert isinstance(failure, BodyFailed) and failure is body.failure
                    assert type(error).__name__ in str(failure)
                    # The generator has ended with the first of the two bodies.
                    # What a thread raised, asyncio makes anew if it is a TimeoutError.
                    assert type(failure.__cause__) is type(error) and failure.__cause__.args == error.args
                    if not isinstance(source, Source):
                        break
        assert not it.got


async def test_a_task_that_nobody_runs_any_more_is_no_failure_of_the_source() -> None:
    """A loop that was closed too early leaves tasks to the collector, which would print what their end raises."""

    class Writer:
        transport = None

        async def write(self, chunk: object) -> None:
            pass

    class Waiting:
        def __aiter__(self) -> Waiting:
            return self

        async def __anext__(self) -> bytes:
            await asyncio.Event().wait()
            return b""

    body = make(Waiting())
    payload = body.payload()
    assert isinstance(payload, UploadPayload)
    sending = payload.write_with_length(Writer(), None)
    sending.send(None)
    sending.close()
    assert body.failure is None


async def test_a_source_that_fails_at_once_sends_no_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with aiohttp.ClientSession() as session:
            body = make(Source(b"", OSError(5, "x")))
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", data=data_of(body.payload(), body))
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            with sock, contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(sock, 1000) == b""


async def test_chunks_that_are_no_bytes_are_refused() -> None:
    class Text(Source):
        def read(self, size: int = -1) -> Any:
            return "text"

    class NotReady(Source):
        def read(self, size: int = -1) -> Any:
            return None

    async with site() as it:
        for source in (once(b"a", "b"), once(None), once(1), Text(b"", OSError()), NotReady(b"", OSError())):
            body = make(source)
            with pytest.raises(aiohttp.ClientConnectionError):
                await it.post(body)
            assert body.failure is not None and isinstance(body.failure.__cause__, TypeError)
            assert "bytes-like" in str(body.failure)
        assert not it.got


async def test_a_source_that_fails_after_the_answer_began_does_not_hang_it() -> None:
    begun = asyncio.Event()

    async def fail_later() -> AsyncIterator[bytes]:
        yield b"a"
        await begun.wait()
        raise ValueError("mine")

    async with site() as it:
        body = make(fail_later())
        async with it.session.post(it.url + "/answer", data=data_of(body.payload(), body)) as response:
            assert await response.content.readany() == b"begun"
            begun.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert body.failure is not None and isinstance(body.failure.__cause__, ValueError)
        await body.close()


async def test_a_failure_is_forgotten_at_the_next_attempt() -> None:
    calls = 0

    def fail_once(sent: int, total: int | None) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError

    async with site() as it:
        body = make(BIG, progress=fail_once)
        with pytest.raises(aiohttp.ClientConnectionError):
            await it.post(body)
        assert body.failure is not None
        assert (await it.post(body)).content == BIG
        assert body.failure is None


async def test_a_file_that_shrinks_fails_the_request(path: Path) -> None:
    def shrink(sent: int, total: int | None) -> None:
        os.truncate(path, 2 * CHUNK)

    async with site() as it:
        with path.open("rb") as file:
            for arguments in ({"data": path}, {"data": file}, {"files": {"a": path, "b": b"b"}}):
                path.write_bytes(BIG)
                body = make(**arguments, progress=shrink)
                with pytest.raises(aiohttp.ClientConnectionError) as caught:
                    await it.post(body)
                assert isinstance(caught.value.__cause__, BodyFailed)
                assert re.search(rf"{len(BIG) - 2 * CHUNK} bytes before the {len(BIG)} announced", str(body.failure))
        assert not it.got


async def test_a_file_that_grows_is_sent_as_long_as_announced(path: Path) -> None:
    def grow(sent: int, total: int | None) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    async with site() as it:
        with path.open("rb") as file:
            for data in (path, file):
                path.write_bytes(BIG)
                got = await it.post(make(data, progress=grow))
                assert (got.content, got.length) == (BIG, len(BIG))


async def test_a_path_is_opened_and_measured_for_each_attempt(path: Path) -> None:
    async with site() as it:
        body = make(path)
        await it.post(body)
        path.write_bytes(BIG * 2)
        got = await it.post(body)
        assert (got.content, got.length) == (BIG * 2, len(BIG) * 2)
        path.unlink()
        with pytest.raises(FileNotFoundError):
            body.payload()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="no /proc")
async def test_a_file_whose_size_is_said_to_be_nothing_is_read_to_its_end() -> None:
    content = Path("/proc/self/cmdline").read_bytes()
    async with site() as it:
        got = await it.post(make(Path("/proc/self/cmdline")))
        assert (got.content, got.length) == (content, None)
        with open("/proc/self/cmdline", "rb") as file:
            assert (await it.post(make(file))).content == content


# ---- Cancellation ----


async def test_a_cancelled_upload_stops_reading_and_closes_what_it_opened(path: Path) -> None:
    closed = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield BIG
        finally:
            closed.append(True)

    path.write_bytes(BIG * 50)
    with socket.create_server(("127.0.0.1", 0)) as listener, path.open("rb") as file:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        for data in (path, file, endless()):
            sending = asyncio.Event()
            body = make(data, progress=lambda sent, total: sending.set())  # noqa: B023
            async with aiohttp.ClientSession() as session:
                request = asyncio.create_task(session.post(url, data=data_of(body.payload(), body)))
                # Nobody reads: the buffers of the socket fill, and the rest waits.
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                await sending.wait()
                request.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await request
                await body.close()
                sock.close()
            assert body.failure is None
            assert open_files().count(str(path)) == 1  # the test's own
    assert closed == [True]


def open_files() -> list[str]:
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return links


async def test_a_cancellation_waits_for_the_read_of_the_callers_file() -> None:
    reading, go_on = threading.Event(), threading.Event()
    left = []

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reading.set()
            go_on.wait(20)
            left.append(True)
            return super().read(size)

    loop = asyncio.get_running_loop()
    async with site() as it:
        body = make(Slow(BIG))
        request = asyncio.create_task(it.session.post(it.url, data=data_of(body.payload(), body)))
        await loop.run_in_executor(None, reading.wait, 20)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        closing = asyncio.create_task(body.close())
        await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await closing
        assert left == [True]


async def test_a_cancellation_does_not_wait_for_a_pipe() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb", buffering=0) as reading, open(write_end, "wb", buffering=0) as writing:
        async with site() as it:
            sending = asyncio.Event()
            body = make(reading, progress=lambda sent, total: sending.set())
            writing.write(b"a")
            request = asyncio.create_task(it.session.post(it.url, data=data_of(body.payload(), body)))
            await sending.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            await asyncio.wait_for(body.close(), 20)
            writing.write(b"b")  # lets the thread go
