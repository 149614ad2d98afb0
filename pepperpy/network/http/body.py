"""`Body`: what a request carries, read anew for each attempt. What cannot be sent is refused before a byte is.

    Body            of one call: knows whether it can be sent once more, and gives aiohttp a payload for each attempt
    UploadPayload   of one attempt: counts what goes out, and holds it to the size that was announced
    _Source         where the bytes come from: memory, a path, a file of the caller's, an async iterable

aiohttp reads a payload in a task of its own, and takes each exception in it for one of the connection. So what a source
raises is wrapped in `BodyFailed`, and kept as `Body.failure`.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import mimetypes
import os
import re
import secrets
import stat
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

import aiohttp
from aiohttp.abc import AbstractStreamWriter

from pepperpy.network.config import KIB, MIB
from pepperpy.network.errors import InvalidRequestError

if TYPE_CHECKING:
    from pepperpy.network.http.codec import JSONCodec

Progress = Callable[[int, int | None], object]

# Bytes read and sent at once. aiohttp's StreamWriter waits for the transport after as many.
CHUNK = 64 * KIB
# Larger bytes aiohttp sends in one piece too, but with a ResourceWarning (payload.py, TOO_LARGE_BYTES_BODY).
MAX_PIECE = MIB
# Bytes that one upload sends before the loop has a turn, while the transport takes all. Arbitrary.
TURN = 256 * KIB

OCTETS = "application/octet-stream"
TEXT = "text/plain; charset=utf-8"

# What would end a quoted name in a part's header, or the header.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f"]')

# Sequences, but of no pairs.
_TEXTS = (bytes, bytearray, memoryview, str)
_TAKEN = "bytes, bytearray, memoryview, str, os.PathLike, a binary file, an async iterable of bytes"


class BodyFailed(Exception):
    """The body could not be sent as announced; `__cause__` is what its source or `progress` raised, if one of them did.

    No OSError, not even for one: aiohttp would take it for the connection's, and send the request again.
    """


class Body:
    """What one call carries, for as many attempts as it takes.

    Args:
        make: Gives the payload of one attempt; raises what opening a file raises.
        replayable: Whether the payloads of all attempts are the same bytes.
        progress: Called with the bytes sent in this attempt and their total.

    Attributes:
        replayable: As above; a retry or a redirect that keeps the body needs it.
        headers: `Content-Type`.
        size: Bytes; None if not known before the end. A path's may be another one in the next attempt.
        failure: Why this attempt's body was not sent as announced; None while nothing was wrong. Whatever aiohttp
            raised for the attempt is a consequence of it.
    """

    __slots__ = ("_data", "_make", "_progress", "_unsent", "failure", "headers", "replayable", "size", "writers")

    def __init__(self, make: Callable[[], aiohttp.Payload], replayable: bool, progress: Progress | None) -> None:
        first = make()
        self.replayable = replayable
        self.headers: Mapping[str, str] = {"Content-Type": first.content_type}
        self.size = first.size
        self.failure: BodyFailed | None = None
        self.writers: set[asyncio.Task[Any]] = set()  # those that write now
        self._make = make
        self._progress = progress
        self._unsent = None if replayable else first
        # In one piece, unless that is large or someone wants to see progress.
        self._data: bytes | None = None
        if isinstance(first, _Bytes) and progress is None and len(first.data) <= MAX_PIECE:
            self._data = first.data

    def payload(self) -> bytes | UploadPayload:
        """What aiohttp is given as `data` for the next attempt.

        Raises:
            InvalidRequestError: This is not the first attempt, and the body cannot be read again.
            OSError: A path cannot be opened, as it is: FileNotFoundError, PermissionError, ... Nothing was sent.
        """
        self.failure = None
        if self._data is not None:
            return self._data
        if self.replayable:
            return UploadPayload(self, self._make(), self._progress)
        if self._unsent is None:
            raise InvalidRequestError("the body cannot be sent again: its source can be read only once")
        inner, self._unsent = self._unsent, None
        return UploadPayload(self, inner, self._progress)

    async def close(self) -> None:
        """Stop what is still being sent, and wait until this package's files are closed and the caller's not in use.

        The caller's files stay open. A thread that waits for a pipe cannot be stopped, and is not waited for.
        """
        if writers := self.writers - {asyncio.current_task()}:
            for task in writers:
                task.cancel()
            await asyncio.wait(writers)


def make_body(data: Any, json: Any, files: Any, codec: JSONCodec, progress: Progress | None = None) -> Body | None:
    """The body for these arguments of a request; None if there is none.

    Raises:
        InvalidRequestError: Arguments that exclude each other, a value that `codec` refuses, a name that cannot be
            quoted, a file that is closed or not open for reading, a path that is no regular file.
        TypeError: An argument of a wrong type; the message says which are taken.
        OSError: A path cannot be opened, as it is.
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {type(progress).__name__}")
    if json is not None:
        if data is not None or files is not None:
            raise InvalidRequestError(f"json cannot be sent together with {'data' if data is not None else 'files'}")
        try:
            encoded = codec.dumps(json)
        except Exception as error:
            raise InvalidRequestError(f"json cannot be encoded: {_words(error)}", cause=error) from error
        return Body(partial(_Bytes, encoded, "application/json"), True, progress)
    if files is not None and (parts := list(_pairs("files", files))):
        return _multipart([] if data is None else _fields(data, "data, together with files,"), parts, progress)
    if data is None:
        return None
    if isinstance(data, (Mapping, Sequence)) and not isinstance(data, _TEXTS):
        # Encoded already by urlencode(), but for what no encoding has.
        form = urlencode([(_encode("data", name), _encode("data", value)) for name, value in _fields(data, "data")])
        return Body(partial(_Bytes, form.encode(), "application/x-www-form-urlencoded"), True, progress)
    if isinstance(data, aiohttp.FormData):
        return Body(data, False, progress)
    make, replayable, name = _open("data", data, ", a mapping or pairs of form fields, aiohttp.FormData")
    content_type = TEXT if isinstance(data, str) else _guess_type(name or "")
    return Body(partial(make, content_type), replayable, progress)


