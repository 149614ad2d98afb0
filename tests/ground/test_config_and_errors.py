"""NetworkConfig refuses what cannot work and names it; errors say what happened, and travel."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import pepperpy.network as network
from pepperpy.network import Default, NetworkConfig, NetworkError
from pepperpy.network.backoff import Backoff

ERRORS = [value for value in vars(network).values() if isinstance(value, type) and issubclass(value, NetworkError)]
BUILT_IN = {
    "ConnectError": ConnectionError,
    "ConnectionLostError": ConnectionError,
    "ClosedError": ConnectionError,
    "NotConnectedError": ConnectionError,
    "NetworkTimeoutError": TimeoutError,
    "IncompleteReadError": EOFError,
    "MessageTooLargeError": ValueError,
    "BusyError": RuntimeError,
    "UsageError": RuntimeError,
}


def test_the_first_five_fields_go_by_position_and_the_others_do_not() -> None:
    config = NetworkConfig("host", 1, 2.0, 3, 4.0)
    assert (config.host, config.port, config.timeout, config.retries, config.retry_delay) == ("host", 1, 2.0, 3, 4.0)
    with pytest.raises(TypeError):
        NetworkConfig("host", 1, 2.0, 3, 4.0, 5.0)  # type: ignore[misc]


def test_a_config_is_a_frozen_value() -> None:
    config = NetworkConfig("host", 1)
    assert (config.timeout, config.retries, config.retry_delay, config.attempt_timeout) == (5.0, 3, 1.0, 5.0)
    assert config == NetworkConfig("host", 1) == pickle.loads(pickle.dumps(config))
    assert hash(config) == hash(NetworkConfig("host", 1))
    assert config.replace(port=2, connect_timeout=None) == NetworkConfig("host", 2, connect_timeout=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.replace(unknown=1)
    with pytest.raises(ValueError, match="port"):
        config.replace(port=0)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("host", 5, TypeError),
        ("host", "", ValueError),
        ("host", "a b", ValueError),
        ("host", "a\0", ValueError),
        ("port", True, TypeError),
        ("port", "80", TypeError),
        ("port", 0, ValueError),
        ("port", 65536, ValueError),
        ("timeout", float("nan"), ValueError),
        ("timeout", 0, ValueError),
        ("timeout", 10**400, ValueError),
        ("timeout", True, TypeError),
        ("timeout", "5", TypeError),
        ("retries", -1, ValueError),
        ("retries", 1.5, TypeError),
        ("retry_delay", -1, ValueError),
        ("retry_delay", None, TypeError),
        ("max_retry_delay", float("inf"), ValueError),
        ("connect_timeout", -1, ValueError),
        ("close_timeout", None, TypeError),
        ("happy_eyeballs_delay", -0.1, ValueError),
        ("local_address", "host", TypeError),
        ("local_address", ("host", -1), ValueError),
        ("nodelay", 1, TypeError),
        ("keepalive", None, TypeError),
        ("socket_options", [(1, 2, 3)], TypeError),
        ("socket_options", ((1, 2),), TypeError),
        ("buffers", 65536, TypeError),
        ("reconnect", 3, TypeError),
        ("max_message_size", 1 << 70, ValueError),
    ],
)
def test_a_bad_field_is_named(field: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=field):
        NetworkConfig(**{"host": "host", "port": 1, field: value})  # type: ignore[arg-type]


def test_a_url_sets_any_scalar_field() -> None:
    url = "tcp://example.org:80?timeout=2&retries=0&nodelay=false&connect_timeout=none&max_message_size=10"
    config = NetworkConfig.from_url(url)
    assert config == NetworkConfig("example.org", 80, 2.0, 0, nodelay=False, connect_timeout=None, max_message_size=10)
    assert NetworkConfig.from_url("tcp://[::1]:1").host == "::1"
    assert NetworkConfig.from_url("tcp://h:1/").connect_timeout is Default.TIMEOUT


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://h:1", "tcp://"),
        ("tcp://h", "port"),
        ("tcp://:1", "host"),
        ("tcp://h:99999", "Port|port"),
        ("tcp://h:1/path", "form"),
        ("tcp://h:1?color=red", "color"),
        ("tcp://h:1?timeout=1&timeout=2", "twice"),
        ("tcp://h:1?timeout=soon", "timeout"),
        ("tcp://h:1?nodelay=perhaps", "nodelay"),
        ("tcp://h:1?retries=none", "retries"),
        ("tcp://h:1?keepalive=none", "keepalive"),
        ("tcp://h:1?receive_high_water=none", "receive_high_water"),
        ("tls://h:1?certificate_pin=none", "certificate_pin"),
        ("tls://h:1?system_trust=none", "system_trust"),
    ],
)
def test_a_bad_url_is_explained(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NetworkConfig.from_url(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="no user name or password") as caught:
        NetworkConfig.from_url("tcp://user:secret@h:1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "tcp://h?proxy=socks5://u:canary@p:1",
        "tcp://h:1/path?proxy=socks5://u:canary@p:1",
        "tcp://h:1?proxy=socks5://u:canary@p:1#x",
        "tcp://h:1#canary",
        "tcp://h:port?proxy=socks5://u:canary@p:1",
        "http://u:canary@h:1",
        "http://h:1?password=canary",
        "ssl:u:canary@h:1",
        "canary@h:1",
        "unix:/path/u:canary@h#x",
        "unix://h/x?key=canary",
        "tcp:///u:canary@h:1",
        "tcp://u:can/ary@h:1",
        "tcp://u:can#ary@h:1",
        "tcp://u:1/canary@h:1",
        "tcp://u:canary\u2100@h:1",
        "tcp://u:canary@[::1",
        "tcp://u\u2100@h:1?timeout=canary",
        "tcp://h:99999?proxy=canary",
        "tcp://h:1?u:canary@p",
        "tcp://h:1?timeout=1&u:canary@p",
        "tcp://h:1?proxy=socks5://u:a&canary@p:1=",
        "tcp://h:1?timeout=canary@p",
        "tcp://u:1?canary@h=1",
        "tcp://u:1?timeout=1&canary@h:1=2&canary@h:1=3",
    ],
)
def test_no_error_of_a_url_shows_what_may_be_a_password(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        NetworkConfig.from_url(url)
    shown = "".join(traceback.format_exception_only(caught.value))
    for error in (caught.value.__cause__, caught.value.__context__):
        shown += "" if error is None or caught.value.__suppress_context__ else repr(error)
    assert not re.search("canary|ary@|can/", shown)


async def log_in(password: str, connection: object = None) -> None:
    pass


class LogIn:
    def __init__(self, password: str) -> None:
        self.password = password

    def __repr__(self) -> str:
        return f"LogIn({self.password!r})"

    def log_in(self, connection: object) -> None:
        pass

    async def __call__(self, connection: object) -> None:
        pass


CALLABLES = ("on_connect", "may_pass", "on_state", "on_event", "heartbeat")


@pytest.mark.parametrize("field", CALLABLES)
def test_a_callable_is_shown_by_its_name_and_not_with_what_it_holds(field: str) -> None:
    for value, shown in (
        (functools.partial(print, "canary"), "partial"),
        (LogIn("canary").log_in, "LogIn.log_in"),
        (repr, "repr"),
    ):
        config = NetworkConfig("h", 1, **{field: value})  # type: ignore[arg-type]
        assert repr(config) == f"NetworkConfig(host='h', port=1, {field}={shown})"


def test_no_error_about_a_callable_shows_what_it_holds() -> None:
    with pytest.raises(TypeError, match="on_connect must be callable, not str"):
        NetworkConfig("h", 1, on_connect="canary")  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match="on_state must be a plain function, not the coroutine function partial"
    ) as caught:
        NetworkConfig("h", 1, on_state=functools.partial(log_in, "canary"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("host", ["redis://u:canary@h", "u:canary@h"])
def test_a_url_in_the_place_of_something_else_is_refused_and_not_shown(host: str) -> None:
    places: list[tuple[str, Callable[[], object]]] = [
        ("^host must", lambda: NetworkConfig(host, 1)),
        ("^hosts: host must", lambda: NetworkConfig("h", 1, hosts=((host, 1),))),
        ("^local_address host must", lambda: NetworkConfig("h", 1, local_address=(host, 0))),
        ("^host must", lambda: NetworkConfig([host], 1)),  # type: ignore[arg-type]
        ("^port must", lambda: NetworkConfig("h", host)),  # type: ignore[arg-type]
        ("^hosts must", lambda: NetworkConfig("h", 1, hosts=[(host, 1)])),  # type: ignore[arg-type]
        ("^hosts: port must", lambda: NetworkConfig("h", 1, hosts=(("h", host),))),  # type: ignore[arg-type]
        ("^local_address must", lambda: NetworkConfig("h", 1, local_address=host)),  # type: ignore[arg-type]
        ("^timeout must", lambda: NetworkConfig("h", 1, timeout=host)),  # type: ignore[arg-type]
        ("^unix_path must", lambda: NetworkConfig(unix_path=host * 20)),
        ("^config must", lambda: network.NetworkClient(host)),  # type: ignore[arg-type]
        ("^config must", lambda: network.NetworkPool(host)),  # type: ignore[arg-type]
    ]
    for words, make in places:
        with pytest.raises((TypeError, ValueError), match=words) as caught:
            make()
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: network.NetworkClient("localhost", 1), "NetworkClient(NetworkConfig('localhost', 6379))"),
        (
            lambda: network.NetworkClient(NetworkConfig("h", 1), timeout=5),
            "it is a setting, NetworkClient(NetworkConfig(timeout",
        ),
        (lambda: network.NetworkClient("tcp://h:1"), "not str: NetworkClient(NetworkConfig.from_url(...))"),
        (lambda: network.NetworkPool("h", 1), "NetworkPool(NetworkConfig('localhost', 6379))"),
        (lambda: NetworkConfig("localhost"), "port must be given, from 1 to 65535: NetworkConfig('localhost', 6379)"),
        (lambda: NetworkConfig("h", "5432"), "port must be an int from 1 to 65535, not '5432': write 5432"),
        (lambda: NetworkConfig("h", 5432.0), "port must be an int from 1 to 65535, not 5432.0: write 5432"),
        (lambda: NetworkConfig("h", "http"), "port must be an int from 1 to 65535, not 'http'"),
        (lambda: NetworkConfig("h", 70000), "port must be from 1 to 65535, not 70000"),
        (lambda: NetworkConfig("h", 1, hosts=(("b", "80"),)), "hosts: port must be an int from 1 to 65535, not '80'"),
        (lambda: NetworkConfig(), "host must not be empty: NetworkConfig('localhost', 6379), or"),
        (lambda: NetworkConfig("db:5432"), "the port is a field of its own: NetworkConfig('db', 5432)"),
        (lambda: NetworkConfig("[::1]:80"), "write NetworkConfig('::1', 80), without the brackets"),
        (lambda: NetworkConfig("[fe80::1%lo]", 1), "write NetworkConfig('fe80::1%lo', port), without the brackets"),
        (lambda: NetworkConfig("a:b:c", 1), "it is no IPv6 address"),
        (lambda: NetworkConfig("tls://h:1?token=canary", 1), "not 'tls://h:1'; a URL of this kind is read by NetworkC"),
        (lambda: NetworkConfig("https://h/", 1), "HTTPClient is for URLs of this kind"),
        (lambda: NetworkConfig("redis://h:1", 1), "host and port are two fields"),
        (lambda: NetworkConfig("/run/db.sock"), "a Unix socket is NetworkConfig(unix_path='/run/db.sock')"),
        (
            lambda: NetworkConfig("h", 1, hosts=("b:1",)),
            'hosts must be a tuple of pairs, such as (("b.example", 6379),)',
        ),
        (lambda: NetworkConfig("h", 1, hosts=(("b:1", 1),)), "hosts: host must be a host name or address, not 'b:1'"),
        (lambda: NetworkConfig("h", 1, local_address="::1"), "(host, port), where port 0 lets the system choose"),
        (lambda: NetworkConfig("h", 1, socket_options=(1, 2, 3)), "((int, int, int or bytes), ...)"),
    ],
)
def test_what_is_written_instead_is_said(make: Callable[[], object], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)) as caught:
        make()
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("host", ["::1", "fe80::1%eth0", "fe80::1%et:h0", "::ffff:127.0.0.1", "a-b.example.", "1"])
def test_what_is_a_host_is_none_of_these(host: str) -> None:
    assert NetworkConfig(host, 1).host == host


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_its_built_in_says_something_and_travels(kind: Any) -> None:
    assert issubclass(kind, BUILT_IN.get(kind.__name__, Exception))
    assert str(kind())
    error = kind("words", {"host": "h", "attempt": 2}, ConnectionRefusedError(111, "refused"))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.details, repr(copy.__cause__)) == ("words", error.details, repr(error.__cause__))
    if isinstance(error, OSError):
        assert copy.errno == error.errno == 111


def test_an_incomplete_read_travels_with_its_part() -> None:
    error = network.IncompleteReadError("words", {"received": 2}, None, b"ab")
    assert pickle.loads(pickle.dumps(error)).partial == b"ab"


def test_an_attempt_and_a_connection_keep_the_class_of_their_config() -> None:
    class Named(NetworkConfig):
        @property
        def address(self) -> str:
            return "the cluster"

    config = Named("a", 1, hosts=(("b", 2),), on_connect=print)
    for copy in (config.bare, *config.for_each_host()):
        assert type(copy) is Named
        assert copy.address == "the cluster"


def test_the_text_of_the_interpreter_is_no_reason_for_a_loss() -> None:
    words = NetworkConfig("a", 1).explained(SystemError("error return without exception set"))
    assert "memory" in words
    assert "exception set" not in words


def test_the_wait_before_a_retry_doubles_up_to_the_cap() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.ceiling(retry) for retry in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.ceiling(10**6) == 3.0
    assert all(0 <= backoff.delay(3) <= 2.0 for _ in range(1000))
    assert Backoff(0.0, 3.0).delay(5) == 0.0
