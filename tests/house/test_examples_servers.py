"""memcached_client.py, memcached_streams.py, nats_client.py and postgres_client.py of `examples/`, each against the
real server."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from support.backends import nats_server
from support.cancelling import until
from support.examples import EXAMPLES, example, output
from support.processes import reserved_ports

from pepperpy.network import ConnectError, ConnectionLostError, NetworkClient, NetworkConfig, ProtocolError
from pepperpy.network.testing import Peer, scripted_peer

# ---- memcached ----


def test_both_memcached_clients_as_programs(memcached_port: int) -> None:
    arguments = ("127.0.0.1", str(memcached_port))
    lines = ["get b'Hello'", "get None"]
    assert output("memcached_streams.py", *arguments) == lines
    assert output("memcached_client.py", *arguments) == [*lines, "incr 101"]


@pytest.mark.parametrize("name", ["memcached_client", "memcached_streams"])
async def test_a_memcached_client_keeps_values_of_every_kind_and_answers_apart(name: str, memcached_port: int) -> None:
    module = example(name)
    place: tuple[Any, ...] = ("127.0.0.1", memcached_port)
    if name == "memcached_client":
        place = (NetworkConfig(*place),)
    async with module.Memcached(*place) as cache:
        for value in (b"", b"\r\nEND\r\n", bytes(range(256)) * 30_000):
            await cache.set("key", value)
            assert await cache.get("key") == value
        await asyncio.gather(*(cache.set(f"n{number}", b"%d" % number) for number in range(100)))
        found = await asyncio.gather(*(cache.get(f"n{number}") for number in range(100)))
        assert found == [b"%d" % number for number in range(100)]
        with pytest.raises(module.MemcachedError, match="too large"):
            await cache.set("large", bytes(16 << 20))
        assert await cache.get("n1") == b"1"


async def test_the_memcached_client_counts_and_refuses_what_is_no_answer(memcached_port: int) -> None:
    module = example("memcached_client")
    async with module.Memcached(NetworkConfig("127.0.0.1", memcached_port)) as cache:
        assert await cache.incr("nothing") is None
        await cache.set("word", b"x")
        with pytest.raises(module.MemcachedError, match="non-numeric"):
            await cache.incr("word")

    async def other(peer: Peer) -> None:
        await peer.expect(b"get a\r\n")
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n")

    async with scripted_peer(other) as server, module.Memcached(server.config) as cache:
        with pytest.raises(ProtocolError, match="HTTP/1"):
            await cache.get("a")


async def test_a_cancelled_get_costs_its_connection_and_no_other_answer(memcached_port: int) -> None:
    module = example("memcached_client")
    async with module.Memcached(NetworkConfig("127.0.0.1", memcached_port), max_size=1) as cache:
        await cache.set("first", b"1")
        await cache.set("second", b"2")
        getting = asyncio.create_task(cache.get("first"))
        await asyncio.sleep(0)
        getting.cancel()
        assert await cache.get("second") == b"2"


async def test_the_steps_of_the_story_work_as_they_are_shown(memcached_port: int) -> None:
    text = (EXAMPLES.parent / "docs" / "porting.md").read_text()
    steps: list[dict[str, Any]] = []
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        steps.append({})
        exec(code, steps[-1])
    settings, of_streams, of_client, pool = steps
    async with pool["connected"]("127.0.0.1", memcached_port) as cache:
        await cache.set("story", b"told\r\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", memcached_port)
    assert await of_streams["get"](reader, writer, "story") == b"told\r\n"
    writer.close()
    async with NetworkClient(settings["config_of"]("127.0.0.1", memcached_port, 10)) as client:
        assert await of_client["get"](client, "story") == b"told\r\n"
        assert await of_client["get"](client, "missing") is None


# ---- NATS ----


def test_the_nats_client_as_a_program(nats_port: int) -> None:
    assert output("nats_client.py", "127.0.0.1", str(nats_port)) == [
        "request b'HELLO'",
        "100 requests at once: b'N0' to b'N99'",
    ]


@pytest.mark.needs_server
async def test_the_nats_client_logs_in_and_subscribes_again_after_a_restart() -> None:
    module = example("nats_client")
    got: list[tuple[str, bytes]] = []
    with reserved_ports(1) as [port]:
        with nats_server(port):
            client = module.NATS("127.0.0.1", port, retry_delay=0.01, max_retry_delay=0.05)
            connecting = client.connected()
            nats = await connecting.__aenter__()
            await nats.subscribe("news.>", lambda subject, payload, _: got.append((subject, payload)))
            await nats.publish("news.today", b"a\r\nb")
            await until(lambda: len(got) == 1, "it comes back")
        await until(lambda: not nats._client.is_connected, "the client has noticed the loss")
        with pytest.raises(ConnectError):
            await nats._client.wait_connected(fail_after=1)
        with nats_server(port):
            with pytest.raises(ConnectionLostError):
                # Once in this direction, too.
                await nats.publish("news.today", b"lost")
            await nats.publish("news.tomorrow", b"again")
            await until(lambda: len(got) == 2, "it has subscribed again")
            await connecting.__aexit__(None, None, None)
    assert got == [("news.today", b"a\r\nb"), ("news.tomorrow", b"again")]


async def test_a_request_that_nobody_answers_ends_in_time_and_leaves_no_subscription(nats_port: int) -> None:
    async with example("nats_client").NATS("127.0.0.1", nats_port).connected() as nats:
        with pytest.raises(TimeoutError):
            await nats.request("nobody.listens", b"?", timeout=0.05)
        assert nats._handlers == {}


# ---- PostgreSQL ----


@pytest.mark.timeout(300)
def test_the_postgres_client_as_a_program(postgres_port: int) -> None:
    assert output("postgres_client.py", "127.0.0.1", str(postgres_port)) == [
        "[('2', None, 'naïve')]",
        "100 queries at once: 328350",
        "refused: 22012 division by zero",
    ]


@pytest.mark.timeout(300)
async def test_the_postgres_client_gets_all_rows_and_goes_on_after_what_is_refused(postgres_port: int) -> None:
    module = example("postgres_client")
    async with module.Postgres("127.0.0.1", postgres_port, "postgres", "postgres") as database:
        rows = await database.query("SELECT n, repeat('x', n) FROM generate_series(0, 2000) AS n")
        assert [(int(number), len(text)) for number, text in rows] == [(n, n) for n in range(2001)]
        with pytest.raises(module.PostgresError, match="does not exist") as caught:
            await database.query("SELECT * FROM nowhere")
        assert caught.value.code == "42P01"
        assert await database.query("SELECT 1; SELECT 2") == [("2",)]
        slow = asyncio.create_task(database.query("SELECT pg_sleep(60)"))
        await asyncio.sleep(0)
        slow.cancel()
        assert await database.query("SELECT 3") == [("3",)]
    other = module.Postgres("127.0.0.1", postgres_port, "nobody", "postgres")
    async with other:
        with pytest.raises(ConnectError, match='role "nobody" does not exist'):
            await other.query("SELECT 1")
