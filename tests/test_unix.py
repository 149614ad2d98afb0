"""Unix sockets: the same client, a path instead of host and port."""

from __future__ import annotations

import errno
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import ca_file, server_cert, server_context
from support.redis import command, redis_server, reply
from support.tls_peer import accepted

from pepperpy.network import ConnectError, NetworkClient, NetworkConfig, NetworkTimeoutError


@pytest.fixture(scope="module")
def redis_path() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/redis.sock"
        with redis_server(port=0, unixsocket=path):
            yield path


async def test_redis_answers_on_its_socket(redis_path: str) -> None:
    async with NetworkClient(NetworkConfig.from_url(f"unix://{redis_path}?timeout=10")) as client:
        assert client.remote_address == redis_path
        await client.send(command(b"SET", b"key", b"x" * 1_000_000))
        assert await reply(client) == b"OK"
        await client.send(command(b"GET", b"key"))
        assert await reply(client) == b"x" * 1_000_000
        await client.send_eof()
        assert await client.receive() == b""


async def test_errors_name_the_path(redis_path: str) -> None:
    path = redis_path + ".gone"
    client = NetworkClient(NetworkConfig(unix_path=path, retries=0))
    assert repr(client) == f"NetworkClient(path={path!r})"
    with pytest.raises(ConnectError) as caught:
        await client.connect()
    assert caught.value.errno == errno.ENOENT
    assert str(caught.value).startswith(f"{path}: cannot connect: ")
    assert caught.value.details["path"] == path
    assert "port" not in caught.value.details
    async with NetworkClient(NetworkConfig(unix_path=redis_path)) as connected:
        with pytest.raises(NetworkTimeoutError) as timed_out:
            await connected.receive(timeout=0)
    assert str(timed_out.value).startswith(f"{redis_path}: ")


async def test_what_concerns_tcp_does_not_disturb(redis_path: str) -> None:
    config = NetworkConfig(
        unix_path=redis_path,
        nodelay=False,
        keepalive_idle=1,
        socket_options=((socket.SOL_SOCKET, socket.SO_SNDBUF, 65536),),
    )
    async with NetworkClient(config) as client:
        await client.send(command(b"PING"))
        assert await reply(client) == b"PONG"
        sock = client._protocol.extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 65536


async def test_tls_over_a_unix_socket_names_whom_it_expects(tmp_path: Path) -> None:
    path = str(tmp_path / "tls.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        config = NetworkConfig(unix_path=path, tls=True, ca_file=ca_file(), server_hostname="localhost")
        client = NetworkClient(config)
        async with accepted(client, listener, server_context(server_cert())) as peer:
            await client.send(b"x")
            assert await peer.receive(1) == b"x"
