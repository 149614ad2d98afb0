"""What goes into the Authorization header: a fixed value, or a token that is fetched again when it ends.

No `repr`, error or log of this file holds a secret. An exception of the user's own `fetch` becomes a `__cause__`, and
its text is not repeated.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import math
import re
import unicodedata
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from pepperpy.network.checks import check_seconds
from pepperpy.network.errors import ClosedError, NetworkError, UsageError
from pepperpy.network.http.checks import plain, token_text

Token = str | tuple[str, float | None]
Fetch = Callable[[], Token | Awaitable[Token]]

# RFC 7617, section 2, forbids the control characters of RFC 5234; UTF-8 has no surrogates.
_NOT_IN_BASIC = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
# RFC 9110, section 11.1 (auth-scheme) and 5.6.2 (token).
_SCHEME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Auth:
    """Where the Authorization header of each request comes from. Subclasses set `fixed`, or override `header()`.

    Attributes:
        fixed: The header's value, if it never changes; else None, and every request awaits `header()`.
    """

    fixed: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    async def header(self) -> str:
        """The value of the Authorization header for the next request, scheme included."""
        if self.fixed is None:
            raise NotImplementedError(f"{type(self).__name__} must set `fixed` or override `header()`")
        return self.fixed

    def refused(self, header: str) -> bool:
        """Told that the server answered 401 to `header`; True if the request may be sent again with a new one."""
        return False

    async def close(self) -> None:
        """End what is under way; a later `header()` works again. No client calls it: several may share an `Auth`."""


class _FixedAuth(Auth):
    def __init__(self, fixed: str) -> None:
        self.fixed = fixed

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.fixed == self.fixed if isinstance(other, Auth) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self.fixed))


class BasicAuth(_FixedAuth):
    """User name and password (RFC 7617), as UTF-8 in normalization form C. Comparable and picklable.

    Args:
        user: Without a colon or control characters; may be empty.
        password: Without control characters; may be empty.
    """

    def __init__(self, user: str, password: str) -> None:
        for name, value in (("user", user), ("password", password)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
            if _NOT_IN_BASIC.search(value):
                raise ValueError(f"{name} must hold no control characters or surrogates (RFC 7617)")
        if ":" in user:
            raise ValueError("user must hold no colon (RFC 7617): the password would begin there")
        credentials = unicodedata.normalize("NFC", f"{plain(user)}:{plain(password)}").encode()
        super().__init__("Basic " + base64.b64encode(credentials).decode("ascii"))


class BearerAuth(_FixedAuth):
    """A bearer token (RFC 6750) that never changes. Comparable and picklable.

    Args:
        token: Whatever can stand in a header, also what RFC 6750 does not have: no control characters, no space at
            either end.
    """

    def __init__(self, token: str) -> None:
        super().__init__(f"Bearer {token_text('token', token)}")


class RefreshingAuth(Auth):
    """A token from a function of yours, fetched when there is none yet, when it ends, and when a server refuses it.

    However many requests want a token at once, one fetch is under way, in a task of its own. Used on one event loop at
    a time (`UsageError` where another one's fetch is under way); the token itself moves along to the next loop.

    Args:
        fetch: Called without arguments in the event loop, so a plain function must not block. Gives, or is awaited
            for, the token or `(token, lifetime)`; a lifetime in seconds from the call on, None if it is not known.
        scheme: What stands before the token.
        leeway: Seconds before the end of its lifetime at which a token is renewed, so that it does not end on its way;
            0 or more. Of a short lifetime, half at most. 30: arbitrary; more than clocks and networks are usually late.
    """

    def __init__(self, fetch: Fetch, *, scheme: str = "Bearer", leeway: float = 30.0) -> None:
        if not callable(fetch):
            raise TypeError(f"fetch must be a callable, not {type(fetch).__name__}")
        if not isinstance(scheme, str):
            raise TypeError(f"scheme must be a str, not {type(scheme).__name__}")
        if not _SCHEME.fullmatch(scheme):
            raise ValueError(f"scheme must be a token (RFC 9110), not {scheme!r}")
        check_seconds("leeway", leeway, zero=True)
        self._fetch = fetch
        self._scheme = plain(scheme)
        self._leeway = leeway
        self._header: str | None = None
        self._renew_at = math.inf  # on the clock of time.monotonic(), the same for every loop
        self._flight: _Flight | None = None

    async def header(self) -> str:
        """The header with the present token; waits for a fetch where there is none.

        Raises:
            NetworkError: `fetch` failed, with its exception as `__cause__`, or gave no usable token. All who wait get
                an error of their own; the next call tries again.
            ClosedError: `close()` came meanwhile.
            UsageError: Called by `fetch` itself, or while a fetch is under way on another event loop.

        Cancellation: The fetch goes on for the others who wait for it. For the last one it is cancelled, and has ended
            when this returns, unless this is cancelled once more.
        """
        if self._header is not None and monotonic() < self._renew_at:
            return self._header
        flight = self._present_flight()
        if flight is None:
            flight = self._flight = _Flight()
            flight.task = asyncio.create_task(self._run(flight))
        elif flight.task is asyncio.current_task():
            raise UsageError("fetch waits for the token it has to fetch; use a client without this auth in it")
        flight.waiters += 1
        try:
            # Unlike awaiting the task, this leaves it alone when cancelled.
            await asyncio.wait([flight.task])
        except asyncio.CancelledError:
            if flight.waiters == 1 and not flight.task.done():
                # Who comes from now on must not wait for it.
                self._flight = None
                await _end(flight.task)
            raise
        finally:
            flight.waiters -= 1
        if flight.closed:
            raise ClosedError("closed while a token was fetched", {"phase": "auth"})
        try:
            outcome: str | BaseException = flight.task.result()
        except asyncio.CancelledError as error:
            outcome = error
        if isinstance(outcome, str):
            return outcome
        raise NetworkError(_failure(outcome), {"phase": "auth"}, outcome)

    def refused(self, header: str) -> bool:
        """Forget the token, unless it is a newer one than the one refused. Always True."""
        if header == self._header:
            self._header = None
        return True

    async def close(self) -> None:
        """Cancel a fetch that is under way, and wait for its end. The token stays, for the next use.

        Cancellation: The fetch is cancelled, but may not have ended.
        """
        flight = self._present_flight()
        if flight is not None:
            flight.closed = True
            await _end(flight.task)

    def _present_flight(self) -> _Flight | None:
        flight = self._flight
        # A loop that was closed without ending its tasks will not end this one either.
        if flight is None or flight.task.done() or flight.task.get_loop().is_closed():
            return None
        if flight.task.get_loop() is not asyncio.get_running_loop():
            raise UsageError("a token is fetched on another event loop; use one Auth for each")
        return flight

    async def _run(self, flight: _Flight) -> str | Exception:
        """Fetch a token. Failures are results, so that one which nobody waits for any more is not reported."""
        started = monotonic()
        try:
            given: Any = self._fetch()
            if inspect.isawaitable(given):
                given = await given
            token, lifetime = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
            header, seconds = self._checked(token, lifetime)
        except Exception as error:
            return error
        # Not of a fetch that nobody waited for any more and that went on all the same: a later one may be ahead of it.
        if self._flight is flight:
            self._header = header
            self._renew_at = started + seconds - min(self._leeway, seconds / 2)
        return header

    def _checked(self, token: object, lifetime: object) -> tuple[str, float]:
        """The header and its lifetime in seconds."""
        header = f"{self._scheme} {token_text('what fetch returns as the token', token)}"
        if lifetime is None:
            return header, math.inf
        check_seconds("the lifetime that fetch returns", lifetime, zero=False)
        return header, float(lifetime)  # type: ignore[arg-type]


class _Flight:
    """One fetch and those who wait for it."""

    __slots__ = ("closed", "task", "waiters")

    def __init__(self) -> None:
        self.task: asyncio.Task[str | Exception]
        self.waiters = 0
        self.closed = False


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _failure(error: BaseException) -> str:
    # Not the error's own words: they may quote the request for the token, secrets included.
    if isinstance(error, asyncio.CancelledError):
        return "the fetch of a token was cancelled, though not by who waits for it"
    return f"no token could be fetched: {type(error).__name__}"


def as_auth(value: Any) -> Auth | None:
    """What `auth` may be: None, an `Auth`, `(user, password)`, or a callable that gives a token.

    Raises:
        TypeError: Anything else; a class too, which is rather meant to be called first.
    """
    if value is None or isinstance(value, Auth):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return BasicAuth(*value)
    if callable(value) and not isinstance(value, type):
        return RefreshingAuth(value)
    # The class with its module: aiohttp has a BasicAuth too.
    given = f"{value!r} itself" if isinstance(value, type) else f"an object of {type(value)!r}"
    taken = "an Auth such as BearerAuth(token), (user, password) or a callable that gives a token"
    raise TypeError(f"auth must be {taken}, not {given}")
