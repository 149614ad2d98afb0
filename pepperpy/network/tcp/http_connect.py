"""The words of CONNECT (RFC 9110, section 9.3.6), and the errors of a proxy: with TLS to the proxy or without."""

from __future__ import annotations

import base64
import contextlib
import errno
import re
from collections.abc import Iterator

from pepperpy.network.errors import ProxyError, also_as
from pepperpy.network.printable import printable
from pepperpy.network.proxy_url import ProxyURL

# Bytes of the answer to CONNECT; only its first line matters. Arbitrary: nginx and tinyproxy send fewer than 300.
MAX_ANSWER = 16 * 1024

END_OF_ANSWER = b"\r\n\r\n"


def connect_request(proxy: ProxyURL, host: str, port: int) -> bytes:
    """What asks an HTTP proxy for a tunnel to `host`, with the credentials of the proxy's URL."""
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
    if proxy.user is not None:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {credentials}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def check_answer(proxy: ProxyURL, answer: bytes | bytearray) -> None:
    """Raises: ProxyError: This answer to CONNECT, which is whole, is a refusal or not HTTP."""
    line = answer.partition(b"\r\n")[0].decode("latin-1")
    found = re.fullmatch(r"HTTP/1\.[01] (\d{3})(?: .*)?", line)
    if found is None:
        raise proxy_error(proxy, f"it does not answer as an HTTP proxy: '{printable(line)}'", 0)
    if not 200 <= (status := int(found[1])) < 300:
        raise proxy_error(proxy, printable(line.partition(" ")[2]), status)


@contextlib.contextmanager
def as_proxy_error(proxy: ProxyURL) -> Iterator[None]:
    """Raise a `ProxyError` for each `ConnectionError`."""
    try:
        yield
    except ConnectionError as error:
        if isinstance(error, ProxyError):
            raise
        raise lost(proxy, error) from error


def lost(proxy: ProxyURL, error: BaseException) -> ProxyError:
    """The error for a connection to the proxy that broke."""
    return proxy_error(proxy, f"it closed the connection: {str(error) or type(error).__name__}", cause=error)


def too_long(proxy: ProxyURL) -> ProxyError:
    """The error for an answer of more than `MAX_ANSWER` bytes."""
    return proxy_error(proxy, f"its answer is longer than {MAX_ANSWER} bytes", 0)


def hung_up(proxy: ProxyURL) -> ProxyError:
    """The error for a proxy that ended its stream before its answer was whole."""
    what = "it closed the connection instead of answering"
    return proxy_error(proxy, what, cause=ConnectionResetError(errno.ECONNRESET, what))


def proxy_error(
    proxy: ProxyURL, what: str, status: int | None = None, cause: BaseException | None = None
) -> ProxyError:
    """A `ProxyError`, which names the proxy without its secrets; `status` is what it answered, if it did."""
    details: dict[str, object] = {"proxy": proxy.shown}
    if status:
        details["status"] = status
    return also_as(ProxyError, cause)(f"proxy {proxy.shown}: {what}", details, cause)
