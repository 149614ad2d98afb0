"""JSON-RPC with a length in front of each message: `python examples/rpc.py` starts a server and calls it.

For a server elsewhere: `python examples/rpc.py HOST PORT METHOD [JSON ...]`. Any number of tasks call over one
connection, and the server answers in any order. A call that times out or is cancelled does not disturb the others: its
late answer is dropped. If the connection is lost, every call under way raises; nothing is called twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from pepperpy.network import LengthPrefixed, Mapped, NetworkClient, NetworkConfig, NetworkTimeoutError, Pipeline

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


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def answer(call: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            reply["result"] = await {"double": double}[call["method"]](*call["params"])
        except Exception as error:
            reply["error"] = {"code": -32000, "message": f"{type(error).__name__}: {error}"}
        if not writer.is_closing():
            content = json.dumps(reply).encode()
            writer.write(len(content).to_bytes(4) + content)

    answering: set[asyncio.Task[None]] = set()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while (size := int.from_bytes(await reader.readexactly(4))) <= MAX_SIZE:
            task = asyncio.create_task(answer(json.loads(await reader.readexactly(size))))
            answering.add(task)
            task.add_done_callback(answering.discard)
    for task in answering:
        task.cancel()
    writer.close()


async def demo() -> None:
    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        async with connected(NetworkConfig("127.0.0.1", server.sockets[0].getsockname()[1])) as rpc:
            print("1000 at once:", sum(await asyncio.gather(*(rpc.call("double", n) for n in range(1000)))))
            for arguments in (("double", 1, 60), ("double", "x", "y"), ("treble", 1)):
                try:
                    await rpc.call(*arguments, timeout=0.2)
                except (RPCError, NetworkTimeoutError) as error:
                    print(f"{type(error).__name__}: {error}")
            print("and on:", await rpc.call("double", 21))


async def main(host: str, port: str, method: str, *arguments: str) -> None:
    async with connected(NetworkConfig(host, int(port))) as rpc:
        print(json.dumps(await rpc.call(method, *map(json.loads, arguments))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]) if sys.argv[1:] else demo())
