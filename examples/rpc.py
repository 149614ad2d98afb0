"""JSON-RPC with a length in front of each message: `python examples/rpc.py` starts a server and calls it.

For a server elsewhere: `python examples/rpc.py HOST PORT METHOD [JSON ...]`. Any number of tasks call over one
connection, and the server answers in any order. A call that times out or is cancelled does not disturb the others: its
late answer is dropped. If the connection is lost, every call under way raises; nothing is called twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from pepperpy.network import (
    LengthPrefixed,
    Mapped,
    NetworkClient,
    NetworkConfig,
    NetworkError,
    NetworkTimeoutError,
    Pipeline,
    serve,
)

MAX_SIZE = 1 << 20  # bytes of one message; arbitrary
CODEC = Mapped(LengthPrefixed(4, max_size=MAX_SIZE), lambda message: json.dumps(message).encode(), json.loads)


class RPCError(Exception):
    """The server refused a call, or the call failed there. The connection stays usable."""


class RPC:
    def __init__(self, pipeline: Pipeline[Any]) -> None:
        self._pipeline = pipeline
        self._ids = itertools.count(1)

    async def call(self, method: str, *arguments: Any, timeout: float = 5.0) -> Any:
        """Call a method; `timeout` in seconds. RPCError: the server refused it. NetworkError: the connection failed."""
        call = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": arguments}
        reply = await self._pipeline.request(call, timeout)
        if "error" in reply:
            raise RPCError(f"{method}: {reply['error']['message']}")
        return reply["result"]


@contextlib.asynccontextmanager
async def connected(config: NetworkConfig) -> AsyncIterator[RPC]:
    # If requests have the id in another place than replies, give request_key= too.
    async with NetworkClient(config) as client, client.pipeline(CODEC, key=lambda reply: reply["id"]) as pipeline:
        yield RPC(pipeline)


# ---- A server to try it with ----


async def double(number: float, seconds: float = 0) -> float:
    await asyncio.sleep(seconds)
    return 2 * number


async def handle(client: NetworkClient) -> None:
    messages = client.framed(CODEC)

    async def answer(call: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            reply["result"] = await {"double": double}[call["method"]](*call["params"])
        except Exception as error:
            reply["error"] = {"code": -32000, "message": f"{type(error).__name__}: {error}"}
        await messages.send(reply)

    answering: set[asyncio.Task[None]] = set()
    try:
        # A client may be silent for as long as it likes.
        while (call := await messages.receive(timeout=None)) is not None:
            task = asyncio.create_task(answer(call))
            answering.add(task)
            task.add_done_callback(answering.discard)
    finally:
        # The client is gone: nobody waits for these answers.
        for task in answering:
            task.cancel()


async def demo() -> None:
    async with serve(handle) as server:
        async with connected(NetworkConfig("127.0.0.1", server.port)) as rpc:
            print("1000 at once:", sum(await asyncio.gather(*(rpc.call("double", n) for n in range(1000)))))
            for arguments in (("double", 1, 60), ("double", "x", "y"), ("treble", 1)):
                try:
                    await rpc.call(*arguments, timeout=0.2)
                except (RPCError, NetworkTimeoutError) as error:
                    print(f"{type(error).__name__}: {error}")
            print("and on:", await rpc.call("double", 21))


async def main(host: str, port: int, method: str, arguments: list[Any]) -> None:
    async with connected(NetworkConfig(host, port)) as rpc:
        print(json.dumps(await rpc.call(method, *arguments)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?")
    parser.add_argument("port", nargs="?", type=int)
    parser.add_argument("method", nargs="?")
    parser.add_argument("arguments", nargs="*", type=json.loads, metavar="JSON")
    given = parser.parse_args()
    try:
        if given.host is None:
            asyncio.run(demo())
        elif given.method is None:
            parser.error("HOST, PORT and METHOD go together")
        else:
            asyncio.run(main(given.host, given.port, given.method, given.arguments))
    except (NetworkError, RPCError) as error:
        parser.exit(1, f"{error}\n")
