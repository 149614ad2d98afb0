"""Digest authentication (RFC 7616): reads a challenge, and computes the answer to it. Without I/O; see `DigestAuth`.

Text of headers is as in an `Answer`: UTF-8, and bytes that are none as surrogates (PEP 383).
"""

from __future__ import annotations

import copy
import hashlib
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

# The algorithms of RFC 7616, section 3.3, as `hashlib` names them.
_ALGORITHMS = {"md5": "md5", "sha-256": "sha256", "sha-512-256": "sha512_256"}

# Characters of one WWW-Authenticate header that are read. Real challenges have fewer than 500; arbitrary.
MAX_CHALLENGE = 8192

# RFC 9110, section 11.3: the scheme, if one begins here; then a parameter. It goes back as it came, so it has no
# control character but tabs (section 5.6.4): a line break would begin another header.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_CONTROLS = r"\x00-\x08\n-\x1f\x7f"
_PARAMETER = re.compile(
    rf"[\s,]*(?:(?P<scheme>{_TOKEN})\s+(?={_TOKEN}\s*=))?(?P<name>{_TOKEN})\s*=\s*"
    rf'(?:"(?P<quoted>(?:[^"\\{_CONTROLS}]|\\[^{_CONTROLS}])*)"|(?P<token>[^\s,"{_CONTROLS}]*))'
)
_SCHEME_ALONE = re.compile(rf"[\s,]*{_TOKEN}(?=\s*(?:,|$))")


@dataclass(slots=True)
class Challenge:
    """What a server asks for, and how often its nonce was used.

    Attributes:
        realm, nonce, opaque: As they stand in the header, between the quotation marks.
        algorithm: As the server writes it; None: MD5, and the answer does not name it.
        qop: `auth`, `auth-int`, or None for a server of RFC 2069.
        stale: Whether the last answer was right, but for its nonce.
        hashed_user: Whether the server wants a digest in place of the user's name.
        utf8: Whether it wants user and password in UTF-8, and knows `username*` then.
        count: How many requests had this nonce.
        cnonce: The client's nonce, one for each challenge, as the algorithms with `-sess` need it.
        first_nonce: The server's nonce in the challenge; `nonce` may be a later one.
    """

    realm: str
    nonce: str
    opaque: str | None
    algorithm: str | None
    qop: str | None
    stale: bool
    hashed_user: bool
    utf8: bool
    count: int = 0
    cnonce: str = field(default_factory=lambda: secrets.token_hex(16))
    first_nonce: str = ""

    def __post_init__(self) -> None:
        self.first_nonce = self.nonce

    def going_on_with(self, nonce: str) -> Challenge:
        """The same with this nonce. The key of an algorithm with `-sess` stays (RFC 7616, section 3.4.2)."""
        following = copy.copy(self)
        following.nonce, following.count = nonce, 0
        return following

    @property
    def hash_name(self) -> str:
        """What `hashlib` calls the algorithm."""
        return _ALGORITHMS[_without_session(self.algorithm or "MD5")]

    def answer(
        self, method: str, uri: str, user: str, password: str, body: bytes | None, encoding: str = "utf-8"
    ) -> str:
        """The value of the Authorization header. Counts the request.

        Args:
            uri: The target of the request: path and query.
            body: The digest of the body by `hash_name`, which `auth-int` needs.
            encoding: Of user and password, if the server does not ask for UTF-8.
        """
        self.count += 1

        def hashed(*parts: str) -> str:
            data = ":".join(parts).encode("utf-8", "surrogateescape")
            return hashlib.new(self.hash_name, data, usedforsecurity=False).hexdigest()

        if not self.utf8:
            user, password = (text.encode(encoding).decode("utf-8", "surrogateescape") for text in (user, password))
        realm, nonce, count = _unquoted(self.realm), _unquoted(self.nonce), f"{self.count:08x}"
        secret = hashed(user, realm, password)
        if (self.algorithm or "").lower().endswith("-sess"):
            secret = hashed(secret, _unquoted(self.first_nonce), self.cnonce)
        request = [method, uri]
        if self.qop == "auth-int":
            request.append((body or b"").hex())
        if self.qop is None:
            response = hashed(secret, nonce, hashed(*request))
        else:
            response = hashed(secret, nonce, count, self.cnonce, self.qop, hashed(*request))
        fields = [self._name(hashed(user, realm), user), f'realm="{self.realm}"', f'nonce="{self.nonce}"']
        fields += [f'uri="{uri}"', f'response="{response}"']
        if self.algorithm is not None:
            fields.append(f"algorithm={self.algorithm}")
        if self.opaque is not None:
            fields.append(f'opaque="{self.opaque}"')
        if self.qop is not None:
            fields += [f"qop={self.qop}", f"nc={count}", f'cnonce="{self.cnonce}"']
        if self.hashed_user:
            fields.append("userhash=true")
        return "Digest " + ", ".join(fields)

    def _name(self, hashed_user: str, user: str) -> str:
        if self.hashed_user:
            return f'username="{hashed_user}"'
        if self.utf8 and not user.isascii():
            return f"username*=UTF-8''{quote(user, safe='')}"  # RFC 7616, section 3.4, and RFC 8187
        return 'username="{}"'.format(re.sub(r'(["\\])', r"\\\1", user))


def challenge_of(headers: Iterable[str], qops: Collection[str] = ("auth", "auth-int")) -> Challenge | None:
    """The first challenge that can be answered, from the values of WWW-Authenticate; None if there is none.

    Args:
        qops: What it may ask for, the preferred one first.
    """
    for header in headers:
        for parameters in _digests(header[:MAX_CHALLENGE]):
            algorithm = parameters.get("algorithm")
            offered = [item.strip().lower() for item in parameters.get("qop", "").split(",") if item.strip()]
            qop = next((item for item in qops if item in offered), None)
            if _ALGORITHMS.get(_without_session(algorithm or "MD5")) not in hashlib.algorithms_available:
                continue
            if "realm" not in parameters or "nonce" not in parameters or (offered and qop is None):
                continue
            return Challenge(
                parameters["realm"],
                parameters["nonce"],
                parameters.get("opaque"),
                algorithm,
                qop,
                parameters.get("stale", "").lower() == "true",
                parameters.get("userhash", "").lower() == "true",
                parameters.get("charset", "").lower() == "utf-8",  # RFC 7616, section 4: no other is allowed
            )
    return None


def next_nonce(info: str) -> str | None:
    """The nonce for the next request, from Authentication-Info (RFC 7616, section 3.5); None if there is none."""
    found = _digests(f"Digest {info[:MAX_CHALLENGE]}")
    return found[0].get("nextnonce") or None if found else None


def _digests(header: str) -> list[dict[str, str]]:
    """The parameters of each Digest challenge in one header, which may hold challenges of several schemes."""
    found: list[dict[str, str]] = []
    at, digest = 0, False
    while True:
        if (parameter := _PARAMETER.match(header, at)) is None:
            if (alone := _SCHEME_ALONE.match(header, at)) is None:
                return found
            at, digest = alone.end(), False
            continue
        at = parameter.end()
        if parameter["scheme"] is not None:
            digest = parameter["scheme"].lower() == "digest"
            if digest:
                found.append({})
        if digest:
            value = parameter["quoted"] if parameter["quoted"] is not None else parameter["token"]
            found[-1].setdefault(parameter["name"].lower(), value)


def _without_session(algorithm: str) -> str:
    return algorithm.lower().removesuffix("-sess")


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
