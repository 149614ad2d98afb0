"""The cancellation sweep: each kind of call, cancelled at each of its suspensions, and then the next calls.

After a cancellation the same client has to give each later call its own answer, hold no more than it should, and have
sent nothing twice. Every answer names its request, so one that was handed to the wrong caller is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import Mode, cancelled_at, open_sockets, until
from support.certificates import ca_file, server_cert
from support.http_faults import chunked_response, response
from support.http_peer import Connection, Request, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, TLSConfig

Call = Callable[[HTTPClient, str], Coroutine[Any, Any, str]]


async def serve(connection: Connection) -> None:
    while True:
        request = await connection.read_request()
        for piece in answer(request):
            await connection.send(piece)
            await asyncio.sleep(0)


def answer(request: Request) -> list[bytes]:
    name = request.target.encode()
    if request.target.startswith("/busy") and request.target not in asked_before:
        asked_before.add(request.target)
        return [response(b"", status="503 Busy")]
    if request.target.startswith("/moved"):
        return [response(b"", f"Location: /there{request.target}", status="302 Found")]
    if request.target.startswith("/pieces"):
        whole = chunked_response([name, b"\n" * 10, name])
        return [whole[start : start + 40] for start in range(0, len(whole), 40)]
    return [response(name + b" " + request.body)]


asked_before: set[str] = set()


async def get(client: HTTPClient, name: str) -> str:
    return (await client.get(f"/{name}")).strip()


async def pieces(client: HTTPClient, name: str) -> str:
    text = await client.get(f"/pieces/{name}")
    first, second = text.split("\n" * 10)
    assert first == second
    return first


async def stream(client: HTTPClient, name: str) -> str:
    async with client.stream("GET", f"/pieces/{name}") as body:
        return b"".join([line async for line in body.lines() if line])[: len(f"/pieces/{name}")].decode()


async def retried(client: HTTPClient, name: str) -> str:
    return (await client.get(f"/busy/{name}")).strip()


async def redirected(client: HTTPClient, name: str) -> str:
    text = (await client.get(f"/moved/{name}")).strip()
    assert text == f"/there/moved/{name}"
    return text


async def upload(client: HTTPClient, name: str) -> str:
    async def source() -> AsyncIterator[bytes]:
        for byte in name.encode():
            await asyncio.sleep(0)
            yield bytes([byte])

    text = await client.post(f"/{name}", data=source())
    assert text == f"/{name} {name}"
    return text


CALLS: dict[str, Call] = {
    "get": get,
    "a body in pieces": pieces,
    "a stream of lines": stream,
    "a retry": retried,
    "a redirect": redirected,
    "an upload": upload,
}


@contextlib.asynccontextmanager
async def peer_and_config(certificate: Path | None) -> AsyncIterator[tuple[Any, HTTPConfig]]:
    async with http_peer(serve, certificate=certificate) as peer:
        # A connection of which close() is never told would use up the test's time.
        trusted = certificate and ca_file()
        yield (
            peer,
            HTTPConfig(peer.url, tls=TLSConfig(ca_file=trusted), retry_delay=0, max_connections=3, close_timeout=1000),
        )


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    ("fresh", "certificate"), [(False, None), (True, None), (False, server_cert())], ids=["pooled", "new", "pooled tls"]
)
@pytest.mark.parametrize("kind", CALLS)
async def test_a_cancelled_call_harms_no_other(kind: str, fresh: bool, certificate: Path | None, mode: Mode) -> None:
    """`fresh`: the cancelled call is the client's first one, and has to connect."""
    call = CALLS[kind]
    asked_before.clear()
    async with peer_and_config(certificate) as (peer, config):
        number = 0
        client = HTTPClient(config)
        cancelled = True
        while cancelled:
            number += 1
            if fresh:
                await client.close()
                client = HTTPClient(config)
            else:
                assert await get(client, f"before-{number}") == f"/before-{number}"
            name = f"{mode.name}-{number}"
            sent = len(peer.requests)
            cancelled = (await cancelled_at(call(client, name), number, mode)).cancelled
            assert client.stats.in_flight == 0
            # At once, while the server may still answer the cancelled one; and more than once.
            for after in ("x", "y"):
                assert await get(client, f"{after}-{number}") == f"/{after}-{number}"
            names = [request.target for request in peer.requests[sent:] if "there" not in request.target]
            assert sum(target.endswith(name) for target in names) <= (2 if call is retried else 1)
        assert number > 1, "not swept at all"
        await until(lambda: client.stats.open_connections <= 3, "no more connections than allowed")
        await client.close()


@pytest.mark.parametrize("mode", Mode)
async def test_a_call_cancelled_in_a_handshake_harms_no_other(web: Any, mode: Mode) -> None:
    # nginx, because asyncio's server reports a client that leaves in the middle of a handshake.
    config = HTTPConfig(tls=TLSConfig(ca_file=ca_file()), max_connections=3)

    async def get(client: HTTPClient, name: str) -> str:
        return str((await client.get_json(web.https_url("/echo"), params={"name": name}))["uri"])

    number = 0
    cancelled = True
    while cancelled:
        number += 1
        async with HTTPClient(config) as client:
            cancelled = (await cancelled_at(get(client, f"c{number}"), number, mode)).cancelled
            for after in ("x", "y"):
                assert await get(client, f"{after}{number}") == f"/echo?name={after}{number}"
    assert number > 2


@pytest.mark.parametrize("mode", Mode)
async def test_a_place_in_the_queue_that_is_given_up_is_free_for_the_next(mode: Mode) -> None:
    async with peer_and_config(None) as (_, config):
        async with HTTPClient(config.replace(max_connections=1)) as client:
            number = 0
            cancelled = True
            while cancelled:
                number += 1
                others = [asyncio.create_task(get(client, f"other-{number}-{n}")) for n in range(3)]
                await asyncio.sleep(0)
                cancelled = (await cancelled_at(get(client, f"mine-{number}"), number, mode)).cancelled
                assert await asyncio.gather(*others) == [f"/other-{number}-{n}" for n in range(3)]
                assert await get(client, f"after-{number}") == f"/after-{number}"
            assert number > 1
            assert client.stats.open_connections <= 1


@pytest.mark.slow
async def test_a_thousand_cancelled_at_random_moments_lose_no_connection_and_mix_no_answer() -> None:
    """Tasks cancelled after 0 to 59 turns of the loop, over three connections; those that end have their own answer.

    Every tenth is not cancelled, and every tenth before it can be answered, however fast or slow the loop's turns are.
    """
    before = open_sockets()
    async with peer_and_config(None) as (_, config):
        async with HTTPClient(config) as client:
            outcomes = {"answered": 0, "cancelled": 0}

            async def one(number: int) -> None:
                task = asyncio.create_task(get(client, str(number)))
                for _ in range(number % 3 if number % 10 == 1 else number * 7 % 60):
                    await asyncio.sleep(0)
                if number % 10:
                    task.cancel()
                try:
                    assert await task == f"/{number}"
                    outcomes["answered"] += 1
                except asyncio.CancelledError:
                    outcomes["cancelled"] += 1

            for start in range(0, 1000, 20):
                await asyncio.gather(*(one(number) for number in range(start, start + 20)))
            assert min(outcomes.values()) >= 100, outcomes
            assert client.stats.in_flight == 0
            assert await get(client, "last") == "/last"
            assert client.stats.open_connections <= 3
    await until(lambda: not open_sockets() - before, "all sockets closed")
