"""Redirects: which answer is one, what is sent next, and what must not be sent. For all transports.

Headers that belong to one origin, or carry a secret, are not sent to another one: credentials, cookies, the caller's
own `Host`, proofs of possession (RFC 9449), tokens against forgery. Nor is an idempotency key, which names an operation
of one server; a POST that went on without it is not tried again. What was left out stays out, even if a further
redirect leads back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from multidict import CIMultiDict
from yarl import URL

from pepperpy.network.http.auth import BasicAuth
from pepperpy.network.http.checks import check_url
from pepperpy.network.http.redact import is_secret_header, redact_url
from pepperpy.network.http.request import Request
from pepperpy.network.http.urls import host_field, join

# Characters of a Location. RFC 9110, section 4.1, asks for at least 8,000; this is twice as many.
MAX_LOCATION = 16_000

_STATUSES = frozenset({301, 302, 303, 307, 308})
# RFC 9110, section 15.4: a request without the body has no headers that describe it, such as all that begin "Content-".
_OF_BODY = re.compile(r"content-.*|(repr-)?digest|last-modified|transfer-encoding|trailer|expect", re.IGNORECASE)


class Policy(Protocol):
    """The fields of `HTTPConfig` that matter here."""

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def secret_headers(self) -> Collection[str]: ...
    @property
    def allow_downgrade(self) -> bool: ...
    @property
    def key_headers(self) -> tuple[str, str]: ...


class NotFollowed(Exception):
    """A redirect cannot be followed, or must not be. The text says why, without a secret."""


def next_request(request: Request, status: int, location: str, policy: Policy) -> Request:
    """The request that a redirect asks for.

    Raises:
        NotFollowed: It leads to no URL of HTTP, or from https to http, or needs a body that cannot be read again.
    """
    url = _target(request.url, location)
    if request.url.scheme == "https" and url.scheme == "http" and not policy.allow_downgrade:
        raise NotFollowed(f"redirected from https to {redact_url(str(url))}; allow_downgrade=True would follow")
    own = CIMultiDict(request.own or ())
    follower = Request(request.method, url, own, request.body, request.defaults, request.limits)
    follower.proxy = request.proxy
    follower.verify = request.verify
    follower.decompress = request.decompress
    follower.cookies = request.cookies
    follower.left_out = request.left_out
    follower.removed = request.removed
    follower.lent_credentials = request.lent_credentials
    follower.auth = request.auth
    if (status == 303 and request.method != "HEAD") or (status in (301, 302) and request.method == "POST"):
        follower.method, follower.body = "GET", None
        _leave_out(follower, own, policy, lambda name: _OF_BODY.fullmatch(name) is not None)
    elif request.body is not None and not request.body.can_be_sent:
        raise NotFollowed("redirected with a body that can be read only once, and was")
    if url.origin() != request.url.origin():
        follower.cookies = follower.auth = None
        keys = {name.lower() for name in policy.key_headers}
        _leave_out(
            follower,
            own,
            policy,
            lambda name: name.lower() in keys or is_secret_header(name, policy.secret_headers),
        )
        _name_host(follower, own, policy)
    if url.raw_user is not None or url.raw_password is not None:
        _take_credentials(follower, own, policy)
    return follower


def _leave_out(request: Request, own: CIMultiDict[str], policy: Policy, is_left_out: Callable[[str], bool]) -> None:
    for name in {name for name in own if is_left_out(name)}:
        own.popall(name, None)
    request.left_out = {*request.left_out, *(name.lower() for name in policy.headers if is_left_out(name))}


def _name_host(request: Request, own: CIMultiDict[str], policy: Policy) -> None:
    own.popall("Host", None)
    if any(name.lower() == "host" for name in policy.headers):
        own["Host"] = host_field(request.url)


def _take_credentials(request: Request, own: CIMultiDict[str], policy: Policy) -> None:
    """Make a header of the user info in a Location: the server asks the client to send it there."""
    of_all = any(name.lower() == "authorization" for name in policy.headers)
    of_all = of_all and not request.leaves_out("authorization")
    if (of_all or "Authorization" in own or request.auth is not None) and not request.lent_credentials:
        raise NotFollowed("redirected to a URL with user or password, and the request has other credentials")
    try:
        own["Authorization"] = str(BasicAuth(request.url.user or "", request.url.password or "").fixed)
    except ValueError:
        raise NotFollowed("redirected to a URL with a user or password that cannot be sent") from None
    if not any(name.lower() == "authorization" for name in request.removed):
        request.left_out = {name for name in request.left_out if name.lower() != "authorization"}
    request.url = request.url.with_user(None)
    request.auth = None
    request.lent_credentials = True


def location_of(status: int, headers: Mapping[str, str]) -> str | None:
    """Where a redirect leads; None if this answer is no redirect."""
    if status not in _STATUSES:
        return None
    # Before RFC 1945, Location was called URI. aiohttp reads that too.
    return headers.get("Location") or headers.get("URI") or None


def _target(base: URL, location: str) -> URL:
    if len(location) > MAX_LOCATION:
        raise NotFollowed(f"redirected to a URL of {len(location)} characters; {MAX_LOCATION} are followed")
    try:
        return check_url("Location", join(base, location.strip(" \t"))).with_fragment(None)
    except ValueError:
        raise NotFollowed("redirected to something that is no HTTP URL") from None
