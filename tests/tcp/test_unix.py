"""Unix sockets: the same client, a path instead of host and port."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from pathlib import Path

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context
from support.redis import command, redis_server, reply
from support.tls_peer import accepted

from pepperpy.network import (
    ConnectError,
    ConnectionLostError,
    Keepalive,
    NetworkClient,
    NetworkConfig,
    NetworkTimeoutError,
    TLSConfig,
    serve,
)

SUN_PATH = 108 if sys.platform == "linux" else 104  # bytes; unix(7) and the BSDs' <sys/un.h>


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
        keepalive=Keepalive(idle=1),
        socket_options=((socket.SOL_SOCKET, socket.SO_SNDBUF, 65536),),
    )
    async with NetworkClient(config) as client:
        await client.send(command(b"PING"))
        assert await reply(client) == b"PONG"
        sock = client._link.protocol.extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 65536


async def test_a_full_backlog_is_no_connection_and_may_pass(tmp_path: Path) -> None:
    path = str(tmp_path / "busy.sock")
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        listener.setblocking(False)
        code = 0
        while not code:
            waiting = sockets.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            code = waiting.connect_ex(path)
        assert code == errno.EAGAIN
        client = NetworkClient(NetworkConfig(unix_path=path, retries=0))
        with pytest.raises(ConnectError) as caught:
            await client.connect()
        assert caught.value.errno == errno.EAGAIN
        assert not client.is_connected
        patient = NetworkClient(NetworkConfig(unix_path=path, retries=10**6, retry_delay=0))
        connecting = asyncio.create_task(patient.connect())
        await until(lambda: patient.stats.retries > 1, "it has tried again")
        listener.accept()[0].close()
        await connecting
        await patient.disconnect()


@pytest.mark.needs_server
async def test_a_client_that_reconnects_bears_a_restart_of_its_server(tmp_path: Path) -> None:
    path = str(tmp_path / "redis.sock")
    config = NetworkConfig(unix_path=path, reconnect=True, retry_delay=0.01, max_retry_delay=0.01, timeout=10)
    client = NetworkClient(config)
    with redis_server(port=0, unixsocket=path):
        await client.connect()
    # Redis removes its socket when it ends.
    await until(lambda: client.stats.retries > 1, "attempts have failed")
    assert not Path(path).exists()
    with redis_server(port=0, unixsocket=path):
        await client.wait_connected()
        for call in (client.receive(), client.send(b"")):
            with pytest.raises(ConnectionLostError):
                await call
        await client.send(command(b"PING"))
        assert await reply(client) == b"PONG"
        await client.disconnect()


async def test_connect_waits_for_a_server_that_is_not_there_yet_but_not_for_a_file_of_on_connect(
    redis_path: str, tmp_path: Path
) -> None:
    absent = NetworkClient(NetworkConfig(unix_path=str(tmp_path / "absent.sock"), retries=2, retry_delay=0))
    with pytest.raises(ConnectError, match="3 attempts"):
        await absent.connect()

    def read_password(connection: NetworkClient) -> None:
        (tmp_path / "password").read_text()

    client = NetworkClient(NetworkConfig(unix_path=redis_path, retries=2, retry_delay=0, on_connect=read_password))
    with pytest.raises(ConnectError, match="1 attempt in"):
        await client.connect()


# As the system counts: the name in the file system ends with a NUL, an abstract one does not.
@pytest.mark.parametrize("path", ["/" + "é" * 60, "/" + "x" * SUN_PATH, "\0" + "x" * SUN_PATH, "/\ud800"])
def test_a_path_that_the_system_cannot_take_is_refused_at_once(path: str) -> None:
    with pytest.raises(ValueError, match=r"^unix_path must be"):
        NetworkConfig(unix_path=path)


@pytest.mark.parametrize("path", ["/" + "x" * (SUN_PATH - 2), "\0" + "x" * (SUN_PATH - 1)])
async def test_the_longest_path_is_one(path: str) -> None:
    with pytest.raises(ConnectError) as caught:
        await NetworkClient(NetworkConfig(unix_path=path, retries=0)).connect()
    assert caught.value.errno in (errno.ENOENT, errno.ENAMETOOLONG, errno.ECONNREFUSED)


async def test_tls_over_a_unix_socket_names_whom_it_expects(tmp_path: Path) -> None:
    path = str(tmp_path / "tls.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        config = NetworkConfig(unix_path=path, tls=TLSConfig(ca_file=ca_file(), server_hostname="localhost"))
        client = NetworkClient(config)
        async with accepted(client, listener, server_context(server_cert())) as peer:
            await client.send(b"x")
            assert await peer.receive(1) == b"x"


async def test_a_path_may_be_a_path_object(tmp_path: Path) -> None:
    config = NetworkConfig(unix_path=tmp_path / "x.sock", retries=0)
    assert config == NetworkConfig(unix_path=str(tmp_path / "x.sock"), retries=0)
    assert config.address == str(tmp_path / "x.sock") and hash(config) == hash(config.replace(retries=0))
    async with serve(_leave_open, unix_path=tmp_path / "x.sock"), NetworkClient(config) as client:
        assert client.is_connected
    with pytest.raises(TypeError, match="unix_path must be a str or a Path, not b'/x'"):
        NetworkConfig(unix_path=b"/x")  # type: ignore[arg-type]


async def _leave_open(client: NetworkClient) -> None:
    await client.receive()
