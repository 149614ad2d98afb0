"""`PublicOnly`: which addresses it refuses; what a policy may be; hosts that are addresses in another spelling."""

from __future__ import annotations

import pickle
import socket
from typing import Any

import pytest

from pepperpy.network import ForbiddenAddressError, NetworkConfig, PublicOnly
from pepperpy.network.address_policy import allows, literal_of, permitted, target_for_proxy

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *("168.63.129.15", "172.15.255.255", "172.32.0.0", "192.0.1.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"),
    *("2606:4700::1111", "2001:200::1", "2a00:1450::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"),
]
NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255"),
    *("168.63.129.16", "169.254.169.254", "100.100.100.200", "192.0.0.192", "172.16.0.1", "172.31.255.255"),
    *("192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "64:ff9b:1::8.8.8.8", "100::1"),
    *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:20::1", "2001:db8::1", "3fff::1"),
    *("2002:7f00:1::1", "2002:808:808::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254"),
    *("fe80::1", "fec0::1", "ff02::1", "ff0e::1", "4000::1", "1fff::1"),
]


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_are_allowed(ip: str) -> None:
    assert PublicOnly()("host", ip, 443) is True


@pytest.mark.parametrize("ip", NOT_PUBLIC)
def test_all_others_are_refused(ip: str) -> None:
    assert PublicOnly()("host", ip, 443) is False


def test_networks_of_ones_own_are_allowed_and_refused() -> None:
    policy = PublicOnly(allow=("10.1.0.0/16", "fd00::5"), deny=("10.1.9.0/24", "8.8.8.8", "2606:4700::/32"))
    verdicts = {
        "10.1.0.1": True,
        "10.2.0.1": False,
        "10.1.9.1": False,
        "fd00::5": True,
        "fd00::6": False,
        "8.8.8.8": False,
        "8.8.4.4": True,
        "2606:4700::1": False,
        "64:ff9b::8.8.8.8": False,
        # A network that is allowed is not so behind a translator, which may be another one.
        "64:ff9b::10.1.0.1": False,
    }
    assert {ip: policy("host", ip, 1) for ip in verdicts} == verdicts


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"allow": ["10.0.0.0/8"]}, TypeError, "allow must be a tuple of networks"),
        ({"deny": "10.0.0.0/8"}, TypeError, "deny must be a tuple of networks"),
        ({"allow": (10,)}, TypeError, "allow must be a tuple of networks"),
        ({"allow": ("10.0.0.1/8",)}, ValueError, "allow must hold networks such as"),
        ({"deny": ("example.com",)}, ValueError, "not 'example.com'"),
        ({"proxy_lookup": 1}, TypeError, "proxy_lookup must be True or False, not 1"),
        ({"allowed": ()}, TypeError, "did you mean 'allow'"),
    ],
)
def test_what_is_no_network_is_refused(settings: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        PublicOnly(**settings)


async def asks_later(host: str, ip: str, port: int) -> bool:
    return True


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (PublicOnly, "not the class PublicOnly"),
        (True, "must be callable, not bool"),
        (asks_later, "must be a plain function, not the coroutine function asks_later"),
    ],
)
def test_what_is_no_policy_is_refused(policy: Any, words: str) -> None:
    with pytest.raises(TypeError, match=f"address_policy {words}|{words}"):
        NetworkConfig("localhost", 1, address_policy=policy)


def test_a_unix_socket_has_no_address() -> None:
    with pytest.raises(ValueError, match="address_policy must be left out with unix_path"):
        NetworkConfig(unix_path="/x", address_policy=PublicOnly())


def test_the_configuration_shows_and_keeps_its_policy() -> None:
    config = NetworkConfig("localhost", 1, address_policy=PublicOnly(allow=("10.0.0.0/8",)))
    assert repr(config).endswith("address_policy=PublicOnly(allow=('10.0.0.0/8',)))")
    assert pickle.loads(pickle.dumps(config)) == config
    assert "address_policy=test_" in repr(config.replace(address_policy=test_public_addresses_are_allowed))
    assert config.for_each_host()[0].address_policy is config.address_policy
    assert config.replace(hosts=(("b", 2),)).for_each_host()[1].address_policy is config.address_policy


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (lambda: None, "must return True or False, not NoneType"),
        (lambda: 1, "must return True or False, not int"),
        (lambda: {}["x"], "raised KeyError"),
    ],
)
def test_a_policy_that_is_wrong_forbids(verdict: Any, words: str) -> None:
    with pytest.raises(ForbiddenAddressError, match=words):
        allows(lambda host, ip, port: verdict(), "example.com", "8.8.8.8", 443)


def test_it_is_asked_for_the_address_as_it_is_connected_to() -> None:
    asked = []

    def policy(host: str, ip: str, port: int) -> bool:
        asked.append((host, ip, port))
        return len(asked) == 2

    addresses: list[Any] = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::ffff:10.0.0.1", 443, 0, 0)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 443, 0, 2)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.2", 443)),
        (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/run/docker.sock"),
    ]
    assert permitted(policy, "example.com", 443, addresses) == [addresses[1]]
    assert asked == [("example.com", ip, 443) for ip in ("10.0.0.1", "fe80::1", "10.0.0.2")]
    with pytest.raises(ForbiddenAddressError) as caught:
        permitted(policy, "example.com", 443, addresses)
    assert caught.value.details == {
        "host": "example.com",
        "port": 443,
        "addresses": ("10.0.0.1", "fe80::1", "10.0.0.2", "what is no IP address"),
    }
    assert str(caught.value).endswith("10.0.0.1, fe80::1, 10.0.0.2 and 1 more")
    assert pickle.loads(pickle.dumps(caught.value)).details == caught.value.details


@pytest.mark.parametrize(
    ("host", "ip"),
    [
        *((host, "127.0.0.1") for host in ("127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0X7F.1")),
        *((host, "127.0.0.1") for host in ("017700000001", "0177.0.0.01", "127.0.0.1.", "127.1.", "::ffff:127.0.0.1")),
        *(
            (host, "127.0.0.1")
            for host in ("127。0。0。1", "\uff11\uff12\uff17.0.0.1", "0:0:0:0:0:ffff:7f00:1", "::ffff:7f00:1%lo")
        ),
        *(("0", "0.0.0.0"), ("::", "::"), ("0:0::1", "::1"), ("FE80::1%eth0", "fe80::1")),
        *((host, None) for host in ("localhost", "example.com", "1.2.3.4.5", "0xg", "a:b", "127.0.0.1.nip.io", "e1")),
    ],
)
def test_an_address_is_one_in_every_spelling(host: str, ip: str | None) -> None:
    assert literal_of(host) == ip


def test_a_proxy_gets_an_address_in_its_usual_form_and_a_name_only_where_it_may_look_up() -> None:
    assert target_for_proxy(PublicOnly(), "0x8080808", 443, "p") == "8.8.8.8"
    for host in ("127.1", "::ffff:a00:1", "2130706433"):
        for policy in (PublicOnly(), PublicOnly(proxy_lookup=True)):
            with pytest.raises(ForbiddenAddressError, match="forbids"):
                target_for_proxy(policy, host, 443, "p")
    assert target_for_proxy(PublicOnly(proxy_lookup=True), "example.com", 443, "p") == "example.com"
    for refuses in (PublicOnly(), lambda host, ip, port: True):
        with pytest.raises(ForbiddenAddressError, match="the proxy p looks up names by itself"):
            target_for_proxy(refuses, "example.com", 443, "p")
