"""Lines over TLS from a connection that comes back, in IRC: `python examples/line_protocol.py HOST PORT NICK CHANNEL`.

It prints what is said in the channel, and what happens with the connection, until Ctrl-C. Every new connection first
logs in and joins. A heartbeat asks a silent server for a sign of life. A fifth argument is a file of authorities to
trust instead of OpenSSL's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pepperpy.network import ConnectionLostError, NetworkClient, NetworkConfig, NetworkError, TLSConfig


def irc_config(host: str, port: int, nick: str, channel: str, **settings: Any) -> NetworkConfig:
    async def log_in(connection: NetworkClient) -> None:
        await say(connection, f"NICK {nick}", f"USER {nick} 0 * :{nick}")
        async for line in connection.lines():
            match command_of(line):
                case "PING":
                    await pong(connection, line)
                case "001":
                    return await say(connection, f"JOIN {channel}")
                case "433":  # the server still has our last connection; a ConnectionError is tried again
                    raise ConnectionRefusedError(f"the nick {nick} is in use")
                case number if number.startswith(("4", "5")):
                    raise PermissionError(line.decode(errors="replace").strip())  # is not tried again: connect() raises
        raise EOFError("the server ended the connection instead of a welcome")

    # A line of RFC 2812 has at most 512 bytes, and the tags that IRCv3 puts in front of it 8191.
    settings = {"tls": True, "max_message_size": 8191 + 512} | settings
    return NetworkConfig(host, port, reconnect=True, on_connect=log_in, heartbeat=ping, **settings)


async def messages(client: NetworkClient) -> AsyncIterator[str]:
    """The lines of the server, across connections; each loss is a line too."""
    while True:
        try:
            line = await client.receive_line(timeout=None)
        except ConnectionLostError as error:
            yield f"* {error}; what is said until it is back is missed"
            continue
        match command_of(line):
            case "PING":
                try:
                    await pong(client, line)
                except ConnectionLostError:
                    # Each direction reports a loss once. After that, this one goes on with the new connection.
                    await pong(client, line)
            case "PONG":
                pass  # the answer to our heartbeat
            case _:
                yield line.decode(errors="replace").rstrip()


def command_of(line: bytes) -> str:
    """The command, which stands behind the sender if there is one: b":ada!a@b PRIVMSG #x :hello"."""
    words = line.decode(errors="replace").split()
    return next((word for word in words if not word.startswith(":")), "")


async def say(client: NetworkClient, *lines: str) -> None:
    await client.send("".join(f"{line}\r\n" for line in lines).encode(), timeout=None)


async def ping(client: NetworkClient) -> None:
    await say(client, "PING :heartbeat")


async def pong(client: NetworkClient, line: bytes) -> None:
    await say(client, line.decode(errors="replace").strip().replace("PING", "PONG", 1))


async def main(host: str, port: int, nick: str, channel: str, ca_file: str | None) -> None:
    def tell(_: NetworkClient, state: str) -> None:
        print("*", state, flush=True)

    async with NetworkClient(
        irc_config(host, port, nick, channel, tls=TLSConfig(ca_file=ca_file), on_state=tell)
    ) as client:
        async for line in messages(client):
            print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, epilog="It needs an IRC server with TLS.")
    for name, kind in (("host", str), ("port", int), ("nick", str), ("channel", str)):
        parser.add_argument(name, type=kind)
    parser.add_argument("ca_file", nargs="?")
    arguments = parser.parse_args()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(**vars(arguments)))
    except NetworkError as error:
        parser.exit(1, f"{error}\n")
