"""`MockRequest`: a request as a server would have received it, for routes and for tests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy
from yarl import URL

from pepperpy.network.http.redact import redact_url
from pepperpy.network.json_codec import default_codec

if TYPE_CHECKING:
    from pepperpy.network.testing.http_route import Route


@dataclass(frozen=True)
class UploadedFile:
    """A part of a multipart body that has a file name.

    Attributes:
        filename: The name as it was sent.
        content_type: The type as it was sent; empty if the part has none.
        content: The bytes.
    """

    filename: str
    content_type: str
    content: bytes


class MockRequest:
    """One request that was sent. Each attempt of a call, and each redirect that was followed, is a request.

    Attributes:
        method: The method in upper case.
        target: The URL as a `yarl.URL`, without user info and fragment, as servers see it.
        headers: The headers that the client sends, without the `Accept`, `Accept-Encoding` and `User-Agent` that it
            adds over a network if there are none. Names are case-insensitive.
        path_params: The parts of the URL that matched `{name}` in the route's URL, or the named groups of its pattern.
        attempt: The number of its attempt in the call, from 1.
        route: The route that answered it; None if none did.
    """

    def __init__(self, method: str, target: URL, headers: CIMultiDict[str], attempt: int) -> None:
        self.method = method
        self.target = target
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(headers)
        self.path_params: dict[str, str] = {}
        self.attempt = attempt
        self.route: Route | None = None
        self.received: bytearray = bytearray()  # the mock writes it; tests read `body`

    def __repr__(self) -> str:
        return f"<MockRequest {self}>"

    def __str__(self) -> str:
        return f"{self.method} {redact_url(str(self.target))}"

    @property
    def url(self) -> str:
        """The URL, query included."""
        return str(self.target)

    @property
    def params(self) -> MultiDictProxy[str]:
        """The query parameters, decoded. `getall(name)` returns all values of a name."""
        return self.target.query

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that were sent, byte for byte. If a name comes twice, the last one counts."""
        pairs = (pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";"))
        return {name: value for name, _, value in pairs if name}

    @property
    def body(self) -> bytes:
        """The part of the body that was sent; empty if no connection was made."""
        return bytes(self.received)

    @property
    def text(self) -> str:
        """The body decoded as UTF-8. Raises `UnicodeDecodeError` if it is not UTF-8."""
        return self.received.decode()

    def json(self) -> Any:
        """The body decoded as JSON. Raises `ValueError` if it is not JSON."""
        return default_codec().loads(self.body)

    def form(self) -> MultiDict[str | UploadedFile]:
        """The fields of a form, urlencoded or multipart. A field with a file name is an `UploadedFile`.

        Raises:
            ValueError: The request is not declared as a form.
        """
        content_type = self.headers.get("Content-Type", "")
        if content_type.startswith("application/x-www-form-urlencoded"):
            return MultiDict(parse_qsl(self.text, keep_blank_values=True))
        boundary = re.search(r'boundary="?([^";]+)', content_type)
        if not content_type.startswith("multipart/form-data") or boundary is None:
            raise ValueError(f"the body is declared as {content_type!r}, not as a form")
        return MultiDict(_part(part) for part in self.body.split(f"--{boundary[1]}".encode())[1:-1])


def _part(part: bytes) -> tuple[str, str | UploadedFile]:
    head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    content = content.removesuffix(b"\r\n")
    fields: CIMultiDict[str] = CIMultiDict()
    for line in head.decode().split("\r\n"):
        name, _, value = line.partition(": ")
        fields.add(name, value)
    disposition = dict(re.findall(r'[; ](\w+)="([^"]*)"', fields["Content-Disposition"]))
    if "filename" not in disposition:
        return disposition["name"], content.decode()
    return disposition["name"], UploadedFile(disposition["filename"], fields.get("Content-Type", ""), content)
