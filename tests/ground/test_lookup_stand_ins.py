"""Lookups by what stands in for `socket.getaddrinfo`: whatever it raises, everybody who waits is told."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from pepperpy.network import lookup


class Blocked(OSError):
    """As the classes of packages that block the network in tests: the constructor wants something else than `args`."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"{host} is blocked: {why}")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (StopIteration(), RuntimeError),  # unittest.mock, after the last one of its `side_effect`
        (Blocked("a.test", "a test"), Blocked),
        (RuntimeError("no network"), RuntimeError),
        (PermissionError(13, "not here"), PermissionError),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), socket.gaierror),
    ],
    ids=lambda value: getattr(type(value), "__name__", ""),
)
async def test_whoever_waits_is_told_what_a_stand_in_raises(
    raised: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise raised

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with asyncio.timeout(5):
        found = await asyncio.gather(*(lookup.look_up("a.test", 1) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [kind] * 3
    assert {error.args for error in found if isinstance(error, OSError)} <= {raised.args}
