"""Configurations from text: `from_env()` of both, and `HTTPConfig.from_url()`."""

from __future__ import annotations

import pytest

from pepperpy.network import HTTPConfig, Keepalive, NetworkConfig, Reconnect, TLSConfig
from pepperpy.network.http.auth import BasicAuth


def test_variables_are_the_fields_of_a_tcp_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "HOST": "db.test",
        "PORT": "5432",
        "TIMEOUT": "2.5",
        "RETRIES": "0",
        "CONNECT_TIMEOUT": "none",
        "NODELAY": "False",
        "PROXY": "socks5h://u:p@proxy.test:1080",
        "TLS": "true",
        "CA_FILE": "ca.pem",
        "PROXY_CA_FILE": "proxy.pem",
        "PROXY_CLIENT_CERT": "none",
        "KEEPALIVE_IDLE": "5",
        "RECONNECT": "true",
        "TRUST_ENV": "true",
        # Of the program itself.
        "PASSWORD": "secret",
        "DATABASE": "main",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"APP_DB_{name}", value)
    assert NetworkConfig.from_env("APP_DB_") == NetworkConfig(
        *("db.test", 5432, 2.5, 0),
        connect_timeout=None,
        nodelay=False,
        proxy="socks5h://u:p@proxy.test:1080",
        tls=TLSConfig(ca_file="ca.pem"),
        proxy_tls=TLSConfig(ca_file="proxy.pem"),
        keepalive=Keepalive(idle=5),
        reconnect=True,
        trust_env=True,
    )


def test_a_url_comes_first_and_the_other_variables_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_URL", "tls://db.test:5432?timeout=1&retries=7&ca_file=a.pem&reconnect_attempts=3")
    monkeypatch.setenv("X_TIMEOUT", "9")
    monkeypatch.setenv("X_PORT", "5433")
    monkeypatch.setenv("X_SERVER_HOSTNAME", "name.test")
    assert NetworkConfig.from_env("X_") == NetworkConfig(
        *("db.test", 5433, 9, 7),
        tls=TLSConfig(ca_file="a.pem", server_hostname="name.test"),
        reconnect=Reconnect(attempts=3),
    )
    monkeypatch.setenv("Y_UNIX_PATH", "/run/x.sock")
    assert NetworkConfig.from_env("Y_") == NetworkConfig(unix_path="/run/x.sock")


def test_variables_are_the_fields_of_an_http_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "URL": "https://user:p%40ss@api.test/v1?timeout=20",
        "RETRIES": "4",
        "RETRY_STATUSES": "429,503",
        "PROXY": "http://proxy.test:3128",
        "NO_PROXY": ".internal",
        "MAX_RESPONSE_SIZE": "none",
        "RATE_LIMIT": "2.5",
        "TRANSPORT": "aiohttp",
        "CLIENT_CERT": "me.pem",
        "TOKEN": "secret",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"API_{name}", value)
    assert HTTPConfig.from_env("API_") == HTTPConfig(
        "https://api.test/v1",
        auth=BasicAuth("user", "p@ss"),
        timeout=20.0,
        retries=4,
        retry_statuses={429, 503},
        proxy="http://proxy.test:3128",
        no_proxy=".internal",
        max_response_size=None,
        rate_limit=2.5,
        transport="aiohttp",
        tls=TLSConfig(client_cert="me.pem"),
    )
    monkeypatch.setenv("B_BASE_URL", "http://api.test")
    assert HTTPConfig.from_env("B_") == HTTPConfig("http://api.test")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TIMEOUT", "soon", "the variable X_TIMEOUT is 'soon', which cannot be read"),
        ("TIMEOUT", "p@ss", r"the variable X_TIMEOUT is \*\*\*"),
        ("TIMOUT", "1", "the variable X_TIMOUT sets no field; did you mean X_TIMEOUT"),
        ("HOSTS", "a,b", "the variable X_HOSTS cannot be read: hosts is no number"),
        ("TIMEOUT", "-1", "^timeout must be more than 0"),
        ("TLS", "yes", "the variable X_TLS is 'yes'"),
        ("URL", "http://host:1", "the variable X_URL: url must start with tcp://"),
        ("URL", "tcp://u:canary@host:1", "the variable X_URL: url must hold no user"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X_HOST", "localhost")
    monkeypatch.setenv("X_PORT", "1")
    monkeypatch.setenv(f"X_{name}", value)
    with pytest.raises(ValueError, match=words) as caught:
        NetworkConfig.from_env("X_")
    assert "canary" not in str(caught.value) and "p@ss" not in str(caught.value)


def test_tls_that_is_off_has_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOST": "localhost", "PORT": "1", "TLS": "false", "CA_FILE": "ca.pem"}.items():
        monkeypatch.setenv(f"X_{name}", value)
    with pytest.raises(ValueError, match=r"the variables X_\* have tls=false, and says how all the same"):
        NetworkConfig.from_env("X_")


def test_a_prefix_is_needed() -> None:
    for read in (NetworkConfig.from_env, HTTPConfig.from_env):
        with pytest.raises(ValueError, match="prefix must not be empty"):
            read("")
        with pytest.raises(TypeError, match="prefix must be a str, not NoneType"):
            read(None)  # type: ignore[arg-type]


def test_a_url_is_an_http_configuration() -> None:
    assert HTTPConfig.from_url("https://api.test:8443/v1") == HTTPConfig("https://api.test:8443/v1")
    read = HTTPConfig.from_url("http://u@[::1]:8080/a?deadline=5&trust_env=true&keepalive_idle=9&connect_timeout=none")
    assert read == HTTPConfig(
        "http://[::1]:8080/a",
        auth=("u", ""),
        deadline=5.0,
        trust_env=True,
        keepalive=Keepalive(idle=9),
        connect_timeout=None,
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/", "url must start with http:// or https://"),
        ("https://host/?proxy=http://u:canary@p", "unknown field 'proxy'"),
        ("https://u:canary@host/?nothing=1", "unknown field"),
        ("https://host/?timeout=1&timeout=2", "twice"),
        ("https://host/?timeout=canary@", r"url has timeout=\*\*\*"),
        ("http://host/?ca_file=ca.pem", "unknown field 'ca_file'"),
        ("https://host:99999/", "with a port up to 65535"),
        ("https://host/?timeout", "field=value&field=value"),
        ("https://host/#part", "base_url must be without query and fragment"),
    ],
)
def test_what_is_no_such_url_is_refused_without_secrets(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        HTTPConfig.from_url(url)
    assert "canary" not in str(caught.value)
    with pytest.raises(TypeError, match="url must be a str"):
        HTTPConfig.from_url(None)  # type: ignore[arg-type]
