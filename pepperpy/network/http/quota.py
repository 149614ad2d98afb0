"""What the headers of an answer say of a rate limit: how many requests are left, and when there will be more.

It reads the fields RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-11, and the form of its version
07), and what servers send from before it: RateLimit-Remaining and its likes, also with X- in front. What cannot be read
is taken for absent.
"""

from __future__ import annotations

import math
import re
import time
from typing import NamedTuple

from pepperpy.network.http.dates import parse_date
from pepperpy.network.http.transport import Answer

# Seconds until a server must be asked again, whatever it says: the window of GitHub and many others. Arbitrary.
MAX_SECONDS = 3600.0
# Characters that are read of a field. Real ones have fewer than 200; arbitrary.
MAX_FIELD = 1024

# What is left, then when there is more, then the whole; in the order in which they are looked for. Discord has
# X-RateLimit-Reset-After, X and Okta have X-Rate-Limit-*.
_FORMS = (
    ("ratelimit-remaining", ("ratelimit-reset",), "ratelimit-limit"),
    ("x-ratelimit-remaining", ("x-ratelimit-reset-after", "x-ratelimit-reset"), "x-ratelimit-limit"),
    ("x-rate-limit-remaining", ("x-rate-limit-reset",), "x-rate-limit-limit"),
)
# Larger numbers are seconds since 1970 (GitHub, GitLab), or milliseconds: a wait of 30 years is none.
_EPOCH, _EPOCH_IN_MS = 1e9, 1e11

# The next piece of a list of RFC 9651: up to a comma or semicolon outside of quotation marks.
_PIECE = re.compile(r'[ \t]*((?:"(?:[^"\\]|\\.)*"|[^",;])*)([,;]|$)')
# Reddit writes them with a fraction. Bounded, because the time of float() grows with the digits.
_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)[ \t]*(?:[,;].*)?", re.DOTALL)


class Quota(NamedTuple):
    """How many requests a server will still take.

    Attributes:
        left: Requests.
        seconds: How long they have to do; more than 0, at most `MAX_SECONDS`.
        whole: How many there are at the beginning; None: the server does not say.
    """

    left: int
    seconds: float
    whole: int | None


def quota_of(answer: Answer) -> Quota | None:
    """What this answer says, by the tightest of its limits. None if nothing can be read, or its time is over."""
    if answer.header("ratelimit") is not None:
        return _of_draft(answer)
    for left, resets, whole in _FORMS:
        if (found := answer.header(left)) is not None:
            reset = next((text for name in resets if (text := answer.header(name)) is not None), None)
            return _quota(_number(found), _seconds(_number(reset), answer), _number(answer.header(whole)))
    return None


def _of_draft(answer: Answer) -> Quota | None:
    limits = _parameters(answer, "RateLimit")
    if "remaining" in limits.get("", {}):  # version 07: limit=100, remaining=50, reset=30
        old = limits[""]
        left, seconds, whole = (_number(old.get(name)) for name in ("remaining", "reset", "limit"))
        return _quota(left, seconds, whole)
    policies = _parameters(answer, "RateLimit-Policy")
    found = []
    for name, limit in limits.items():
        policy = policies.get(name, {})
        if policy.get("qu", "requests").strip('"') != "requests":
            continue  # it counts bytes, or requests at a time
        seconds = _number(limit.get("t", policy.get("w")))
        if (quota := _quota(_number(limit.get("r")), seconds, _number(policy.get("q")))) is not None:
            found.append(quota)
    return max(found, key=lambda quota: quota.seconds / quota.left if quota.left else math.inf, default=None)


def _parameters(answer: Answer, field: str) -> dict[str, dict[str, str]]:
    """The parameters of each member of a list, by its name. A bare `name=value` is one of the member ""."""
    text = ", ".join(answer.headers.getall(field, ()))[:MAX_FIELD]
    members: dict[str, dict[str, str]] = {}
    at, member = 0, None
    while (piece := _PIECE.match(text, at)) is not None:
        name, equals, value = piece[1].strip().partition("=")
        if member is None:
            member = members.setdefault("" if equals else name.strip('"'), {})
        if equals:
            member.setdefault(name.strip(), value.strip())
        if piece[2] != ";":
            member = None
        if not piece[2]:
            break
        at = piece.end()
    return members


def _quota(left: float | None, seconds: float | None, whole: float | None) -> Quota | None:
    if left is None or seconds is None or seconds <= 0:
        return None
    return Quota(int(left), min(seconds, MAX_SECONDS), None if whole is None else int(whole))


def _seconds(reset: float | None, answer: Answer) -> float | None:
    """Seconds from now. `reset` is that, or seconds or milliseconds since 1970 by the server's clock (its `Date`)."""
    if reset is None or reset < _EPOCH:
        return reset
    at = reset / 1000 if reset >= _EPOCH_IN_MS else reset
    now = parse_date(answer.header("date") or "")
    return at - (time.time() if now is None else now)


def _number(text: str | None) -> float | None:
    """The number at the beginning of `text`. RateLimit-Limit may have a policy behind it: `100, 100;w=60`."""
    found = None if text is None else _NUMBER.fullmatch(text[:MAX_FIELD].strip())
    return None if found is None else float(found[1])
