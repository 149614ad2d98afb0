"""`Route`: which requests it takes, and the sequence of their answers."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeAlias, Unpack

import aiohttp

from pepperpy.network.checks import check_int
from pepperpy.network.errors import NetworkError
from pepperpy.network.testing.http_match import Matcher
from pepperpy.network.testing.http_reply import Delay, Failure, FailureKind, Reply, ReplyOptions
from pepperpy.network.testing.http_request import MockRequest

Function: TypeAlias = Callable[[MockRequest], Reply | Failure | Awaitable[Reply | Failure]]

# Lines that a message lists. Arbitrary.
MAX_LINES = 20


class Route:
    """Takes some requests and answers them; `MockHTTP.get()` and the like make it.

    `reply()`, `fail()` and `call()` each add an answer to a sequence. An answer with `times` is given so many times,
    one without is given once, and the last one for ever. So a route with one reply always gives that reply. If the last
    answer has `times`, the route is used up after it, and takes no more requests. A route without answers replies 200
    with an empty body.

    Attributes:
        calls: The requests that it took, in the order of their arrival.
        optional: Whether it may stay without a request.
    """

    def __init__(self, matcher: Matcher, optional: bool) -> None:
        self.calls: list[MockRequest] = []
        self.optional = optional
        self.matcher = matcher
        self._sequence: list[tuple[Reply | Failure | Function, int | None]] = []
        self._index = 0
        self._given = 0  # how often the present answer was given

    def __repr__(self) -> str:
        return f"<Route {self}>"

    def __str__(self) -> str:
        return str(self.matcher)

    def reply(self, status: int = 200, *, times: int | None = None, **options: Unpack[ReplyOptions]) -> Route:
        """Answer with a response.

        Args:
            status: 200 to 599.
            times: How often; None: once, or for ever if it is the last answer.
            options: As for `Reply`: `json`, `text`, `content`, `chunks`, `headers`, `delay`, `then_fail`.
        """
        return self._add(Reply(status, **options), times)

    def fail(self, kind: FailureKind, *, times: int | None = None, delay: Delay = 0.0) -> Route:
        """Fail as the network does, so that the client raises or tries again.

        Args:
            kind: An error class such as `ConnectError`, or a word such as "connect" or "reset"; see `Failure`.
            times: As for `reply()`.
            delay: As for `Failure`.
        """
        return self._add(Failure(kind, delay=delay), times)

    def call(self, function: Function, *, times: int | None = None) -> Route:
        """Call a function, or a coroutine function, that returns the `Reply` or `Failure`.

        If it raises a `NetworkError`, `aiohttp.ClientError` or `OSError`, that counts as the network's. Any other
        exception reaches the caller of the client; a `ValueError` or `RuntimeError` does as an `AssertionError`.
        """
        if not callable(function):
            raise TypeError(f"function must be callable, not {type(function).__name__}")
        return self._add(function, times)

    def _add(self, answer: Reply | Failure | Function, times: int | None) -> Route:
        if times is not None:
            check_int("times", times, 1)
        self._sequence.append((answer, times))
        return self

    def assert_called(self, times: int | None = None) -> None:
        """Raise `AssertionError` unless the route took a request, or exactly `times`. The message lists them."""
        count = len(self.calls)
        if (count == 0) if times is None else (count != times):
            wanted = "any" if times is None else times
            listed = f":{as_lines(self.calls)}" if self.calls else ""
            raise AssertionError(f"{self} got {count} requests, not {wanted}{listed}")

    def next_answer(self) -> Reply | Failure | Function | None:
        """The answer for the next request; None if the route is used up."""
        sequence = self._sequence or [(_EMPTY, None)]
        while self._index < len(sequence) - 1 and self._given >= (sequence[self._index][1] or 1):
            self._index += 1
            self._given = 0
        answer, times = sequence[self._index]
        if times is not None and self._given >= times:
            return None
        self._given += 1
        return answer


_EMPTY = Reply()


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """Makes mistakes in a function of the test visible. The client would treat a `ValueError` as one of the request."""
    try:
        yield
    except (NetworkError, aiohttp.ClientError, OSError):
        raise
    except (ValueError, RuntimeError) as error:
        raise AssertionError(f"{what} raised {type(error).__name__}: {error}") from error


def as_lines(items: Iterable[object]) -> str:
    """Each item on an indented line of its own; if there are many, the last ones."""
    lines = [f"\n  {item}" for item in items]
    left_out = len(lines) - MAX_LINES
    return "".join(lines) if left_out <= 0 else f"\n  ({left_out} before these)" + "".join(lines[left_out:])
