"""A configuration of HTTP shows no secret, and is what it was for as long as it lives."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Hashable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientTimeout

from pepperpy.network import HTTPConfig, RateLimit, TLSConfig
from pepperpy.network.http.auth import BasicAuth, BearerAuth
from pepperpy.network.http.request import Limits
from pepperpy.network.http.timeouts import limits_of, total_of
from pepperpy.network.json_codec import JSONCodec

CANARY = "s3cr3t"


class Interceptor:
    async def pre_request(self, *arguments: Any, **options: Any) -> None: ...


# ---- What it shows ----


def test_the_repr_shows_what_is_not_as_by_default() -> None:
    assert repr(HTTPConfig()) == "HTTPConfig()"
    config = HTTPConfig("http://host/api", retries=5, headers={"Accept": "text/html"}, timeout=None, proxy="http://p:1")
    assert repr(config) == (
        "HTTPConfig(base_url='http://host/api', headers={'Accept': 'text/html'}, timeout=None, retries=5, "
        "proxy='http://p:1')"
    )


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("base_url", f"http://{CANARY}:{CANARY}@host/api", "base_url='http://***@host/api'"),
        ("headers", {"X-API-Key": CANARY, "Accept": "a"}, "headers={'X-API-Key': '***', 'Accept': 'a'}"),
        ("headers", {"authorization": CANARY}, "headers={'authorization': '***'}"),
        ("params", {"key": CANARY, "page": 1}, "params={'key': '***', 'page': '***'}"),
        ("params", {"key": [CANARY]}, "params={'key': '***'}"),
        ("cookies", {"session": CANARY}, "cookies={'session': '***'}"),
        ("auth", ("user", CANARY), "auth=BasicAuth(***)"),
        ("auth", (CANARY, "password"), "auth=BasicAuth(***)"),
        ("auth", BearerAuth(CANARY), "auth=BearerAuth(***)"),
        ("auth", lambda: CANARY, "auth=RefreshingAuth(***)"),
        ("proxy", f"http://user:{CANARY}@host:3128", "proxy='http://***@host:3128'"),
        (
            "tls",
            TLSConfig(client_cert=("cert", "key", CANARY)),
            "tls=TLSConfig(client_cert=('cert', 'key', '***'))",
        ),
        ("interceptors", [SimpleNamespace(pre_request=CANARY)], "interceptors=('SimpleNamespace',)"),
        (
            "json_codec",
            JSONCodec("mine", partial(print, CANARY), partial(print, CANARY)),
            "json_codec=JSONCodec(name='mine')",
        ),
    ],
)
def test_the_repr_shows_no_secret(name: str, value: Any, shown: str) -> None:
    assert repr(HTTPConfig(**{name: value})) == f"HTTPConfig({shown})"


def test_headers_that_are_said_to_be_secret_are_not_shown() -> None:
    shown = repr(HTTPConfig(headers={"X-Mine": CANARY}, secret_headers=["x-mine"]))
    assert CANARY not in shown
    assert "'X-Mine': '***'" in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_url", f"http://user:{CANARY}@host:99999"),
        ("base_url", f"http://user:{CANARY}\u2100@host"),
        ("base_url", f"http://host?key={CANARY}"),
        ("base_url", f"http://host#{CANARY}"),
        ("base_url", f"ftp://user:{CANARY}@host"),
        ("headers", {"a": CANARY.encode()}),
        ("headers", {"a": f"{CANARY}\n"}),
        ("params", CANARY),
        ("params", {"a": CANARY.encode()}),
        ("params", {"a": [{CANARY: 1}]}),
        ("params", {"a": f"{CANARY}\ud800"}),
        ("cookies", {"a": CANARY.encode()}),
        ("cookies", {"a": f"{CANARY}\n"}),
        ("auth", CANARY),
        ("auth", ("user", f"{CANARY}\n")),
        ("auth", ("user", CANARY, CANARY)),
        ("proxy", f"socks5://user:{CANARY}@host"),
        ("proxy", f"user:{CANARY}@host"),
        ("proxy", f"http://user:{CANARY}@host:99999"),
        ("interceptors", partial(print, CANARY)),
        ("interceptors", [partial(print, CANARY)]),
        ("json_codec", partial(print, CANARY)),
    ],
)
def test_no_error_shows_a_secret(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        HTTPConfig(**{name: value})
    error: BaseException | None = caught.value
    while error is not None:  # as a traceback shows them
        assert CANARY not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# ---- What becomes of it ----


def full_config() -> HTTPConfig:
    return HTTPConfig(
        "http://user:pass@host/api",
        headers={"X-A": "1"},
        params={"a": [1, 2]},
        cookies={"a": "b"},
        auth=("user", "pass"),
        timeout=ClientTimeout(total=5),
        retry_statuses=[503],
        tls=TLSConfig(client_cert=("cert.pem", "key.pem", "pass"), ca_file=Path("ca.pem")),
        secret_headers=["X-Mine"],
        rate_limit=10,
    )


def test_equal_settings_are_equal_and_other_ones_are_not() -> None:
    assert HTTPConfig() == HTTPConfig()
    assert full_config() == full_config()
    assert full_config() != full_config().replace(retries=7)
    assert HTTPConfig() != object()


def test_it_cannot_be_hashed_because_its_mappings_cannot() -> None:
    assert not isinstance(HTTPConfig(), Hashable)
    with pytest.raises(TypeError, match="'HTTPConfig'"):
        hash(HTTPConfig())


def test_it_can_be_pickled_and_copied() -> None:
    config = full_config()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(config, protocol)) == config
    assert copy.copy(config) == copy.deepcopy(config) == config


def test_a_field_cannot_be_set() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        HTTPConfig().retries = 1  # type: ignore[misc]


def test_replace_gives_a_checked_copy() -> None:
    config = full_config()
    changed = config.replace(retries=7, headers={"X-B": "2"})
    assert (changed.retries, changed.headers) == (7, {"X-B": "2"})
    assert config == full_config()
    assert changed.replace(retries=config.retries, headers=config.headers) == config
    with pytest.raises(ValueError, match=r"^retries must be 0 or more, not -1$"):
        config.replace(retries=-1)
    with pytest.raises(TypeError, match="nonsense"):
        config.replace(nonsense=1)


def test_only_the_base_url_may_be_given_by_position() -> None:
    assert HTTPConfig("http://host").base_url == "http://host"
    with pytest.raises(TypeError, match="positional"):
        HTTPConfig("http://host", {})  # type: ignore[misc]


def test_what_it_was_made_of_may_change_afterwards() -> None:
    headers, params, cookies = {"a": "1"}, {"a": [1], "b": "2"}, {"a": "1"}
    statuses, secrets, interceptors = [503], ["x-a"], [Interceptor()]
    config = HTTPConfig(
        headers=headers,
        params=params,
        cookies=cookies,
        retry_statuses=statuses,
        secret_headers=secrets,
        interceptors=interceptors,
    )
    before = pickle.dumps([getattr(config, name) for name in ("headers", "params", "cookies", "retry_statuses")])
    for mapping in (headers, params, cookies):
        mapping["a\r\n"] = "\r\n"  # type: ignore[assignment]
    params["a"].append(b"x")  # type: ignore[attr-defined]
    for items in (statuses, secrets, interceptors):
        items.clear()  # type: ignore[attr-defined]
    after = pickle.dumps([getattr(config, name) for name in ("headers", "params", "cookies", "retry_statuses")])
    assert after == before
    assert config.secret_headers == {"x-a"}
    assert len(tuple(config.interceptors)) == 1


def test_what_can_be_read_only_once_is_kept() -> None:
    config = HTTPConfig(
        retry_statuses=iter([503]),
        secret_headers=iter(["X-A"]),  # type: ignore[arg-type]
        interceptors=iter([Interceptor()]),
    )
    assert (config.retry_statuses, config.secret_headers) == ({503}, {"x-a"})
    assert len(tuple(config.interceptors)) == len(tuple(config.interceptors)) == 1


def test_short_forms_become_what_they_stand_for() -> None:
    config = HTTPConfig(auth=("user", "pass"), rate_limit=10, secret_headers=["X-Mine"])
    assert config.auth == BasicAuth("user", "pass")
    assert config.rate_limit == RateLimit(10)
    assert config.secret_headers == {"x-mine"}


# ---- The limits of an attempt ----


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        (None, (None, None, 10.0, 30.0)),
        (5, (5, None, 10.0, 30.0)),
        (ClientTimeout(), (None, None, 10.0, 30.0)),
        (ClientTimeout(total=5), (5, None, 10.0, 30.0)),
        (ClientTimeout(total=0), (None, None, 10.0, 30.0)),
        (ClientTimeout(connect=1, sock_connect=2, sock_read=3), (None, 1, 2, 3)),
        (ClientTimeout(sock_connect=0, sock_read=0), (None, None, None, None)),
    ],
)
def test_what_a_client_timeout_leaves_open_is_as_configured(given: Any, limits: tuple[Any, ...]) -> None:
    found = limits_of(HTTPConfig(), given)
    assert (total_of(given), found.queue, found.connect, found.read) == limits


def test_configured_limits_may_be_off() -> None:
    found = limits_of(HTTPConfig(connect_timeout=None, read_timeout=None, write_timeout=None), None)
    assert found == Limits()


def test_a_codec_of_the_users_own_is_kept() -> None:
    codec = JSONCodec("mine", lambda value: b"{}", lambda content: {})
    assert HTTPConfig(json_codec=codec).json_codec is codec
