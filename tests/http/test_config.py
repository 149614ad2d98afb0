"""The settings of HTTP are checked when they are made, and each error names the field and the value."""

from __future__ import annotations

import dataclasses
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientTimeout
from multidict import CIMultiDict

from pepperpy.network import HTTPConfig, Keepalive, RateLimit, ResponseLimits, TLSConfig
from pepperpy.network.http.auth import BearerAuth
from pepperpy.network.json_codec import default_codec

INF, NAN = float("inf"), float("nan")
FIELDS = {field.name for field in dataclasses.fields(HTTPConfig)}

SECONDS = ["close_timeout", "retry_delay", "max_retry_delay", "keepalive_timeout"]
TIMEOUTS = ["timeout", "connect_timeout", "read_timeout", "write_timeout", "pool_timeout", "deadline"]
FLAGS = [
    *("keepalive", "verify_ssl", "trust_env", "raise_for_status"),
    *("allow_downgrade", "decompress", "strict_content_type"),
]
COUNTS = {
    "retries": 0,
    "max_redirects": 0,
    "max_connections": 1,
    "max_response_size": 1,
    "max_connections_per_host": 1,
}


class Interceptor:
    async def pre_request(self, *arguments: Any, **options: Any) -> None: ...


WRONG_TYPES: list[tuple[str, Any, str]] = [
    ("transport", None, "None"),
    ("text_errors", None, "NoneType"),
    ("base_url", 1, "int"),
    ("base_url", b"http://host", "bytes"),
    ("headers", [("a", "b")], "list"),
    ("headers", "a", "str"),
    ("headers", None, "NoneType"),
    ("headers", {"a": 1}, "'a' to int"),
    ("headers", {"a": None}, "'a' to NoneType"),
    ("headers", {"a": b"x"}, "'a' to bytes"),
    ("headers", {1: "a"}, "1 to str"),
    ("params", ["ab"], "no pair"),
    ("params", "a=b", "str"),
    ("params", {1: "a"}, "not 1"),
    ("params", {None: "a"}, "not None"),
    ("params", {"a": b"x"}, "'a' to bytes"),
    ("params", {"a": {}}, "'a' to dict"),
    ("params", {"a": [["x"]]}, "'a' to list"),
    ("cookies", [("a", "b")], "list"),
    ("cookies", {"a": 1}, "'a' to int"),
    ("cookies", {"a": None}, "'a' to NoneType"),
    ("cookies", {1: "a"}, "1 to str"),
    ("auth", "user:password", "str"),
    ("auth", ("user",), ""),
    ("retry_statuses", 503, "503"),
    ("retry_statuses", "503", "'503'"),
    ("retry_statuses", [503, "504"], "'504'"),
    ("retry_statuses", [True], "True"),
    ("retry_budget", "0.2", "'0.2'"),
    ("retry_budget", True, "True"),
    ("retry_budget", None, "None"),
    ("idempotency_key", 1, "int"),
    ("idempotency_key", None, "NoneType"),
    ("unix_path", b"/x", "b'/x'"),
    ("local_address", "::1", "'::1'"),
    ("socket_options", [(1, 2, 3)], "1, 2, 3"),
    ("limits", 3, "int"),
    ("limits", None, "NoneType"),
    ("no_proxy", ("localhost",), "not \\('localhost"),
    ("resolver", "8.8.8.8", "not str"),
    ("address_policy", True, "not bool"),
    ("socket_factory", True, "not bool"),
    ("on_event", 3, "not int"),
    ("wire_log", "stderr", "'stderr'"),
    ("tls", 1, "not int"),
    ("tls", "ca.pem", "not str"),
    ("tls", None, "None"),
    ("proxy", 1, "int"),
    ("proxy_tls", True, "bool"),
    ("proxy", b"http://host", "bytes"),
    ("secret_headers", "x-token", "'x-token'"),
    ("secret_headers", 1, "1"),
    ("secret_headers", [1], "1"),
    ("rate_limit", "10", "'10'"),
    ("rate_limit", True, "True"),
    ("interceptors", 1, "int"),
    ("interceptors", [object()], "object"),
    ("middlewares", 1, "int"),
    ("middlewares", "a", "str"),
    ("middlewares", [object()], "object"),
    ("middlewares", [Interceptor], "the class Interceptor"),
    ("json_codec", "orjson", "str"),
    *((name, value, repr(value)) for name in SECONDS for value in ("1", True, None, 1j)),
    *((name, value, repr(value)) for name in TIMEOUTS for value in ("1", True, b"1")),
    *((name, value, repr(value)) for name in FLAGS for value in (None, 0, 1, "true")),
    *((name, value, repr(value)) for name in COUNTS for value in ("1", 1.0, True)),
    *((name, None, "None") for name in COUNTS if name not in ("max_response_size", "max_connections_per_host")),
    ("timeout", ClientTimeout(total="5"), "'5'"),  # type: ignore[arg-type]
    ("timeout", ClientTimeout(sock_read=True), "True"),
]

