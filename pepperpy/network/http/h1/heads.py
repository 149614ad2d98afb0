"""The head of a request as bytes."""

from __future__ import annotations

import functools

from pepperpy.network.http.content import has_token
from pepperpy.network.http.request import Request
from pepperpy.network.http.transport import WireError
from pepperpy.network.http.urls import host_field
from pepperpy.network.proxy_auth import ProxyAuth, login_of
from pepperpy.network.proxy_url import ProxyURL, read_proxy


def forwarder_of(request: Request) -> ProxyURL | None:
    """The proxy that forwards the request itself; None: it goes to the server, through a tunnel perhaps."""
    if request.proxy is None or request.url.scheme != "http":
        return None
    proxy = _read_proxy(request.proxy)
    return proxy if proxy.scheme.startswith("http") else None


_read_proxy = functools.lru_cache(maxsize=64)(read_proxy)  # proxies of a client; arbitrary


def target_of(request: Request) -> str:
    """What the request line names: the path for a server, the URL for a proxy (RFC 9112, section 3.2)."""
    if forwarder_of(request) is None:
        return request.url.raw_path_qs
    return f"http://{host_field(request.url)}{request.url.raw_path_qs}"


def rest_of(request: Request) -> tuple[bytes, bool]:
    """What follows the target of the request line, up to the empty line; and whether it says `Connection: close`.

    Raises:
        WireError: It cannot be sent as it is (`unsendable`).
    """
    headers = request.headers
    lines = [f"{name}: {value}" for name, value in headers.items()]
    proxy = forwarder_of(request)
    if proxy is not None and "Proxy-Authorization" not in headers and (login := login_of(proxy)) is not None:
        auth = ProxyAuth(login, request.method, target_of(request), request.proxy_challenge)
        lines.append(f"Proxy-Authorization: {auth.header()}")
    try:
        rest = "\r\n".join((" HTTP/1.1", *lines, "", "")).encode("utf-8", "surrogateescape")
    except ValueError as error:
        raise unsendable() from error
    # Whatever let a line end into a value: it would be another field, or another request.
    if rest.count(b"\n") != len(lines) + 2 or rest.count(b"\r") != len(lines) + 2 or b"\0" in rest:
        raise unsendable()
    return rest, has_token(headers.getall("Connection", ()), "close")


def unsendable() -> WireError:
    """The error for characters that cannot be sent. The encoder's own text would quote them, secrets included."""
    return WireError("unsendable", "the request has characters that cannot be sent")
