"""What goes without a proxy, and which proxies the environment names: one parser for TCP and HTTP."""

from __future__ import annotations

import pytest

from pepperpy.network.proxy_rules import EnvironmentProxy, NoProxy, read_environment

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("text", "covered", "not_covered"),
    [
        ("", [], ["localhost", "127.0.0.1"]),
        ("*", ["example.com", "127.0.0.1", "::1"], []),
        ("example.com", ["example.com", "EXAMPLE.com.", "a.example.com", "a.b.example.com"], ["notexample.com", "com"]),
        (".example.com", ["example.com", "a.example.com"], ["notexample.com"]),
        ("*.example.com", ["a.example.com"], ["example.com", "notexample.com"]),
        ("Example.COM.", ["example.com", "a.example.com"], ["example.org"]),
        ("bücher.example", ["xn--bcher-kva.example", "a.bücher.example"], ["bcher.example"]),
        ("10.1.2.3", ["10.1.2.3", "0x0a010203", "::ffff:10.1.2.3"], ["10.1.2.4", "110.1.2.3", "a.10.1.2.3"]),
        ("10.0.0.0/8", ["10.0.0.1", "10.255.255.255"], ["11.0.0.1", "10.example.com", "fd00::1"]),
        ("10.1.2.3/8", ["10.9.9.9"], ["11.0.0.1"]),
        ("fd00::/8,[fe80::1]", ["fd00::1", "FD12:0::1", "fe80::1", "fe80::1%eth0"], ["fe80::2", "::1"]),
        ("::1", ["::1", "0:0::1"], ["::2", "1.1.1.1"]),
        (" , a.test  b.test,\tc.test,", ["a.test", "b.test", "c.test"], ["d.test"]),
        # Those that mean nothing here do no harm.
        ("..., *., http://x.test, [::1, 10.0.0.0/99, :80, a:b:c", [], ["x.test", "::1", "10.0.0.0", "localhost"]),
        ("a.test:" + "9" * 5000 + ",[::1]:" + "9" * 5000, [], ["a.test", "::1"]),
    ],
)
def test_hosts_and_networks(text: str, covered: list[str], not_covered: list[str]) -> None:
    rules = NoProxy(text)
    assert [host for host in covered if not rules.covers(host, 80)] == []
    assert [host for host in not_covered if rules.covers(host, 80)] == []


def test_an_entry_with_a_port_is_for_that_port_only() -> None:
    rules = NoProxy("a.test:8080,10.0.0.1:81,[::1]:82,10.1.0.0/16:83")
    for host, port in (("a.test", 8080), ("b.a.test", 8080), ("10.0.0.1", 81), ("::1", 82), ("10.1.2.3", 83)):
        assert rules.covers(host, port)
        assert not rules.covers(host, 80)


def test_the_variables_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_environment().proxy_for("http", "a.test", 80) is None
    monkeypatch.setenv("HTTP_PROXY", "http://upper.test:1")
    monkeypatch.setenv("ALL_PROXY", "socks5h://all.test")
    monkeypatch.setenv("NO_PROXY", "direct.test")
    found = read_environment()
    assert found.proxy_for("http", "a.test", 80) == "http://upper.test:1"
    assert found.proxy_for("https", "a.test", 443) == found.proxy_for("all", "a.test", 5) == "socks5h://all.test:1080"
    assert found.proxy_for("http", "direct.test", 80) is None
    assert isinstance(found.proxy_for("http", "a.test", 80), EnvironmentProxy)
    # Lower case comes first, and an empty variable says nothing.
    monkeypatch.setenv("http_proxy", "http://lower.test:2")
    monkeypatch.setenv("https_proxy", "  ")
    monkeypatch.setenv("no_proxy", "  ")
    assert read_environment().proxy_for("http", "direct.test", 80) is None
    monkeypatch.setenv("no_proxy", "other.test")
    found = read_environment()
    assert found.proxy_for("http", "direct.test", 80) == "http://lower.test:2"
    assert found.proxy_for("https", "a.test", 443) == "socks5h://all.test:1080"


def test_a_header_of_a_request_sets_no_proxy_in_a_cgi_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://evil.test:1")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert read_environment().proxy_for("http", "a.test", 80) is None
    monkeypatch.setenv("http_proxy", "http://good.test:1")
    assert read_environment().proxy_for("http", "a.test", 80) == "http://good.test:1"
    with monkeypatch.context() as windows:
        windows.setattr("pepperpy.network.proxy_rules.os.name", "nt")
        found = read_environment()
    assert found.proxy_for("http", "a.test", 80) is None


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        ("proxy.test:3128", "http://proxy.test:3128"),
        ("proxy.test", "http://proxy.test:80"),
        ("user:p%40ss@proxy.test:3128", "http://user:p%40ss@proxy.test:3128"),
        ("HTTP://proxy.test/", "http://proxy.test:80"),
        ("http://proxy.test:3128/path/", "http://proxy.test:3128"),
        ("http://proxy.test:", "http://proxy.test:80"),
        ("http://u:p@ss@proxy.test:1", "http://u:p@ss@proxy.test:1"),
        ("http://u:%70%2F%zz@[fe80::1%25eth0]:1", "http://u:%70%2F%zz@[fe80::1%25eth0]:1"),
        ("SOCKS5H://u:p@proxy.test", "socks5h://u:p@proxy.test:1080"),
        ("https://proxy.test", "https://proxy.test:443"),
        ("socks://127.0.0.1:1080/", "socks5h://127.0.0.1:1080"),
        ("socks5://[::1]", "socks5://[::1]:1080"),
    ],
)
def test_a_proxy_as_the_variables_write_it(value: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", value)
    assert read_environment().proxy_for("https", "a.test", 443) == proxy


@pytest.mark.parametrize(
    "value",
    [
        "ftp://user:canary@proxy.test:21",
        "user:canary",
        "http://user:canary/x@proxy.test:1",
        "http://user:12/canary@proxy.test:1",
        "http://user:12#canary@proxy.test:1",
        "http://user:12?canary@proxy.test:1",
        "http://user:canary@pro xy.test:1",
        "http://user:canary@::1",
        "http://user:canary@proxy.test:99999",
        "http://:canary@:1",
        "socks5://canary@proxy.test",
    ],
)
def test_what_is_no_proxy_is_named_by_its_variable_without_secrets(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    found = read_environment()  # nothing needs it yet
    with pytest.raises(ValueError, match=r"the variable ALL_PROXY (must name|names no) ") as caught:
        found.proxy_for("http", "a.test", 80)
    assert "canary" not in str(caught.value)
