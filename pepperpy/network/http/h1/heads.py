"""The head of a request as bytes."""

from __future__ import annotations

from pepperpy.network.http.content import has_token
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import WireError


def rest_of(request: Request) -> tuple[bytes, bool]:
    """What follows the target of the request line, up to the empty line; and whether it says `Connection: close`.

    Raises:
        WireError: It cannot be sent as it is (`unsendable`).
    """
    headers = request.headers
    lines = [f"{name}: {value}" for name, value in headers.items()]
    try:
        rest = "\r\n".join((" HTTP/1.1", *lines, "", "")).encode("utf-8")
    except ValueError as error:
        raise unsendable() from error
    # Whatever let a line end into a value: it would be another field, or another request.
    if rest.count(b"\n") != len(lines) + 2 or rest.count(b"\r") != len(lines) + 2 or b"\0" in rest:
        raise unsendable()
    return rest, has_token(headers.getall("Connection", ()), "close")


def unsendable() -> WireError:
    """Not in the words of what found it: they quote what was to be sent."""
    return WireError("unsendable", "the request has characters that cannot be sent")
