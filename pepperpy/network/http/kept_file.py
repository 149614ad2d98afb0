"""The file of a download that goes on after a restart of the program: what came stays beside the target until then."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from pepperpy.network.http.part_file import Notes, PartFile
from pepperpy.network.http.threads import done, in_thread
from pepperpy.network.units import MIB

# Bytes that a thread adds to the checksum before a cancellation can end that: a tenth of a second.
_STEP = 64 * MIB
# Bytes of notes that are read; they have some 500. Arbitrary.
_MAX_NOTES = 64 * 1024


class KeptFile(PartFile):
    """A `PartFile` with a name that the next download of the same target finds, and notes beside it.

    One download at a time uses it: the system holds a lock until its descriptor is closed, as a crash does too.
    """

    def __init__(self, path: str | os.PathLike[str], checksum: str | None) -> None:
        super().__init__(path, checksum)
        self._looked_at = False  # whether it is known what an earlier download left
        self._notes: Notes | None = None

    async def go_on(self, resource: str) -> tuple[Notes, int] | None:
        """Go on with what an earlier download of `resource` left: its notes, and how many bytes there are.

        None: there is nothing that can be used, and the file is empty now. Call it after `create()`. Raises as that.
        """
        found = await done(in_thread(self._find, resource))
        if found is None:
            await self.empty()
            return None
        notes, size = found
        if self._hash is not None:
            try:
                for start in range(0, size, _STEP):
                    await done(in_thread(self._add_to_hash, min(size - start, _STEP)))
            except OSError:
                self._notes = None  # what cannot be read is of no use to a later download either
                raise
        return notes, size

    async def note(self, notes: Notes | None) -> None:
        """Remember what will be written to the file, which is empty; None: no later download can go on with it."""
        self._notes = None  # until they are on the disk
        noted = None if notes is None else replace(notes, boot=_boot_id())
        await done(in_thread(self._write_notes, noted))
        self._notes = noted

    async def keep(self, pieces: list[bytes]) -> bool:
        """Write the last pieces, and leave the file for a later download. False: call `discard()`."""
        if self._notes is None:
            # Cancelled before it was looked at: it is what an earlier download left.
            return not self._looked_at and await done(in_thread(self._leave))
        try:
            with suppress(OSError):
                await self._written()
            return await done(in_thread(self._keep, pieces))
        except OSError:
            return False

    def put_in_place(self) -> None:
        # Before the lock is given up: another download must not find the file under its old name, nor lose its notes.
        super().put_in_place()
        with suppress(OSError):
            self._remove_notes()
        self._opened.close()

    # ---- In threads ----

    def _open(self, folder: str, name: str, mode: int | None) -> io.FileIO:
        # With a digest of the whole name: two long ones may begin alike.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
        self._name = os.path.join(folder, f".{name[:40]}.{digest}.part")

        def opener(name: str, flags: int) -> int:
            return os.open(name, os.O_RDWR | os.O_CREAT | _SAFELY, 0o666 if mode is None else mode)

        while True:
            file = io.FileIO(self._name, "r+b", opener=opener)
            try:
                _lock(file.fileno(), self.path)
                _check_owner(file.fileno(), self.path)
                # Another download may have put this file in place before it gave up the lock.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), os.stat(self._name)):
                        return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _leave(self) -> bool:
        if self._file is None or not os.fstat(self._file.fileno()).st_size:
            return False
        self._file.close()
        return True

    def _find(self, resource: str) -> tuple[Notes, int] | None:
        notes = self._read_notes()
        self._looked_at = True
        if notes is None or notes.resource != resource:
            return None
        size = os.fstat(self._opened.fileno()).st_size
        if notes.boot is None or notes.boot != _boot_id():
            # The power may have failed: then blocks may be empty that were not yet on the disk.
            size = min(size, notes.written)
        if notes.total is not None:
            # A file that is whole loses its last byte, so that there is a rest to ask for.
            size = min(size, notes.total - 1)
        if size <= 0:
            return None
        self._opened.truncate(size)
        self._opened.seek(size if self._hash is None else 0)
        self._notes = notes
        return notes, size

    def _add_to_hash(self, size: int) -> None:
        assert self._hash is not None
        while size:
            data = self._opened.read(min(size, MIB))
            if not data:
                raise OSError(errno.EIO, "somebody made the unfinished file shorter", str(self.path))
            self._hash.update(data)
            size -= len(data)

    def _finish(self, pieces: list[bytes]) -> None:
        self._write(pieces)
        self._set_digest()
        if sys.platform == "win32":  # which does not rename an open file
            self._opened.close()

    def _keep(self, pieces: list[bytes]) -> bool:
        assert self._notes is not None
        if not self._write_failed:
            with suppress(OSError):
                self._write(pieces)
        # A write that failed, as on a full disk, ends what there is. The pieces behind it would leave a hole.
        size = os.fstat(self._opened.fileno()).st_size
        if not size:
            return False
        os.fsync(self._opened.fileno())
        with suppress(OSError):  # the old notes hold, until the system restarts
            self._write_notes(replace(self._notes, written=size))
        self._opened.close()
        return True

    def _read_notes(self) -> Notes | None:
        try:
            with io.FileIO(os.open(f"{self._name}.json", os.O_RDONLY | _SAFELY)) as file:
                _check_owner(file.fileno(), self.path)
                return _notes_of(json.loads(file.read(_MAX_NOTES)))
        except (OSError, LookupError, TypeError, ValueError, OverflowError, RecursionError):
            return None  # there are none, or not ours

    def _write_notes(self, notes: Notes | None) -> None:
        if notes is None:
            self._remove_notes()
            return
        # In place as a whole: a crash leaves the old ones, or these.
        name = f"{self._name}.json"
        with suppress(FileNotFoundError):
            os.unlink(f"{name}.new")
        try:
            with io.FileIO(os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY, 0o600), "w") as file:
                text = json.dumps(asdict(notes)).encode()
                if file.write(text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(file.fileno())
            os.replace(f"{name}.new", name)
        except BaseException:
            with suppress(OSError):
                os.unlink(f"{name}.new")
            raise

    def _remove_notes(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(f"{self._name}.json")

    def _discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._remove_notes()
            if sys.platform != "win32":  # which removes no open file
                # Before the lock is given up: another download may go on with a file that it finds unlocked.
                with suppress(OSError):
                    os.unlink(self._name)
                self._file.close()
                return
        super()._discard()


# No link: in a folder that all may write to, others may have put one there.
_SAFELY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _lock(descriptor: int, path: os.PathLike[str]) -> None:
    """Lock the file until its descriptor is closed, where the file system can do that."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise OSError(errno.EWOULDBLOCK, "another download of it is under way", str(path)) from None


def _check_owner(descriptor: int, path: os.PathLike[str]) -> None:
    """Refuse a file that somebody else has put there."""
    status = os.fstat(descriptor)
    mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    if not stat.S_ISREG(status.st_mode) or not mine or status.st_nlink > 1:
        raise OSError(errno.EPERM, "what is left of an earlier download belongs to somebody else", str(path))


def _boot_id() -> str | None:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def _notes_of(value: Any) -> Notes:
    """Raises TypeError or ValueError: these are no notes."""
    headers = [(str(name), str(text)) for name, text in value["headers"]]
    total, boot = value["total"], value["boot"]
    return Notes(
        resource=str(value["resource"]),
        total=None if total is None else int(total),
        headers=headers,
        written=int(value["written"]),
        boot=None if boot is None else str(boot),
    )
