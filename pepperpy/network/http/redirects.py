"""Redirects: which answer is one, what is sent next, and what must not be. For all wires; knows nothing of any.

Headers that belong to one origin, or that carry a secret, go to no other one: credentials, cookies, the caller's own
`Host`, proofs of possession (RFC 9449), tokens against forgery. What was left out stays left out on the way back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from multidict import CIMultiDict
from yarl import URL

from pepperpy.network.http.auth import BasicAuth
from pepperpy.network.http.checks import check_url
from pepperpy.network.http.redact import is_secret_header, redact_url
from pepperpy.network.http.urls import join

# Characters of a Location. RFC 9110, section 4.1, asks for URLs of 8,000 at least; this is twice as many.
MAX_LOCATION = 16_000

_STATUSES = frozenset({301, 302, 303, 307, 308})
# RFC 9110, section 15.4: what described a body goes with it. "Content-" begins the names of all fields of that kind.
_OF_BODY = re.compile(r"content-.*|(repr-)?digest|last-modified|transfer-encoding|trailer|expect", re.IGNORECASE)


class Content(Protocol):
    """What is asked of a body."""

    @property
    def can_be_sent(self) -> bool:
        """Whether it would be sent whole, once more."""

    def payload(self) -> Any:
        """What the wire sends."""


class Policy(Protocol):
    """What is asked of an `HTTPConfig`."""

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def secret_headers(self) -> Collection[str]: ...
    @property
    def allow_downgrade(self) -> bool: ...


class NotFollowed(Exception):
    """A redirect that cannot, or must not, be followed; says why without a secret."""


class Hop:
    """One request on the way of an attempt: the first one, or one that a redirect asked for.

    Attributes:
        headers: Its own; those of the client's configuration come with them.
        body: What is sent, or None.
        cookies: Those of the request, beside the jar's.
        cookie: The header of that name, with what the jar has for this URL. None: what is in `headers`.
        left_out: Names of headers that are not sent, whoever would add them; but for `cookie`.
    """

    __slots__ = ("_lent_credentials", "_removed", "body", "cookie", "cookies", "headers", "left_out", "method", "url")

    def __init__(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str] | None,
        body: Content | None,
        cookies: Mapping[str, str] | None,
        left_out: Collection[str],
    ) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.cookies = cookies
        self.cookie: str | None = None
        self.left_out = left_out
        self._removed = left_out  # by the caller
        self._lent_credentials = False  # Authorization is of a Location's user info

    def leaves_out(self, name: str) -> bool:
        """Whether a header, named in lower case, is not sent."""
        return any(left_out.lower() == name for left_out in self.left_out)

    def next(self, status: int, location: str, policy: Policy) -> Hop:
        """The request that a redirect asks for.

        Raises:
            NotFollowed: It leads nowhere, from https to http, or would need a body that is gone.
        """
        url = _target(self.url, location)
        if self.url.scheme == "https" and url.scheme == "http" and not policy.allow_downgrade:
            to = redact_url(str(url))
            raise NotFollowed(f"redirected from https to {to}; allow_downgrade=True would follow")
        hop = Hop(self.method, url, CIMultiDict(self.headers or ()), self.body, self.cookies, self.left_out)
        hop._removed = self._removed
        hop._lent_credentials = self._lent_credentials
        if (status == 303 and self.method != "HEAD") or (status in (301, 302) and self.method == "POST"):
            hop.method, hop.body = "GET", None
            hop._leave_out(policy, lambda name: _OF_BODY.fullmatch(name) is not None)
        elif self.body is not None and not self.body.can_be_sent:
            raise NotFollowed("redirected with a body that can be read only once, and was")
        if url.origin() != self.url.origin():
            hop.cookies = None
            hop._leave_out(policy, lambda name: is_secret_header(name, policy.secret_headers))
            hop._name_host(policy)
        if url.raw_user is not None or url.raw_password is not None:
            hop._take_credentials(policy)
        return hop

    def _leave_out(self, policy: Policy, is_left_out: Callable[[str], bool]) -> None:
        assert self.headers is not None
        for name in {name for name in self.headers if is_left_out(name)}:
            self.headers.popall(name, None)
        self.left_out = {*self.left_out, *(name.lower() for name in policy.headers if is_left_out(name))}

    def _name_host(self, policy: Policy) -> None:
        assert self.headers is not None
        self.headers.popall("Host", None)
        if any(name.lower() == "host" for name in policy.headers):
            self.headers["Host"] = self.url.host_port_subcomponent or ""

    def _take_credentials(self, policy: Policy) -> None:
        """Make the user info of a Location a header: what the server asks to be sent there."""
        assert self.headers is not None
        of_all = any(name.lower() == "authorization" for name in policy.headers)
        of_all = of_all and not self.leaves_out("authorization")
        if (of_all or "Authorization" in self.headers) and not self._lent_credentials:
            raise NotFollowed("redirected to a URL with user or password, and the request has other credentials")
        try:
            self.headers["Authorization"] = str(BasicAuth(self.url.user or "", self.url.password or "").fixed)
        except ValueError:
            raise NotFollowed("redirected to a URL with a user or password that cannot be sent") from None
        if not any(name.lower() == "authorization" for name in self._removed):
            self.left_out = {name for name in self.left_out if name.lower() != "authorization"}
        self.url = self.url.with_user(None)
        self._lent_credentials = True


def location_of(status: int, headers: Mapping[str, str]) -> str | None:
    """Where a redirect leads; None if this answer is none."""
    if status not in _STATUSES:
        return None
    # URI is what Location was called before RFC 1945; aiohttp reads it too.
    return headers.get("Location") or headers.get("URI") or None


def _target(base: URL, location: str) -> URL:
    if len(location) > MAX_LOCATION:
        raise NotFollowed(f"redirected to a URL of {len(location)} characters; {MAX_LOCATION} are followed")
    try:
        return check_url("Location", join(base, location.strip(" \t"))).with_fragment(None)
    except ValueError:
        raise NotFollowed("redirected to something that is no HTTP URL") from None
