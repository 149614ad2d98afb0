"""One behaviour of a server, and what is right for a client to make of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from pepperpy.network.http.transport import Kind

KINDS = frozenset(get_args(Kind))
# How a stream goes on behind what was sent.
#   keep     the server waits for the next request
#   close    it closes in order
#   reset    it resets the connection
#   settle   it waits some turns of the loop for the client to have the answer, and closes if it has not
#   repeat   it sends `block` again and again, until the client closes
Then = Literal["keep", "close", "reset", "settle", "repeat"]


@dataclass(frozen=True)
class Whole:
    """The answer is whole.

    Attributes:
        headers: Each of these is there, with exactly these values; others may be there.
        raw: The body before it is decompressed, if that is something else than `body`.
        reusable: Whether the connection carries the next request; None: either is right.
    """

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    trailers: tuple[tuple[str, str], ...] = ()
    reason: str | None = None
    raw: bytes | None = None
    reusable: bool | None = True


@dataclass(frozen=True)
class Broken:
    """An error of one of these kinds (those of `WireError`), and the connection is closed.

    Attributes:
        status: That of the answer, if the head is there before the error; None: the error may come with the head.
    """

    kinds: frozenset[str]
    status: int | None = None


@dataclass(frozen=True)
class Behaviour:
    """What a server sends as its answer to one request.

    Attributes:
        why: The reason why `right` is right: an RFC, an incident, a decision of this project.
        later: Sent when the client has the answer, before its next request; None: nothing, and `then` is not put off.
        may_refuse: An error of the kind `malformed` is as right as the answer.
        needs: A module without which the body cannot be decompressed; "" for none.
    """

    name: str
    why: str
    sent: bytes
    right: Whole | Broken
    method: str = "GET"
    then: Then = "keep"
    block: bytes = b""
    later: bytes | None = None
    needs: str = ""
    may_refuse: bool = False

    def __post_init__(self) -> None:
        assert self.why and self.name, self
        assert (self.then == "repeat") == bool(self.block), self
        assert not isinstance(self.right, Broken) or self.right.kinds <= KINDS, self


def broken(*kinds: str, status: int | None = None) -> Broken:
    return Broken(frozenset(kinds), status)


MALFORMED = broken("malformed")
# The connection ended before there was a final head.
NO_HEAD = broken("no_answer", "reset")
# The body ended too early: in order, or by a reset.
CUT = broken("truncated")
LOST = broken("truncated", "reset")

OK_HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED_HEAD = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SIZED_HEAD = OK_HEAD + b"Content-Length: 2\r\n\r\n"
# The last chunk, and an empty trailer section.
LAST = b"0\r\n\r\n"


def sized(body: bytes = b"ok", *lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A whole answer with the length of its body."""
    fields = b"".join(line + b"\r\n" for line in (*lines, b"Content-Length: %d" % len(body)))
    return first + b"\r\n" + fields + b"\r\n" + body


def in_chunks(*chunks: bytes, lines: Iterable[bytes] = (), last: bytes = LAST) -> bytes:
    """A whole answer in these chunks."""
    fields = b"".join(line + b"\r\n" for line in (*lines, b"Transfer-Encoding: chunked"))
    return OK_HEAD + fields + b"\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + last


def with_head(*lines: bytes, body: bytes = b"", first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """An answer with exactly these header lines."""
    return first + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def shown(data: bytes) -> str:
    """Bytes as a part of a name."""
    return repr(data)[2:-1]


def family(name: str, why: str, rows: Iterable[tuple[str, bytes]], right: Whole | Broken) -> Iterator[Behaviour]:
    """One behaviour for each row, which differ in what is sent only."""
    for which, sent in rows:
        yield Behaviour(f"{name}: {which}", why, sent, right)