# ---- One attempt ----


class _Source(aiohttp.Payload):
    """A payload whose bytes are not in hand."""

    def __init__(self, content_type: str, size: int | None) -> None:
        super().__init__(None, content_type=content_type)
        self._bytes_count = size
        self._begun = False

    @property
    def size(self) -> int | None:
        return self._bytes_count

    @property
    def autoclose(self) -> bool:
        # write() closes what it opened.
        return True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("the body is a stream, which has no text")


class UploadPayload(_Source):
    """One attempt's body as aiohttp takes it; may be written once more, by a redirect, if it is not `consumed`."""

    def __init__(self, body: Body, inner: aiohttp.Payload, progress: Progress | None) -> None:
        super().__init__(inner.content_type, inner.size)
        self._body = body
        self._inner = inner
        self._progress = progress

    @property
    def consumed(self) -> bool:
        return self._inner.consumed

    async def close(self) -> None:
        await self._inner.close()

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Send the body: `content_length` bytes, where that was announced.

        Raises:
            BodyFailed: It has another length, or its source or `progress` raised. The connection is cut.
        """
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._body.writers.add(task)
        try:
            # After an early redirect the write before may still be ending; both would move the position of one file.
            await self._body.close()
            self._body.failure = None
            await self._write(writer, content_length)
        except BodyFailed as failure:
            self._body.failure = failure
            # aiohttp only marks the connection: where an answer has begun, its reader and the server would wait for
            # each other.
            if (transport := writer.transport) is not None:
                transport.abort()
            raise
        finally:
            self._body.writers.discard(task)

    async def _write(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        announced = self.size if content_length is None else content_length
        if self.size not in (None, announced):
            raise BodyFailed(f"the body has {self.size} bytes, but Content-Length says {announced}")
        meter = _Meter(writer, announced, self._progress)
        try:
            # A payload uses nothing of its writer but write(); aiohttp's MultipartPayloadWriter relies on it too.
            await self._inner.write(cast(AbstractStreamWriter, meter))
        except BodyFailed:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if error is meter.broken or _is_cancelled(error):
                raise
            raise BodyFailed(f"the body's source failed: {_words(error)}") from error
        if announced not in (None, meter.sent):
            raise BodyFailed(f"the body ended after {meter.sent} of the {announced} bytes announced")


class _Meter:
    """Stands before aiohttp's writer: counts, reports, and knows whose exception it was."""

    def __init__(self, writer: AbstractStreamWriter, announced: int | None, progress: Progress | None) -> None:
        self.sent = 0
        self.broken: BaseException | None = None  # what the connection raised
        self._announced = announced
        self._progress = progress
        self._turn = 0
        self._writer = writer

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        size = len(chunk)
        if not size:
            return
        if self._announced is not None and self.sent + size > self._announced:
            raise BodyFailed(f"the body has more than the {self._announced} bytes announced")
        if self._turn >= TURN:
            # Before a chunk, not after it: the answer to the last one would find the writer busy, and cancel it.
            self._turn = 0
            await asyncio.sleep(0)
        try:
            await self._writer.write(chunk)
        except BaseException as error:
            self.broken = error
            raise
        self.sent += size
        self._turn += size
        if self._progress is not None:
            await self._report(self._progress)

    async def _report(self, progress: Progress) -> None:
        try:
            result = progress(self.sent, self._announced)
            if inspect.isawaitable(result):
                await result
        except (Exception, asyncio.CancelledError) as error:
            if _is_cancelled(error):
                raise
            raise BodyFailed(f"progress raised {_words(error)}") from error


