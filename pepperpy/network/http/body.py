"""`Body`: the body of a request, read again for each attempt. It refuses what cannot be sent before a byte leaves.

Body (here)                  one for each call: knows whether it can be sent again, and makes a payload for each attempt
UploadPayload (upload.py)    one for each attempt: counts the bytes, and checks them against the announced size
Source (sources.py)          where the bytes come from
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pepperpy.network.errors import InvalidRequestError
from pepperpy.network.http.aiohttp_types import is_form_data
from pepperpy.network.http.checks import number_text, plain
from pepperpy.network.http.sources import OCTETS, BytesSource, FormSource, bytes_of, encode, guess_type, open_source
from pepperpy.network.http.upload import BodyFailed, Progress, Readable, Source, UploadPayload, type_and_text

if TYPE_CHECKING:
    from pepperpy.network.json_codec import JSONCodec

TEXT = "text/plain; charset=utf-8"

# Characters that would end a quoted name in the header of a part, or the header itself.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f"]')

# These are sequences, but not of pairs.
_TEXTS = (bytes, bytearray, memoryview, str)


class Body:
    """The body of one call, for all its attempts.

    Args:
        make: Makes the payload of one attempt; raises what opening a file raises.
        replayable: Whether all attempts send the same bytes.
        progress: Called with the number of bytes sent in this attempt, and their total.

    Attributes:
        replayable: As above; a redirect that keeps the body needs it.
        begun: Whether some of it may have been read.
        headers: `Content-Type`.
        size: Bytes; None if unknown before the end. The file of a path may have another size in the next attempt.
        failure: Why the body of this attempt was not sent as announced; None if nothing went wrong. Any error that
            the transport raises for the attempt is a consequence of it.
    """

    __slots__ = (
        "_data",
        "_make",
        "_progress",
        "_unsent",
        "begun",
        "failure",
        "headers",
        "replayable",
        "size",
        "writers",
    )

    def __init__(self, make: Callable[[], Readable], replayable: bool, progress: Progress | None) -> None:
        first = make()
        self.replayable: bool = replayable
        self.begun: bool = False
        self.headers: Mapping[str, str] = {"Content-Type": first.content_type}
        self.size: int | None = first.size
        self.failure: BodyFailed | None = None
        self.writers: set[asyncio.Task[Any]] = set()  # tasks that send it now
        self._make = make
        self._progress = progress
        self._unsent = None if replayable else first
        # In one piece, unless somebody wants to see progress.
        self._data = first.data if isinstance(first, BytesSource) and progress is None else None

    @property
    def can_be_sent(self) -> bool:
        """Whether the next attempt would send all of it."""
        return self.replayable or not self.begun

    def payload(self) -> bytes | UploadPayload:
        """The body of the next attempt.

        Raises:
            InvalidRequestError: The body was read already, and cannot be read again.
            OSError: A path cannot be opened: FileNotFoundError, PermissionError, ... Nothing was sent.
        """
        self.failure = None
        if self._data is not None:
            return self._data
        if self.replayable:
            return UploadPayload(self, self._make(), self._progress)
        if self.begun or self._unsent is None:
            raise InvalidRequestError("the body cannot be sent again: its source can be read only once")
        return UploadPayload(self, self._unsent, self._progress)

    async def feed(self, take: Callable[[bytes], object]) -> None:
        """Give `take` all of the body, as the next attempt would send it. Only of a body that is `replayable`.

        Raises:
            OSError, BodyFailed, ...: What its source raises.
        """
        await self.close()
        await self._make().write(_Taker(take))

    async def close(self) -> None:
        """Stop sending; wait until this package's files are closed, and the caller's files are no longer in use.

        The caller's files stay open. A thread that waits for a pipe cannot be stopped, so nothing waits for it.
        """
        if self.writers and (writers := self.writers - {asyncio.current_task()}):
            for task in writers:
                task.cancel()
            await asyncio.wait(writers)


class _Taker:
    """What a source needs of a transport's writer."""

    transport = None

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take

    async def write(self, chunk: bytes) -> None:
        self._take(chunk)


class BytesBody(Body):
    """Bytes in memory, which are sent in one piece."""

    __slots__ = ()

    def __init__(self, data: bytes, content_type: str) -> None:
        self.replayable = True
        self.begun = False
        self.headers: Mapping[str, str] = {"Content-Type": content_type}
        self.size: int | None = len(data)
        self.failure: BodyFailed | None = None
        self.writers: set[asyncio.Task[Any]] = set()
        self._data = data


