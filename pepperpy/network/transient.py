"""Whether another attempt may help: the one rule of TCP and HTTP, and of `NetworkError.is_transient`."""

from __future__ import annotations

import errno
import socket
import ssl

# Failures that waiting may cure: nobody listens yet, the route is down, this machine is short of ports. By name,
# because not every system has all of them. ENOENT is a Unix socket's: a server removes its path when it ends, and makes
# it anew when it starts (redis). Where TCP connects, no file is missing.
_PASSING_NAMES = """
    ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ETIMEDOUT EHOSTUNREACH EHOSTDOWN ENETUNREACH ENETDOWN ENETRESET
    EADDRNOTAVAIL EAGAIN EINTR ENOBUFS ENOENT
"""
_PASSING = frozenset(getattr(errno, name, None) for name in _PASSING_NAMES.split()) - {None}

# Answers of a proxy after which another attempt may help: of SOCKS5 (RFC 1928: failure, network or host unreachable,
# refused, TTL expired), of SOCKS4 (91: refused or failed), and the statuses of gateways (RFC 9110) for a proxy that
# cannot get out. Any other answer, such as wrong credentials, is final.
PASSING_PROXY_STATUSES = frozenset({1, 3, 4, 5, 6, 91, 502, 503, 504})

# Statuses of HTTP after which the same request may succeed later (RFC 6585, section 4; RFC 9110, sections 15.6.3 to
# 15.6.5): the default of `HTTPConfig.retry_statuses`.
PASSING_STATUSES = frozenset({429, 502, 503, 504})


def may_pass(error: BaseException | None) -> bool:
    """Whether another attempt can help: refused, unreachable, timed out, or the name server does not answer.

    An error of this package says so itself. Where several addresses have failed, it is enough that one may pass.
    """
    verdict = getattr(error, "is_transient", None)
    if isinstance(verdict, bool):
        return verdict
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError):
        return False
    if isinstance(error.__cause__, ExceptionGroup):  # of the race of several addresses
        return True in [may_pass(each) for each in error.__cause__.exceptions]
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    # Without errno: aiohappyeyeballs, which aiohttp connects with, has joined different failures of several addresses.
    # One of them may pass.
    return isinstance(error, (TimeoutError, FileNotFoundError)) or error.errno is None or error.errno in _PASSING


def may_pass_again(error: BaseException) -> bool:
    """The same for a client that has been connected with these settings: any failure of the system, resolver or peer.

    The settings have worked, so the failure can be temporary: a name disappears while its server restarts, descriptors
    and memory come back, a firewall or proxy is set up again. A refused certificate is the exception: the peer may be
    somebody else, and waiting does not change that.
    """
    if isinstance(error, ssl.SSLCertVerificationError) or isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return False
    return isinstance(error, (OSError, MemoryError))
