"""The Authorization header: a fixed value, or a token that is fetched again when it expires. All kinds are here.

No `repr`, error or log of this file shows a secret. An exception of the user's `fetch` becomes a `__cause__`; its text
is not repeated.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import math
import re
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, cast

from pepperpy.network.checks import check_seconds
from pepperpy.network.errors import ClosedError, NetworkError, UsageError
from pepperpy.network.http.auth_base import Auth as Auth
from pepperpy.network.http.checks import credential_text, plain, token_text
from pepperpy.network.http.digest_auth import DigestAuth as DigestAuth

Token = str | tuple[str, float | None]
Fetch = Callable[[], Token | Awaitable[Token]]

# RFC 9110, section 11.1 (auth-scheme) and 5.6.2 (token).
_SCHEME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class _FixedAuth(Auth):
    def __init__(self, fixed: str) -> None:
        self.fixed: str | None = fixed

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
        user, password = credential_text("user", user), credential_text("password", password)
        if ":" in user:
            raise ValueError("user must hold no colon (RFC 7617): the password would begin there")
        credentials = f"{user}:{password}".encode()
        super().__init__("Basic " + base64.b64encode(credentials).decode("ascii"))


class BearerAuth(_FixedAuth):
    """A bearer token (RFC 6750) that never changes. Comparable and picklable.

    Args:
        token: Any text that a header can hold, more than RFC 6750 allows: without control characters, and without
            space at either end.
    """

    def __init__(self, token: str) -> None:
        super().__init__(f"Bearer {token_text('token', token)}")


class RefreshingAuth(Auth):
    """A token from a function of yours: fetched at the first request, when it expires, and when a server refuses it.

    At most one fetch is under way, in a task of its own; all requests that need the token wait for it. Use it on one
    event loop at a time (else `UsageError`, while a fetch is under way on the other). A token stays for the next loop.

    Args:
        fetch: Called without arguments in the event loop, so a plain function must not block. It returns, or its
            awaitable does, the token or `(token, lifetime)`: a lifetime in seconds from the call on, None if unknown.
        scheme: The word in front of the token.
        leeway: Seconds before its end at which a token is renewed, so that it does not expire on its way; 0 or more, at
            most half of the lifetime. 30: arbitrary; clocks and networks are rarely later than that.
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
        """The header with the present token. If there is none, it waits for a fetch.

        Raises:
            NetworkError: `fetch` raised, which is the `__cause__`, or returned no usable token. Each task that waits
                gets an error of its own; the next call tries again.
            ClosedError: `close()` was called meanwhile.
            UsageError: `fetch` itself called this, or a fetch is under way on another event loop.

        Cancellation: The fetch goes on for other tasks that wait for it. If there is none, it is cancelled, and has
            ended when this returns, unless this is cancelled once more.
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
                # Tasks that come from now on must not wait for it.
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
        """Forget the token if it is the refused one, not a newer one. Always True."""
        if header == self._header:
            self._header = None
        return True

    async def close(self) -> None:
        """Cancel a fetch that is under way, and wait for its end. A token that is there stays.

        Cancellation: The fetch is cancelled, but may not have ended.
        """
        flight = self._present_flight()
        if flight is not None:
            flight.closed = True
            await _end(flight.task)

    def _present_flight(self) -> _Flight | None:
        flight = self._flight
        # If the loop was closed before its tasks ended, this task will never end.
        if flight is None or flight.task.done() or flight.task.get_loop().is_closed():
            return None
        if flight.task.get_loop() is not asyncio.get_running_loop():
            raise UsageError("a token is fetched on another event loop; use one Auth for each")
        return flight

    async def _run(self, flight: _Flight) -> str | Exception:
        """Fetch a token. Returns a failure instead of raising it: asyncio would report one that nobody waits for."""
        # Here, because an eager task runs before `create_task()` returns.
        flight.task = cast("asyncio.Task[str | Exception]", asyncio.current_task())
        started = monotonic()
        try:
            given: Any = self._fetch()
            if inspect.isawaitable(given):
                given = await given
            token, lifetime = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
            header, seconds = self._checked(token, lifetime)
        except Exception as error:
            return error
        # Not if the fetch was given up and went on all the same: a later one may have replaced it.
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
    """One fetch, and how many tasks wait for it."""

    __slots__ = ("closed", "task", "waiters")

    def __init__(self) -> None:
        self.task: asyncio.Task[str | Exception]
        self.waiters = 0
        self.closed = False


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _failure(error: BaseException) -> str:
    # Without the error's text, which may quote the request for the token, secrets included.
    if isinstance(error, asyncio.CancelledError):
        return "the fetch of a token was cancelled, though not by who waits for it"
    return f"no token could be fetched: {type(error).__name__}"


def as_auth(value: Any) -> Auth | None:
    """The `Auth` for an argument `auth`: None, an `Auth`, `(user, password)`, or a callable that returns a token.

    Raises:
        TypeError: It is anything else. So is a class: its caller forgot to make an object of it.
    """
    if value is None or isinstance(value, Auth):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return BasicAuth(*value)
    if callable(value) and not isinstance(value, type):
        return RefreshingAuth(cast(Fetch, value))
    # Name the class with its module, because aiohttp has a BasicAuth too.
    given = f"{value!r} itself" if isinstance(value, type) else f"an object of {type(value)!r}"
    taken = "an Auth such as BearerAuth(token), (user, password) or a callable that gives a token"
    raise TypeError(f"auth must be {taken}, not {given}")
