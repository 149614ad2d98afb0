"""What a proxy says is shown without the password that it repeats, and as a sentence still."""

from __future__ import annotations

import base64

import pytest

from pepperpy.network import ProxyError
from pepperpy.network.proxy_auth import ProxyAuth, ProxyLogin
from pepperpy.network.proxy_url import read_proxy
from pepperpy.network.tcp.http_connect import Tunnelling, check_answer


def hidden(password: str, text: str) -> str:
    return ProxyAuth(ProxyLogin("proxy", 3128, "user", password), "CONNECT", "a:1").hide(text.encode()).decode()


@pytest.mark.parametrize("password", ["e", "e1", "407", ".", "pässword", "e e e"])
@pytest.mark.parametrize("place", ["user:{}", "Bad password={}; go", "password: {}", "'{}' is wrong", '"{}"', "({})"])
def test_a_password_is_hidden_where_one_may_stand(password: str, place: str) -> None:
    assert hidden(password, place.format(password)) == place.format("***")


@pytest.mark.parametrize("password", ["e", "r", "ed", "407", "or", ".", "H", "1"])
def test_a_short_password_leaves_the_sentence_as_it_is(password: str) -> None:
    text = "HTTP/1.1 407 Proxy Authentication Required. You are refused, or worse: reader"
    assert hidden(password, text) == text


@pytest.mark.parametrize("text", ["no hunter2 here", "nohunter2here", "hunter2"])
def test_a_longer_password_is_hidden_wherever_it_stands(text: str) -> None:
    assert hidden("hunter2", text) == text.replace("hunter2", "***")


def test_what_is_sent_is_hidden_and_an_empty_password_hides_nothing() -> None:
    sent = base64.b64encode(b"user:e").decode()
    assert hidden("e", f"I know no {sent} here") == "I know no *** here"
    assert hidden("", "user:") == "user:"


def test_the_error_of_a_refused_tunnel_can_be_read() -> None:
    proxy = read_proxy("http://user:e@proxy:3128")
    with pytest.raises(ProxyError, match=r": 403 No entrance here for user:\*\*\*$"):
        check_answer(proxy, b"HTTP/1.1 403 No entrance here for user:e\r\n\r\n", Tunnelling(proxy, "a", 1).auth)
