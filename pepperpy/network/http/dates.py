"""Reads times in headers. Not by email.utils: it may raise anything, and reads a date without a zone as local time."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

# Characters of the longest date: "Wednesday, 09-November-1994 08:49:37 +0000" has 42.
_MAX_LENGTH = 64
# More digits than any wait has. Bounded, because the time of float() grows with their number.
_MAX_DIGITS = 12

_CLOCK = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?"
_ZONE = r"(?: (?:GMT|UTC?|Z|(?P<sign>[+-])(?P<hours>[0-9]{2})(?P<minutes>[0-9]{2})))?"
_DAY, _MONTH, _YEAR = r"(?P<day>[0-9]{1,2})", r"(?P<month>[a-z]{3})[a-z]{0,6}", r"(?P<year>[0-9]{4}|[0-9]{2})"
_FORMS = [
    re.compile(rf"(?:[a-z]{{3,9}},? )?{_DAY}[ -]{_MONTH}[ -]{_YEAR} {_CLOCK}{_ZONE}", re.IGNORECASE),
    re.compile(rf"[a-z]{{3,9}} {_MONTH} {_DAY} {_CLOCK} {_YEAR}{_ZONE}", re.IGNORECASE),
]
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def parse_date(text: str) -> float | None:
    """Seconds since 1970 of a date in one of the three forms of RFC 9110, section 5.6.7; None if it is no such date.

        Sun, 06 Nov 1994 08:49:37 GMT     Sunday, 06-Nov-94 08:49:37 GMT     Sun Nov  6 08:49:37 1994

    All are UTC, also without a zone. A numeric zone counts: HTTP does not have it, but servers send it. The name of the
    day is ignored.
    """
    if len(text) > _MAX_LENGTH:
        return None
    text = " ".join(text.split())
    found = _FORMS[0].fullmatch(text) or _FORMS[1].fullmatch(text)
    if found is None:
        return None
    year = int(found["year"])
    if len(found["year"]) == 2:
        # RFC 9110: a year of two digits that would be more than 50 years ahead is in the past.
        first = datetime.now(UTC).year - 49
        year = first + (year - first) % 100
    offset = timedelta(hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0))
    # Seconds are added here, because a leap second (60) is the first second of the next minute.
    offset = (offset if found["sign"] == "-" else -offset) + timedelta(seconds=int(found["second"] or 0))
    try:
        month = _MONTHS.index(found["month"].lower()) + 1
        at = datetime(year, month, int(found["day"]), int(found["hour"]), int(found["minute"]), tzinfo=UTC)
        return (at + offset).timestamp()
    except (ValueError, OverflowError):
        return None


# RFC 6265, section 5.1.1: a date is its parts in any order, between any of these characters.
_DELIMITERS = re.compile(r"[\t\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?![0-9])")
_NUMBER = re.compile(r"([0-9]{1,4})(?![0-9])")


def parse_cookie_date(text: str) -> float | None:
    """Seconds since 1970 of the `Expires` of a cookie; None if it is no date.

    It reads day, month, year and time in any order, and ignores the zone, as RFC 6265, section 5.1.1, says. Otherwise
    it reads what `parse_date()` reads, or ISO 8601, which servers send and browsers ignore.
    """
    if len(text) > 2 * _MAX_LENGTH:
        return None
    clock = day = month = year = None
    for token in _DELIMITERS.split(text):
        number = _NUMBER.match(token)
        if clock is None and (found := _TIME.match(token)):
            clock = found.groups()
        elif day is None and number and len(number[1]) <= 2:
            day = int(number[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS.index(token[:3].lower()) + 1
        elif year is None and number and len(number[1]) >= 2:
            year = int(number[1])
    try:
        if clock is None or day is None or month is None or year is None:
            if (at := parse_date(text)) is not None:
                return at
            iso = datetime.fromisoformat(text)
            return iso.replace(tzinfo=iso.tzinfo or UTC).timestamp()
        if year < 100:
            year += 1900 if year >= 70 else 2000
        hour, minute, second = map(int, clock)
        second = 59 if second == 60 else second  # a leap second
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


_TIMEOUT = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)


def keep_alive_seconds(value: str | None) -> float | None:
    """Seconds for which the server keeps an idle connection, from the value of `Keep-Alive`; None if it does not say.

    RFC 2068, section 19.7.1.1, defined it. Node, Apache, HAProxy and gunicorn send it.
    """
    found = None if value is None else _TIMEOUT.search(value[:200])
    return None if found is None else float(found[1])


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `Retry-After` (RFC 9110, section 10.2.3); None if it is absent or unreadable.

    A number may have a fraction: RFC 9110 does not allow it, but servers send it. A date is one of the server's clock.
    So the wait is counted from the server's `Date`, if that can be read.
    """
    value = headers.get("Retry-After", "").strip()
    whole, point, fraction = value.partition(".")
    if whole.isdigit() and value.isascii() and (fraction.isdigit() or not point):
        return float(f"{whole[:_MAX_DIGITS]}.{fraction[:_MAX_DIGITS]}")
    at = parse_date(value)
    if at is None:
        return None
    now = parse_date(headers.get("Date", ""))
    return max(0.0, at - (time.time() if now is None else now))
