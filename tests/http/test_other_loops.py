"""A client of another loop, of one that has ended or of a parent process: it says what to do, and disturbs nobody."""

from __future__ import annotations

import asyncio
import os

import pytest
from support.cancelling import until
from support.http_faults import answering, response
from support.http_peer import Connection, http_peer

from pepperpy.network import HTTPClient, HTTPConfig, UsageError


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_that_closes_does_not_disturb_its_parent() -> None:
    async def main() -> None:
        go_on = asyncio.Event()

        async def held(connection: Connection) -> None:
            await connection.read_request()
            await go_on.wait()
            await connection.send(response())

        async with http_peer(held) as peer, HTTPClient() as client:
            call = asyncio.create_task(client.get(peer.url))
            await until(lambda: bool(peer.requests), "the request has arrived")
            if (child := os.fork()) == 0:
                # No exception may leave the child: it would run the rest of the tests.
                try:
                    coroutine = client.close()
                    coroutine.send(None)
                except StopIteration:
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            go_on.set()
            async with asyncio.timeout(20):
                assert await call == "ok"

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
async def test_a_forked_process_is_told_to_open_the_client_anew_and_can() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:

        async def in_child() -> str:
            for call in (client.get, client.initialize):
                with pytest.raises(UsageError, match=r"forked from.*await client\.close\(\) here, then initialize"):
                    await call(*[peer.url] * (call == client.get))
            await client.close()
            async with client:
                return await client.get(peer.url)

        def fork() -> int:
            if (child := os.fork()) == 0:
                code = 1
                try:
                    code = 0 if asyncio.run(asyncio.wait_for(in_child(), 30)) == "ok" else 2
                finally:
                    os._exit(code)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        assert await client.get(peer.url) == "ok"
        # In a thread, for a process that is forked there has no running loop.
        assert await asyncio.to_thread(fork) == 0
        assert await client.get(peer.url) == "ok"
        assert [request.connection for request in peer.requests] == [1, 2, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
async def test_a_forked_process_that_goes_on_in_its_parents_coroutine_is_told_so() -> None:
    async with http_peer(answering(response())) as peer, HTTPClient() as client:
        await client.get(peer.url)
        if (child := os.fork()) == 0:
            code = 1
            try:
                for call in (client.get(peer.url), client.stream("GET", peer.url).__aenter__(), client.initialize()):
                    with pytest.raises(UsageError, match=r"forked from.*await client\.close\(\) here, then initialize"):
                        call.send(None)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert await client.get(peer.url) == "ok"


def test_a_client_whose_loop_has_ended_says_what_to_do_and_can_be_used_then() -> None:
    async def use(close_first: bool) -> str:
        async with http_peer(answering(response())) as peer:
            if close_first:
                with pytest.raises(UsageError, match=r"has ended; await client\.close\(\) here, then initialize"):
                    await client.get(peer.url)
                await client.close()
                await client.initialize()
            text = await client.get(peer.url)
            # The server of this loop ends with it, and waits for its connections.
            client.session.connector.open_transports()[0].abort()
            return text

    client = HTTPClient(HTTPConfig(transport="aiohttp"))
    assert asyncio.run(use(False)) == asyncio.run(use(True)) == "ok"
    asyncio.run(client.close())


def test_a_client_can_be_closed_after_its_loop_has_ended() -> None:
    client = HTTPClient()
    asyncio.run(client.initialize())
    asyncio.run(client.close())
    assert "closed" in repr(client)


async def test_a_client_is_not_closed_from_another_running_loop() -> None:
    async with HTTPClient() as client:
        with pytest.raises(UsageError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, client.close())
        assert "open" in repr(client)
