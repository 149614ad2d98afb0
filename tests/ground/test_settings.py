"""Settings by subject, alone and in a `NetworkConfig`: `Keepalive`, `BufferLimits`, `Reconnect`, `Heartbeat`, ..."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import re
import ssl
import typing
from collections.abc import Callable
from typing import Any

import pytest
from support.certificates import ca_file

import pepperpy.network as network
from pepperpy.network import (
    BufferLimits,
    Default,
    Heartbeat,
    HTTPConfig,
    Keepalive,
    NetworkConfig,
    NetworkError,
    Reconnect,
    ResponseLimits,
    TLSConfig,
)
from pepperpy.network.keepalive import keepalive_of
from pepperpy.network.tcp_settings import heartbeat_of, reconnect_of
from pepperpy.network.testing import memory_pair


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Keepalive, {"idle": 0}, "idle must be from 1 to 32767, not 0"),
        (Keepalive, {"interval": 32768}, "interval must be from 1 to 32767"),
        (Keepalive, {"count": 128}, "count must be from 1 to 127"),
        (Keepalive, {"user_timeout": 1e9}, "user_timeout must be at most 2147483 s"),
        (Keepalive, {"user_timeout": 0}, "user_timeout must be more than 0"),
        (Keepalive, {"user_timeout": Default.TIMEOUT}, "user_timeout must be a number of seconds"),
        (Keepalive, {"idel": 1}, "unknown argument 'idel': did you mean 'idle'"),
        (BufferLimits, {"receive_high": 0}, "receive_high must be from 1"),
        (BufferLimits, {"send_high": True}, "send_high must be an int"),
        (BufferLimits, {"receive_low": 1 << 30}, "receive_low must be below receive_high=262144, not 1073741824"),
        (BufferLimits, {"send_low": -1}, "send_low must be 0 or more"),
        (Reconnect, {"attempts": 0}, "attempts must be 1 or more"),
        (Reconnect, {"attempts": True}, "attempts must be an int"),
        (ResponseLimits, {"max_line_size": 0}, "max_line_size must be from 1"),
        (ResponseLimits, {"max_line_size": 1 << 63}, "max_line_size must be from 1"),
        (ResponseLimits, {"max_error_body": -1}, "max_error_body must be 0 or more"),
        (ResponseLimits, {"max_head_size": 0}, "max_head_size must be from 1"),
        (ResponseLimits, {"max_field_size": 1 << 64}, "max_field_size must be from 1"),
        (ResponseLimits, {"max_fields": 1.0}, "max_fields must be an int"),
        (ResponseLimits, {"max_interim": -1}, "max_interim must be from 0"),
        (ResponseLimits, {"max_ratio": 0}, "max_ratio must be 1 or more"),
        (ResponseLimits, {"lenient": 1}, "lenient must be True or False"),
        (ResponseLimits, {"line_size": 1}, "unknown argument 'line_size': did you mean 'max_line_size'"),
        (Heartbeat, {"probe": "ping"}, "probe must be callable, not str"),
        (Heartbeat, {"probe": print, "interval": 0}, "interval must be more than 0"),
        (Heartbeat, {"probe": print, "timeout": None}, "timeout must be a number of seconds"),
    ],
)
def test_a_bad_field_is_named(kind: Any, fields: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(words)}"):
        kind(**fields)


@pytest.mark.parametrize("kind", [Keepalive, BufferLimits, Reconnect, ResponseLimits, TLSConfig])
def test_the_small_ones_take_names_only_and_are_frozen_values(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind(1)
    assert kind() == kind() == pickle.loads(pickle.dumps(kind()))
    assert hash(kind()) == hash(kind())
    assert repr(kind()) == f"{kind.__name__}()"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), dataclasses.fields(kind)[0].name, None)


def test_a_changed_copy_is_checked_again() -> None:
    settings = Keepalive(idle=5)
    assert settings.replace(count=2) == Keepalive(idle=5, count=2)
    with pytest.raises(ValueError, match="count"):
        settings.replace(count=0)
    with pytest.raises(TypeError, match="did you mean 'count'"):
        settings.replace(cuont=1)
    config = NetworkConfig("h", 1, keepalive=settings, tls=TLSConfig(alpn=("a",)))
    assert isinstance(config.keepalive, Keepalive)
    assert config.replace(keepalive=config.keepalive.replace(idle=6)).keepalive == Keepalive(idle=6)
    assert config.replace(port=2).tls_settings == TLSConfig(alpn=("a",))


def test_short_forms_stand_for_the_defaults() -> None:
    assert (keepalive_of(True), keepalive_of(False), keepalive_of(Keepalive(idle=1))) == (
        Keepalive(),
        None,
        Keepalive(idle=1),
    )
    assert (reconnect_of(True), reconnect_of(False)) == (Reconnect(), None)
    assert reconnect_of(Reconnect(attempts=2)) == Reconnect(attempts=2)
    assert (heartbeat_of(print), heartbeat_of(None)) == (Heartbeat(print), None)
    assert heartbeat_of(Heartbeat(print, interval=1)) == Heartbeat(print, interval=1)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        (Keepalive(), 150),
        (Keepalive(idle=1, interval=2, count=3), 7),
        (Keepalive(idle=32767, interval=32767, count=127), 2_147_483),
        (Keepalive(user_timeout=1.5), 1.5),
        (Keepalive(user_timeout=None), None),
    ],
)
def test_an_unanswered_peer_is_given_up_when_the_probes_are_unless_that_is_set(
    settings: Keepalive, seconds: float | None
) -> None:
    assert settings.unanswered_timeout == seconds


# Names of before, and of others, to what is written here.
MOVED = {
    "ca_file": "tls=TLSConfig(ca_file=...)",
    "client_cert": "tls=TLSConfig(client_cert=...)",
    "server_hostname": "tls=TLSConfig(server_hostname=...)",
    "tls_minimum_version": "tls=TLSConfig(minimum_version=...)",
    "tls_ignore_unexpected_eof": "tls=TLSConfig(ignore_unexpected_eof=...)",
    "certificate_pin": "tls=TLSConfig(certificate_pin=...)",
    "verify": "verify_ssl=False, or tls=TLSConfig(verify=False)",
    "ssl": "tls=True, ",
    "keepalive_idle": "keepalive=Keepalive(idle=...)",
    "user_timeout": "keepalive=Keepalive(user_timeout=...)",
    "reconnect_attempts": "reconnect=Reconnect(attempts=...)",
    "heartbeat_interval": "heartbeat=Heartbeat(probe, interval=...)",
    "receive_high_water": "buffers=BufferLimits(receive_high=...)",
    "send_low": "buffers=BufferLimits(send_low=...)",
}


@pytest.mark.parametrize("name", MOVED)
def test_a_name_that_has_moved_says_where_the_setting_is(name: str) -> None:
    words = re.escape(f"unknown argument '{name}': write {MOVED[name]}")
    with pytest.raises(TypeError, match=words):
        NetworkConfig("h", 1, **{name: 1})
    with pytest.raises(TypeError, match=words):
        NetworkConfig("h", 1).replace(**{name: 1})


def test_a_slip_of_the_pen_is_told_the_name() -> None:
    with pytest.raises(TypeError, match="unknown argument 'time_out': did you mean 'timeout'"):
        NetworkConfig("h", 1, time_out=1)  # type: ignore[call-arg]


def test_no_repr_shows_what_a_setting_holds() -> None:
    tls = TLSConfig(client_cert=("c", "k", "canary"), ca_data=ca_file().read_bytes())
    probe = functools.partial(print, "canary")
    shown = repr(NetworkConfig("h", 1, tls=tls, heartbeat=Heartbeat(probe, interval=3)))
    assert shown == (
        f"NetworkConfig(host='h', port=1, tls=TLSConfig(ca_data=<{len(ca_file().read_bytes())} bytes>, "
        "client_cert=('c', 'k', '***')), heartbeat=Heartbeat(probe=partial, interval=3))"
    )


def test_a_url_sets_the_fields_of_the_parts() -> None:
    config = NetworkConfig.from_url(
        "tls://h:1?ca_file=ca.pem&client_cert=me.pem&certificate_pin=" + "ab" * 32 + "&ignore_unexpected_eof=true"
        "&keepalive_idle=1&keepalive_interval=2&keepalive_count=3&user_timeout=none&reconnect_attempts=4"
        "&receive_high_water=100&receive_low_water=10&send_high_water=50&send_low_water=5"
    )
    tls = TLSConfig(ca_file="ca.pem", client_cert="me.pem", certificate_pin="ab" * 32, ignore_unexpected_eof=True)
    assert config == NetworkConfig(
        "h",
        1,
        tls=tls,
        keepalive=Keepalive(idle=1, interval=2, count=3, user_timeout=None),
        reconnect=Reconnect(attempts=4),
        buffers=BufferLimits(receive_high=100, receive_low=10, send_high=50, send_low=5),
    )
    assert NetworkConfig.from_url("tls://h:1?system_trust=true").tls == TLSConfig(system_trust=True)
    assert NetworkConfig.from_url("tls://h:1").tls is True
    assert NetworkConfig.from_url("tcp://h:1?keepalive=false&reconnect=true") == NetworkConfig(
        "h", 1, keepalive=False, reconnect=True
    )
    # Saying yes, and how, is no contradiction.
    assert NetworkConfig.from_url("tcp://h:1?keepalive=true&keepalive_idle=5").keepalive == Keepalive(idle=5)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("user_timeout=1&user_timeout=1", "the field 'user_timeout' twice"),
        ("keepalive=false&keepalive_idle=5", "keepalive=false, and says how all the same"),
        ("reconnect_attempts=2&reconnect=false", "reconnect=false, and says how all the same"),
        ("keepalive_idle=soon", "keepalive_idle='soon', which cannot be read"),
        ("keepalive_idle=0", "idle must be from 1"),
        ("ca_file=x", "unknown field 'ca_file'"),
        ("idle=1", "unknown field 'idle'; known are timeout, .*keepalive_idle"),
        ("heartbeat=print", "unknown field 'heartbeat'"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(query: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NetworkConfig.from_url(f"tcp://h:1?{query}")


PUBLIC = [value for name in network.__all__ if isinstance(value := getattr(network, name), type)]


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.__name__)
def test_the_types_of_every_public_class_can_be_asked_for(kind: type) -> None:
    typing.get_type_hints(kind)


def test_the_configuration_of_each_host_is_without_what_the_client_does() -> None:
    config = NetworkConfig("a", 1, hosts=(("b", 2),), reconnect=True, heartbeat=print, on_connect=print, timeout=9)
    assert config.for_each_host() == [NetworkConfig("a", 1, timeout=9), NetworkConfig("b", 2, timeout=9)]
    assert config.bare == config.replace(heartbeat=None, on_connect=None)
    assert [target.tls_name for target in config.for_each_host()] == ["a", "b"]
    plain = NetworkConfig("a", 1)
    assert plain.for_each_host() == [plain]


def test_a_context_makes_no_difference_to_what_is_equal() -> None:
    context = ssl.create_default_context()
    config = NetworkConfig("h", 1, tls=context)
    assert config == NetworkConfig("h", 1, tls=context) != NetworkConfig("h", 1, tls=True)
    assert hash(config) == hash(NetworkConfig("h", 1, tls=context))


# ---- docs/guarantees.md, "Mistakes of the program" ----


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: NetworkConfig("host", 65536), ValueError),
        (lambda: NetworkConfig("host", "1"), TypeError),  # type: ignore[arg-type]
        (lambda: NetworkConfig("host", 1, prot=2), TypeError),  # type: ignore[call-arg]
        (lambda: NetworkConfig.from_url("ftp://host:1"), ValueError),
        (lambda: HTTPConfig("nonsense"), ValueError),
        (lambda: HTTPConfig(timeout="1"), TypeError),  # type: ignore[arg-type]
        (lambda: network.LengthPrefixed(9), ValueError),
    ],
)
def test_a_configuration_that_cannot_be_is_pythons_own_error(make: Callable[[], object], kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert not isinstance(caught.value, NetworkError)


async def test_a_file_of_a_configuration_is_read_when_it_is_needed_and_named_where_it_cannot_be_used() -> None:
    tls = TLSConfig(ca_file="/nonexistent/ca.pem")
    with pytest.raises(ValueError, match=r"ca_file '/nonexistent/ca.pem' cannot be used") as caught:
        await network.NetworkClient(NetworkConfig("127.0.0.1", 9, tls=tls)).connect()
    assert not isinstance(caught.value, NetworkError)
    client = network.HTTPClient(HTTPConfig(tls=tls))
    with pytest.raises(ValueError, match=r"ca_file '/nonexistent/ca.pem' cannot be used") as caught:
        await client.initialize()
    assert not isinstance(caught.value, NetworkError)
    await client.close()


async def test_an_argument_that_a_call_cannot_use_is_pythons_own_error_over_tcp_and_both_over_http() -> None:
    async with memory_pair() as (one, _):
        for call, kind in ((one.send(3), TypeError), (one.receive(-1), ValueError)):  # type: ignore[arg-type]
            with pytest.raises(kind) as plain:
                await call
            assert not isinstance(plain.value, NetworkError)
    async with network.HTTPClient() as client:
        with pytest.raises(network.InvalidRequestError) as caught:
            await client.get("nonsense")
        assert isinstance(caught.value, ValueError)
        with pytest.raises(TypeError):
            await client.get(3)  # type: ignore[arg-type]
