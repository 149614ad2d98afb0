"""Name lookups: what hangs stops nobody else, one asks for all, and what is asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import under_way, until
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.names import HangingNames
from support.servers import client_of, echo_server

from pepperpy.network import (
    ConnectError,
    HTTPClient,
    HTTPConfig,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    lookup,
)

OK = answering(response())


def waiting(*hosts: str) -> contextlib.AbstractAsyncContextManager[list[asyncio.Task[Any]]]:
    """Tasks that wait for the lookups of these names."""
    return under_way(*(lookup.look_up(host, 1) for host in hosts))


# ---- What hangs stops nobody else ----


async def test_names_that_hang_stop_neither_files_nor_other_names(names: HangingNames, tmp_path: Path) -> None:
    # More than the default executor has threads.
    hanging = [f"hanging{number}.test" for number in range(min(32, (os.cpu_count() or 1) + 4))]
    async with http_peer(OK) as peer, echo_server() as port, HTTPClient(HTTPConfig(retries=0)) as client:
        async with waiting(*hanging):
            await until(lambda: len(names.asked) == len(hanging), "all are looked up")
            await client.download(peer.url, tmp_path / "file")
            assert await client.put(peer.url, data=tmp_path / "file") == "ok"
            assert await client.get(f"http://other.test:{peer.port}/") == "ok"
            async with NetworkClient(NetworkConfig("another.test", port)) as connection:
                await connection.send(b"x")
                assert await connection.receive_exactly(1) == b"x"


@pytest.mark.parametrize("full", [False, True], ids=["a thread", "no thread"])
async def test_waiting_for_a_lookup_counts_as_connecting(
    names: HangingNames, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if full:
        monkeypatch.setattr(lookup._threads, "_limit", 0)
    async with HTTPClient(HTTPConfig(connect_timeout=0.02, retries=0)) as client:
        with pytest.raises(NetworkTimeoutError) as caught:
            await client.get("http://hanging.test/")
        assert caught.value.details["limit"] == "connect_timeout"
        assert caught.value.details["phase"] == "dns"
    with pytest.raises(NetworkTimeoutError, match=r"no answer within 0\.02 s"):
        await NetworkClient(NetworkConfig("hanging.test", 1, connect_timeout=0.02, retries=0)).connect()
    lookup._threads._queue.clear()


@pytest.mark.slow
def test_a_lookup_that_hangs_does_not_hold_up_the_end_of_the_program() -> None:
    script = """
import asyncio, socket, threading
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
from pepperpy.network import HTTPClient, HTTPConfig, NetworkTimeoutError

async def main():
    async with HTTPClient(HTTPConfig(connect_timeout=0.01, retries=0)) as client:
        try:
            await client.get("http://hanging.test/")
        except NetworkTimeoutError:
            print("timed out")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("timed out\n", "")


def test_a_lookup_of_a_loop_that_has_ended_is_not_waited_for(names: HangingNames) -> None:
    async def give_up() -> None:
        async with waiting("hanging.test"):
            await until(lambda: names.asked == ["hanging.test"], "it is asked")

    async def ask_again() -> None:
        names.asked.clear()
        async with waiting("hanging.test") as [task]:
            await until(lambda: names.asked == ["hanging.test"], "it is asked anew")
            names.go_on.set()
            with pytest.raises(socket.gaierror, match="no answer"):
                await task

    asyncio.run(give_up())
    asyncio.run(ask_again())


def test_a_forked_process_looks_up_with_threads_of_its_own(names: HangingNames) -> None:
    async def main() -> int:
        async with waiting("hanging.test"):
            await until(lambda: bool(names.asked), "a thread of the parent is busy")
            # In a thread, for a process that is forked there has no running loop.
            return await asyncio.to_thread(fork)

    def fork() -> int:
        if (child := os.fork()) == 0:
            code = 1
            try:
                lookup._threads._limit = 1
                found = asyncio.run(asyncio.wait_for(lookup.look_up("other.test", 5), 10))
                code = 0 if found[0][4] == ("127.0.0.1", 5) else 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert asyncio.run(main()) == 0


