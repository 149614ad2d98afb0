"""Uses of the package whose types mypy and pyright know exactly. `make check` reads this file; nothing runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any, assert_type

from aiohttp import ClientTimeout

from pepperpy.network import (
    Default,
    Delimited,
    Framed,
    HTTPClient,
    HTTPResponse,
    JSONLines,
    LengthPrefixed,
    Mapped,
    MsgPack,
    NetworkClient,
    NetworkConfig,
    NetworkError,
    NetworkPool,
    Pipeline,
    RequestData,
    State,
    Timeout,
    __version__,
)
from pepperpy.network.neighbours import NamespaceOwner, namespace_owner


@dataclass
class User:
    name: str


async def http(client: HTTPClient, options: dict[str, Any]) -> None:
    assert_type(await client.get("/", params={"q": "test"}, timeout=ClientTimeout(total=30)), str)
    body: RequestData = {"str_value": "test", "list_value": ["a", 1, 2.0, True], "dict_value": {"key": "value"}}
    assert_type(await client.post("/", json=body), str)
    response = await client.request("GET", "/", retries=1)
    assert_type(response, HTTPResponse)
    assert_type(response.text, str)
    assert_type(response.content, bytes)


async def json_over_http(client: HTTPClient, response: HTTPResponse) -> None:
    assert_type(await client.get_json("/"), Any)
    assert_type(await client.get_json("/", type=User), User)
    assert_type(await client.get_json("/", type=list[User]), list[User])
    assert_type(await client.get_json("/", type=dict[str, list[int]], retries=2), dict[str, list[int]])
    # No checker knows a parameter for any form of a type yet (PEP 747).
    assert_type(await client.get_json("/", type=User | None), Any)
    assert_type(await client.get_json("/", type=Annotated[int, "positive"]), Any)
    assert_type(response.json(), Any)
    assert_type(response.json(User), User)
    assert_type(response.json(type=list[User]), list[User])
    async with client.stream("GET", "/") as stream:
        assert_type(stream.lines(), AsyncGenerator[bytes, None])
        assert_type(stream.json_lines(User), AsyncGenerator[User, None])
        async for value in stream.json_lines():
            assert_type(value, Any)
        async for user in stream.json_lines(User):
            assert_type(user, User)


async def tcp(client: NetworkClient) -> None:
    assert_type(await client.receive(1024), bytes)
    assert_type(await client.receive_exactly(4, timeout=None), bytes)
    assert_type(await client.receive_lines(), list[bytes])
    assert_type(await client.receive_into(bytearray(4)), int)
    assert_type(await client.request(b"PING\r\n", NetworkClient.receive_line), bytes)
    async for line in client.lines():
        assert_type(line, bytes)
    timeout: Timeout = Default.TIMEOUT
    await client.send(memoryview(b"PING\r\n"), timeout)


async def messages(client: NetworkClient) -> None:
    assert_type(client.framed(LengthPrefixed(4)), Framed[bytes])
    assert_type(await client.framed(Delimited()).receive(), bytes | None)
    assert_type(JSONLines(), JSONLines[Any])
    assert_type(JSONLines(User, max_size=100), JSONLines[User])
    assert_type(JSONLines(User | None), JSONLines[Any])
    assert_type(MsgPack(list[User]), MsgPack[list[User]])
    framed = client.framed(JSONLines(User))
    assert_type(framed, Framed[User])
    await framed.send(User("john"))
    assert_type(await framed.receive_batch(), list[User])
    async for user in framed:
        assert_type(user, User)
    texts = Mapped(LengthPrefixed(2), str.encode, bytes.decode)
    assert_type(client.framed(texts), Framed[str])
    async with client.pipeline(JSONLines(User)) as pipeline:
        assert_type(pipeline, Pipeline[User])
        assert_type(await pipeline.request(User("john")), User)


async def pooled(config: NetworkConfig) -> None:
    async with NetworkPool(config) as pool, pool.acquire() as client:
        assert_type(client, NetworkClient)


def settled(error: NetworkError, state: State) -> None:
    assert_type(error.details, dict[str, Any])
    assert_type(error.message, str)
    assert_type(__version__, str)
    if state == "connected":
        return
    assert_type(namespace_owner(), NamespaceOwner | None)
