"""The head of a request as bytes: built once for all requests of an origin that have nothing of their own."""

from __future__ import annotations

from pepperpy.network.http.content import has_token
from pepperpy.network.http.request import Defaults, Request
from pepperpy.network.http.transport import WireError

# Origins and methods whose heads are remembered. Arbitrary; some 500 bytes each.
MAX_REMEMBERED = 1024


class Heads:
    """Makes the heads of one client's requests."""

    def __init__(self) -> None:
        self._defaults: Defaults | None = None
        # By method and host: what follows the target, and whether the connection ends afterwards.
        self._rests: dict[tuple[str, str | None], tuple[bytes, bool]] = {}

    def of(self, request: Request) -> tuple[bytes, bool]:
        """Request line and fields, up to the empty line; and whether they say `Connection: close`.

        Raises:
            WireError: They cannot be sent as they are (`unsendable`).
        """
        url = request.url
        try:
            line = f"{request.method} {url.raw_path_qs}".encode()
            if request.only_defaults:
                rest, closes = self._default_rest(request)
            else:
                rest, closes = _rest(request)
        except ValueError as error:
            # Not its own words: they quote what was to be sent.
            raise WireError("unsendable", "the request has characters that cannot be sent") from error
        return line + rest, closes

    def _default_rest(self, request: Request) -> tuple[bytes, bool]:
        if request.defaults is not self._defaults:
            self._rests.clear()
            self._defaults = request.defaults
        key = request.method, request.url.host_port_subcomponent
        rest = self._rests.get(key)
        if rest is None:
            if len(self._rests) >= MAX_REMEMBERED:
                self._rests.clear()
            rest = self._rests[key] = _rest(request)
        return rest


def _rest(request: Request) -> tuple[bytes, bool]:
    headers = request.headers
    lines = [f"{name}: {value}" for name, value in headers.items()]
    rest = "\r\n".join((" HTTP/1.1", *lines, "", "")).encode("utf-8")
    # Whatever let a line end into a value: it would be another field, or another request.
    if rest.count(b"\n") != len(lines) + 2 or rest.count(b"\r") != len(lines) + 2 or b"\0" in rest:
        raise ValueError("a field with a line end")
    return rest, has_token(headers.getall("Connection", ()), "close")