def make_body(data: Any, json: Any, files: Any, codec: JSONCodec, progress: Progress | None = None) -> Body | None:
    """The body for these arguments of a request; None if there is none.

    Raises:
        InvalidRequestError: Two arguments exclude each other, `codec` refuses a value, a name cannot be quoted, a file
            is closed or not open for reading, or a path is no regular file.
        TypeError: An argument has a wrong type; the message says which types are accepted.
        OSError: A path cannot be opened.
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be callable, not {type(progress).__name__}")
    if json is not None:
        if data is not None or files is not None:
            raise InvalidRequestError(f"json cannot be sent together with {'data' if data is not None else 'files'}")
        try:
            encoded = codec.dumps(json)
        except Exception as error:
            raise InvalidRequestError(f"json cannot be encoded: {type_and_text(error)}", cause=error) from error
        return _of_bytes(encoded, "application/json", progress)
    if files is not None and (parts := list(_pairs("files", files))):
        return _multipart([] if data is None else _fields(data, "data, together with files,"), parts, progress)
    if data is None:
        return None
    if isinstance(data, (Mapping, Sequence)) and not isinstance(data, _TEXTS):
        if (content := bytes_of(data)) is not None:  # an array.array is a sequence
            return _of_bytes(content, OCTETS, progress)
        # encode() first: it has a clear error for text that UTF-8 cannot hold.
        form = urlencode([(encode("data", name), encode("data", value)) for name, value in _fields(data, "data")])
        return _of_bytes(form.encode(), "application/x-www-form-urlencoded", progress)
    if is_form_data(data):
        return Body(data, False, progress)
    make, replayable, name = open_source("data", data, ", a mapping or pairs of form fields, aiohttp.FormData")
    content_type = TEXT if isinstance(data, str) else guess_type(name or "")
    return Body(partial(make, content_type), replayable, progress)


def _of_bytes(data: bytes, content_type: str, progress: Progress | None) -> Body:
    if progress is None:
        return BytesBody(data, content_type)
    return Body(partial(BytesSource, data, content_type), True, progress)


# ---- Forms ----


def _multipart(fields: list[tuple[str, str]], files: list[tuple[str, Any]], progress: Progress | None) -> Body:
    parts: list[tuple[Callable[[], Source], str]] = [
        (partial(BytesSource, encode("data", value), ""), _disposition(_quotable("data", name)))
        for name, value in fields
    ]
    replayable = True
    for name, value in files:
        make, again, disposition = _file_part(_quotable("files", name), value)
        replayable = replayable and again
        parts.append((make, disposition))
    boundary = secrets.token_hex(16)

    def make_all() -> FormSource:
        return FormSource(boundary, [(make(), disposition) for make, disposition in parts])

    return Body(make_all, replayable, progress)


def _file_part(name: str, value: Any) -> tuple[Callable[[], Source], bool, str]:
    what = f"files[{name!r}]"
    filename: Any = name
    content_type = None
    if isinstance(value, (tuple, list)):
        if not 2 <= len(value) <= 3:
            raise TypeError(f"{what} must be a file, or (filename, content) or (filename, content, content_type)")
        filename, content, content_type = (*value, None)[:3]
        make, replayable, _ = open_source(what, content)
    else:
        content = value
        make, replayable, found = open_source(what, content, ", or a tuple of file name, content and content type")
        filename = found or name
    if filename is not None:
        filename = _quotable(f"{what}: the file name", filename)
    if content_type is None:
        content_type = guess_type(filename or "")
        if content_type == OCTETS and isinstance(content, str):
            content_type = TEXT
    make_part = partial(make, _quotable(f"{what}: the content type", content_type))
    return make_part, replayable, _disposition(name, filename)


def _disposition(name: str, filename: str | None = None) -> str:
    """Args: name, filename: Without quotation marks: see `_quotable()`."""
    fields = [("name", name)] if filename is None else [("name", name), ("filename", filename)]
    return "; ".join(["form-data", *('{}="{}"'.format(key, value.replace("\\", "\\\\")) for key, value in fields)])


def _fields(data: Any, what: str) -> list[tuple[str, str]]:
    """The names and values of a form. A list becomes one field for each item; None is left out."""
    pairs = []
    for name, value in _pairs(what, data):
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, str):
                pairs.append((name, plain(item)))
            elif isinstance(item, (int, float)):
                pairs.append((name, number_text(item)))
            elif item is not None:
                # The message leaves the value out: forms hold passwords.
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
        yield plain(pair[0]), pair[1]


def _quotable(what: str, text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, not {type(text).__name__}")
    if _UNSAFE.search(text):
        raise InvalidRequestError(f"{what} must have no quotation mark and no control character, as {text!r} has")
    encode(what, text)
    return plain(text)