def test_loops_in_several_threads_each_get_their_answer(names: HangingNames) -> None:
    def run(results: list[str]) -> None:
        async def main() -> None:
            async with waiting("hanging.test", "other.test") as [hanging, other]:
                assert await other
                with pytest.raises(socket.gaierror) as caught:
                    await hanging
                results.append(str(caught.value))

        asyncio.run(main())

    results: list[str] = []
    threads = [threading.Thread(target=run, args=(results,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    while names.asked.count("hanging.test") < 3:
        threads[0].join(0.001)
    names.go_on.set()
    for thread in threads:
        thread.join(20)
    assert results == [f"[Errno {socket.EAI_AGAIN}] no answer"] * 3


# ---- One asks for all ----


async def test_one_lookup_serves_all_who_wait_for_the_name(names: HangingNames) -> None:
    async with waiting(*["hanging.test"] * 5, "hanging-too.test") as tasks:
        await until(lambda: len(names.asked) == 2, "both names are looked up")
        names.go_on.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert names.asked == ["hanging.test", "hanging-too.test"]
        assert [str(error) for error in errors] == [f"[Errno {socket.EAI_AGAIN}] no answer"] * 6
        # Each has its own, for an exception collects the tracebacks of all its raises.
        assert len(set(map(id, errors))) == 6


async def test_who_is_cancelled_takes_the_lookup_from_nobody(names: HangingNames) -> None:
    async with waiting(*["hanging.test"] * 3) as [first, second, third]:
        await until(lambda: bool(names.asked), "the name is looked up")
        first.cancel()
        third.cancel()
        await asyncio.wait([first, third])
        names.go_on.set()
        with pytest.raises(socket.gaierror, match="no answer"):
            await second
    assert names.asked == ["hanging.test"]


async def test_a_lookup_that_nobody_waits_for_any_more_goes_on_if_it_has_begun(names: HangingNames) -> None:
    async with waiting("hanging.test") as [task]:
        await until(lambda: bool(names.asked), "the name is looked up")
        task.cancel()
        await asyncio.wait([task])
        async with waiting("hanging.test") as [again]:
            await asyncio.sleep(0)
            names.go_on.set()
            with pytest.raises(socket.gaierror, match="no answer"):
                await again
    assert names.asked == ["hanging.test"]


async def test_a_lookup_that_nobody_waits_for_any_more_is_not_begun(
    names: HangingNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup._threads, "_limit", 1)
    async with waiting("hanging.test", "given-up.test", "last.test") as [_, given_up, last]:
        await until(lambda: bool(names.asked), "the only thread is busy")
        given_up.cancel()
        await asyncio.wait([given_up])
        names.go_on.set()
        await last
    assert names.asked == ["hanging.test", "last.test"]


async def test_a_lookup_that_takes_long_is_not_joined(names: HangingNames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "JOINED_S", 0)
    async with waiting("hanging.test", "hanging.test"):
        await until(lambda: len(names.asked) == 2, "the second one has begun a lookup of its own")


# ---- What is asked ----


async def test_an_address_is_looked_up_by_nobody(names: HangingNames) -> None:
    threads = set(threading.enumerate())
    assert await lookup.look_up("127.0.0.1", 5) == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 5))]
    assert await lookup.look_up("::1", 5) == [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 5, 0, 0))]
    async with echo_server() as port, client_of(port):
        pass
    assert not names.asked
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("host", ["127.1", "1.2.3", "01.2.3.4", "1.2.3.4%lo", "::g", "1.2.3.4.", "a\0b", "\ud800", ":"])
async def test_what_only_looks_like_an_address_is_left_to_the_system(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("192.0.2.1", 0))])
    assert (await lookup.look_up(host, 5))[0][4] == ("192.0.2.1", 5)


async def test_the_system_s_order_is_kept_and_a_stand_in_may_name_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [("2001:db8::1", 0, 0, 0), ("192.0.2.1", 0), ("2001:db8::2", 0, 0, 3), ("192.0.2.2", 99)]

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for _ in range(2):
        found = await lookup.look_up("host.test", 5)
        assert [address for *_, address in found] == [
            ("2001:db8::1", 5, 0, 0),
            ("192.0.2.1", 5),
            ("2001:db8::2", 5, 0, 3),
            ("192.0.2.2", 99),
        ]
        # What a caller does to it reaches nobody else.
        found.clear()


async def test_what_another_stand_in_has_said_is_not_remembered(
    names: HangingNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await lookup.look_up("host.test", 1))[0][4] == ("127.0.0.1", 1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("127.0.0.2", 0))])
    assert (await lookup.look_up("host.test", 1))[0][4] == ("127.0.0.2", 1)


async def test_no_host_name_and_no_address_are_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(socket.gaierror, match="is no host name"):
        await lookup.look_up("a" * 64 + ".test", 1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(socket.gaierror, match="has no address"):
        await lookup.look_up("host.test", 1)


async def test_a_system_without_threads_is_an_error_that_may_pass(
    names: HangingNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(ConnectError, match="no thread to be had") as caught:
            await NetworkClient(NetworkConfig("host.test", 1, retries=1, retry_delay=0)).connect()
        assert caught.value.details["attempt"] == 2
    assert await lookup.look_up("host.test", 1)


async def test_a_loop_with_a_lookup_of_its_own_is_asked_by_both_clients_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def own(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        if host == "gone.test":
            return []
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", own)
    async with echo_server() as port:
        for _ in range(2):
            async with NetworkClient(NetworkConfig("tcp.test", port)) as client:
                await client.send(b"x")
                assert await client.receive() == b"x"
        with pytest.raises(ConnectError, match=r"'gone\.test' has no address"):
            await NetworkClient(NetworkConfig("gone.test", port)).connect()
    async with http_peer(OK) as peer, HTTPClient() as http:
        await http.get(f"http://http.test:{peer.port}/")
    # uvloop's sock_connect(), which aiohttp calls, asks for the address again.
    assert [host for host in asked if host != "127.0.0.1"] == ["tcp.test", "tcp.test", "gone.test", "http.test"]


def test_a_lookup_that_outlived_its_loop_is_not_kept(names: HangingNames) -> None:
    async def give_up(host: str) -> None:
        with pytest.raises(NetworkTimeoutError):
            await NetworkClient(NetworkConfig(host, 1, connect_timeout=0.01, retries=0)).connect()

    for number in range(4):
        asyncio.run(give_up(f"hanging-loop{number}.test"))
    assert len(lookup._names.lookups) <= 1
