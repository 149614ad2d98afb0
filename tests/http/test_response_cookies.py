"""`HTTPResponse.cookies`: what an answer sets, as the standard library has it. Nothing that a server sends raises."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest

from pepperpy.network.http.cookies import MAX_ATTRIBUTE, MAX_LINE, MAX_SIZE, response_cookies


def test_a_cookie_has_its_value_and_its_attributes() -> None:
    line = (
        "id=x/=; Path=/a; DOMAIN=example.com; Max-Age=3; Expires=Wed, 09 Jun 2021 10:18:14 GMT; SameSite=Lax; other=1"
    )
    morsel = response_cookies([line])["id"]
    assert (morsel.key, morsel.value, morsel.coded_value) == ("id", "x/=", "x/=")
    attributes = {name: value for name, value in morsel.items() if value}
    assert attributes == {
        "path": "/a",
        "domain": "example.com",
        "max-age": "3",
        "expires": "Wed, 09 Jun 2021 10:18:14 GMT",
        "samesite": "Lax",
    }


def test_a_flag_is_true_whatever_its_value() -> None:
    morsel = response_cookies(["a=1; Secure; HttpOnly=no"])["a"]
    assert (morsel["secure"], morsel["httponly"]) == (True, True)


def test_a_quoted_value_is_read_and_kept_as_it_came() -> None:
    morsel = response_cookies([r'a="x \"y\" z"; Path="/q"'])["a"]
    assert (morsel.value, morsel.coded_value, morsel["path"]) == ('x "y" z', r'"x \"y\" z"', "/q")
    assert response_cookies(['a="'])["a"].value == '"'


def test_each_line_is_one_cookie_and_the_last_one_of_a_name_counts() -> None:
    cookies = response_cookies(["a=1", "b={2}", "a=3; Secure"])
    assert isinstance(cookies, SimpleCookie)
    assert {name: morsel.value for name, morsel in cookies.items()} == {"a": "3", "b": "{2}"}


@pytest.mark.parametrize(
    "line",
    ["", "no equals sign", "=nameless", "a=\x00", "a=\udcff", "a=1\t2", f"a={'x' * MAX_SIZE}", f"a=1;{' ' * MAX_LINE}"],
)
def test_what_is_no_cookie_is_ignored(line: str) -> None:
    assert list(response_cookies([line, "b=2"])) == ["b"]


def test_an_attribute_that_is_too_long_is_ignored() -> None:
    assert response_cookies([f"a=1; Path=/{'x' * MAX_ATTRIBUTE}"])["a"]["path"] == ""
