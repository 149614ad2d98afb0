"""Checks of the settings about sockets: `port`, `hosts`, `local_address`, `socket_options`, `unix_path`."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from pepperpy.network.checks import check_int, shown
from pepperpy.network.hosts import check_host

# `socket_factory(address)`, async or not, with an address as getaddrinfo gives it.
SocketFactory: TypeAlias = Callable[[tuple[int, int, int, str, Any]], socket.socket | Awaitable[socket.socket]]

# Settings of both clients that mean nothing for a Unix socket.
_ABOUT_ADDRESSES = (
    "proxy",
    "proxy_tls",
    "resolver",
    "address_policy",
    "local_address",
    "trust_env",
    "socket_factory",
)


def check_port(name: str, value: object) -> None:
    """Accept a port to connect to."""
    if not isinstance(value, int) or isinstance(value, bool):
        text = str(value)
        instead = f": write {text.removesuffix('.0')}" if re.fullmatch(r"[1-9][0-9]{0,4}(\.0)?", text) else ""
        raise TypeError(f"{name} must be an int from 1 to 65535, not {shown(value)}{instead}")
    check_int(name, value, 1, 65535)


def check_unix_path(given: object) -> str:
    """The path, which is one that a Unix socket can have. `connect()` finds out whether it is there."""
    path = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(path, str):
        raise TypeError(f"unix_path must be a str or a Path, not {shown(given)}")
    if not hasattr(socket, "AF_UNIX"):
        raise ValueError(f"unix_path={shown(path)} needs Unix sockets; Python has none on this system ({sys.platform})")
    if not path or "\0" in path[1:]:
        raise ValueError(f"unix_path must be a path without NUL characters, not {shown(path)}")
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:
        raise ValueError(f"unix_path must be a path that can be encoded, not {shown(path)}") from None
    # The size of sun_path (unix(7); elsewhere <sys/un.h>). A NUL ends the path, unless the name is abstract (Linux).
    limit = (108 if sys.platform == "linux" else 104) - (path[0] != "\0")
    if size > limit:
        raise ValueError(f"unix_path must be at most {limit} bytes, not {size}: {shown(path)}")
    return path


def check_unix_alone(config: Any, *further: str) -> None:
    """Refuse settings about addresses in a configuration that has a `unix_path`; `further` ones, too."""
    for name in (*further, *_ABOUT_ADDRESSES):
        if getattr(config, name):
            raise ValueError(f"{name} must be left out with unix_path={shown(config.unix_path)}")


def check_local_address(value: object) -> None:
    """Accept None or `(host, port)`; the port may be 0."""
    if value is None:
        return
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(
            f"local_address must be a tuple (host, port), where port 0 lets the system choose, not {shown(value)}"
        )
    check_host("local_address host", value[0])
    check_int("local_address port", value[1], 0, 65535)


def check_socket_options(options: object) -> None:
    """Accept a tuple of triples for `socket.setsockopt()`."""
    if not isinstance(options, tuple):
        raise TypeError(f"socket_options must be a tuple of triples, ((level, option, value),), not {options!r}")
    for option in options:
        if not (
            isinstance(option, tuple)
            and len(option) == 3
            and isinstance(option[0], int)
            and isinstance(option[1], int)
            and isinstance(option[2], (int, bytes))
        ):
            raise TypeError(
                f"socket_options must be ((int, int, int or bytes), ...), and hold triples only, not {option!r}"
            )


def check_hosts(hosts: object) -> None:
    """Accept a tuple of `(host, port)`."""
    if not isinstance(hosts, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in hosts):
        raise TypeError(f'hosts must be a tuple of pairs, such as (("b.example", 6379),), not {shown(hosts)}')
    for host, port in hosts:
        check_host("hosts: host", host)
        check_port("hosts: port", port)
