"""Credentials for a proxy that aiohttp asks for a tunnel: aiohttp itself has Basic only, in Latin-1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import aiohttp
from multidict import CIMultiDict

from pepperpy.network.proxy_auth import ProxyAuth, ProxyLogin


def connect_auth(request: aiohttp.ClientRequest) -> ProxyAuth | None:
    """The credentials for a tunnel; None: there are none, or there is no tunnel."""
    url = request.proxy
    if url is None or not request.is_ssl():
        return None
    user, password = url.user, url.password
    if user is None and (given := request.proxy_auth) is not None:
        # Of a proxy that aiohttp has found in the environment.
        user, password = given.login, given.password
    if user is None:
        return None
    login = ProxyLogin(url.host or "", url.port or 0, user, password or "")
    return ProxyAuth(login, "CONNECT", f"{request.url.host_subcomponent}:{request.url.port}")


@contextlib.contextmanager
def showing(request: aiohttp.ClientRequest, auth: ProxyAuth | None) -> Iterator[None]:
    """A block in which aiohttp asks for the tunnel with the credentials of `auth`: Basic, or a digest if that is due.

    A `BasicAuth` of aiohttp's is left to aiohttp, because it has an encoding of its own.
    """
    url, given, headers = request.proxy, request.proxy_auth, request.proxy_headers
    if url is not None and auth is not None and (given is None or auth.has_challenge):
        request.proxy, request.proxy_auth = url.with_user(None), None
        request.proxy_headers = CIMultiDict(headers or ())
        request.proxy_headers.setdefault("Proxy-Authorization", auth.header())
    try:
        yield
    finally:
        request.proxy, request.proxy_auth, request.proxy_headers = url, given, headers