# ---- Sources ----


class _Bytes(_Source):
    def __init__(self, data: bytes, content_type: str) -> None:
        super().__init__(content_type, len(data))
        self.data = data

    async def write(self, writer: AbstractStreamWriter) -> None:
        view = memoryview(self.data)
        for start in range(0, len(view), CHUNK):
            await writer.write(view[start : start + CHUNK])


class _Path(_Source):
    def __init__(self, path: os.PathLike[Any], content_type: str) -> None:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # Opening a pipe would wait for its other end; open() itself refuses a directory.
            raise InvalidRequestError(f"{os.fsdecode(path)!r} is no regular file; open it, and give the open file")
        with open(path, "rb", buffering=0) as file:
            super().__init__(content_type, _size(file, 0))
        self._path = path

    async def write(self, writer: AbstractStreamWriter) -> None:
        # Opened for each write, so that only the task that reads has it.
        with open(self._path, "rb", buffering=0) as file:
            await _copy(file, self.size, writer, wait=True)


class _File(_Source):
    def __init__(self, file: Any, start: int | None, size: int | None, content_type: str) -> None:
        super().__init__(content_type, size)
        self._file = file
        self._start = start  # None: cannot be read again

    @property
    def consumed(self) -> bool:
        return self._begun and self._start is None

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._begun = True
        if self._start is not None:
            await _in_thread(self._file.seek, self._start, wait=True)
        await _copy(self._file, self.size, writer, wait=self._start is not None)


class _Chunks(_Source):
    def __init__(self, chunks: AsyncIterable[Any], replayable: bool, content_type: str) -> None:
        super().__init__(content_type, None)
        self._chunks = chunks
        self._replayable = replayable

    @property
    def consumed(self) -> bool:
        return self._begun and not self._replayable

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._begun = True
        iterator = aiter(self._chunks)
        try:
            async for chunk in iterator:
                await writer.write(_as_bytes(chunk))
        finally:
            if (aclose := getattr(iterator, "aclose", None)) is not None:
                await aclose()


