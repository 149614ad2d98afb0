"""Downloads: a body that becomes a file when it is complete, and resumes where it broke off if the server can do that.

This module decides what to ask for, and whether an answer is the start of the file or its rest. `part_file.py` holds
the file until it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from multidict import CIMultiDict, CIMultiDictProxy

from pepperpy.network.errors import (
    IncompleteReadError,
    IntegrityError,
    InvalidRequestError,
    NetworkError,
    ProtocolError,
    ResponseTooLargeError,
    also,
)
from pepperpy.network.http.call import Call
from pepperpy.network.http.content import content_length, readable_headers
from pepperpy.network.http.dates import parse_date
from pepperpy.network.http.engine import Engine
from pepperpy.network.http.failures import failure_of
from pepperpy.network.http.part_file import Notes, PartFile
from pepperpy.network.http.response import check_announced, is_bomb, status_error, too_large
from pepperpy.network.http.sources import path_and_reason
from pepperpy.network.http.transport import Answer, WireError
from pepperpy.network.http.upload import Progress
from pepperpy.network.units import MIB
from pepperpy.network.watchdog import time_limit

# Bytes to give to a thread at once, which takes some 50 us. Up to twice as many are in memory.
BATCH = MIB

# Bytes. An attempt that has received so many more does not count against `retries`. Arbitrary; so the number of
# attempts is bounded by the size of the file.
PROGRESS = MIB

# Headers that a later program goes on with: what the version is called, and what it is.
KEPT = ("ETag", "Last-Modified", "Date", "Content-Encoding", "Content-Type", "Content-Disposition")

# RFC 9110, section 14.4, for the unit bytes. No file has a size of more than 19 digits.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)", re.IGNORECASE)

# RFC 9110, section 8.8.3, but ASCII only.
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What `HTTPClient.download()` did.

    Attributes:
        path: The path as it was given.
        size: The size of the file in bytes.
        url: The URL that answered, after redirects.
        headers: The headers that came with the start of the file: Content-Type, ETag, ...
        attempts: How often a request was sent, from 1.
        resumed: How many of the attempts resumed where the one before had broken off.
        elapsed: Seconds of the whole download.
    """

    path: Path
    size: int
    # Not in the repr: both may hold secrets.
    url: str = field(repr=False)
    headers: CIMultiDictProxy[str] = field(repr=False)
    attempts: int
    resumed: int
    elapsed: float


