"""The file of a download until it is complete: in the folder of its target, under another name."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pepperpy.network.errors import InvalidRequestError
from pepperpy.network.http.threads import done, in_thread


@dataclass(frozen=True, slots=True)
class Notes:
    """Which version of which file was begun.

    Attributes:
        resource: SHA-256 of its URL, which may hold secrets.
        total: Bytes of the whole file; None: unknown.
        headers: Headers of the answer that the file began with: those that name and describe the version.
        written: Bytes that are on the disk for certain, even if the power fails.
        boot: Names the time since the system started; None where it has no such name.
    """

    resource: str
    total: int | None
    headers: list[tuple[str, str]]
    written: int = 0
    boot: str | None = None


class PartFile:
    """A file that is put in place of its target once it is complete. Everything that may block runs in threads.

    One task calls the coroutines, one after the other. None returns while a thread uses the file, not even a cancelled
    one, except `write()`. Call `discard()` after any that was cancelled or raised.

    Raises:
        TypeError, InvalidRequestError: `path` is no path, or `checksum` is not `algorithm:hex` with an algorithm of
            hashlib.
    """

    def __init__(self, path: str | os.PathLike[str], checksum: str | None) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"path must be a str or os.PathLike, not {type(path).__name__}")
        self.path: Path = Path(path)
        self.algorithm: str | None = None
        self.expected: str | None = None
        if checksum is not None:
            self.algorithm, self.expected = parse_checksum(checksum)
        self.digest: str | None = None  # set by finish()
        self._hash = self._new_hash()
        self._file: io.FileIO | None = None
        self._name = self._target = ""
        self._writing: asyncio.Future[None] | None = None
        self._write_failed = False  # then perhaps a part of its pieces is in the file, and nothing may follow it

    async def create(self) -> None:
        """Make the file, empty.

        Raises:
            OSError: The file cannot be made, or the target is something that a file cannot replace.
        """
        await done(in_thread(self._create))

    async def go_on(self, resource: str) -> tuple[Notes, int] | None:
        """What an earlier download of `resource` has left, and how many bytes of it are here; None: nothing."""
        return None

    async def note(self, notes: Notes | None) -> None:
        """Remember, for a later download, what will be written to the file, which is empty."""

    async def keep(self, pieces: list[bytes]) -> bool:
        """Write the last pieces, and leave the file for a later download. False: call `discard()`."""
        return False

    async def write(self, pieces: list[bytes]) -> None:
        """Begin to write `pieces`. Returns when the pieces of the call before are written.

        So the next bytes arrive meanwhile, which saves a sixth of the time on two cores, and more with a checksum.
        """
        await self._written()
        self._writing = in_thread(self._write, pieces)

    async def empty(self) -> None:
        """Remove everything that was written."""
        await self._written()
        await done(in_thread(self._empty))

    async def finish(self, pieces: list[bytes]) -> None:
        """Write the last pieces, and close the file."""
        await self._written()
        await done(in_thread(self._finish, pieces))

    def put_in_place(self) -> None:
        """Replace the target. Not a coroutine: a cancellation could come when the file is in place already."""
        os.replace(self._name, self._target)

    async def discard(self) -> None:
        """Close and remove the file, if there is one. Raises no OSError, which would hide the first failure."""
        try:
            with suppress(OSError):
                await self._written()
        finally:
            await done(in_thread(self._discard))

    async def _written(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await done(writing)

    # ---- In threads ----

    def _create(self) -> None:
        # Follow links, as open() does. With the whole path, a later change of the working directory does not matter.
        self._target = os.path.realpath(self.path)
        mode = None
        with suppress(FileNotFoundError):
            mode = os.stat(self._target).st_mode
        if mode is not None:
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self.path))
            if not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, "not a regular file, so it is not replaced", str(self.path))
            mode = stat.S_IMODE(mode) & 0o777
        folder, name = os.path.split(self._target)
        self._file = self._open(folder, name, mode)
        if mode is not None and hasattr(os, "fchmod"):
            os.fchmod(self._file.fileno(), mode)

    def _open(self, folder: str, name: str, mode: int | None) -> io.FileIO:
        """Open the file for a target of this name, and set `_name`."""
        # 40 characters of the name, so that the whole name has at most 255 bytes.
        self._name = os.path.join(folder, f".{name[:40]}.{secrets.token_hex(8)}.part")

        def opener(name: str, flags: int) -> int:
            return os.open(name, flags, 0o666 if mode is None else mode)

        # "x" is O_EXCL: it opens nothing that exists, not even through a link.
        return io.FileIO(self._name, "xb", opener=opener)

    def _write(self, pieces: list[bytes]) -> None:
        self._write_failed = True
        for piece in pieces:
            if self._hash is not None:
                self._hash.update(piece)
            view = memoryview(piece)
            while view:
                view = view[self._opened.write(view) :]
        self._write_failed = False

    def _empty(self) -> None:
        self._opened.seek(0)
        self._opened.truncate()
        self._hash = self._new_hash()

    def _finish(self, pieces: list[bytes]) -> None:
        self._write(pieces)
        self._opened.close()
        self._set_digest()

    def _set_digest(self) -> None:
        if self._hash is not None:
            self.digest = self._hash.hexdigest()

    def _discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            with suppress(OSError):
                os.unlink(self._name)

    def _new_hash(self) -> Any:
        return None if self.algorithm is None else hashlib.new(self.algorithm, usedforsecurity=False)

    @property
    def _opened(self) -> io.FileIO:
        assert self._file is not None, "create() comes first"
        return self._file


def parse_checksum(checksum: object) -> tuple[str, str]:
    """Algorithm and digest of `"sha256:<hex>"`, in lower case."""
    if not isinstance(checksum, str):
        raise TypeError(f"checksum must be a str, not {type(checksum).__name__}")
    algorithm, _, digest = checksum.lower().partition(":")
    known = hashlib.algorithms_guaranteed
    # 0 for algorithms whose digests have no fixed size.
    size = hashlib.new(algorithm, usedforsecurity=False).digest_size if algorithm in known else 0
    if not size:
        names = ", ".join(sorted(name for name in known if not name.startswith("shake")))
        raise InvalidRequestError(f"checksum must be 'algorithm:hex' with one of {names}, not {checksum!r:.150}")
    if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", digest):
        text = f"checksum must have {2 * size} hexadecimal digits after {algorithm}:, not {checksum!r:.150}"
        raise InvalidRequestError(text)
    return algorithm, digest
