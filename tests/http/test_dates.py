"""Dates and waits in headers: all forms that servers send, as UTC, wherever this program and its clock are."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterator

import pytest

from pepperpy.network.http.dates import parse_date, retry_after
from pepperpy.network.http.download import strong_validator

AT = 784111777.0  # of the examples in RFC 9110, section 5.6.7


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Tokyo"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 6 Nov 1994 08:49:37 -0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 09:49:37 +0100",
        "Sun, 06 Nov 1994 03:19:37 -0530",
        "sun, 06 nov 1994 08:49:37 utc",
        "06 November 1994 08:49:37 GMT",
    ],
)
def test_a_date_is_utc_in_each_form_and_wherever_the_client_lives(text: str) -> None:
    assert parse_date(text) == AT


def test_a_year_of_two_digits_is_the_one_that_is_near() -> None:
    for years in (-40, -1, 0, 1, 40):
        at = time.gmtime(time.time() + years * 365.25 * 86400)
        assert parse_date(time.strftime("%A, %d-%b-%y %H:%M:%S GMT", at)) == float(
            int(email.utils.mktime_tz((*at[:6], 0, 0, 0, 0)))
        )


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "-",
        "soon",
        "a b c d",
        "Sun, 06 Nov 1994",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 25:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sat, 01 Jan 0001 00:00:00 +2359",
        "Sun, 06 Nov 1994 08:49:37 +99999999999999",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, +6 Nov 1994 08:49:37 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun," + " " * 100_000 + "06 Nov 1994 08:49:37 GMT",
        "(" * 100_000,
    ],
)
def test_what_is_no_date_is_none_whatever_it_is(text: str) -> None:
    assert parse_date(text) is None
    assert retry_after({"Retry-After": text, "Date": text}) is None
    assert strong_validator({"Last-Modified": text, "Date": text}) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[("0", 0.0), (" 120 ", 120.0), ("1.5", 1.5), ("0.25", 0.25)],
        *[(value, None) for value in ("-1", "1.", ".5", "1e3", "\u0665", "1.5.5", "1 2")],
    ],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value}) == seconds


def test_a_retry_after_of_a_million_digits_is_read_at_once() -> None:
    assert (retry_after({"Retry-After": "9" * 1_000_000}) or 0) > 10**11
    assert retry_after({"Retry-After": "1." + "9" * 1_000_000}) == pytest.approx(2)
    assert retry_after({}) is None


def test_a_retry_after_that_is_a_date_is_one_of_the_servers_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: AT + 0.25)
    day = 86400.0
    for late in (-day, 0, day):
        now = time.time() + late
        headers = {"Retry-After": email.utils.formatdate(now + 20, usegmt=True), "Date": time.asctime(time.gmtime(now))}
        assert retry_after(headers) == 20
    assert retry_after({"Retry-After": email.utils.formatdate(AT), "Date": email.utils.formatdate(AT + 5)}) == 0
    # Without a clock of the server's, this one has to do.
    for date in ({}, {"Date": "noon"}):
        assert retry_after({"Retry-After": email.utils.formatdate(time.time() + 100), **date}) == 99.75
