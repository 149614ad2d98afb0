"""Shows an HTTP proxy who asks: Basic at once, Digest (RFC 7616) once the proxy has asked for it.

What a proxy asks for is remembered for the whole process. So it is shown the password in the clear until it has asked,
and what comes later is not refused first. Only a proxy that refuses a digest and names Basic is shown Basic again: it
may have other settings by now, or what was remembered came from a server behind it.

Both are in UTF-8, as curl and browsers send them. RFC 7617 leaves that to the proxy, and lets it ask for UTF-8 only.
"""

from __future__ import annotations

import base64
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from pepperpy.network.digest import MAX_CHALLENGE, Challenge, challenge_of
from pepperpy.network.proxy_url import ProxyURL

# Proxies whose challenges are remembered. Arbitrary.
MAX_PROXIES = 100
# Challenges that one connection or call answers. A proxy that counts the uses of a nonce refuses a request that others
# have overtaken, and names another nonce. Arbitrary.
MAX_ANSWERED = 3
# Bytes of a password that is hidden wherever it stands in what a proxy says. A shorter one is hidden where a password
# may stand: behind a colon, an equals sign or a bracket, or in quotes. Arbitrary.
MIN_HIDDEN = 4


class ProxyLogin(NamedTuple):
    """Whom a proxy knows, and where it is."""

    host: str
    port: int
    user: str
    password: str


def login_of(proxy: ProxyURL) -> ProxyLogin | None:
    """The credentials of its URL; None: it has none, or it is no proxy of HTTP."""
    if proxy.user is None or not proxy.scheme.startswith("http"):
        return None
    return ProxyLogin(proxy.host, proxy.port, proxy.user, proxy.password or "")


_known: OrderedDict[tuple[str, int, str], Challenge] = OrderedDict()
_lock = threading.Lock()


class ProxyAuth:
    """The credentials for one request to a proxy, however often it is sent."""

    def __init__(self, login: ProxyLogin, method: str, target: str, challenge: Challenge | None = None) -> None:
        """
        Args:
            target: As in the request line: `host:port` for CONNECT, else the whole URL.
            challenge: To be answered; None: the one that is remembered.
        """
        self._login = login
        self._method = method
        self._target = target
        self._challenge: Challenge | None = challenge or _known.get(login[:3])
        self._answered = 0

    @property
    def has_challenge(self) -> bool:
        """Whether `header()` answers one."""
        return self._challenge is not None

    def header(self) -> str:
        """The value of Proxy-Authorization to send next."""
        if self._challenge is None:
            return f"Basic {self._basic()}"
        with _lock:
            return self._challenge.answer(self._method, self._target, self._login.user, self._login.password, None)

    def hide(self, text: bytes) -> bytes:
        """What the proxy says, for a message: without the password."""
        text = text.replace(self._basic().encode(), b"***")
        password = self._login.password.encode()
        if len(password) >= MIN_HIDDEN:
            return text.replace(password, b"***")
        # Elsewhere it may be a part of any word.
        return re.sub(rb"([:=\"'(] ?)" + re.escape(password) + rb"(?!\w)", rb"\1***", text) if password else text

    def _basic(self) -> str:
        return base64.b64encode(f"{self._login.user}:{self._login.password}".encode()).decode()

    def refused(self, challenges: Iterable[str]) -> bool:
        """The proxy has answered 407. Returns whether `header()` has a new answer.

        Args:
            challenges: The values of Proxy-Authenticate.
        """
        again, challenge = _next_answer(challenges, self._challenge, self._answered)
        if challenge is None:
            if again:
                _forget(self._login)
        elif _is_same(challenge, self._challenge) and not challenge.stale:
            again = False  # as in _next_answer()
        if again:
            self._challenge = challenge
            self._answered += 1
        return again

    def accepted(self) -> None:
        """The proxy knows us. Only now others use the same nonce, so that none overtakes its first use."""
        if self._answered and self._challenge is not None:
            _remember(self._login, self._challenge)


def note_challenge(login: ProxyLogin, challenges: Iterable[str], answered: int) -> tuple[bool, Challenge | None]:
    """A proxy has answered 407 to a request for an `http://` URL.

    Returns whether to send it again, and the challenge to answer then; None: by Basic. What is remembered may be
    another one by then, or used up: a proxy may take each nonce once only.

    Args:
        challenges: The values of Proxy-Authenticate.
        answered: How many challenges the same call has answered already.
    """
    known = _known.get(login[:3])
    again, challenge = _next_answer(challenges, known, answered)
    if challenge is None:
        if again:
            _forget(login)
    elif _is_same(challenge, known) and not challenge.stale:
        # Another request was given the same nonce, and counts its uses.
        challenge = known
    elif again:
        _remember(login, challenge)
    return again, challenge


def _next_answer(challenges: Iterable[str], sent: Challenge | None, answered: int) -> tuple[bool, Challenge | None]:
    """Whether to ask the proxy again, and the challenge to answer then; None: by Basic."""
    challenges = list(challenges)
    challenge = challenge_of(challenges, ("auth",))
    if answered >= MAX_ANSWERED:
        return False, None
    if challenge is None:
        return sent is not None and any(map(_names_basic, challenges)), None
    # Unless it is stale, the answer was wrong: another one could lock the user out.
    return challenge.stale or not answered, challenge


def _is_same(challenge: Challenge, known: Challenge | None) -> bool:
    return known is not None and known.nonce == challenge.nonce


def _names_basic(challenges: str) -> bool:
    return re.search(r"(?:^|,)\s*basic(?:\s|,|$)", challenges[:MAX_CHALLENGE], re.IGNORECASE) is not None


def _remember(login: ProxyLogin, challenge: Challenge) -> None:
    with _lock:
        _known[login[:3]] = challenge
        if len(_known) > MAX_PROXIES:
            _known.popitem(last=False)


def _forget(login: ProxyLogin) -> None:
    with _lock:
        _known.pop(login[:3], None)
