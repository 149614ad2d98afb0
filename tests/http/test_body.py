"""What a request carries arrives byte for byte, each time it is sent; what cannot is refused, or fails the request."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import re
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest
from aiohttp import web

from pepperpy.network import InvalidRequestError
from pepperpy.network.http.body import MAX_PIECE, Body, make_body
from pepperpy.network.http.sources import CHUNK
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.json_codec import JSONCodec, default_codec

OCTETS = "application/octet-stream"
FORM = "application/x-www-form-urlencoded"
# No byte repeats at the distance of a chunk, so none could be exchanged unseen.
BIG = b"".join(b"%07d " % number for number in range(5 * CHUNK // 8 + 3))


class Got:
    """A request as it arrived."""

    def __init__(self, headers: Any, content: bytes) -> None:
        self.headers = headers
        self.content = content

    @property
    def content_type(self) -> str:
        return str(self.headers["Content-Type"])

    @property
    def length(self) -> int | None:
        """The announced size, None for a chunked body."""
        if "Content-Length" in self.headers:
            return int(self.headers["Content-Length"])
        assert self.headers["Transfer-Encoding"] == "chunked"
        return None


class Site:
    """A server that keeps what it gets at /, and redirects there from /redirect, and from /early before reading."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.broken: list[BaseException] = []
        self.url = ""
        self.session: aiohttp.ClientSession

    async def keep(self, request: web.Request) -> web.Response:
        try:
            self.got.append(Got(request.headers, await request.read()))
        except Exception as error:
            self.broken.append(error)
            raise
        return web.Response(text="kept")

    async def redirect(self, request: web.Request) -> web.Response:
        await self.keep(request)
        return web.Response(status=307, headers={"Location": "/"})

    async def redirect_early(self, request: web.Request) -> web.Response:
        await request.content.readany()
        return web.Response(status=307, headers={"Location": "/"})

    async def answer_early(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        with contextlib.suppress(Exception):
            await request.read()
        return response

    async def post(self, body: Body | None, path: str = "/", **options: Any) -> Got | None:
        assert body is not None
        try:
            headers = {**body.headers, **options.pop("headers", {})}
            async with self.session.post(self.url + path, data=body.payload(), headers=headers, **options) as response:
                assert await response.text() == "kept"
        finally:
            await body.close()
        return self.got[-1]


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    it = Site()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", it.keep)
    app.router.add_post("/redirect", it.redirect)
    app.router.add_post("/early", it.redirect_early)
    app.router.add_post("/answer", it.answer_early)
    before = asyncio.all_tasks()
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        it.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        # A lost exception would be a request that waits for ever.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as it.session:
            yield it
    finally:
        await runner.cleanup()
        # Those whose client left in the middle of a body linger for 10 s.
        lingering = asyncio.all_tasks() - before
        for task in lingering:
            task.cancel()
        await asyncio.gather(*lingering, return_exceptions=True)


def make(data: Any = None, *, json: Any = None, files: Any = None, progress: Any = None) -> Body:
    body = make_body(data, json, files, default_codec(), progress)
    assert body is not None
    return body


async def once(*chunks: Any) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


class Again:
    """An async iterable that can be iterated over again."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(BIG), 10_000):
            yield BIG[start : start + 10_000]


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


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "big.bin"
    path.write_bytes(BIG)
    return path


# Each makes something from the path of a file that holds BIG, which it then gives, too.
REPLAYABLE: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: BIG,
    "bytes too large for one piece": lambda path: BIG * 4,
    "a path": lambda path: path,
    "a file": lambda path: path.open("rb"),
    "a file without buffer": lambda path: path.open("rb", buffering=0),
    "a file open for writing too": lambda path: path.open("r+b"),
    "a file in memory": lambda path: io.BytesIO(BIG),
    "a temporary file": lambda path: filled(tempfile.NamedTemporaryFile()),  # noqa: SIM115
    "a spooled file": lambda path: filled(tempfile.SpooledTemporaryFile(1 << 30)),  # noqa: SIM115
    "a compressed file": lambda path: gzip.open(compressed(path), "rb"),  # noqa: SIM115
    "an async iterable": lambda path: Again(),
}


def filled(file: Any) -> Any:
    file.write(BIG)
    file.seek(0)
    return file


def compressed(path: Path) -> Path:
    path.with_suffix(".gz").write_bytes(gzip.compress(BIG))
    return path.with_suffix(".gz")


@contextlib.contextmanager
def closed_later(value: Any) -> Any:
    try:
        yield value
    finally:
        if hasattr(value, "read"):
            assert not value.closed, "the caller's file was closed"
            value.close()


# ---- What arrives ----


async def test_what_is_in_memory_arrives_with_its_type_and_length() -> None:
    every_second = memoryview(bytes(range(10)))[::2]
    cases: list[tuple[Any, bytes, str]] = [
        (b"a\0b", b"a\0b", OCTETS),
        (b"", b"", OCTETS),
        (bytearray(b"ab"), b"ab", OCTETS),
        (every_second, b"\0\2\4\6\x08", OCTETS),
        ("größe €", "größe €".encode(), "text/plain; charset=utf-8"),
        ("", b"", "text/plain; charset=utf-8"),
        ({}, b"", FORM),
    ]
    async with site() as it:
        for data, content, content_type in cases:
            body = make(data)
            got = await it.post(body)
            assert (got.content, got.content_type, got.length) == (content, content_type, len(content))
            assert body.size == len(content) and body.replayable


async def test_form_fields_arrive_as_they_were_meant() -> None:
    data = {
        "a": "ü &=+%",
        "b": 1,
        "c": 1.5,
        "d": True,
        "e": False,
        "f": None,
        "g": ["x", 2, None, False],
        "a b": "\r\n",
    }
    expected = [("a", "ü &=+%"), ("b", "1"), ("c", "1.5"), ("d", "true"), ("e", "false")]
    expected += [("g", "x"), ("g", "2"), ("g", "false"), ("a b", "\r\n")]
    async with site() as it:
        for form in (data, list(data.items()), tuple([name, value] for name, value in data.items())):
            got = await it.post(make(form))
            assert got.content_type == FORM
            assert parse_qsl(got.content.decode(), strict_parsing=True) == expected


async def test_json_is_encoded_once() -> None:
    encoded = []

    def dumps(value: Any) -> bytes:
        encoded.append(value)
        return default_codec().dumps(value)

    async with site() as it:
        body = make_body(None, {"a": [1, "ü", None]}, None, JSONCodec("spy", dumps, default_codec().loads))
        for _ in range(2):
            got = await it.post(body)
            assert got.content_type == "application/json"
            assert default_codec().loads(got.content) == {"a": [1, "ü", None]}
        assert encoded == [{"a": [1, "ü", None]}]
        for falsy in (0, False, "", [], {}):
            got = await it.post(make(json=falsy))
            assert default_codec().loads(got.content) == falsy


@pytest.mark.parametrize("kind", REPLAYABLE)
async def test_a_replayable_body_arrives_whole_each_time(kind: str, path: Path) -> None:
    with closed_later(REPLAYABLE[kind](path)) as data:
        content = data if isinstance(data, bytes) else BIG
        async with site() as it:
            body = make(data)
            assert body.replayable
            for _ in range(2):
                assert (await it.post(body)).content == content
            # Of the others nobody knows the size without reading all of it.
            sized = kind not in ("a compressed file", "an async iterable")
            assert body.size == it.got[-1].length == (len(content) if sized else None)


@pytest.mark.parametrize("kind", REPLAYABLE)
async def test_a_redirect_gets_the_whole_body_again(kind: str, path: Path) -> None:
    with closed_later(REPLAYABLE[kind](path)) as data:
        content = data if isinstance(data, bytes) else BIG
        async with site() as it:
            await it.post(make(data), "/redirect")
            assert [got.content == content for got in it.got] == [True, True]
            if hasattr(data, "seek"):
                data.seek(0)
            # Without progress this would be aiohttp's own payload for some.
            await it.post(make(data, progress=lambda sent, total: None), "/redirect")
            assert [got.content == content for got in it.got] == [True] * 4


async def test_a_redirect_while_the_body_is_sent_gets_the_whole_body(tmp_path: Path) -> None:
    # Too much for the buffers of a socket: the first write is cancelled in its midst.
    path = tmp_path / "huge"
    path.write_bytes(BIG * 50)
    async with site() as it:
        with path.open("rb") as file:
            for data in (path, file, BIG * 50):
                got = await it.post(make(data), "/early")
                assert got.content == BIG * 50
        got = await it.post(make(files={"a": path}), "/early")
        assert got.content.count(BIG * 50) == 1


async def test_a_file_is_sent_from_where_it_stands() -> None:
    file = io.BytesIO(BIG)
    file.seek(1000)
    async with site() as it:
        body = make(file)
        assert body.size == len(BIG) - 1000
        for _ in range(2):
            assert (await it.post(body)).content == BIG[1000:]
        file.seek(0, os.SEEK_END)
        assert (await it.post(make(file))).content == b""
        file.seek(10, os.SEEK_END)
        assert (await it.post(make(file))).content == b""


async def test_what_is_read_only_once_is_sent_only_once() -> None:
    reader = asyncio.StreamReader(limit=16)
    reader.feed_data(BIG)  # with no line in it, so that lines could not be what is read
    reader.feed_eof()
    form = aiohttp.FormData({"a": "1"})
    for data, content in ((once(BIG, b"", b"end"), BIG + b"end"), (reader, BIG), (form, b"a=1")):
        async with site() as it:
            body = make(data)
            assert not body.replayable
            assert (await it.post(body)).content == content
            with pytest.raises(InvalidRequestError, match="cannot be sent again"):
                body.payload()


async def test_a_pipe_is_sent_only_once() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reading:
        with open(write_end, "wb") as writing:
            writing.write(BIG[:5000])
        async with site() as it:
            body = make(reading)
            assert not body.replayable and body.size is None
            got = await it.post(body)
            assert (got.content, got.length) == (BIG[:5000], None)
            with pytest.raises(InvalidRequestError):
                body.payload()
        assert not reading.closed


async def test_a_response_can_be_sent_on() -> None:
    async with site() as it, it.session.post(it.url + "/answer", data=BIG) as response:
        got = await it.post(make(response.content))
        assert got.content == b"begun"


async def test_a_redirect_does_not_get_half_of_what_was_read_already() -> None:
    async with site() as it:
        with pytest.raises(aiohttp.ClientPayloadError, match="consumed"):
            await it.post(make(once(b"a", b"b")), "/redirect")
        assert [got.content for got in it.got] == [b"ab"]


async def test_chunks_that_are_changed_after_they_were_given_arrive_as_they_were() -> None:
    async def reuse_buffer() -> AsyncIterator[bytearray]:
        buffer = bytearray(CHUNK)
        for number in range(100):
            buffer[:] = bytes([number]) * CHUNK
            yield buffer

    mutable = bytearray(b"before")
    async with site() as it:
        got = await it.post(make(reuse_buffer()))
        assert got.content == b"".join(bytes([number]) * CHUNK for number in range(100))
        body = make(mutable)
        mutable[:] = b"after!"
        assert (await it.post(body)).content == b"before"


def test_bytes_go_out_as_they_are() -> None:
    assert make(data := b"x" * MAX_PIECE).payload() is data
    assert not isinstance(make(b"x" * (MAX_PIECE + 1)).payload(), bytes)


async def test_no_arguments_are_no_body() -> None:
    assert make_body(None, None, None, default_codec()) is None
    assert make_body(None, None, {}, default_codec()) is None
    assert make({"a": "1"}, files={}).headers == {"Content-Type": FORM}


async def test_files_are_read_in_a_thread() -> None:
    threads = set()

    class Spy(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            threads.add(threading.get_ident())
            return super().read(size)

    async with site() as it:
        assert (await it.post(make(Spy(BIG)))).content == BIG
    assert threading.get_ident() not in threads


async def test_the_callers_content_length_makes_a_stream_one_of_known_size() -> None:
    async with site() as it:
        got = await it.post(make(once(b"ab", b"cde")), headers={"Content-Length": "5"})
        assert (got.content, got.length) == (b"abcde", 5)
        for data in (once(b"ab"), once(b"abc", b"def"), io.BytesIO(b"abc")):
            body = make(data)
            with pytest.raises(aiohttp.ClientConnectionError):
                await it.post(body, headers={"Content-Length": "5"})
            assert "5" in str(body.failure)
        assert len(it.got) == 1


# ---- Multipart ----


class Parts:
    """The parts of a multipart body, by a parser that is not aiohttp's."""

    def __init__(self, got: Got) -> None:
        found = re.fullmatch(r"multipart/form-data; boundary=([0-9a-f]+)", got.content_type)
        assert found is not None
        delimiter = b"--" + found[1].encode()
        assert got.content.startswith(delimiter + b"\r\n") and got.content.endswith(b"\r\n" + delimiter + b"--\r\n")
        # The first delimiter has no line end before it.
        pieces = (b"\r\n" + got.content).split(b"\r\n" + delimiter)
        self.all = [self._parse(piece) for piece in pieces[1:-1]]

    @staticmethod
    def _parse(piece: bytes) -> tuple[str, str | None, bytes]:
        """The disposition, the content type and the content."""
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        disposition = headers.pop("Content-Disposition")
        content_type = headers.pop("Content-Type", None)
        assert not headers
        return disposition, content_type, content


async def test_a_multipart_form_arrives_part_for_part(tmp_path: Path) -> None:
    path = tmp_path / "Größe; 100%\\.json"
    path.write_bytes(BIG * 16)
    assert len(BIG) * 16 > 5_000_000
    with (tmp_path / "a.tar.gz").open("w+b") as file:
        file.write(b"..gzip")
        file.seek(2)
        files = {
            "path": path,
            "file": file,
            "bytes": b"\r\n--\r\n",
            "str": "ü",
            "memory": io.BytesIO(b"m"),
            "two": ("ü b.png", b"2"),
            "three": ("c", "3", "text/csv"),
            "no name": (None, "{}", "application/json"),
            "no name, no type": (None, "x"),
            "large": ("l", BIG * 4),
        }
        expected = [
            ('form-data; name="f"', None, "ü\r\n".encode()),
            ('form-data; name="g"', None, b"1"),
            ('form-data; name="g"', None, b"true"),
            ('form-data; name="path"; filename="Größe; 100%\\\\.json"', "application/json", BIG * 16),
            ('form-data; name="file"; filename="a.tar.gz"', OCTETS, b"gzip"),
            ('form-data; name="bytes"; filename="bytes"', OCTETS, b"\r\n--\r\n"),
            ('form-data; name="str"; filename="str"', "text/plain; charset=utf-8", "ü".encode()),
            ('form-data; name="memory"; filename="memory"', OCTETS, b"m"),
            ('form-data; name="two"; filename="ü b.png"', "image/png", b"2"),
            ('form-data; name="three"; filename="c"', "text/csv", b"3"),
            ('form-data; name="no name"', "application/json", b"{}"),
            ('form-data; name="no name, no type"', "text/plain; charset=utf-8", b"x"),
            ('form-data; name="large"; filename="l"', OCTETS, BIG * 4),
        ]
        async with site() as it:
            body = make({"f": "ü\r\n", "g": [1, None, True]}, files=files)
            assert body.replayable
            await it.post(body)
            await it.post(body, "/redirect")
            assert len(it.got) == 3
            for got in it.got:
                assert Parts(got).all == expected
                assert got.length == len(got.content) == body.size
                assert got.content_type == body.headers["Content-Type"]


async def test_the_same_name_may_have_several_files() -> None:
    async with site() as it:
        got = await it.post(make(files=[("a", b"1"), ("a", ("x", b"2"))]))
        assert [part[2] for part in Parts(got).all] == [b"1", b"2"]


async def test_aiohttp_reads_the_names_as_they_were() -> None:
    names = ["größe €", "a b;c=d", "100%22", "back\\slash", "'x'", "日本語.txt"]
    seen = []

    async def read(request: web.Request) -> web.Response:
        async for part in await request.multipart():
            seen.append((part.name, part.filename, bytes(await part.read())))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", read)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        body = make(files={name: (name, b"x") for name in names})
        await session.post(f"http://127.0.0.1:{runner.addresses[0][1]}/", data=body.payload(), headers=body.headers)
    await runner.cleanup()
    assert seen == [(name, name, b"x") for name in names]


async def test_a_multipart_form_with_a_stream_is_chunked_and_sent_once() -> None:
    async with site() as it:
        body = make(files={"a": b"1", "b": ("b", once(b"2", b"3"))})
        assert not body.replayable and body.size is None
        got = await it.post(body)
        assert got.length is None
        assert [part[2] for part in Parts(got).all] == [b"1", b"23"]
        with pytest.raises(InvalidRequestError):
            body.payload()
        with pytest.raises(aiohttp.ClientPayloadError, match="consumed"):
            await it.post(make(files={"b": ("b", once(b"2", b"3"))}), "/redirect")


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

    async with site() as it:
        for progress, kind in ((fail, Mine), (cancel, asyncio.CancelledError)):
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
        for error in (*errors, asyncio.CancelledError()):
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


async def test_a_source_that_fails_at_once_sends_no_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with aiohttp.ClientSession() as session:
            body = make(Source(b"", OSError(5, "x")))
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.post(f"http://127.0.0.1:{listener.getsockname()[1]}/", data=body.payload())
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
        async with it.session.post(it.url + "/answer", data=body.payload()) as response:
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
                request = asyncio.create_task(session.post(url, data=body.payload()))
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
        request = asyncio.create_task(it.session.post(it.url, data=body.payload()))
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
            request = asyncio.create_task(it.session.post(it.url, data=body.payload()))
            await sending.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            await asyncio.wait_for(body.close(), 20)
            writing.write(b"b")  # lets the thread go


# ---- What is refused ----


def test_what_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    def refuse(value: Any) -> bytes:
        raise KeyError("reason")

    with pytest.raises(InvalidRequestError, match=r"json.*together with data"):
        make(b"", json=1)
    with pytest.raises(InvalidRequestError, match=r"json.*together with files"):
        make(json=1, files={})
    with pytest.raises(InvalidRequestError, match=r"json.*KeyError: 'reason'") as caught:
        make_body(None, {}, None, JSONCodec("refusing", refuse, default_codec().loads))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(InvalidRequestError, match=r"json.*object") as caught:
        make(json=object())
    for text in ("\ud800", {"a": "\ud800"}, {"\ud800": "a"}):
        with pytest.raises(InvalidRequestError, match=r"data.*surrogates"):
            make(text)
    with (tmp_path / "f").open("wb") as file:
        with pytest.raises(InvalidRequestError, match=r"data.*not open for reading"):
            make(file)
    with pytest.raises(InvalidRequestError, match=r"data.*closed"):
        make(file)
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "missing")  # Prepare makes it an InvalidRequestError as well
    with pytest.raises(IsADirectoryError):
        make(files={"a": tmp_path})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequestError, match=r"pipe.*no regular file"):
        make(tmp_path / "pipe")


