"""A NATS client on one connection that comes back: `python examples/nats_client.py [HOST] [PORT]`.

It needs a nats-server, at 127.0.0.1:4222 if nothing else is given. After a loss it logs in and subscribes again by
itself; messages that were published meanwhile are missed, as core NATS has it.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable

from pepperpy.network import ConnectError, ConnectionLostError, NetworkClient, NetworkConfig, ProtocolError

Handler = Callable[[str, bytes, str | None], object]  # subject, payload, the subject to reply to


class NATS:
    """Made by `connected()`."""

    def __init__(self, host: str, port: int, **settings: object) -> None:
        config = NetworkConfig(host, port, reconnect=True, on_connect=self._log_in, heartbeat=self._ping)
        self._client = NetworkClient(config.replace(**settings))
        self._numbers = itertools.count(1)
        self._handlers: dict[int, tuple[str, Handler]] = {}
        self._inbox = f"_INBOX.{id(self):x}"

    async def publish(self, subject: str, payload: bytes, reply: str | None = None) -> None:
        head = f"PUB {subject} {reply} {len(payload)}\r\n" if reply else f"PUB {subject} {len(payload)}\r\n"
        await self._client.send_many([head.encode(), payload, b"\r\n"])

    async def subscribe(self, subject: str, handler: Handler) -> int:
        """Call `handler(subject, payload, reply)`, which must not wait, for each message. Returns its number."""
        number = next(self._numbers)
        self._handlers[number] = subject, handler
        await self._client.send(b"SUB %s %d\r\n" % (subject.encode(), number))
        return number

    async def unsubscribe(self, number: int) -> None:
        del self._handlers[number]
        await self._client.send(b"UNSUB %d\r\n" % number)

    async def request(self, subject: str, payload: bytes, timeout: float = 5.0) -> bytes:
        """Publish, and wait for the first reply. Raises TimeoutError."""
        answer = asyncio.get_running_loop().create_future()
        inbox = f"{self._inbox}.{next(self._numbers)}"
        number = await self.subscribe(inbox, lambda _, data, __: answer.done() or answer.set_result(data))
        try:
            await self.publish(subject, payload, inbox)
            async with asyncio.timeout(timeout):
                return await answer
        finally:
            await self.unsubscribe(number)

    async def run(self) -> None:
        """Hand out the messages, until the client is closed."""
        while True:
            try:
                await self._receive()
            except ConnectionLostError:
                continue  # the next receive waits for the new connection

    async def _receive(self) -> None:
        line = await self._client.receive_until(b"\r\n", timeout=None)
        match line[:-2].split():
            case [b"MSG", subject, number, *reply, size]:
                payload = (await self._client.receive_exactly(int(size) + 2))[:-2]
                if (found := self._handlers.get(int(number))) is not None:
                    found[1](subject.decode(), payload, reply[0].decode() if reply else None)
            case [b"PING"]:
                await self._client.send(b"PONG\r\n")
            case [b"PONG" | b"+OK"] | [b"INFO", *_]:
                pass
            case [b"-ERR", *words]:
                raise ProtocolError(f"nats-server: {b' '.join(words).decode(errors='replace')}")
            case _:
                raise ProtocolError(f"not a line of NATS: {line[:40]!r}")

    async def _log_in(self, connection: NetworkClient) -> None:
        if not (info := await connection.receive_until(b"\r\n")).startswith(b"INFO "):
            raise ProtocolError(f"not a nats-server: {info[:40]!r}")
        options = {"verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1}
        subscribed = [b"SUB %s %d\r\n" % (name.encode(), number) for number, (name, _) in self._handlers.items()]
        await connection.send_many([b"CONNECT %s\r\n" % json.dumps(options).encode(), *subscribed, b"PING\r\n"])
        while (line := await connection.receive_until(b"\r\n")) != b"PONG\r\n":
            if line.startswith(b"-ERR"):
                raise ProtocolError(f"nats-server: {line[5:-2].decode(errors='replace')}")

    async def _ping(self, connection: NetworkClient) -> None:
        await connection.send(b"PING\r\n")

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator["NATS"]:
        async with self._client:
            running = asyncio.create_task(self.run())
            try:
                yield self
            finally:
                running.cancel()
                await asyncio.wait([running])


async def main(host: str, port: int) -> None:
    async with NATS(host, port).connected() as nats:
        echoes = []

        def answer(subject: str, payload: bytes, reply: str | None) -> None:
            echoes.append(asyncio.ensure_future(nats.publish(reply or "nobody", payload.upper())))

        await nats.subscribe("greet.*", answer)
        print("request", await nats.request("greet.ada", b"hello"))
        answers = await asyncio.gather(*(nats.request("greet.all", b"n%d" % number) for number in range(100)))
        print(f"100 requests at once: {answers[0]!r} to {answers[-1]!r}")
        await asyncio.gather(*echoes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", type=int, default=4222)
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.host, arguments.port))
    except ConnectError as error:
        parser.exit(2, f"this example needs a nats-server that can be reached: {error}\n")
