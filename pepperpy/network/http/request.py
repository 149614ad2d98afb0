"""`Request`: what one exchange sends. Its headers are decided here, so that all transports send the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from multidict import CIMultiDict, istr
from yarl import URL

# RFC 9110, section 8.6: a request without a body has `Content-Length: 0` unless its method expects none.
_WITHOUT_LENGTH = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds of one exchange; None: no limit.

    Attributes:
        queue: For a connection: waiting for a free one, and making one, together.
        connect: For making a connection: name lookup, all addresses, the proxy's answer, TLS.
        read: Without a byte from the server.
    """

    queue: float | None = None
    connect: float | None = None
    read: float | None = None


class Payload(Protocol):
    """A body that is written as its source gives it."""

    @property
    def size(self) -> int | None:
        """Bytes; None if that is not known before the end: the body goes out in chunks."""

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        """Write it, by `await writer.write(chunk)`, and hold it to `content_length`, what the head has announced.

        Raises:
            BodyFailed: Its source failed (see `upload.py`). `writer.transport`, if it is not None, has been aborted.
        """


class Content(Protocol):
    """What a call carries, for as many exchanges as it takes: a `Body`."""

    @property
    def can_be_sent(self) -> bool:
        """Whether it would be sent whole, once more."""

    @property
    def failure(self) -> BaseException | None:
        """What ended the present `payload()` before it was whole, a `BodyFailed`; None if nothing did."""

    def payload(self) -> Any:
        """What one exchange sends: bytes or a `Payload`."""


class Defaults:
    """The headers that each request of one client has unless it says otherwise. One object for each open client.

    Attributes:
        configured: Those of `HTTPConfig.headers`.
        automatic: Those of the transport, where there is no other: Accept, Accept-Encoding, User-Agent.
        headers: Both, for a request that has nothing of its own. Not to be changed.
    """

    __slots__ = ("automatic", "configured", "headers")

    def __init__(self, configured: Mapping[str, str], automatic: Mapping[str, str]) -> None:
        self.configured = configured
        self.automatic = automatic
        # A name that is an istr is not looked at letter by letter again, whoever copies the headers.
        self.headers: CIMultiDict[str] = CIMultiDict((istr(name), value) for name, value in configured.items())
        for name, value in automatic.items():
            self.headers.setdefault(istr(name), value)


class Request:
    """One request: the first one of an attempt, or one that a redirect asked for.

    The policy makes it and completes it before a transport sees it; the transport changes nothing.

    Attributes:
        method: In upper case.
        url: Absolute, without user info.
        payload: What is sent as the body: bytes, a `Payload`, or None.
        proxy: URL of the proxy, credentials included, or None.
        verify: False: any certificate is accepted.
        limits: See `Limits`.

        defaults: The headers of the client.
        own: The headers of this request, those of its body included; one of the same name replaces a default. Or None.
        left_out: Names of headers that are not sent, whoever would add them; but for `cookie`.
        cookie: The header `Cookie`, or None: as `own` and `defaults` have it.

        body: Where `payload` comes from, or None.
        cookies: Those of the caller, which `cookie` holds beside the jar's.
        removed: Names of headers that the caller removed; they are in `left_out`, too.
        lent_credentials: Whether Authorization comes from the user info of a Location.
    """

    __slots__ = (
        "_headers",
        "body",
        "cookie",
        "cookies",
        "defaults",
        "left_out",
        "lent_credentials",
        "limits",
        "method",
        "own",
        "payload",
        "proxy",
        "removed",
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
        self.method = method
        self.url = url
        self.own = own
        self.body = body
        self.defaults = defaults
        self.limits = limits
        self.payload: bytes | Payload | None = None
        self.proxy: str | None = None
        self.verify = True
        self.left_out: Collection[str] = ()
        self.cookie: str | None = None
        self.cookies: Mapping[str, str] | None = None
        self.removed: Collection[str] = ()
        self.lent_credentials = False
        self._headers: CIMultiDict[str] | None = None

    @property
    def only_defaults(self) -> bool:
        """Whether `headers` follow from `defaults`, the method and the URL's host alone, and can be prepared once."""
        return not self.own and self.cookie is None and self.payload is None and not self.left_out

    @property
    def headers(self) -> CIMultiDict[str]:
        """All headers as they are sent, `Host` first. Not to be changed."""
        if self._headers is None:
            self._headers = self._complete()
        return self._headers

    def leaves_out(self, name: str) -> bool:
        """Whether a header, named in lower case, is not sent."""
        return any(left_out.lower() == name for left_out in self.left_out)

    def forget_body(self) -> None:
        """The exchange is over; who remembers the request needs its body no more."""
        self.body = self.payload = None

    def _complete(self) -> CIMultiDict[str]:
        headers: CIMultiDict[str] = CIMultiDict()
        headers["Host"] = self.url.host_port_subcomponent or ""
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