@pytest.mark.parametrize("bad", ['"', "\r", "\n", "\0", "\x7f"])
def test_a_name_that_would_end_its_header_is_refused(bad: str) -> None:
    for files in ({f"a{bad}": b""}, {"a": (f"x{bad}y", b"")}, {"a": ("x", b"", f"text/plain{bad}")}):
        with pytest.raises(InvalidRequestError, match=r"files.*control character"):
            make(files=files)
    with pytest.raises(InvalidRequestError, match=r"data.*control character"):
        make({f"a{bad}": "1"}, files={"a": b""})


def test_a_name_that_has_no_encoding_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"files\['a'\].*surrogates"):
        make(files={"a": ("\udcff", b"")})


@pytest.mark.parametrize("data", [1, 1.5, object(), {1, 2}, iter([b"a"]), (x for x in [b"a"]), once, print])
def test_what_is_no_body_is_refused_with_what_is_one(data: object) -> None:
    with pytest.raises(TypeError, match=rf"data must be bytes.*FormData, not {type(data).__name__}"):
        make(data)
    with pytest.raises(TypeError, match=rf"files\['a'\] must be bytes.*tuple.*, not {type(data).__name__}"):
        make(files={"a": data})
    with pytest.raises(TypeError, match=r"files\['a'\] must be bytes"):
        make(files={"a": ("x", data)})
    with pytest.raises(TypeError, match="files must be a mapping"):
        make(files=data)
    with pytest.raises(TypeError, match="data, together with files, must be a mapping"):
        make(data, files={"a": b""})


