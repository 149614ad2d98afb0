"""Keeps secrets out of what people read: errors, logs and reprs. Runs on error paths only."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

# A header with one of these in its name is never shown, nor sent across origins by a redirect. More than has to be, but
# no list of the names in use is ever whole. Not an author's name, and not Idempotency-Key, which retries are about.
# DPoP (RFC 9449) and its like prove who holds a token; CSRF and XSRF belong to one site.
_SECRET_WORD = re.compile(
    "(?!idempotency-key$)(?:.*)(?:auth(?!or(?!i))|cookie|credential|csrf|dpop|hmac|jwt|key|passphrase|passw|secret|session"
    r"|signature|token|xsrf|\b(?:otp|pop|proof|sign)\b)",
    re.IGNORECASE,
)

# Longer URLs are cut: signed ones run to kilobytes, and a log line is to stay readable. Arbitrary.
MAX_SHOWN = 2048

_PARTS = re.compile(r"(\s*(?:[a-z][a-z0-9+.-]*:)?//|)([^/?#]*)([^?#]*)([^#]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(r"(?:[^:@\[\]\s]*|\[[0-9a-z:.%]*\])(?::\d*)?", re.IGNORECASE)


def redact_url(url: str) -> str:
    """`url` without user info, query values and fragment, on one line, at most 2,048 characters.

    Takes any string, because it also has to show URLs that are none; hides too much rather than too little of those.
    """
    parts = _PARTS.fullmatch(url)
    assert parts is not None  # the pattern takes any string
    start, authority, path, query, fragment = parts.groups()
    _, at, host = authority.rpartition("@")
    if "@" in f"{path}{query}{fragment}" and (at or not _HOST.fullmatch(host)):
        # The password has a "/", "?" or "#" of its own, so the host begins nobody knows where.
        shown = f"{start}***"
    else:
        if at:
            start += "***@"
        if not _HOST.fullmatch(host):
            host = re.sub(":.*", ":***", host, flags=re.DOTALL)  # "user:password" of which the rest is missing
        # What stands before an "@" of the path may be a password as well.
        _, at, rest = path.rpartition("@")
        shown = start + host + (f"/***@{rest}" if at else path)
        if query:
            shown += "?" + "&".join(_without_value(pair) for pair in query[1:].split("&"))
    # Cut before as well, because the other one is slow for a megabyte.
    shown = "".join(map(_printable, shown[: MAX_SHOWN + 1]))
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 3] + "..."


def _without_value(pair: str) -> str:
    name, _, value = pair.partition("=")
    # Without a value, all of it may be a token: base64 ends with "=".
    return f"{name}=***" if value.strip("=") and ";" not in name else "***" if pair else ""


def _printable(character: str) -> str:
    if character.isprintable() and character != " ":
        return character
    return character.encode("unicode_escape").decode() if character != " " else "\\x20"


def redact_headers(
    headers: Iterable[tuple[str, str]] | Mapping[str, str], secret_names: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Name and value of each header, secret values as `***`.

    Secret are names with a word like "token" in them, and `secret_names`, which are lower case.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(name, "***" if is_secret_header(name, secret_names) else value) for name, value in pairs]


def is_secret_header(name: str, secret_names: Collection[str] = ()) -> bool:
    """Whether the value of such a header is not to be shown, nor sent to another origin by a redirect."""
    return _SECRET_WORD.match(name) is not None or name.lower() in secret_names
