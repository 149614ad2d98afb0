"""Removes secrets from what people read: errors, logs and reprs. It runs on error paths only."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

# A header with one of these words in its name is never shown, and a redirect never sends it to another origin. That is
# more than necessary, but no list of names is ever complete. "author" is excepted, and so is Idempotency-Key, which
# retries are about. DPoP (RFC 9449) and the like prove who holds a token; CSRF and XSRF tokens belong to one site.
_SECRET_WORD = re.compile(
    "(?!idempotency-key$)(?:.*)(?:auth(?!or(?!i))|cookie|credential|csrf|dpop|hmac|jwt|key|passphrase|passw|secret|session"
    r"|signature|token|xsrf|\b(?:otp|pop|proof|sign)\b)",
    re.IGNORECASE,
)

# Characters of a URL to show: signed URLs have kilobytes, and a log line should stay readable. Arbitrary.
MAX_SHOWN = 2048

_PARTS = re.compile(r"(\s*(?:[a-z][a-z0-9+.-]*:)?//|)([^/?#]*)([^?#]*)([^#]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(?:[^:@\[\]\s]*|\[[0-9a-z:.%]*\])(?::\d*)?", re.IGNORECASE)


def redact_url(url: str) -> str:
    """`url` without user info, query values and fragment, on one line, at most 2,048 characters.

    It accepts any string, because it also has to show invalid URLs. Of those it hides too much rather than too little.
    """
    parts = _PARTS.fullmatch(url)
    assert parts is not None  # the pattern takes any string
    start, authority, path, query, fragment = parts.groups()
    _, at, host = authority.rpartition("@")
    if "@" in f"{path}{query}{fragment}" and (at or not _HOST.fullmatch(host)):
        # The password contains "/", "?" or "#", so nobody knows where the host begins.
        shown = f"{start}***"
    else:
        if at:
            start += "***@"
        if not _HOST.fullmatch(host):
            host = re.sub(":.*", ":***", host, flags=re.DOTALL)  # "user:password", and the rest is missing
        # The part of the path before an "@" may be a password too.
        _, at, rest = path.rpartition("@")
        shown = start + host + (f"/***@{rest}" if at else path)
        if query:
            shown += "?" + "&".join(_without_value(pair) for pair in query[1:].split("&"))
    # Cut first: making a megabyte printable is slow.
    shown = "".join(map(_printable, shown[: MAX_SHOWN + 1]))
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + "..."


def _without_value(pair: str) -> str:
    name, _, value = pair.partition("=")
    # Without a value, the whole pair may be a token: base64 ends with "=".
    return f"{name}=***" if value.strip("=") and ";" not in name else "***" if pair else ""


def _printable(character: str) -> str:
    if character.isprintable() and character != " ":
        return character
    return character.encode("unicode_escape").decode() if character != " " else "\\x20"


def redact_headers(headers: Mapping[str, str], secret_names: Collection[str] = ()) -> list[tuple[str, str]]:
    """Name and value of each header, with `***` for the value of secret ones.

    A header is secret if its name has a word like "token", or is in `secret_names` (lower case).
    """
    return [(name, "***" if is_secret_header(name, secret_names) else value) for name, value in headers.items()]


def is_secret_header(name: str, secret_names: Collection[str] = ()) -> bool:
    """Whether a header of this name is secret: never shown, and never sent to another origin by a redirect."""
    return _SECRET_WORD.match(name) is not None or name.lower() in secret_names
