"""`Request`: what one exchange sends. It decides the headers, so that all transports send the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from multidict import CIMultiDict, istr
from yarl import URL

from pepperpy.network.http.content import has_token
from pepperpy.network.http.urls import host_field

if TYPE_CHECKING:
    from pepperpy.network.digest import Challenge
    from pepperpy.network.http.auth import Auth

# RFC 9110, section 8.6: a request without a body has `Content-Length: 0` unless its method expects none.
_WITHOUT_LENGTH = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of one exchange; None: no limit.

    Attributes:
        queue: Seconds to get a connection: to wait for a free one and to make one, together.
        pool: Seconds to wait for a free one.
        connect: Seconds to make a connection: name lookup, all addresses, the proxy's answer, TLS.
        read: Seconds without a byte from the server.
        write: Seconds in which it takes none of the body, and sends nothing either.
        pause: Seconds after which to look again whether it takes a body, or answers; None: nothing is limited. A
            quarter of the shorter limit, so that silence is noticed that much too late, at most.
    """

    queue: float | None = None
    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None
    pause: float | None = field(init=False)

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.read, self.write) if limit is not None]
        object.__setattr__(self, "pause", min(limits) / 4 if limits else None)


NO_LIMITS = Limits()


class Payload(Protocol):
    """A body that is read from its source while it is sent."""

    @property
    def size(self) -> int | None:
        """The number of bytes; None if that is unknown before the end: then the body is sent in chunks."""

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        """Write it, by `await writer.write(chunk)`, and check it against `content_length`, which the head announced.

        Raises:
            BodyFailed: Its source failed (see `upload.py`). `writer.transport`, if it is not None, has been aborted.
        """


class Content(Protocol):
    """The body of a call, for all its exchanges: a `Body`."""

    @property
    def can_be_sent(self) -> bool:
        """Whether the next exchange would send all of it."""
        ...

    @property
    def failure(self) -> BaseException | None:
        """What ended the present `payload()` before it was whole, a `BodyFailed`; None if nothing did."""

    def payload(self) -> Any:
        """The body of one exchange: bytes or a `Payload`."""
        ...


class Defaults:
    """The headers that each request of one client has by default. One object for each open client.

    Attributes:
        configured: The headers of `HTTPConfig.headers`.
        automatic: The transport's headers, if no other has the name: Accept, Accept-Encoding, User-Agent.
        headers: Both, for a request without headers of its own. Do not change it.
    """

    __slots__ = ("automatic", "configured", "headers")

    def __init__(self, configured: Mapping[str, str], automatic: Mapping[str, str]) -> None:
        self.configured: Mapping[str, str] = configured
        self.automatic: Mapping[str, str] = automatic
        # With istr names, a copy of the headers need not look at each letter again.
        self.headers: CIMultiDict[str] = CIMultiDict((istr(name), value) for name, value in configured.items())
        for name, value in automatic.items():
            self.headers.setdefault(istr(name), value)


class Request:
    """One request: the first one of an attempt, or one that a redirect asked for.

    The policy makes and completes it before a transport sees it. A transport changes nothing in it.

    Attributes:
        method: The method, in upper case.
        url: The URL, absolute and without user info.
        payload: The body to send: bytes, a `Payload`, or None.
        proxy: The URL of the proxy, credentials included, or None.
        proxy_challenge: What the proxy has asked for when the call was sent before; None: what it is known to ask for.
        verify: False: any certificate is accepted.
        decompress: False: the body of the answer is given as it comes.
        limits: See `Limits`.

        defaults: The headers of the client.
        own: The headers of this request, with those of its body, or None. They replace defaults of the same name.
        left_out: Names of headers that are not sent, wherever they come from; not of `cookie`.
        cookie: The header `Cookie`; None: it is as `own` and `defaults` have it.

        body: The source of `payload`, or None.
        cookies: The caller's cookies, which are in `cookie` beside the jar's.
        auth: Applied before the request is sent, if it is not a fixed value; None: nothing is.
        removed: Names of headers that the caller removed; they are in `left_out` too.
        taken_out: Names of headers that code of the user has removed from this request only.
        shown: Whether code of the user has seen `headers`, and may have changed them.
        lent_credentials: Whether Authorization comes from the user info of a Location.
    """

    __slots__ = (
        "_headers",
        "auth",
        "body",
        "cookie",
        "cookies",
        "decompress",
        "defaults",
        "left_out",
        "lent_credentials",
        "limits",
        "method",
        "own",
        "payload",
        "proxy",
        "proxy_challenge",
        "removed",
        "shown",
        "taken_out",
        "url",
        "verify",
    )

    def __init__(
        self,
        method: str,
        url: URL,
        own: CIMultiDict[str] | None,
        body: Content | None,
        defaults: Defaults,
        limits: Limits,
    ) -> None:
        self.method: str = method
        self.url: URL = url
        self.own: CIMultiDict[str] | None = own
        self.body = body
        self.defaults: Defaults = defaults
        self.limits: Limits = limits
        self.payload: bytes | Payload | None = None
        self.proxy: str | None = None
        self.proxy_challenge: Challenge | None = None
        self.verify: bool = True
        self.decompress: bool = True
        self.left_out: Collection[str] = ()
        self.cookie: str | None = None
        self.cookies: Mapping[str, str] | None = None
        self.removed: Collection[str] = ()
        self.taken_out: Collection[str] = ()
        self.shown: bool = False
        self.auth: Auth | None = None
        self.lent_credentials: bool = False
        self._headers: CIMultiDict[str] | None = None

    @property
    def only_defaults(self) -> bool:
        """Whether `headers` depend on `defaults`, the method and the URL's host only, so that they can be made once."""
        plain = not self.own and self.cookie is None and self.payload is None and not self.left_out
        return plain and not self.shown

    @property
    def headers(self) -> CIMultiDict[str]:
        """All headers as they are sent, `Host` first. Do not change it."""
        if self._headers is None:
            self._headers = self._complete()
        return self._headers

    @property
    def only_if_cached(self) -> bool:
        """Whether only a cache is asked. It answers 504 if it has nothing (RFC 9111, section 5.2.1.7)."""
        return has_token(self.headers.getall("Cache-Control", ()), "only-if-cached")

    def leaves_out(self, name: str) -> bool:
        """Whether the header of this name (in lower case) is not sent."""
        return any(left_out.lower() == name for left_out in self.left_out)

    def forget_body(self) -> None:
        """Drop the body after the exchange: what keeps the request alive does not need it."""
        self.body = self.payload = None

    def _complete(self) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        headers["Host"] = host_field(self.url)
        headers.update(self.defaults.configured)
        if self.own is not None:
            headers.update(self.own)
        for name, value in self.defaults.automatic.items():
            headers.setdefault(name, value)
        if "Content-Length" not in headers:
            payload = self.payload
            size = 0 if payload is None else len(payload) if isinstance(payload, bytes) else payload.size
            if size is None:
                headers["Transfer-Encoding"] = "chunked"
            elif payload is not None or self.method not in _WITHOUT_LENGTH:
                headers["Content-Length"] = str(size)
        for name in self.left_out:
            headers.popall(name, None)
        if self.cookie is not None:
            headers["Cookie"] = self.cookie
        return headers
