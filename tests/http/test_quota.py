"""What an answer's headers say of the server's own rate limit, in each form that servers write it."""

from __future__ import annotations

import time

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from pepperpy.network.http.middleware_response import MadeAnswer
from pepperpy.network.http.quota import MAX_SECONDS, Quota, quota_of

NOTHING: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
# 1784111777 s since 1970. The clock of the server decides, whatever that of this machine says.
DATE = ("Date", "Wed, 15 Jul 2026 10:36:17 GMT")


def read(*fields: tuple[str, str]) -> Quota | None:
    return quota_of(MadeAnswer("mock", 200, "OK", CIMultiDictProxy(CIMultiDict(fields)), b"", NOTHING))


@pytest.mark.parametrize(
    ("limit", "policy", "expected"),
    [
        ('"default";r=50;t=30', None, Quota(50, 30, None)),
        ('"default";r=50;t=30', '"default";q=100;w=60', Quota(50, 30, 100)),
        ('"default" ; r=50', '"default";q=100;w=60', Quota(50, 60, 100)),
        # The tightest of several.
        ('"burst";r=9;t=1, "daily";r=20;t=3000', '"burst";q=10;w=1,"daily";q=99;w=86400', Quota(20, 3000, 99)),
        ('"a";r=0;t=5, "b";r=1;t=3000', None, Quota(0, 5, None)),
        # Not every limit counts requests.
        ('"a";r=1;t=60, "b";r=9;t=60', '"a";q=9;w=60;qu="content-bytes", "b";q=9;qu="requests"', Quota(9, 60, 9)),
        # Keys of a partition, and names that look like the grammar.
        ('"a, b;r=1";pk=:c2Jk==:;r=7;t=60', '"a, b;r=1";q=8', Quota(7, 60, 8)),
        ("default;r=3;t=60", None, Quota(3, 60, None)),
        # Version 07.
        ("limit=100, remaining=50, reset=30", None, Quota(50, 30, 100)),
        ("remaining=0, reset=30", "100;w=60", Quota(0, 30, None)),
        # Nothing to go by.
        ('"default";r=50', None, None),
        ('"default";t=50', None, None),
        ('"default";r=-1;t=50', None, None),
        ('"default";r=5;t=0', None, None),
        ('"default;r=5;t=6', None, None),
        ("", None, None),
        (",;=;,", None, None),
        ('"' + "a" * 100_000 + '";r=5;t=6', None, None),
        ("a;" * 100_000, None, None),
        ('"\\' * 100_000, None, None),
        (f'"a";r={"9" * 100_000};t=5', None, None),
    ],
)
def test_the_field_of_the_draft(limit: str, policy: str | None, expected: Quota | None) -> None:
    """draft-ietf-httpapi-ratelimit-headers-11."""
    assert read(("RateLimit", limit), *([] if policy is None else [("RateLimit-Policy", policy)])) == expected


def test_a_field_may_come_in_several_lines() -> None:
    assert read(("RateLimit", '"a";r=9;t=60'), ("RateLimit", '"b";r=1;t=60')) == Quota(1, 60, None)


@pytest.mark.parametrize("prefix", ["RateLimit-", "X-RateLimit-", "X-Rate-Limit-", "x-ratelimit-"])
@pytest.mark.parametrize(
    ("left", "reset", "whole", "expected"),
    [
        ("50", "30", "100", Quota(50, 30, 100)),
        ("50", "30", None, Quota(50, 30, None)),
        ("599.0", "0.5", "100, 100;w=60", Quota(599, 0.5, 100)),
        ("0", "1784111837", "60", Quota(0, 60, 60)),  # seconds since 1970 ...
        ("0", "1784111836750", "60", Quota(0, 59.75, 60)),  # ... or milliseconds
        ("0", "1784111777", "60", None),  # over
        ("0", "1", "none", Quota(0, 1, None)),
        ("0", None, "60", None),
        ("no", "30", "60", None),
        ("5", "soon", "60", None),
        ("5", "1e400", "60", None),
        ("9" * 100_000, "30", "60", None),
        ("", "", "", None),
    ],
)
def test_the_fields_of_before(
    prefix: str, left: str, reset: str | None, whole: str | None, expected: Quota | None
) -> None:
    fields = [(prefix + name, text) for name, text in (("Remaining", left), ("Reset", reset), ("Limit", whole)) if text]
    assert read(*fields, DATE) == expected


def test_a_time_without_a_date_is_one_of_our_clock() -> None:
    quota = read(("X-RateLimit-Remaining", "5"), ("X-RateLimit-Reset", str(int(time.time()) + 600)))
    assert quota is not None and 500 < quota.seconds <= 600


def test_seconds_from_now_go_before_a_time() -> None:
    """As Discord sends both."""
    fields = [("X-RateLimit-Remaining", "1"), ("X-RateLimit-Reset", "1470173023"), ("X-RateLimit-Reset-After", "1.25")]
    assert read(*fields) == Quota(1, 1.25, None)


@pytest.mark.parametrize("reset", ["999999999", "4000000000", "99999999999999"])
def test_no_server_can_ask_for_more_than_an_hour(reset: str) -> None:
    assert read(("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", reset)) == Quota(0, MAX_SECONDS, None)
    assert read(("RateLimit", f'"a";r=0;t={reset}')) == Quota(0, MAX_SECONDS, None)


def test_an_answer_that_says_nothing() -> None:
    assert read() is None and read(DATE, ("X-RateLimit-Limit", "60")) is None
