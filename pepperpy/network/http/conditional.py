"""Conditional requests: has a resource changed since a response (RFC 9110, section 13)?"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multidict import CIMultiDict
from yarl import URL

from pepperpy.network.http.dates import parse_date
from pepperpy.network.http.request import Request
from pepperpy.network.http.response import HTTPResponse

_HEADERS = ("If-None-Match", "If-Modified-Since")
# RFC 9110, section 8.8.3, but ASCII only. The length is arbitrary; real ones have fewer than 100 characters.
_ETAG = re.compile(r'(W/)?"[\x21\x23-\x7e]{0,1000}"')


@dataclass(frozen=True, slots=True)
class Condition:
    """Which version of which resource the caller has.

    Attributes:
        url: Where that version came from. Two resources may name their versions alike, so no other is asked for it.
        headers: What asks for it: names and values.
    """

    url: str
    headers: tuple[tuple[str, str], ...]

    def apply(self, request: Request) -> None:
        """Make the request conditional if it asks for this resource, and unconditional if it asks for another one."""
        own = CIMultiDict(request.own or ())
        for name in _HEADERS:
            own.popall(name, None)
        if str(request.url) == self.url:
            own.extend(self.headers)
        request.own = own


def condition_of(known: object, method: str, url: URL, headers: CIMultiDict[str] | None) -> Condition:
    """The condition of a request that has `if_changed_since=known`.

    Raises:
        TypeError: `known` is no response.
        ValueError: It answered another URL, or the request cannot be conditional.
    """
    if not isinstance(known, HTTPResponse):
        raise TypeError(f"if_changed_since must be an HTTPResponse, not {type(known).__name__}")
    if method not in ("GET", "HEAD"):
        raise ValueError(f"if_changed_since is for GET and HEAD, not for {method}")
    for name in _HEADERS:
        if headers is not None and name in headers:
            raise ValueError(f"headers must not have {name} beside if_changed_since, which sets it")
    asked = known.history[0] if known.history else known
    if asked.url != str(url):
        raise ValueError("if_changed_since is a response of another URL")
    fields = known.headers
    found = []
    if _ETAG.fullmatch(etag := fields.get("ETag", "")):
        found.append((_HEADERS[0], etag))
    if parse_date(modified := fields.get("Last-Modified", "")) is not None:
        found.append((_HEADERS[1], modified))
    return Condition(known.url, tuple(found))
