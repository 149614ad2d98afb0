"""One clock: times are those of `time.monotonic()`, whatever clock the loop has, and wherever that one jumps to.

uvloop's clock goes on while a Mac sleeps, and `time.monotonic()` does not. Here the test moves the loop's clock. On
asyncio its timers go by that clock and fire early; on uvloop only `loop.time()` moves, and the timers are right.
"""

from __future__ import annotations

import asyncio
import ctypes
import re
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

import pytest
from support.cancelling import under_way, until
from support.http_faults import response
from support.http_peer import Connection, http_peer
from support.line_server import ask, server_and_pool
from support.servers import peer_and_client

import pepperpy.network
from pepperpy.network import (
    ConnectionLostError,
    Heartbeat,
    HTTPClient,
    HTTPConfig,
    NetworkTimeoutError,
    PoolTimeoutError,
    RateLimit,
)

# Seconds. More than the limits of these tests, and less than the time limit of a test, whose timer is moved too.
SLEEP = 20.0
LIMIT = 10.0


class LoopClock:
    """The running loop's clock, which is `ahead` seconds ahead of `time.monotonic()`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: time.monotonic() + self.ahead)

    async def sleep(self) -> None:
        """Jump as a clock that goes on in a sleeping machine, and let all do what they then do."""
        self.ahead += SLEEP
        for _ in range(100):
            await asyncio.sleep(0)


@pytest.fixture(params=[0.0, 30.0, -1e6], ids=["same", "ahead", "behind"])
def ahead(request: pytest.FixtureRequest) -> float:
    """Where the loop's clock is from the beginning: less ahead than the time limit of a test, whose timer is set."""
    return float(request.param)


class Asked:
    """A server that answers once it is let go."""

    def __init__(self) -> None:
        self.count = 0
        self.may_answer = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        while True:
            await connection.read_request()
            self.count += 1
            await self.may_answer.wait()
            await connection.send(response())


async def test_no_limit_of_a_connection_ends_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat = Heartbeat(lambda client: client.send(b"?\n"), interval=LIMIT, timeout=LIMIT)
    async with peer_and_client(heartbeat=heartbeat, timeout=LIMIT) as (peer, client):
        clock = LoopClock(monkeypatch)
        async with under_way(client.receive_line(), client.receive_line(timeout=LIMIT)) as (first, _):
            first.cancel()
        async with under_way(client.request(b"ask\n", lambda one: one.receive_line(), timeout=LIMIT)) as (asking,):
            assert await peer.receive(4) == b"ask\n"
            for _ in range(2):
                await clock.sleep()
            assert not asking.done()
            await peer.send(b"told\n")
            assert await asking == b"told\n"
        assert client.is_connected


async def test_no_limit_of_a_request_ends_while_the_machine_sleeps(
    monkeypatch: pytest.MonkeyPatch, transport_name: str
) -> None:
    asked = Asked()
    config = HTTPConfig(timeout=LIMIT, read_timeout=LIMIT, deadline=LIMIT, transport=transport_name)
    async with http_peer(asked) as peer, HTTPClient(config) as client:
        clock = LoopClock(monkeypatch)
        async with under_way(client.request("GET", f"{peer.url}/")) as (getting,):
            await until(lambda: asked.count == 1, "the request has arrived")
            await clock.sleep()
            asked.may_answer.set()
            assert (await getting).status == 200
        await clock.sleep()
        assert (await client.request("GET", f"{peer.url}/")).status == 200


async def test_no_wait_for_a_pooled_connection_ends_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server_and_pool(1, 1, max_idle=LIMIT, max_age=LIMIT) as (server, pool):
        clock = LoopClock(monkeypatch)

        async def use() -> None:
            async with pool.acquire(timeout=LIMIT) as client:
                await ask(client)

        async with pool.acquire(), under_way(use()) as (waiting,):
            await clock.sleep()
            await clock.sleep()
            assert not waiting.done()
        await use()
        assert server.accepted == 1


async def test_limits_end_in_time_wherever_the_loops_clock_is(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    LoopClock(monkeypatch).ahead = ahead
    began = time.monotonic()
    async with peer_and_client(timeout=0.03) as (_, client):
        with pytest.raises(NetworkTimeoutError):
            await client.receive_line()
        with pytest.raises(NetworkTimeoutError):
            await client.request(b"?", lambda one: one.receive_line(), timeout=0.03)
    async with server_and_pool(1, 1) as (_, pool), pool.acquire():
        with pytest.raises(PoolTimeoutError):
            async with pool.acquire(timeout=0.03):
                pass
    assert time.monotonic() - began >= 0.08


async def test_a_silent_peer_is_lost_in_time_wherever_the_loops_clock_is(
    monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    LoopClock(monkeypatch).ahead = ahead
    heartbeat = Heartbeat(lambda client: client.send(b"?\n"), interval=0.02, timeout=0.02)
    async with peer_and_client(heartbeat=heartbeat) as (peer, client):
        with pytest.raises(ConnectionLostError, match="peer did not answer"):
            await client.receive_line(timeout=None)
        assert await peer.receive(2) == b"?\n"
        assert abs(time.monotonic() - client.stats.last_activity) < LIMIT


async def test_http_limits_end_in_time_and_connections_are_kept_wherever_the_loops_clock_is(
    monkeypatch: pytest.MonkeyPatch, ahead: float, transport_name: str
) -> None:
    LoopClock(monkeypatch).ahead = ahead
    asked = Asked()
    config = HTTPConfig(transport=transport_name, retries=0, rate_limit=RateLimit(1000, burst=2))
    async with http_peer(asked) as peer, HTTPClient(config) as client:
        for limit in ("timeout", "deadline"):
            with pytest.raises(NetworkTimeoutError):
                await client.request("GET", f"{peer.url}/", **{limit: 0.05})
        asked.may_answer.set()
        before = len(peer.connections)
        for _ in range(5):
            assert (await client.request("GET", f"{peer.url}/", deadline=LIMIT)).status == 200
        assert len(peer.connections) == before + 1


@pytest.fixture(params=["auto", "aiohttp"])
def transport_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_nothing_asks_a_loop_for_the_time_or_tells_it_one() -> None:
    folder = Path(pepperpy.network.__file__).parent
    found = [
        f"{path.relative_to(folder)}:{number}: {line.strip()}"
        for path in folder.rglob("*.py")
        # What stands in for servers reschedules an `asyncio.timeout()`, which asks for the loop's time.
        if path.relative_to(folder).parts[0] != "testing"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"loop(\(\))?\.time\(|\.call_at\(", line)
    ]
    assert found == []


@pytest.mark.slow
def test_the_core_reads_cpythons_clock_where_the_system_has_no_cheaper_one(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "ext" / "pepperpy" / "network" / "_core"
    if shutil.which("gcc") is None or not source.exists():
        pytest.skip("needs gcc and the source tree")
    code = tmp_path / "clock.c"
    code.write_text(
        "#include <Python.h>\n#include <time.h>\n#undef CLOCK_MONOTONIC_COARSE\n"
        '#include "platform.h"\ndouble now(void) { return coarse_monotonic(); }\n'
    )
    library = tmp_path / "clock.so"
    include = sysconfig.get_path("include")
    command = ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{include}", f"-I{source}", "-o", library, code]
    subprocess.run(command, check=True)
    now = ctypes.PyDLL(str(library)).now
    now.restype = ctypes.c_double
    before = time.monotonic()
    assert before <= now() <= time.monotonic()