OUT_OF_RANGE: list[tuple[str, Any, str]] = [
    ("transport", "h1", "h1"),
    ("unix_path", "", "''"),
    ("max_response_size", 1 << 63, "9223372036854775808"),
    ("local_address", ("::1", 65536), "65536"),
    ("tls", False, "the URL says whether"),
    ("tls", TLSConfig(alpn=("h2",)), "alpn must be left out"),
    ("tls", TLSConfig(ignore_unexpected_eof=True), "ignore_unexpected_eof must be left out"),
    ("base_url", "", ""),
    ("base_url", "host/path", "host/path"),
    ("base_url", "ftp://host", "ftp://host"),
    ("base_url", "http://", "http://"),
    ("base_url", "http:///path", "http:///path"),
    ("base_url", "http://host:99999", "99999"),
    ("base_url", "http://host:0", "http://host:0"),
    ("base_url", "http://ho st", "http://ho\\\\x20st"),
    ("base_url", "http://host/\n", "\\\\n"),
    ("base_url", "http://host/\ud800", "\\\\ud800"),
    ("base_url", "http://host?a=b", r"http://host\?a=\*\*\*"),
    ("base_url", "http://host#a", "http://host"),
    ("headers", {"a b": "x"}, "'a b'"),
    ("headers", {"": "x"}, "''"),
    ("headers", {"a:": "x"}, "'a:'"),
    ("headers", {"\xe9": "x"}, "'\xe9'"),
    ("headers", {"a": "x\r\ny"}, r"'\\r' in the value of 'a'"),
    ("headers", {"a": "x\0"}, r"'\\x00' in the value of 'a'"),
    ("headers", {"a": "\ud800"}, r"'\\ud800' in the value of 'a'"),
    ("headers", {"X-A": "1", "x-a": "2"}, "'x-a' twice"),
    ("headers", CIMultiDict([("X-A", "1"), ("X-A", "2")]), "'x-a' twice"),
    ("headers", {"content-length": "1"}, "'content-length'"),
    ("headers", {"Transfer-Encoding": "chunked"}, "'Transfer-Encoding'"),
    ("params", {"a": NAN}, "'a' to nan"),
    ("params", {"a": [1, -INF]}, "'a' to -inf"),
    ("params", {"a": "\ud800"}, "'a'"),
    ("params", {"\ud800": 1}, r"'\\ud800'"),
    ("cookies", {"a b": "x"}, "'a b'"),
    ("cookies", {"": "x"}, "''"),
    ("cookies", {"a=b": "x"}, "'a=b'"),
    ("cookies", {"a;b": "x"}, "'a;b'"),
    ("cookies", {"path": "x"}, "'path'"),
    ("cookies", {"a\r\n": "x"}, r"'a\\r\\n'"),
    ("cookies", {"a": "x\r\ny"}, r"'\\r' in the value of 'a'"),
    ("cookies", {"a": "\0"}, r"'\\x00' in the value of 'a'"),
    ("cookies", {"a": "x; b=y"}, r"';' in the value of 'a'"),
    ("cookies", {"a": "\ud800"}, r"'\\ud800' in the value of 'a'"),
    ("retry_statuses", [399], "399"),
    ("retry_statuses", [503, 600], "600"),
    ("retry_budget", -0.1, "-0.1"),
    ("retry_budget", 10.1, "10.1"),
    ("retry_budget", NAN, "nan"),
    ("idempotency_key", "Content-Length", "Content-Length"),
    ("idempotency_key", "a b", "a b"),
    ("proxy", "", ""),
    ("proxy", "http://host:1?query", ""),
    ("proxy", "http://", "http://"),
    ("proxy", "ftp://host", "ftp://host"),
    ("proxy", "host:3128", "host:3128"),
    ("proxy", "http://host:99999", "99999"),
    ("proxy", "http://host\r\n", r"\\r\\n"),
    ("rate_limit", 0, "0"),
    ("rate_limit", -1, "-1"),
    *((name, value, repr(value)) for name in SECONDS for value in (-1.0, NAN, INF)),
    *((name, value, repr(value)) for name in TIMEOUTS for value in (0.0, -1.0, NAN, INF)),
    *((name, lowest - 1, str(lowest - 1)) for name, lowest in COUNTS.items()),
    ("text_errors", "no-such-handler", "must be the name of an error handler: .*, not 'no-such-handler'"),
    ("timeout", ClientTimeout(total=-1), "-1"),
    ("timeout", ClientTimeout(sock_connect=NAN), "nan"),
    ("timeout", ClientTimeout(ceil_threshold=-1), "-1"),
]


