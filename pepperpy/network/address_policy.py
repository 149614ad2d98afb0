"""Which addresses a client may connect to: the setting `address_policy` of both clients, against SSRF.

Whoever connects asks after the lookup, and connects to an address that was allowed, without another lookup. So the
spelling of a host does not matter, nor what a name server says later.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pepperpy.network.arguments import explains_arguments
from pepperpy.network.checks import check_bool, check_callable, name_of, shown
from pepperpy.network.errors import ForbiddenAddressError
from pepperpy.network.settings import Settings

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
AddressPolicy: TypeAlias = Callable[[str, str, int], bool]
"""`policy(host, ip, port)`: whether a connection to this address may be made."""

# An address as getaddrinfo gives it.
_AddressInfo = tuple[int, int, int, str, Any]

# What is not public, by IANA's registries of special-purpose addresses (RFC 6890), read on 2026-11-29. Not by
# `ipaddress.is_global`: its answers changed within Python 3.11, 3.12 and 3.13 (gh-113171). What those registries call
# globally reachable in 192.0.0.0/24 and 2001::/23 are services of a network (PCP, TURN): no public servers, either.
_NOT_PUBLIC_4 = (
    "0.0.0.0/8",  # this host: Linux connects to itself (RFC 791)
    "10.0.0.0/8",  # private (RFC 1918)
    "100.64.0.0/10",  # shared by the customers of a carrier (RFC 6598); Alibaba's metadata
    "127.0.0.0/8",  # loopback (RFC 1122)
    "168.63.129.16/32",  # Azure: metadata and agents; no other network routes it (Azure's documentation)
    "169.254.0.0/16",  # link-local (RFC 3927); the metadata of most clouds
    "172.16.0.0/12",  # private (RFC 1918)
    "192.0.0.0/24",  # protocol assignments (RFC 6890); Oracle's metadata
    "192.0.2.0/24",  # documentation (RFC 5737)
    "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
    "192.168.0.0/16",  # private (RFC 1918)
    "198.18.0.0/15",  # measurements (RFC 2544)
    "198.51.100.0/24",  # documentation (RFC 5737)
    "203.0.113.0/24",  # documentation (RFC 5737)
    "224.0.0.0/4",  # multicast (RFC 5771)
    "240.0.0.0/4",  # reserved, and broadcast (RFC 1112)
)
# IANA gives public IPv6 addresses out of this block only.
_PUBLIC_6 = "2000::/3"
_NOT_PUBLIC_6 = (
    "2001::/23",  # protocol assignments (RFC 2928): Teredo (RFC 4380), benchmarking, ORCHID
    "2001:db8::/32",  # documentation (RFC 3849)
    "2002::/16",  # 6to4 (RFC 3056): leads to an IPv4 address
    "3fff::/20",  # documentation (RFC 9637)
)
# A translator at its other end connects to the IPv4 address in the last four bytes (RFC 6052). 64:ff9b:1::/48 is for
# networks of one's own (RFC 8215), and not public.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

# Forbidden addresses that an error names. Arbitrary.
_SHOWN = 3


@explains_arguments()
@dataclass(frozen=True, kw_only=True, repr=False)
class PublicOnly(Settings):
    """An `address_policy` that allows addresses of the public internet only.

    It refuses loopback, private, link-local, shared (100.64.0.0/10), documentation, multicast and reserved addresses,
    the metadata services of clouds, unspecified addresses, and IPv6 addresses that lead to IPv4 ones: 6to4 and Teredo
    always, NAT64 (64:ff9b::/96) by the address in it. The source of its table is IANA's registries.

    A translator may use a prefix of your own network instead (RFC 6052), which nobody can tell: put that into `deny`.

    Attributes:
        allow: Networks or addresses that are allowed all the same: `("10.1.0.0/16", "fd00::5")`.
        deny: Those that are refused beside the others; they come before `allow`.
        proxy_lookup: Whether a proxy that looks up names by itself (`http://`, `https://`, `socks5h://`, `socks4a://`)
            may be used. False: a request through one is refused unless it names an address, because nobody here sees
            what the proxy connects to. True leaves that to the proxy.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    proxy_lookup: bool = False

    def __post_init__(self) -> None:
        for name in ("allow", "deny"):
            _networks_of(name, getattr(self, name))
        check_bool("proxy_lookup", self.proxy_lookup)

    def __call__(self, host: str, ip: str, port: int) -> bool:
        address = _plain(ipaddress.ip_address(ip))
        reached = _behind_nat64(address)
        if any(_is_in(each, _networks_of("deny", self.deny)) for each in {address, reached}):
            return False
        return _is_in(address, _networks_of("allow", self.allow)) or _is_public(reached)


