"""Names of the tests' own, which no resolver knows: what stands in for `socket.getaddrinfo`."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def names(table: dict[str, list[str] | Exception]) -> Iterator[dict[str, int]]:
    """Look these names up as their addresses, in that order, or fail; the table may change meanwhile.

    Gives how often each was asked for.
    """
    real = socket.getaddrinfo
    asked = dict.fromkeys(table, 0)

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host not in table:
            return real(host, *arguments, **options)
        asked[host] += 1
        found = table[host]
        if isinstance(found, Exception):
            raise found
        return [info for each in found for info in real(each, 0, type=socket.SOCK_STREAM)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield asked


@contextlib.contextmanager
def invalid_names() -> Iterator[None]:
    """`*.invalid` is unknown at once (RFC 6761): this machine's resolver, which may be slow, is not asked for it."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> list[Any]:
        if isinstance(host, str) and host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


class HangingNames:
    """`hanging*.test` has no answer until `go_on` is set, and is unknown then; any other `*.test` is this machine.

    Attributes:
        asked: The names asked for, in their order.
        go_on: Ends the waits; who makes this sets it at the end.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self._real = socket.getaddrinfo

    def __call__(self, host: str, *arguments: Any, **options: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("hanging"):
            self.go_on.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return self._real("127.0.0.1" if host.endswith(".test") else host, *arguments, **options)