def test_what_is_no_form_is_refused_without_its_values() -> None:
    for data in ([b"secret"], ["secret"], [("a", "secret", 1)], ["ab"], [1]):
        with pytest.raises(TypeError, match="no pair") as caught:
            make(data)
        assert "secret" not in str(caught.value)
    with pytest.raises(TypeError, match="names of type str, not int"):
        make({1: "secret"})
    with pytest.raises(TypeError, match="'a' to bytes"):
        make({"a": b"secret"})
    with pytest.raises(TypeError, match="'a' to dict"):
        make({"a": ["x", {}]})


def test_text_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with (tmp_path / "f").open() as file, tempfile.NamedTemporaryFile("w+") as named:
        for text in (file, named, io.StringIO("x")):
            with pytest.raises(TypeError, match="data must be a file opened in binary mode"):
                make(text)
            with pytest.raises(TypeError, match=r"files\['a'\] must be a file opened in binary mode"):
                make(files={"a": ("x", text)})


def test_other_arguments_of_a_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError, match="progress must be callable, not int"):
        make(b"", progress=1)
    for value in ((), ("x",), ("x", b"", "text/plain", 1)):
        with pytest.raises(TypeError, match=r"files\['a'\] must be a file, or"):
            make(files={"a": value})
    with pytest.raises(TypeError, match=r"files\['a'\]: the file name must be a str, not int"):
        make(files={"a": (1, b"")})
    with pytest.raises(TypeError, match=r"files\['a'\]: the content type must be a str, not bytes"):
        make(files={"a": ("x", b"", b"text/plain")})


def test_a_repr_shows_nothing_of_the_body() -> None:
    for body in (make(b"secret"), make(b"secret", progress=print), make({"a": "secret"}, files={"b": b"secret"})):
        assert "secret" not in repr(body) + repr(body.payload() if body.size != 6 else "")