def check_address_policy(value: object) -> None:
    """Accept a value for the setting `address_policy`."""
    if isinstance(value, type):
        raise TypeError(f"address_policy must be an object that is called, not the class {value.__name__}")
    if value is not None:
        check_callable("address_policy", value, plain=True)


def permitted(policy: AddressPolicy, host: str, port: int, addresses: Iterable[_AddressInfo]) -> list[_AddressInfo]:
    """Those of the addresses that the policy allows, in their order. The forbidden ones of a mixed answer are left out.

    Raises:
        ForbiddenAddressError: It allows none.
    """
    allowed, forbidden = [], []
    for address in addresses:
        ip = ip_of(address)
        if ip is not None and allows(policy, host, ip, port):
            allowed.append(address)
        else:
            forbidden.append(ip or "what is no IP address")
    if not allowed:
        raise forbidden_error(policy, host, port, forbidden)
    return allowed


def allows(policy: AddressPolicy, host: str, ip: str, port: int) -> bool:
    """What the policy says. Raises: ForbiddenAddressError: It raised, or returned neither True nor False."""
    try:
        verdict = policy(host, ip, port)
    except Exception as error:
        raise _error(host, port, f"{_name(policy)} raised {type(error).__name__}", (ip,), error) from error
    if not isinstance(verdict, bool):
        raise _error(host, port, f"{_name(policy)} must return True or False, not {type(verdict).__name__}", (ip,))
    return verdict


def ip_of(address: _AddressInfo) -> str | None:
    """The IP address as a policy gets it: without a zone, and IPv4 as such. None: it is none."""
    family, *_, place = address
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    return str(_plain(ipaddress.ip_address(place[0].partition("%")[0])))


def target_for_proxy(policy: AddressPolicy, host: str, port: int, proxy: str) -> str:
    """The host to name to a proxy that looks up names by itself: an address in its usual form, or a name.

    Args:
        proxy: The proxy as an error may show it.

    Raises:
        ForbiddenAddressError: The policy forbids the address, or to leave a lookup to the proxy.
    """
    ip = literal_of(host)
    if ip is not None:
        if not allows(policy, host, ip, port):
            raise forbidden_error(policy, host, port, [ip])
        return ip
    if getattr(policy, "proxy_lookup", False) is True:
        return host
    what = f"the proxy {proxy} looks up names by itself, so nobody sees the address of this one"
    raise _error(host, port, f"{what}; PublicOnly(proxy_lookup=True) allows that", ())


def literal_of(host: str) -> str | None:
    """The IP address that `host` is, in any form that a system takes for one: `127.1`, `0x7f000001`, `::ffff:1.2.3.4`.

    None: it is a name.
    """
    text = host.partition("%")[0]
    if ":" not in text:
        try:
            text = text.encode("idna").decode().rstrip(".")
            # Decimal, octal, hexadecimal and short forms (inet_aton(3)).
            return socket.inet_ntoa(socket.inet_aton(text))
        except (OSError, UnicodeError):
            return None
    try:
        return str(_plain(ipaddress.ip_address(text)))
    except ValueError:
        return None


def forbidden_error(policy: AddressPolicy, host: str, port: int, forbidden: list[str]) -> ForbiddenAddressError:
    """The error for a host all of whose addresses are forbidden."""
    names = ", ".join(forbidden[:_SHOWN]) + (f" and {len(forbidden) - _SHOWN} more" if forbidden[_SHOWN:] else "")
    return _error(host, port, f"{_name(policy)} forbids {names}", tuple(forbidden))


def _error(
    host: str, port: int, what: str, addresses: tuple[str, ...], cause: BaseException | None = None
) -> ForbiddenAddressError:
    details = {"host": host, "port": port, "addresses": addresses}
    return ForbiddenAddressError(f"{host!r} is forbidden: {what}", details, cause)


def _name(policy: AddressPolicy) -> str:
    return f"address_policy {name_of(policy)}"


def _plain(address: IPAddress) -> IPAddress:
    """An IPv4-mapped address (`::ffff:1.2.3.4`) as what the system connects to."""
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _behind_nat64(address: IPAddress) -> IPAddress:
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address


def _is_public(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not _is_in(address, _networks_of("", _NOT_PUBLIC_4))
    return _is_in(address, _networks_of("", (_PUBLIC_6,))) and not _is_in(address, _networks_of("", _NOT_PUBLIC_6))


def _is_in(address: IPAddress, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(address in network for network in networks)


def _networks_of(field: str, texts: object) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{field} must be a tuple of networks or addresses as str, not {shown(texts)}")
    return _read_networks(field, texts)


@functools.lru_cache(maxsize=64)  # configurations; arbitrary
def _read_networks(field: str, texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            raise ValueError(f"{field} must hold networks such as '10.0.0.0/8', or addresses, not {text!r}") from None
    return tuple(found)