class Download:
    """One download: asks for the file, and for its rest until it is complete."""

    def __init__(
        self, engine: Engine, call: Call, file: PartFile, progress: Progress | None, limit: int | None
    ) -> None:
        headers = CIMultiDict[str]() if call.headers is None else call.headers
        for name in ("Range", "If-Range"):
            if name in headers:
                text = f"the header {name} cannot be given: a download is the whole file, and resumes by itself"
                raise call.error(InvalidRequestError, text)
        if call.condition is not None:
            raise call.error(InvalidRequestError, "if_changed_since is not for downloads, which are the whole file")
        headers.setdefault("Accept-Encoding", "identity")
        call.headers = self._headers = headers
        self._engine = engine
        self._call = call
        self._file = file
        self._progress = progress
        self._limit = limit
        self._head: CIMultiDictProxy[str]  # the headers of the answer that the file began with
        self._url = ""  # the URL of that answer, or of the one with which this program went on
        self._validator: str | None = None  # names that version of the file
        self._total: int | None = None
        self._size = 0  # bytes of the file received so far
        self._furthest = 0  # the size after the last attempt that did not count
        self._pieces: list[bytes] = []  # received, not yet written
        self._waiting = 0  # bytes in these pieces
        self._resumed = 0
        self._started_over = False

    async def run(self) -> DownloadResult:
        """Download, and put the file in place. If it raises, the target is unchanged and no other file is left."""
        call, file = self._call, self._file
        try:
            with self._on_disk():
                await file.create()
                await self._go_on()
            await self._receive()
            pieces, self._pieces = self._pieces, []  # a cancelled finish() has written them, too
            with self._on_disk():
                await file.finish(pieces)
            if file.digest != file.expected:
                text = f"the file's {file.algorithm} is {file.digest}, not {file.expected}"
                raise call.error(IntegrityError, text, expected=file.expected, actual=file.digest)
            with self._on_disk():
                file.put_in_place()
        except BaseException as error:
            call.note_end(error)
            kept = False
            try:
                if not isinstance(error, (IntegrityError, ResponseTooLargeError)):
                    kept = await file.keep(self._pieces)
            finally:
                if not kept:
                    await file.discard()
            raise
        call.note_end()
        return DownloadResult(
            file.path,
            self._size,
            self._url,
            readable_headers(self._head),
            call.attempt,
            self._resumed,
            call.elapsed,
        )

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Turn errors of the file system into errors of this call, which keep their built-in class too."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            kind = also(NetworkError if self._call.attempt else InvalidRequestError, type(error))
            raise self._call.error(kind, f"cannot write {path_and_reason(error, self._file.path)}", error) from error

    async def _go_on(self) -> None:
        """Ask for the rest of what an earlier program left."""
        found = await self._file.go_on(self._resource)
        if found is not None:
            notes, size = found
            self._head = CIMultiDictProxy(CIMultiDict(notes.headers))
            self._validator = strong_validator(self._head)
            self._total = notes.total
            self._size = self._furthest = size
            self._ask_for_rest()

    @property
    def _resource(self) -> str:
        return hashlib.sha256(str(self._call.whole_url).encode()).hexdigest()

    async def _receive(self) -> None:
        """Receive the whole file, in as many attempts as that takes."""
        call = self._call
        try:
            while True:
                answer, _ = await self._engine.run(call, whole=False)
                try:
                    if not await self._accepts(answer):
                        continue
                    failure = await self._read(answer)
                finally:
                    answer.abort()  # does nothing after the end of the body
                if failure is None:
                    return
                if self._size >= self._furthest + PROGRESS:
                    self._furthest = self._size
                    call.extra_attempts += 1
                await self._engine.wait_to_retry(call, failure)
                self._ask_for_rest()
        finally:
            if call.body is not None:
                await call.body.close()

    def _ask_for_rest(self) -> None:
        if self._validator is not None and self._size:
            self._headers["Range"] = f"bytes={self._size}-"
            self._headers["If-Range"] = self._validator
        else:
            self._ask_for_all()

    def _ask_for_all(self) -> None:
        self._headers.popall("Range", None)
        self._headers.popall("If-Range", None)

    async def _accepts(self, answer: Answer) -> bool:
        """Whether the body is the file or its rest. If it returns False, ask again for the whole file."""
        status = answer.status
        if status in (200, 203):
            await self._start_with(answer)
            return True
        resuming = "Range" in self._headers
        if status == 206 and resuming and self._continues(answer):
            self._resumed += 1
            self._url = self._url or str(self._call.request.url)
            return True
        if status not in (206, 416) or not resuming or self._started_over:
            if status == 206:
                asked = f"bytes {self._size}-" if resuming else "the whole file"
                given = answer.headers.get("Content-Range", "no range")
                text = f"asked for {asked}, the server answered with {given!r:.60}"
                raise self._call.error(ProtocolError, text)
            raise status_error(answer, await self._engine.read_error(answer), self._call)
        # The file has changed and the server ignores If-Range; or its ranges cannot be used.
        self._started_over = True
        self._call.extra_attempts += 1
        self._ask_for_all()
        return False

    async def _start_with(self, answer: Answer) -> None:
        """Begin the file with this answer, or begin it again."""
        headers = answer.headers
        self._head = headers
        self._url = str(self._call.request.url)
        self._validator = self._total = None
        # The server's lengths and ranges are those of what it sends.
        if not self._call.decompress or "Content-Encoding" not in headers:
            self._validator = strong_validator(headers)
            self._total = content_length(headers.get("Content-Length"))
            if self._total is not None and self._limit is not None:
                check_announced(answer, self._call, self._limit, self._total)
        if self._size:
            with self._on_disk():
                await self._file.empty()
            self._size = self._waiting = 0
            self._pieces = []
        with self._on_disk():
            await self._file.note(self._notes())
        if self._progress is not None:
            await self._report(self._progress)

    def _notes(self) -> Notes | None:
        """What a later program has to know to go on with the file; None if it cannot."""
        if self._validator is None:
            return None
        return Notes(self._resource, self._total, [(name, self._head[name]) for name in KEPT if name in self._head])

    def _continues(self, answer: Answer) -> bool:
        """Whether a 206 is the rest of the file that was begun."""
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or answer.headers.get("Content-Encoding") != self._head.get("Content-Encoding"):
            return False
        # A server that does not know If-Range sends a part of the present version. RFC 9110, section 15.3.7, requires
        # that it names the version.
        name = "Last-Modified" if self._validator != self._head.get("ETag") else "ETag"
        if answer.headers.get(name) != self._validator:
            return False
        first, last = int(match[1]), int(match[2])
        total = self._total if match[3] == "*" else int(match[3])
        if total is None:
            total = last + 1
        if first != self._size or not first <= last < total or self._total not in (None, total):
            return False
        self._total = total
        return True

    async def _read(self, answer: Answer) -> NetworkError | None:
        """Read the body. None when the file is complete, else the error to raise if resuming fails."""
        call, limit = self._call, self._limit
        call.phase = "body"
        while True:
            try:
                with time_limit(call.ends_at - call.now):
                    piece = await answer.read_some()
            except (WireError, TimeoutError) as error:
                return failure_of(error, call)
            if not piece:
                break
            self._size += len(piece)
            too_long = limit is not None and max(self._size, answer.wire_bytes) > limit
            if too_long or is_bomb(answer, self._size, call.config.limits.max_ratio):
                raise too_large(answer, call, limit, self._size)
            self._pieces.append(piece)
            self._waiting += len(piece)
            if self._waiting >= BATCH:
                with self._on_disk():
                    await self._file.write(self._pieces)
                self._pieces = []
                self._waiting = 0
            if self._progress is not None:
                await self._report(self._progress)
        total = self._total
        if total is None or self._size == total:
            return None
        text = f"the body ended at byte {self._size} of a file of {total}"
        if self._size < total:
            return call.error(IncompleteReadError, text, received=self._size, expected=total)
        raise call.error(IntegrityError, text, received=self._size, expected=total)

    async def _report(self, progress: Progress) -> None:
        result = progress(self._size, self._total)
        if inspect.isawaitable(result):
            await result


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """The value of If-Range for a resource with these headers (RFC 9110, section 13.1.5); None if there is none."""
    etag = headers.get("ETag")
    if etag is not None:
        return etag if _STRONG_ETAG.fullmatch(etag) else None
    modified = headers.get("Last-Modified")
    if modified is None:
        return None
    sent_at, modified_at = parse_date(headers.get("Date", "")), parse_date(modified)
    if sent_at is None or modified_at is None:
        return None
    # RFC 7232, section 2.2.2: a date is strong if it was a minute old, because nobody wrote any more in its second.
    return modified if sent_at - modified_at >= 60 else None
