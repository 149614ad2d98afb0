"""redis's wire format (RESP 2 and 3) as a codec, as a user of the package would write it."""

from __future__ import annotations

from typing import Any


class Push(list[Any]):
    """What RESP3 marks as out of band, with `>`."""


class RESP3:
    """Commands out, as lists of words; replies in."""

    def encode(self, message: list[bytes]) -> bytes:
        return b"*%d\r\n" % len(message) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in message)

    def decode(self, data: bytes, start: int) -> tuple[Any, int] | None:
        end = data.find(b"\r\n", start)
        if end < 0:
            return None
        kind, rest, end = data[start : start + 1], data[start + 1 : end], end + 2
        if kind == b"+":
            return rest, end
        if kind == b"-":
            return RuntimeError(rest.decode()), end
        if kind == b":":
            return int(rest), end
        if kind == b"_" or rest == b"-1":
            return None, end
        if kind == b"$":
            stop = end + int(rest)
            return (data[end:stop], stop + 2) if len(data) >= stop + 2 else None
        if kind in b"*>%":
            items = []
            for _ in range(int(rest) * (2 if kind == b"%" else 1)):
                if (found := self.decode(data, end)) is None:
                    return None
                item, end = found
                items.append(item)
            return Push(items) if kind == b">" else items, end
        raise ValueError(f"unknown kind of reply {kind!r}")
