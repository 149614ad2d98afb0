"""A PostgreSQL client over `NetworkPool`: `python examples/postgres_client.py [HOST] [PORT] [--user USER]`.

It speaks the simple query protocol, and needs a PostgreSQL that lets the user in without a password (trust), at
127.0.0.1:5432 if nothing else is given. It can send a password in clear text, for TLS; SCRAM would be 40 lines more.
"""

import argparse
import asyncio
import struct

from pepperpy.network import ConnectError, NetworkClient, NetworkConfig, NetworkPool, ProtocolError

Row = tuple[str | None, ...]


class PostgresError(Exception):
    """The server refused a query; `code` is the SQLSTATE."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(fields.get("M", "no message"))
        self.code = fields.get("C", "")


class Postgres(NetworkPool):
    def __init__(self, host: str, port: int, user: str, database: str, password: str = "", **settings: object) -> None:
        async def log_in(connection: NetworkClient) -> None:
            await start_up(connection, user, database, password)

        super().__init__(NetworkConfig(host, port, retries=0, on_connect=log_in).replace(**settings), max_size=8)

    async def query(self, sql: str) -> list[Row]:
        """The rows of the last statement. A query that is cancelled costs its connection, and goes on in the server."""
        rows: list[Row] = []
        refused = None
        async with self.acquire() as connection:
            await connection.send(message(b"Q", sql.encode() + b"\0"))
            kind = b""
            while kind != b"Z":
                kind, payload = await receive_message(connection)
                match kind:
                    case b"T":
                        rows = []
                    case b"D":
                        rows.append(row(payload))
                    case b"E":
                        refused = PostgresError(fields(payload))
        if refused is not None:
            raise refused
        return rows


async def start_up(connection: NetworkClient, user: str, database: str, password: str) -> None:
    options = f"user\0{user}\0database\0{database}\0client_encoding\0UTF8\0\0".encode()
    await connection.send(struct.pack(">II", len(options) + 8, 196608) + options)  # protocol 3.0
    kind = b""
    while kind != b"Z":
        kind, payload = await receive_message(connection)
        match kind, payload[:4]:
            case b"R", b"\0\0\0\3":
                await connection.send(message(b"p", password.encode() + b"\0"))
            case b"R", wanted if wanted != b"\0\0\0\0":
                raise ProtocolError(f"an authentication that this example has not: {int.from_bytes(wanted)}")
            case b"E", _:
                raise PostgresError(fields(payload))


async def receive_message(connection: NetworkClient) -> tuple[bytes, bytes]:
    """A byte for the kind, four for the length, which counts itself."""
    head = await connection.receive_exactly(5)
    size = int.from_bytes(head[1:]) - 4
    if not 0 <= size <= connection.config.max_message_size:
        raise ProtocolError(f"not a message of PostgreSQL: {head!r}")
    return head[:1], await connection.receive_exactly(size)


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack(">I", len(payload) + 4) + payload


def row(payload: bytes) -> Row:
    values: list[str | None] = []
    at = 2
    for _ in range(int.from_bytes(payload[:2])):
        size = int.from_bytes(payload[at : at + 4], signed=True)
        at += 4
        values.append(None if size < 0 else payload[at : at + size].decode())
        at += max(size, 0)
    return tuple(values)


def fields(payload: bytes) -> dict[str, str]:
    return {part[:1].decode(): part[1:].decode(errors="replace") for part in payload.split(b"\0") if part}


async def main(host: str, port: int, user: str) -> None:
    async with Postgres(host, port, user, "postgres") as database:
        print(await database.query("SELECT 1 + 1, NULL, 'naïve'"))
        squares = await asyncio.gather(*(database.query(f"SELECT {number} * {number}") for number in range(100)))
        print(f"100 queries at once: {sum(int(rows[0][0] or 0) for rows in squares)}")
        try:
            await database.query("SELECT 1 / 0")
        except PostgresError as error:
            print(f"refused: {error.code} {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", type=int, default=5432)
    parser.add_argument("--user", default="postgres")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.host, arguments.port, arguments.user))
    except ConnectError as error:
        parser.exit(2, f"this example needs a PostgreSQL that can be reached: {error}\n")
