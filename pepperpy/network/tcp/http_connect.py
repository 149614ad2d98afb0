"""The words of CONNECT (RFC 9110, section 9.3.6), and the errors of a proxy: with TLS to the proxy or without."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from pepperpy.network.errors import ProxyError, also_as
from pepperpy.network.printable import printable
from pepperpy.network.proxy_auth import ProxyAuth, login_of
from pepperpy.network.proxy_url import ProxyURL

# Bytes of the answer to CONNECT; only its first line matters. Arbitrary: nginx and tinyproxy send fewer than 300.
MAX_ANSWER = 16 * 1024

END_OF_ANSWER = b"\r\n\r\n"


class Challenged(ProxyError):
    """The proxy asks for a digest. The `ProxyAuth` has it now, for another connection to carry."""


class Tunnelling:
    """Asks an HTTP proxy for a tunnel to `host`, with the credentials of the proxy's URL."""

    def __init__(self, proxy: ProxyURL, host: str, port: int) -> None:
        name = f"[{host}]" if ":" in host else host.encode("idna").decode()
        self._target = f"{name}:{port}"
        login = login_of(proxy)
        self.auth: ProxyAuth | None = None if login is None else ProxyAuth(login, "CONNECT", self._target)

    def request(self) -> bytes:
        """What to send next."""
        lines = [f"CONNECT {self._target} HTTP/1.1", f"Host: {self._target}"]
        if self.auth is not None:
            lines.append(f"Proxy-Authorization: {self.auth.header()}")
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("utf-8", "surrogateescape")


def check_answer(proxy: ProxyURL, answer: bytes | bytearray, auth: ProxyAuth | None) -> None:
    """Look at an answer to CONNECT, which is whole.

    Raises:
        Challenged: It is 407, and `auth` has another answer.
        ProxyError: It is another refusal, or not HTTP.
    """
    line = bytes(answer.partition(b"\r\n")[0])
    found = re.fullmatch(rb"HTTP/1\.[01] (\d{3})(?: .*)?", line)
    # It may repeat what it was sent: an echo server does.
    shown = printable((line if auth is None else auth.hide(line)).decode("latin-1"))
    if found is None:
        raise proxy_error(proxy, f"it does not answer as an HTTP proxy: '{shown}'", 0)
    if not 200 <= (status := int(found[1])) < 300:
        error = proxy_error(proxy, shown.partition(" ")[2], status)
        if status == 407 and auth is not None and auth.refused(_values(answer, "proxy-authenticate")):
            raise Challenged(error.message, error.details)
        raise error
    if auth is not None:
        auth.accepted()


def _values(answer: bytes | bytearray, name: str) -> list[str]:
    fields = (line.partition(":") for line in answer.decode("utf-8", "surrogateescape").split("\r\n"))
    return [value.strip() for field, _, value in fields if field.lower() == name]


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