def _open(what: str, value: Any, also: str = "") -> tuple[Callable[[str], _Source], bool, str | None]:
    """What makes the source of `value`, given a content type; whether it can do so again; the name of its file."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return partial(_Bytes, bytes(value)), True, None
    if isinstance(value, str):
        return partial(_Bytes, _encode(what, value)), True, None
    if isinstance(value, os.PathLike):
        return partial(_Path, value), True, os.path.basename(os.fsdecode(value))
    if isinstance(value, (asyncio.StreamReader, aiohttp.StreamReader)):
        # Iterating over one gives lines, up to a limit.
        value = _read_all(value)
    if isinstance(value, AsyncIterable):
        replayable = aiter(value) is not value
        return partial(_Chunks, value, replayable), replayable, None
    if callable(getattr(value, "read", None)):
        _check_file(what, value)
        start = _position(value)
        size = None if start is None else _size(value, start)
        name: Any = getattr(value, "name", None)
        if not isinstance(name, str) or name.startswith("<"):
            # That of a descriptor is its number, that of a standard stream "<stdin>".
            name = ""
        return partial(_File, value, start, size), start is not None, os.path.basename(name) or None
    raise TypeError(f"{what} must be {_TAKEN}{also}, not {type(value).__name__}")


def _check_file(what: str, file: Any) -> None:
    if isinstance(file, io.TextIOBase) or hasattr(file, "encoding"):
        raise TypeError(f"{what} must be a file opened in binary mode ('rb'), not in text mode")
    if getattr(file, "closed", False):
        raise InvalidRequestError(f"{what} is a closed file")
    if (readable := getattr(file, "readable", None)) is not None and not readable():
        raise InvalidRequestError(f"{what} is a file that is not open for reading")


def _position(file: Any) -> int | None:
    try:
        return cast(int, file.tell()) if file.seekable() else None
    except (AttributeError, OSError):
        return None


def _size(file: Any, start: int) -> int | None:
    """Bytes from `start` to the end of a seekable file; None if they cannot be told without reading them."""
    # Others may have to read, or to decompress, all of it to find their end: gzip.GzipFile does.
    if not isinstance(getattr(file, "raw", file), (io.FileIO, io.BytesIO, tempfile.SpooledTemporaryFile)):
        return None
    size: int | None = max(file.seek(0, os.SEEK_END) - start, 0)
    file.seek(start)
    if size == 0 and file.read(1):
        # /proc and devices say 0 whatever they hold.
        file.seek(start)
        return None
    return size


async def _copy(file: Any, size: int | None, writer: AbstractStreamWriter, *, wait: bool) -> None:
    """Send `size` bytes of `file`, or all if None. What it has grown by since it was measured is left out."""
    left = size
    while left is None or left > 0:
        data = _as_bytes(await _in_thread(file.read, CHUNK if left is None else min(CHUNK, left), wait=wait))
        if not data:
            break
        await writer.write(data)
        if left is not None:
            left -= len(data)
    if left:
        raise BodyFailed(f"the file ended {left} bytes before the {size} announced: it was changed meanwhile")


async def _in_thread(function: Callable[[int], Any], argument: int, *, wait: bool) -> Any:
    """`function(argument)`, called in a thread; with `wait`, not even a cancellation returns before the thread does."""
    future = asyncio.get_running_loop().run_in_executor(None, function, argument)
    if not wait:
        return await future
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # or asyncio reports that nobody asked for it
        raise cancelled
    return future.result()


async def _read_all(reader: asyncio.StreamReader | aiohttp.StreamReader) -> AsyncIterator[bytes]:
    while chunk := await reader.read(CHUNK):
        yield chunk


def _as_bytes(chunk: Any) -> bytes:
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise TypeError(f"the body's source must give bytes-like objects, not {type(chunk).__name__}")
    # Copied if it is not bytes: the transport may still hold it when the source fills its buffer again.
    return bytes(chunk)


# ---- Forms ----


def _multipart(fields: list[tuple[str, str]], files: list[tuple[str, Any]], progress: Progress | None) -> Body:
    parts = [(partial(_Bytes, _encode("data", value), ""), {"name": _quotable("data", name)}) for name, value in fields]
    replayable = True
    for name, value in files:
        make, again, disposition = _file_part(_quotable("files", name), value)
        replayable = replayable and again
        parts.append((make, disposition))  # type: ignore[arg-type]
    boundary = secrets.token_hex(16)

    def make_all() -> aiohttp.MultipartWriter:
        writer = aiohttp.MultipartWriter("form-data", boundary)
        for make, disposition in parts:
            part = make()
            if not part.content_type:
                # As browsers do: a field with a type is taken for a file by some servers.
                del part.headers["Content-Type"]
            # Names go out as UTF-8, as RFC 7578 and browsers have it; aiohttp would percent-encode them.
            part.set_content_disposition("form-data", quote_fields=False, **disposition)
            writer.append_payload(part)
        return writer

    return Body(make_all, replayable, progress)


def _file_part(name: str, value: Any) -> tuple[Callable[[], _Source], bool, dict[str, str]]:
    what = f"files[{name!r}]"
    filename: Any = name
    content_type = None
    if isinstance(value, (tuple, list)):
        if not 2 <= len(value) <= 3:
            raise TypeError(f"{what} must be a file, or (filename, content) or (filename, content, content_type)")
        filename, content, content_type = (*value, None)[:3]
        make, replayable, _ = _open(what, content)
    else:
        content = value
        make, replayable, found = _open(what, content, ", or a tuple of file name, content and content type")
        filename = found or name
    if content_type is None:
        content_type = _guess_type(filename or "")
        if content_type == OCTETS and isinstance(content, str):
            content_type = TEXT
    disposition = {"name": name}
    if filename is not None:
        disposition["filename"] = _quotable(f"{what}: the file name", filename)
    return partial(make, _quotable(f"{what}: the content type", content_type)), replayable, disposition


def _fields(data: Any, what: str) -> list[tuple[str, str]]:
    """The names and values of a form, a list as its items, without those that are None."""
    pairs = []
    for name, value in _pairs(what, data):
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, bool):
                pairs.append((name, "true" if item else "false"))
            elif isinstance(item, (str, int, float)):
                pairs.append((name, str(item)))
            elif item is not None:
                # Not the value itself: forms hold passwords.
                kinds = "str, int, float, bool, None or a list of these"
                raise TypeError(f"{what} must map to {kinds}, not {name!r} to {type(item).__name__}")
    return pairs


def _pairs(what: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, (Mapping, Sequence)) or isinstance(value, _TEXTS):
        raise TypeError(f"{what} must be a mapping or a sequence of pairs, not {type(value).__name__}")
    for pair in value.items() if isinstance(value, Mapping) else value:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"{what} must be a mapping or a sequence of pairs; it has an item that is no pair")
        if not isinstance(pair[0], str):
            raise TypeError(f"{what} must have names of type str, not {type(pair[0]).__name__}")
        yield pair[0], pair[1]


def _quotable(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, not {type(text).__name__}")
    if _UNSAFE.search(text):
        raise InvalidRequestError(f"{what} must have no quotation mark and no control character, as {text!r} has")
    _encode(what, text)
    return text


def _encode(what: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{what} has text that UTF-8 cannot hold: {error.reason}", cause=error) from error


def _guess_type(name: str) -> str:
    kind, encoding = mimetypes.guess_type(name)
    # That of "a.tar.gz" would be the tar's.
    return kind if kind and not encoding else OCTETS


def _is_cancelled(error: BaseException) -> bool:
    """Whether `error` is the cancellation of this task, not one that a source or `progress` brought along."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
