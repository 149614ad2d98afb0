"""`DigestAuth`: what an origin has asked for, and the header that answers it. `digest.py` computes the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yarl import URL

from pepperpy.network.digest import Challenge, challenge_of, next_nonce
from pepperpy.network.http.auth_base import Auth
from pepperpy.network.http.checks import credential_text

if TYPE_CHECKING:
    from pepperpy.network.http.middleware_request import HTTPRequest
    from pepperpy.network.http.response import HTTPResponse
else:
    # These modules import this one. So typing.get_type_hints() knows no more of them.
    HTTPRequest = HTTPResponse = Any

# Origins whose challenges a `DigestAuth` remembers. Arbitrary.
MAX_ORIGINS = 1000


class DigestAuth(Auth):
    """User name and password by digest (RFC 7616): MD5, SHA-256 and SHA-512-256, also with `-sess`; `auth`, `auth-int`.

    The first request to an origin is answered with a challenge and sent again. From then on each request has the
    header at once, until the server wants another nonce, and with the nonce that it names for the next request. A body
    that can be read only once cannot be sent again: make another request first. A call that is refused answers its own
    challenge: a server may take each nonce once only, and other calls use the one that they share.

    The server's own proof (`rspauth`) is not looked at. It is optional, so that who pretends to be the server leaves it
    out, and known clients do not look at it, so that servers may compute it wrongly unnoticed. TLS is what proves it.

    Args:
        user: Any text; may be empty.
        password: Any text; may be empty.
        encoding: Of user and password, for a server that does not ask for UTF-8 (`charset`) and knows no other than,
            say, `"latin-1"`. As in browsers, it is UTF-8 without that. What a name outside of ASCII becomes in another
            encoding, and a realm that is not UTF-8, cannot be sent where aiohttp carries a request.
    """

    # A nonce that two calls have used at once may be stale for both, more than once. Arbitrary; as for proxies.
    max_answers: int = 3

    def __init__(self, user: str, password: str, *, encoding: str = "utf-8") -> None:
        self._user = credential_text("user", user)
        self._password = credential_text("password", password)
        if not isinstance(encoding, str):
            raise TypeError(f"encoding must be a str, not {type(encoding).__name__}")
        self._encoding = encoding
        try:
            for text in (self._user, self._password):
                text.encode(encoding)
        except LookupError:
            raise ValueError(f"encoding must be one that Python knows, not {encoding!r}") from None
        except UnicodeEncodeError:
            raise ValueError(f"user and password must be of characters that {encoding} has") from None
        self._challenges: dict[URL, Challenge] = {}  # the present one of each origin

    async def apply(self, request: HTTPRequest) -> None:
        """Answer the challenge that the origin has sent, if there was any.

        Raises:
            UsageError: The server wants `auth-int`, and the body can be read only once.
        """
        origin = request.url.origin()
        challenge = self._challenges.get(origin)
        if isinstance(own := request.auth_state, _Answered) and own.origin == origin:
            own.sent = own.challenge is not None
            if own.challenge is not None:
                challenge, own.challenge = own.challenge, None
        if challenge is None:
            request.headers.popall("Authorization", None)
            return
        body = await request.digest(challenge.hash_name) if challenge.qop == "auth-int" else None
        target = request.url.raw_path_qs
        value = challenge.answer(request.method, target, self._user, self._password, body, self._encoding)
        request.headers["Authorization"] = value

    def challenged(self, request: HTTPRequest, response: HTTPResponse) -> bool:
        """Take the server's challenge. False if it has none that can be answered, or refuses user and password."""
        challenge = challenge_of(_as_sent(response, b"www-authenticate"))
        if challenge is None:
            return False
        origin = request.url.origin()
        if not challenge.stale and f'nonce="{challenge.nonce}"' in request.headers.get("Authorization", ""):
            return False  # it was answered, and the answer was wrong
        own = request.auth_state
        if not challenge.stale and isinstance(own, _Answered) and own.origin == origin and own.sent:
            return False  # as above; the server names another nonce each time
        request.auth_state = _Answered(origin, challenge)
        if len(self._challenges) >= MAX_ORIGINS:
            self._challenges.pop(next(iter(self._challenges)))
        self._challenges[origin] = challenge
        return True

    def informed(self, request: HTTPRequest, response: HTTPResponse) -> None:
        """Take the nonce for the next request to the origin, if the server names one."""
        origin = request.url.origin()
        challenge = self._challenges.get(origin)
        nonce = next_nonce(", ".join(_as_sent(response, b"authentication-info")))
        if challenge is not None and nonce is not None:
            self._challenges[origin] = challenge.going_on_with(nonce)


@dataclass(slots=True)
class _Answered:
    """The challenge that one call answers next; None when it has done so.

    `sent`: The last request answered it. If no reply came to that one, the next attempt answers what all calls share:
    its 401 comes from a server that has been restarted, or has another realm, and says nothing of the password.
    """

    origin: URL
    challenge: Challenge | None
    sent: bool = False


def _as_sent(response: HTTPResponse, name: bytes) -> list[str]:
    """The values of this header, so that what is sent back of them is the same bytes."""
    return [value.decode("utf-8", "surrogateescape") for field, value in response.raw_headers if field.lower() == name]