@pytest.mark.parametrize(("name", "value", "shown"), WRONG_TYPES)
def test_a_wrong_type_is_a_type_error_that_names_field_and_value(name: str, value: Any, shown: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}\b.*{shown}"):
        HTTPConfig(**{name: value})


@pytest.mark.parametrize(("name", "value", "shown"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_a_value_error_that_names_field_and_value(name: str, value: Any, shown: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}\b.*{shown}"):
        HTTPConfig(**{name: value})


def test_every_field_was_looked_at() -> None:
    assert {name for name, _, _ in WRONG_TYPES} == FIELDS
    assert {name for name, _, _ in OUT_OF_RANGE} == FIELDS - {
        *FLAGS,
        "address_policy",
        "socket_factory",
        "on_event",
        "wire_log",
        "resolver",
        "no_proxy",
        "proxy_tls",  # tests/http/test_proxy_ways.py
        "auth",  # tests/http/test_auth.py
        "limits",
        "secret_headers",
        "socket_options",
        "interceptors",
        "middlewares",
        "json_codec",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_url", "HTTPS://user:pass@b\xfccher.example:8443/api/v1/"),
        ("base_url", "http://[::1]:8080"),
        ("base_url", "http://127.0.0.1"),
        ("headers", {"X-A": "tab\there \xe9 \u20ac", "X-Empty": ""}),
        ("params", {"a": [1, "b", None, True, 0.5], "b": None, "c": "\r\n\0"}),
        ("cookies", {"a": 'x, y="z", \u20ac', "b": ""}),
        ("auth", ("user", "pass")),
        ("auth", BearerAuth("token")),
        ("auth", lambda: "token"),
        ("retry_statuses", []),
        ("retry_statuses", (400, 599)),
        ("retry_budget", 0),
        ("retry_budget", 10),
        ("unix_path", "/x"),
        ("local_address", ("127.0.0.1", 65535)),
        ("socket_options", ()),
        ("limits", ResponseLimits(max_error_body=0, max_line_size=1, max_interim=0, max_ratio=None, lenient=False)),
        ("tls", True),
        ("tls", ssl.create_default_context()),
        ("tls", TLSConfig(ca_file=Path("nowhere.pem"), alpn=("http/1.1",))),
        ("keepalive", Keepalive(idle=1)),
        ("proxy", "http://user:pass@host:3128"),
        ("secret_headers", ["X-One", "x-two"]),
        ("rate_limit", 0.5),
        ("rate_limit", RateLimit(10)),
        ("interceptors", [Interceptor()]),
        ("middlewares", [print]),
        ("json_codec", default_codec()),
        ("timeout", ClientTimeout(total=0)),
        ("timeout", ClientTimeout(total=5, connect=1, sock_connect=0.1, sock_read=60)),
        *((name, value) for name in SECONDS for value in (0, 0.0, 1e9)),
        *((name, value) for name in TIMEOUTS for value in (None, 1e-9, 1, 10**9)),
        *((name, value) for name, lowest in COUNTS.items() for value in (lowest, 10**12)),
        ("max_response_size", None),
        ("max_connections_per_host", None),
    ],
)
def test_the_bounds_themselves_are_allowed(name: str, value: Any) -> None:
    config = HTTPConfig(**{name: value})
    assert config.replace() == config
    assert getattr(config, name) is not None or value is None
