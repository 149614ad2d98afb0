"""The Authorization header: fixed, or from a token that is fetched when needed and shared by all who wait for it."""

from __future__ import annotations

import asyncio
import base64
import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any

from pepperpy.network.config import _check_seconds
from pepperpy.network.errors import NetworkError

# RFC 6750, section 2.1: b64token. Nothing in it can end a header.
_B64_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Fetched = str | tuple[str, float]


class Auth:
    """Gives requests their Authorization header; subclass it for a scheme of your own.

    Attributes:
        fixed: The header's value where it never changes, otherwise None.
    """

    fixed: str | None = None

    async def header(self) -> str:
        """The header's value for a request that is about to be sent."""
        if self.fixed is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a fixed value nor a header() of its own")
        return self.fixed

    def refused(self, header: str) -> bool:
        """Told that the server answered 401 to this value: whether another call of `header()` may give a better one."""
        return False

    async def close(self) -> None:
        """End what is under way."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"


class BasicAuth(Auth):
    """User and password, as RFC 7617 has it, in UTF-8."""

    def __init__(self, user: str, password: str) -> None:
        for name, value in (("user", user), ("password", password)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
            if _CONTROL.search(value):
                raise ValueError(f"{name} must have no control characters (RFC 7617, section 2)")
        if ":" in user:
            raise ValueError("user must have no colon (RFC 7617, section 2)")
        self.fixed = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class BearerAuth(Auth):
    """A token that does not change (RFC 6750)."""

    def __init__(self, token: str) -> None:
        self.fixed = "Bearer " + _checked_token(token)


class RefreshingAuth(Auth):
    """A token that is fetched when it is first needed, before it runs out, and after the server refused it.

    However many requests need it, one fetch runs; a request that is cancelled meanwhile does not stop it for the
    others. A failure reaches all who wait; the next request tries again.
    """

    def __init__(
        self, fetch: Callable[[], Fetched | Awaitable[Fetched]], *, scheme: str = "Bearer", leeway: float = 30.0
    ) -> None:
        """Args:
        fetch: Gives the token, or `(token, seconds that it lasts)`; a plain or a coroutine function.
        scheme: The word before the token.
        leeway: Seconds before its end that a token is replaced, for the time that a request takes. Arbitrary.
        """
        if not callable(fetch):
            raise TypeError(f"fetch must be callable, not {type(fetch).__name__}")
        _check_seconds("leeway", leeway, zero=True)
        self._fetch = fetch
        self._scheme = scheme
        self._leeway = leeway
        self._value: str | None = None
        self._renew_at: float | None = None
        self._task: asyncio.Task[str] | None = None
        self._waiting = 0

    async def header(self) -> str:
        """The header's value.

        Raises:
            NetworkError: The fetch failed; `__cause__` says how.

        Cancellation: The fetch goes on if others wait for it, otherwise it is cancelled.
        """
        loop = asyncio.get_running_loop()
        if self._value is not None and (self._renew_at is None or loop.time() < self._renew_at):
            return self._value
        if self._task is None:
            self._task = loop.create_task(self._renew())
            self._task.add_done_callback(self._finished)
        task = self._task
        self._waiting += 1
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise NetworkError("the token fetch was cancelled", {"phase": "auth"}) from None
            raise
        except Exception as error:
            text = f"the token cannot be fetched: {type(error).__name__}"
            raise NetworkError(text, {"phase": "auth"}) from error
        finally:
            self._waiting -= 1
            if not self._waiting and not task.done():
                task.cancel()
                self._task = None

    async def _renew(self) -> str:
        fetched = self._fetch()
        if inspect.isawaitable(fetched):
            fetched = await fetched
        token, lifetime = fetched if isinstance(fetched, tuple) else (fetched, None)
        value = f"{self._scheme} {_checked_token(token)}"
        self._renew_at = None if lifetime is None else asyncio.get_running_loop().time() + lifetime - self._leeway
        self._value = value
        return value

    def _finished(self, task: asyncio.Task[str]) -> None:
        if self._task is task:
            self._task = None
        if not task.cancelled():
            task.exception()  # those who waited have had it

    def refused(self, header: str) -> bool:
        # A late refusal of the token before this one is no reason to fetch another.
        if header == self._value:
            self._value = None
        return True

    async def close(self) -> None:
        task, self._task = self._task, None
        self._value = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def as_auth(value: Any) -> Auth | None:
    """What `auth` may be: None, an `Auth`, `(user, password)`, or a callable that gives a token."""
    if value is None or isinstance(value, Auth):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        return BasicAuth(*value)
    if callable(value):
        return RefreshingAuth(value)
    raise TypeError(
        f"auth must be an Auth, (user, password) or a callable that gives a token, not a {type(value).__name__}"
    )


def _checked_token(token: object) -> str:
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    if not _B64_TOKEN.fullmatch(token):
        raise ValueError("token must consist of letters, digits and -._~+/ (RFC 6750, section 2.1)")
    return token
