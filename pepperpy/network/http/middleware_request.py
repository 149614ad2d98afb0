"""`HTTPRequest`: a request as a middleware or an `Auth` sees and changes it."""

from __future__ import annotations

import hashlib
import http
from collections.abc import Iterable, Mapping
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from pepperpy.network.checks import check_int
from pepperpy.network.errors import UploadError, UsageError
from pepperpy.network.http.body import Body, BytesBody
from pepperpy.network.http.call import Call
from pepperpy.network.http.checks import check_headers, check_url
from pepperpy.network.http.middleware_response import MadeAnswer
from pepperpy.network.http.request import Request
from pepperpy.network.http.response import HTTPResponse
from pepperpy.network.http.upload import BodyFailed
from pepperpy.network.http.urls import host_field

_FRAMING = ("Content-Length", "Transfer-Encoding")
_STATUSES = frozenset(http.HTTPStatus)


class HTTPRequest:
    """A request before it is sent. A middleware may change its `url`, `headers` and `content`.

    Attributes:
        method: The method, in upper case.
        url: The whole URL, as it will be sent, without user and password; another `yarl.URL` may be set.
        headers: All headers, `Host` first; to be changed in place. Around a call they lack the Authorization header of
            `auth`, which each attempt adds. Content-Length and Transfer-Encoding follow from the body.
    """

    __slots__ = ("_call", "_content", "_given", "_request", "headers", "method", "streamed", "url")

    def __init__(self, call: Call, request: Request, *, streamed: bool = False) -> None:
        self._call = call
        self._request = request
        request.shown = True
        self._content: bytes | None = None  # another body than that of the call
        self._given = request.headers.copy()  # what `headers` has before anybody changes it
        self.method: str = request.method
        self.url: URL = request.url
        self.headers: CIMultiDict[str] = request.headers
        self.streamed: bool = streamed

    def __repr__(self) -> str:
        return f"<HTTPRequest {self.method} {self._call.host}>"

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1; around a call 0, until it was sent."""
        return self._call.attempt

    @property
    def auth_state(self) -> Any:
        """What an `Auth` keeps from one attempt of a call to the next, of any type; None at first."""
        return self._call.auth_state

    @auth_state.setter
    def auth_state(self, state: object) -> None:
        self._call.auth_state = state

    @property
    def content(self) -> bytes | None:
        """The body; empty if there is none, None if it is read from a file or an iterator while it is sent.

        Bytes that are set here replace it; the Content-Type stays.
        """
        if self._content is not None:
            return self._content
        payload = self._request.payload
        return b"" if payload is None else payload if isinstance(payload, bytes) else None

    @content.setter
    def content(self, content: bytes) -> None:
        if not isinstance(content, bytes):
            raise TypeError(f"content must be bytes, not {type(content).__name__}")
        self._content = content

    async def digest(self, algorithm: str = "sha256") -> bytes:
        """The digest of the body by an algorithm of `hashlib`. A body that is not in memory is read for it.

        Raises:
            UsageError: The body can be read only once, to be sent.
            ValueError: There is no such algorithm.
        """
        digest = hashlib.new(algorithm, usedforsecurity=False)
        if (content := self.content) is not None:
            digest.update(content)
            return digest.digest()
        body = self._request.body
        if not isinstance(body, Body) or not body.replayable:
            raise UsageError("the body can be read only once, so nobody knows its digest before it is sent")
        try:
            await body.feed(digest.update)
        except (OSError, BodyFailed) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise self._call.error(UploadError, f"the body cannot be read for its digest: {why}", error) from error
        return digest.digest()

    def respond(
        self,
        status: int = 200,
        content: bytes | str = b"",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        reason: str | None = None,
    ) -> HTTPResponse:
        """A response to this request, made here: what a middleware returns to answer by itself.

        Args:
            content: The body, not compressed; a str is sent as UTF-8.
            headers: Its headers; Content-Length is that of `content`.
            reason: None: the usual one of the status.
        """
        check_int("status", status, 200, 599)
        if isinstance(content, str):
            content = content.encode()
        if not isinstance(content, bytes):
            raise TypeError(f"content must be bytes or str, not {type(content).__name__}")
        if reason is None:
            reason = http.HTTPStatus(status).phrase if status in _STATUSES else ""
        fields: CIMultiDict[str] = CIMultiDict(headers)
        for name in _FRAMING:
            fields.popall(name, None)
        fields["Content-Length"] = str(len(content))
        nothing: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
        answer = MadeAnswer("middleware", status, reason, CIMultiDictProxy(fields), content, nothing)
        return HTTPResponse(self._request, answer, content, self._call)

    # ---- For those who send it ----

    def to_exchange(self) -> None:
        """Let the exchange send what this says. Raises `ValueError` if that cannot be sent."""
        self._check()
        request, headers = self._request, self.headers
        if self.url != request.url and headers.get("Host") == self._given.get("Host"):
            headers["Host"] = host_field(self.url)
        request.url = self.url
        if gone := [name for name in self._given if name not in headers]:
            request.taken_out = (*request.taken_out, *gone)
        if self._content is not None:
            request.payload = self._content or None
        self._given = headers.copy()

    def to_call(self) -> Body | None:
        """Let the call send what this says, from its first attempt on. Returns a body that is replaced.

        Raises:
            ValueError: It cannot be sent.
        """
        self._check()
        call, given, replaced = self._call, self._given, None
        headers = CIMultiDict[str]() if call.headers is None else call.headers
        names = {name.lower(): name for name in (*given, *self.headers) if name not in _FRAMING}
        changed = {low: name for low, name in names.items() if given.getall(name, []) != self.headers.getall(name, [])}
        dropped = [name for name in call.dropped_headers if name.lower() not in changed]
        for name in changed.values():
            headers.popall(name, None)
            if name in self.headers:
                headers[name] = self.headers[name]
            else:
                dropped.append(name)
        if "authorization" in changed:
            call.auth = None  # as with a header of the caller's
        if headers or call.headers is not None:
            call.headers = headers
        call.dropped_headers = dropped
        if self.url != self._request.url:
            self._send_call_to(self.url)
        if self._content is not None:
            replaced, content_type = call.body, self.headers.get("Content-Type", "application/octet-stream")
            call.body = BytesBody(self._content, content_type) if self._content else None
            headers.popall("Content-Length", None)
        self._given = self.headers.copy()
        return replaced

    def _send_call_to(self, url: URL) -> None:
        call, config = self._call, self._call.config
        home = None if config.base_url is None else URL(config.base_url).origin()
        if home is not None and url.origin() != home and call.auth is config.auth:
            call.auth = None  # it goes to that origin only, as `Prepare` has it
        if call.auth_of_url and url.origin() != call.url.origin():
            call.auth, call.auth_of_url = None, False
        self._request.url = call.url = url
        call.host, call.params = url.raw_host or "", None

    def _check(self) -> None:
        if not isinstance(self.url, URL):
            raise TypeError(f"url must be a yarl.URL, not {type(self.url).__name__}")
        if self.url is not self._request.url:
            self.url = check_url("url", self.url).with_user(None).with_fragment(None)
        check_headers("headers", self.headers, none=False, escaped=True)
        if self._content is not None:
            self.headers.popall("Transfer-Encoding", None)
            self.headers["Content-Length"] = str(len(self._content))
            return
        for name in _FRAMING:
            if self.headers.getall(name, []) != self._given.getall(name, []):
                raise ValueError(f"headers must keep {name}, which follows from the body; `content` changes both")
