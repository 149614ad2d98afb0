"""A client of the kind that SDKs of language models build on httpx: streams of events, retries, breaking off."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import pytest
from support.cancelling import until
from support.http_peer import Connection, HTTPPeer, Request, http_peer
from support.httpx_libraries import Library
from support.processes import reserved_ports

WORDS = ["Ada", " wrote", " the", " first", " program", ", é", "."]
DONE = b"data: [DONE]\n\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BUSY = {
    429: b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nslow",
    503: b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n0\r\n\r\n",
}


class ChatSDK:
    """`chat()` streams the words of an answer; the SDK repeats what is worth it, and httpx repeats nothing."""

    def __init__(self, library: Library, http: Any, url: str, pause: Callable[[float], Awaitable[None]] | None = None):
        self._library, self._http, self._url = library, http, url
        self._pause = pause or asyncio.sleep

    async def send(self, path: str, *, retries: int = 2, **content: Any) -> Any:
        """The response, with its body still to come."""
        for left in range(retries, -1, -1):
            request = self._http.build_request("POST", self._url + path, **content)
            wait = 0.0
            try:
                response = await self._http.send(request, stream=True)
            except (self._library.ConnectError, self._library.ConnectTimeout):
                if not left:
                    raise
            else:
                if response.status_code not in BUSY or not left:
                    return response
                wait = float(response.headers.get("retry-after", 0))
                await response.aclose()
            await self._pause(wait)
        raise AssertionError("the last attempt returns or raises")

    async def chat(self, question: str, by: Literal["lines", "bytes"] = "lines", **content: Any) -> AsyncIterator[str]:
        body = {"stream": True, "messages": [{"role": "user", "content": question}]}
        response = await self.send("/chat", json=body, headers={"Accept": "text/event-stream"}, **content)
        try:
            response.raise_for_status()
            async for line in response.aiter_lines() if by == "lines" else _lines(response.aiter_bytes()):
                data = line.removeprefix("data: ")
                if data and data != "[DONE]":
                    yield json.loads(data)["choices"][0]["delta"]["content"]
        finally:
            await response.aclose()


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """As SDKs do it that decode events themselves: a chunk may end anywhere."""
    data = b""
    async for chunk in chunks:
        *lines, data = (data + chunk).split(b"\n")
        for line in lines:
            yield line.decode()


def delta(word: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": word}}]}, ensure_ascii=False).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def question_of(request: Request) -> str:
    body = json.loads(request.body)
    assert body["stream"] is True and request.headers["Accept"] == "text/event-stream"
    return str(body["messages"][0]["content"])


async def say_all(connection: Connection) -> None:
    """Each answer says the question first, then all the words."""
    while True:
        question = question_of(await connection.read_request())
        await connection.send(EVENTS + b"".join(chunk(delta(word)) for word in (question, *WORDS)))
        await connection.send(chunk(DONE) + b"0\r\n\r\n")


async def say_one_word(connection: Connection) -> None:
    """And then nothing, until the client leaves; a question "short" has its whole answer."""
    while question := question_of(await connection.read_request()):
        end = chunk(DONE) + b"0\r\n\r\n" if question == "short" else b""
        await connection.send(EVENTS + chunk(delta(question)) + end)


@contextlib.asynccontextmanager
async def sdk(library: Library, peer: HTTPPeer, most: int = 1, **settings: Any) -> AsyncIterator[tuple[ChatSDK, Any]]:
    """The SDK, and the transport below it."""
    transport = library.transport(limits=library.Limits(max_connections=most))
    async with library.client(transport=transport, **{"timeout": 10, **settings}) as http:
        yield ChatSDK(library, http, peer.url), transport


@pytest.mark.parametrize("by", ["lines", "bytes"])
async def test_each_word_is_there_when_the_server_has_said_it(library: Library, by: Literal["lines", "bytes"]) -> None:
    heard = asyncio.Semaphore(1)

    async def answer(connection: Connection) -> None:
        for _ in range(2):
            await connection.read_request()
            await connection.send(EVENTS)
            for word in WORDS:
                await heard.acquire()
                # In two pieces, of which the first ends in the middle of a line, and of a character in one case.
                data, middle = delta(word), len(delta(word)) // 2
                await connection.send(chunk(data[:middle]))
                await connection.send(chunk(data[middle:]))
            await connection.send(chunk(DONE) + b"0\r\n\r\n")

    async with http_peer(answer) as peer, sdk(library, peer) as (client, transport):
        for _ in range(2):
            words = []
            async for word in client.chat("Who?", by):
                words.append(word)
                heard.release()
            assert words == WORDS
        assert transport.open_connections == len(peer.connections) == 1


@pytest.mark.parametrize("status", BUSY)
async def test_a_busy_server_is_asked_again_over_the_same_connection(library: Library, status: int) -> None:
    async def answer(connection: Connection) -> None:
        for _ in range(2):
            await connection.read_request()
            await connection.send(BUSY[status])
        await say_all(connection)

    waits = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    async with http_peer(answer) as peer, sdk(library, peer) as (client, _):
        client._pause = pause
        assert [word async for word in client.chat("Who?")] == ["Who?", *WORDS]
        assert waits == [7 if status == 429 else 0] * 2
        assert len({request.body for request in peer.requests}) == 1 and len(peer.requests) == 3
        assert len(peer.connections) == 1


async def test_a_server_that_comes_up_meanwhile_is_reached_by_a_retry_of_the_sdk(library: Library) -> None:
    async with contextlib.AsyncExitStack() as stack:
        [port] = stack.enter_context(reserved_ports(1))
        peer = HTTPPeer(say_all)
        stack.push_async_callback(peer.stop)

        async def pause(seconds: float) -> None:
            server = await asyncio.start_server(peer.connected, "127.0.0.1", port, reuse_address=True)
            stack.callback(server.close)

        http = await stack.enter_async_context(library.client())
        client = ChatSDK(library, http, f"http://127.0.0.1:{port}", pause)
        assert [word async for word in client.chat("Who?")] == ["Who?", *WORDS]


async def test_a_server_that_falls_silent_in_a_stream_ends_it_by_the_limit_of_reading(library: Library) -> None:
    async with http_peer(say_one_word) as peer:
        timeout = library.Timeout(10, read=0.05)
        async with sdk(library, peer, timeout=timeout) as (client, transport):
            words = client.chat("Who?")
            assert await anext(words) == "Who?"
            with pytest.raises(library.ReadTimeout):
                await anext(words)
            assert transport.open_connections == 0
            assert [word async for word in client.chat("short")] == ["short"]


async def test_the_limit_of_a_pool_does_not_count_against_a_long_stream(library: Library) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(EVENTS + chunk(delta("one")))
        await go_on.wait()
        await connection.send(chunk(delta("two")) + b"0\r\n\r\n")

    timeout = library.Timeout(None, pool=0.02, connect=5)
    async with http_peer(answer) as peer, sdk(library, peer, timeout=timeout) as (client, _):
        words = client.chat("Who?")
        assert await anext(words) == "one"
        with pytest.raises(library.PoolTimeout):
            await anext(client.chat("me too"))
        go_on.set()
        assert [word async for word in words] == ["two"]


@pytest.mark.parametrize("whole", [False, True], ids=["more would come", "all has come"])
async def test_a_stream_that_is_left_frees_its_place_and_the_next_gets_its_own_words(
    library: Library, whole: bool
) -> None:
    async with http_peer(say_all if whole else say_one_word) as peer, sdk(library, peer) as (client, transport):
        for number in range(3):
            words = client.chat(f"{number}")
            assert await anext(words) == f"{number}"
            await words.aclose()  # type: ignore[attr-defined]
            if not whole:
                # The server sees the end of the connection: it stops to make words that nobody reads.
                assert transport.open_connections == 0
                await until(peer.handlers[-1].done, "the server has seen that the client left")
        assert [word async for word in client.chat("short")] == (["short", *WORDS] if whole else ["short"])


@pytest.mark.parametrize("most", [50, 7])
async def test_fifty_streams_at_once_have_their_own_words(library: Library, most: int) -> None:
    all_run = asyncio.Event()

    async def answer(connection: Connection) -> None:
        while True:
            question = question_of(await connection.read_request())
            await connection.send(EVENTS + chunk(delta(question)))
            if len(peer.requests) >= most:
                all_run.set()
            await all_run.wait()
            for word in WORDS:
                await connection.send(chunk(delta(question + word)))
            await connection.send(chunk(DONE) + b"0\r\n\r\n")

    async with http_peer(answer) as peer, sdk(library, peer, most) as (client, transport):

        async def one(number: int) -> list[str]:
            return [word async for word in client.chat(f"{number}:")]

        answers = await asyncio.gather(*map(one, range(50)))
        assert answers == [[f"{number}:", *(f"{number}:{word}" for word in WORDS)] for number in range(50)]
        assert len(peer.connections) == transport.open_connections == most


async def test_fifty_streams_of_which_half_are_cancelled_leave_the_other_half_whole(library: Library) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection) -> None:
        question = question_of(await connection.read_request())
        await connection.send(EVENTS + chunk(delta(question)))
        await go_on.wait()
        await connection.send(b"".join(chunk(delta(question)) for _ in range(3)) + b"0\r\n\r\n")
        await connection.wait_closed()

    async with http_peer(answer) as peer, sdk(library, peer, 50) as (client, transport):
        heard: list[str] = []

        async def one(number: int) -> list[str]:
            words = []
            async for word in client.chat(str(number)):
                words.append(word)
                heard.append(word)
            return words

        tasks = [asyncio.create_task(one(number)) for number in range(50)]
        await until(lambda: len(heard) == 50, "each stream has its first word")
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks[::2])
        assert all(task.cancelled() for task in tasks[::2])
        assert transport.open_connections == 25
        go_on.set()
        assert await asyncio.gather(*tasks[1::2]) == [[str(number)] * 4 for number in range(1, 50, 2)]


async def test_a_request_that_is_cancelled_while_it_waits_for_its_turn_is_never_sent(library: Library) -> None:
    async with http_peer(say_one_word) as peer, sdk(library, peer) as (client, _):
        words = client.chat("first")
        await anext(words)
        second = asyncio.create_task(anext(client.chat("second")))  # type: ignore[arg-type]
        await asyncio.wait([second], timeout=0.02)  # there is nothing to see of one that waits
        second.cancel()
        await asyncio.wait([second])
        await words.aclose()  # type: ignore[attr-defined]
        assert [word async for word in client.chat("short")] == ["short"]
        assert [question_of(request) for request in peer.requests] == ["first", "short"]


async def test_an_upload_is_taken_from_its_generator_no_faster_than_the_server_reads(library: Library) -> None:
    read_on = asyncio.Event()
    size, count, given = 1 << 16, 400, 0
    digest = hashlib.sha256()

    async def answer(connection: Connection) -> None:
        await connection.read_head()
        await read_on.wait()
        body = await connection.read_body()
        text = hashlib.sha256(body).hexdigest().encode()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + text)

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal given
        for number in range(count):
            given += 1
            piece = number.to_bytes(4, "big") * (size // 4)
            digest.update(piece)
            yield piece

    async with http_peer(answer) as peer, sdk(library, peer) as (client, transport):
        upload = asyncio.create_task(client.send("/files", content=pieces(), retries=0))
        await until(lambda: given > 0, "the upload has begun")
        before = 0
        while given != before:
            before = given
            await asyncio.sleep(0.05)  # that it takes no more for a while is all that can be seen
        assert 0 < given < count
        read_on.set()
        response = await upload
        assert await response.aread() == digest.hexdigest().encode()
        assert peer.requests[0].headers["Transfer-Encoding"] == "chunked"
        assert transport.open_connections == 1


async def test_an_upload_that_is_cancelled_closes_its_generator_and_its_connection(library: Library) -> None:
    closed = False

    async def answer(connection: Connection) -> None:
        await connection.read_head()
        await asyncio.Event().wait()  # and reads nothing of the body

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                yield bytes(1 << 16)
        finally:
            closed = True

    source = pieces()  # kept: what nobody holds is closed in any case
    # Not as content=, which httpx wraps, and does not close when its wrapper is closed; httpx2 does.
    stream = type("Stream", (library.AsyncByteStream,), {"__aiter__": lambda self: source})()
    transport = library.transport()
    async with http_peer(answer) as peer, library.client(transport=transport) as http:
        request = library.Request("POST", peer.url, stream=stream, headers={"Host": "localhost"})
        upload = asyncio.create_task(http.send(request))
        await until(lambda: len(peer.requests) == 1, "the upload has begun")
        upload.cancel()
        await asyncio.wait([upload])
        await until(lambda: closed, "the generator is closed")
        assert transport.open_connections == 0
