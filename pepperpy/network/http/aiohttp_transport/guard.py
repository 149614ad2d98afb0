"""`address_policy` over aiohttp: asked where each socket is made, whatever has looked the address up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import aiohttp
from yarl import URL

from pepperpy.network.address_policy import AddressPolicy, forbidden_error, ip_of, permitted, target_for_proxy
from pepperpy.network.errors import ForbiddenAddressError
from pepperpy.network.http.redact import redact_url
from pepperpy.network.lookup import AddressInfo


class _Guard:
    """One connection that is being made, and which of its addresses were allowed."""

    def __init__(self, policy: AddressPolicy, host: str, port: int) -> None:
        self._policy = policy
        self._host = host
        self._port = port
        self._allowed = False
        self._refusals: dict[str, ForbiddenAddressError] = {}

    def check(self, address: AddressInfo) -> None:
        """Raises: ForbiddenAddressError. aiohttp goes on with the next address then."""
        try:
            permitted(self._policy, self._host, self._port, [address])
        except ForbiddenAddressError as error:
            self._refusals[ip_of(address) or ""] = error
            raise
        self._allowed = True

    @property
    def error(self) -> ForbiddenAddressError | None:
        """The error to raise if the policy is the reason why there is no connection; else None."""
        if self._allowed or not self._refusals:
            return None
        if len(self._refusals) == 1:
            return next(iter(self._refusals.values()))
        return forbidden_error(self._policy, self._host, self._port, list(self._refusals))


# aiohttp hands to its socket_factory nothing but an address.
_present: ContextVar[_Guard | None] = ContextVar("pepperpy.network.http.guard", default=None)


@contextlib.contextmanager
def guarded(policy: AddressPolicy | None, request: aiohttp.ClientRequest, *, checks_proxy: bool) -> Iterator[None]:
    """A block that connects for this request, to addresses that the policy allows.

    A proxy is asked only for what the policy allows; and is itself checked, if `checks_proxy`. SOCKS is not for here:
    see `open_tunnel()`.

    Raises:
        aiohttp.ClientConnectorError: Its `os_error` is a `ForbiddenAddressError`.
        aiohttp.InvalidURL: The host is an address in a form that a proxy may read in another way.
    """
    if policy is None:
        yield
        return
    guard = None
    url = request.url
    if request.proxy is not None:
        _check_target(policy, request)
        url = request.proxy
    if request.proxy is None or checks_proxy:
        guard = _Guard(policy, url.raw_host or "", url.port or 0)
    before = _present.set(guard)
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        if guard is None or (forbidden := guard.error) is None:
            raise
        raise aiohttp.ClientConnectorError(request.connection_key, forbidden) from error
    finally:
        _present.reset(before)


def check_address(address: AddressInfo) -> None:
    """Refuse an address before a socket to it is made. Raises: ForbiddenAddressError."""
    if (guard := _present.get()) is not None:
        guard.check(address)


def _check_target(policy: AddressPolicy, request: aiohttp.ClientRequest) -> None:
    url: URL = request.url
    host = url.raw_host or ""
    try:
        named = target_for_proxy(policy, host, url.port or 0, redact_url(str(request.proxy)))
    except ForbiddenAddressError as error:
        raise aiohttp.ClientConnectorError(request.connection_key, error) from error
    if ":" not in host and named != host:
        raise aiohttp.InvalidURL(url, "is not a canonical IPv4 address")
