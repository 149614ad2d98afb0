"""What a connection promises, in plain Python: the received stream as one `bytes` and an offset, the sent one as one.

Written from the documentation of `NetworkClient` and `NetworkConfig`, not from the core, and as simple as it gets:
every look at the bytes starts from the beginning.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from pepperpy.network import (
    ClosedError,
    ConnectionLostError,
    IncompleteReadError,
    MessageTooLargeError,
    NetworkClient,
)
from support.own_kind import own_kind

# An exact receive that misses this much gets its own memory (receiver.pyx), which the high-water mark does not count.
OWN_MEMORY_FROM = 128 * 1024
# A task that sends this much in one turn of the loop lets the loop run (sender.pyx).
FAIR_SHARE = 4 << 20


class Wait(enum.Enum):
    """The answer "not yet"."""

    NOT_YET = "wait"


@dataclass(frozen=True)
class Raises:
    """The answer that is an error, with what it must say besides its class."""

    kind: type[Exception]
    partial: bytes | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Request:
    """One receive: `receive`, `receive_into`, `receive_exactly`, `receive_until`, `receive_line` or `receive_lines`.

    Or `peek` or `skip_until`.
    """

    method: str
    size: int = 0
    separator: bytes | tuple[bytes, ...] = b""
    max_size: int | None = None

    def arguments(self) -> tuple[object, ...]:
        if self.method in ("receive", "receive_exactly", "peek"):
            return (self.size,)
        if self.method == "receive_into":
            return (bytearray(self.size),)
        if self.method == "skip_until":
            return (self.separator,)
        return (self.separator, self.max_size) if self.method == "receive_until" else ()


Answer = bytes | list[bytes] | int | Raises | Wait


def end_of_first(separator: bytes | tuple[bytes, ...], data: bytes) -> int:
    """The number of bytes up to the end of the separator that ends first; 0 if there is none."""
    separators = separator if isinstance(separator, tuple) else (separator,)
    return min((data.find(one) + len(one) for one in separators if one in data), default=0)


@dataclass
class ReceivedStream:
    """The receiving side: every byte that came, how many of them were taken, and whether reading pauses."""

    high: int
    low: int
    max_message_size: int
    came: bytearray = field(default_factory=bytearray)
    taken: int = 0
    put_back: bytearray = field(default_factory=bytearray)  # in front of the others, and not taken again
    skipped: int = 0  # bytes that a skip_until() which has not ended has dropped
    receives: int = 0
    ended: bool = False  # by the peer
    end_met: bool = False  # a receive has returned the end, and none has waited since
    lost: bool = False
    closed: bool = False  # by us
    paused: bool = False
    promised: int = 0  # bytes on hand that a reader's own memory may hold
    dropped: int = 0  # bytes that came after we closed

    @property
    def unread(self) -> bytes:
        return bytes(self.put_back) + bytes(memoryview(self.came)[self.taken :])

    @property
    def unread_count(self) -> int:
        return len(self.put_back) + len(self.came) - self.taken

    def _consume(self, count: int) -> None:
        again = min(count, len(self.put_back))
        del self.put_back[:again]
        self.taken += count - again

    # ---- What happens to it ----

    def comes(self, data: bytes) -> None:
        if self.closed:
            self.dropped += len(data)
        else:
            self.came += data

    def close(self) -> None:
        """Received bytes that nobody took are dropped."""
        self.closed = True
        self._consume(self.unread_count)

    def lose(self) -> None:
        self.lost = not self.closed

    def was_read(self, waiting: bool, paused: bool) -> None:
        """After each read: reading pauses from the high-water mark up, unless somebody waits for more."""
        if self.closed or waiting or self.paused:
            return
        if self.unread_count - self.promised >= self.high:
            assert paused, f"reading goes on with {self.unread_count} bytes unread, high-water mark {self.high}"
        if self.unread_count < self.high:
            assert not paused, f"reading pauses with {self.unread_count} bytes unread, high-water mark {self.high}"
        self.paused = paused

    def waits(self, request: Request) -> None:
        """Somebody waits: for that, reading goes on. Or for a turn of the loop, before the end is returned again."""
        self.paused = self.end_met = False
        if request.method == "receive_exactly" and request.size >= OWN_MEMORY_FROM:
            self.promised = request.size

    def unread_again(self, data: bytes) -> bool:
        """Bytes are put back. False: they are too many."""
        if len(self.put_back) + len(data) > max(self.max_message_size, self.high):
            return False
        self.put_back[:0] = data
        return True

    def skips(self, request: Request, buffered: int) -> None:
        """A skip goes on, and `buffered` bytes are left: it has dropped no separator, nor the beginning of one."""
        dropped = self.unread_count - buffered
        separators = request.separator if isinstance(request.separator, tuple) else (request.separator,)
        longest = max(map(len, separators))
        assert dropped >= 0
        assert not end_of_first(separators, self.unread[: dropped + longest - 1])
        assert buffered >= longest - 1 or not dropped
        self._consume(dropped)
        self.skipped += dropped

    # ---- What is asked of it ----

    def take(self, request: Request) -> Answer:
        """What the request gives, with its effects."""
        answer = self.look(request)
        if answer is Wait.NOT_YET:
            return answer
        self.promised = 0
        if self.is_at_end(request):
            assert not self.end_met, f"{request} returned the end again, and did not let the loop run"
            self.end_met = True
        if isinstance(answer, Raises):
            if answer.partial is not None:
                self._consume(self.unread_count)
            return answer
        if request.method != "peek" and (answer or request.method == "receive_exactly"):
            if isinstance(answer, int):
                self._consume(answer - self.skipped)
            else:
                self._consume(len(answer) if isinstance(answer, bytes) else sum(map(len, answer)))
            self.receives += 1
            if self.unread_count <= self.low:
                self.paused = False
        return answer

    def is_at_end(self, request: Request) -> bool:
        """Whether the request meets the end of the stream, with nothing in front of it."""
        asks_for_nothing = request.method == "receive_exactly" and not request.size
        on_hand = self.unread_count
        if request.method == "peek" and on_hand < request.size:
            # It leaves what is there, so it could return that again and again.
            on_hand = 0
        return self.ended and not self.closed and not on_hand and not asks_for_nothing

    def look(self, request: Request) -> Answer:
        """What the request would give; changes nothing."""
        unread = self.unread
        match request.method:
            case "receive" | "receive_into":
                return unread[: request.size] or self._nothing(b"")
            case "peek":
                return unread[: request.size] if len(unread) >= request.size else self._nothing(unread)
            case "skip_until":
                end = end_of_first(request.separator, unread)
                return self.skipped + end if end else self._nothing(Raises(IncompleteReadError, partial=b""))
            case "receive_exactly":
                if len(unread) >= request.size:
                    return unread[: request.size]
                return self._nothing(Raises(IncompleteReadError, partial=unread))
            case "receive_until":
                limit = self.max_message_size if request.max_size is None else request.max_size
                return self._message(unread, request.separator, limit) or self._nothing(
                    Raises(IncompleteReadError, partial=unread)
                )
            case "receive_line":
                return self._message(unread, b"\n", self.max_message_size) or self._nothing(unread)
            case "receive_lines":
                lines: list[bytes] = []
                while isinstance(line := self._message(unread, b"\n", self.max_message_size), bytes):
                    lines.append(line)
                    unread = unread[len(line) :]
                return lines or line or self._nothing([unread] if unread else [])
        raise AssertionError(request.method)

    def _message(self, unread: bytes, separator: bytes | tuple[bytes, ...], limit: int) -> bytes | Raises | None:
        if 0 < (end := end_of_first(separator, unread)) <= limit:
            return unread[:end]
        return Raises(MessageTooLargeError, limit=limit) if len(unread) >= limit else None

    def _nothing(self, at_the_end: Answer) -> Answer:
        if self.closed:
            return Raises(ClosedError)
        if self.ended:
            return at_the_end
        return Raises(ConnectionLostError) if self.lost else Wait.NOT_YET


@dataclass
class SentStream:
    """The sending side: every byte that was accepted, and whether senders are held back."""

    high: int
    low: int
    accepted: bytearray = field(default_factory=bytearray)
    sends: int = 0
    ended: bool = False  # by send_eof()
    held_back: bool = False
    may_hold_back: bool = False  # was held back at some time in this turn; who waits is let go at its end
    accepted_before_turn: int = 0

    def look(self, queued: int) -> None:
        """With this much queued: held back from the high-water mark up, until at the low one."""
        if queued >= self.high:
            self.held_back = self.may_hold_back = True
        elif queued <= self.low:
            self.held_back = False

    def accept(self, data: bytes) -> None:
        assert not self.held_back, "a send was accepted above the high-water mark"
        assert not self.ended, "a send was accepted after send_eof()"
        self.accepted += data
        self.sends += 1
        if len(self.accepted) - self.accepted_before_turn >= FAIR_SHARE:
            self.may_hold_back = True

    def turned(self) -> None:
        self.may_hold_back = self.held_back
        self.accepted_before_turn = len(self.accepted)


def difference(got: object, wanted: object) -> str | None:
    """Where two byte strings (or lists of them) part, in few words; None if they are equal."""
    if got == wanted:
        return None
    if isinstance(got, (bytes, bytearray)) and isinstance(wanted, (bytes, bytearray)):
        at = next((i for i, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
        return f"{len(got)} bytes instead of {len(wanted)}, other from {at} on: {got[at : at + 20]!r}"
    return f"{got!r:.200} instead of {wanted!r:.200}"


def check_answer(expected: Answer, value: object, error: BaseException | None, request: Request) -> None:
    """The outcome of a finished receive is the one that was expected."""
    assert expected is not Wait.NOT_YET, f"{request} ended with {value!r} {error!r}, but had to wait"
    if isinstance(expected, Raises):
        assert own_kind(error) is expected.kind, f"{request}: {error!r} instead of {expected}, value {value!r}"
        assert expected.partial is None or getattr(error, "partial", None) == expected.partial
        assert expected.limit is None or getattr(error, "details", {})["limit"] == expected.limit
    else:
        assert error is None, f"{request} raised {error!r} instead of giving {expected!r:.200}"
        wrong = difference(value, expected)
        assert wrong is None, f"{request} gave {wrong}"


def check_counters(client: NetworkClient, received: ReceivedStream, sent: SentStream) -> None:
    stats = client.stats
    assert stats.bytes_received == len(received.came) + received.dropped
    assert stats.bytes_buffered == received.unread_count
    assert stats.receives == received.receives
    assert stats.bytes_sent == len(sent.accepted)
    assert stats.sends == sent.sends
