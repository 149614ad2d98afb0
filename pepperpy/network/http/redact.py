"""Keeps secrets out of what people read: errors, logs and reprs. Runs on error paths only."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

# Lower case. What a header of such a name holds is never shown, and never sent across origins by a redirect.
SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "apikey", "x-auth-token"}
    | {"x-access-token", "x-csrf-token", "x-xsrf-token", "x-amz-security-token", "x-goog-api-key", "x-vault-token"}
    | {"x-gitlab-token", "private-token"}
)

# Longer URLs are cut: signed ones run to kilobytes, and a log line is to stay readable. Arbitrary.
MAX_SHOWN = 2048

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]")


def redact_url(url: str) -> str:
    """`url` without user info, query values and fragment, on one line, at most 2,048 characters.

    Takes any string, because it also has to show URLs that are none.
    """
    head, _hash_mark, _ = url.partition("#")
    head, question_mark, query = head.partition("?")
    # Whatever stands before the last @ may be a password; URLs of HTTP have no other use for the character there.
    scheme, slashes, rest = head.partition("//")
    _, at, after = rest.rpartition("@") if slashes else ("", "", head)
    if slashes:
        head = f"{scheme}//***@{after}" if at else f"{scheme}//{after}"
    elif "@" in head:
        head = "***@" + head.rpartition("@")[2]
    if question_mark:
        head += "?" + "&".join(_without_value(pair) for pair in re.split("[&;]", query))
    head = _UNPRINTABLE.sub(lambda found: f"\\x{ord(found.group()):02x}", head)
    return head if len(head) <= MAX_SHOWN else head[: MAX_SHOWN - 3] + "..."


def _without_value(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    # Without "=" the whole of it may be a token.
    return f"{name}=***" if equals else "***" if name else ""


def redact_headers(
    headers: Iterable[tuple[str, str]] | Mapping[str, str], secret_names: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Name and value of each header, secret values as `***`; `secret_names` adds to `SECRET_HEADERS`, in lower case."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [
        (name, "***" if name.lower() in SECRET_HEADERS or name.lower() in secret_names else value)
        for name, value in pairs
    ]
