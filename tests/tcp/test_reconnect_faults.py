"""Faults that pass: a reconnecting client outlasts them, and ends only for what cannot pass."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import socket
import ssl
from pathlib import Path

import pytest
from support.cancelling import until
from support.certificates import ca_file, server_cert, server_context, unknown_ca_cert
from support.mortal import Mortal, mortal_and_client, mortal_server, reconnecting
from support.names import names

from pepperpy.network import ConnectError, ConnectionLostError, NetworkClient, TLSConfig, TLSError
from pepperpy.network.testing import connect_failures

# Their servers run in the loop of the test, and have accepted when a client is connected.
pytestmark = pytest.mark.usefixtures("far")

RESOLVER = ("EAI_AGAIN", "EAI_NONAME", "EAI_NODATA", "EAI_FAIL", "EAI_MEMORY", "EAI_SYSTEM")
SYSTEM = ("EMFILE", "ENFILE", "ENOMEM", "ENOBUFS", "EADDRINUSE", "EADDRNOTAVAIL", "EACCES", "EPERM", "ENODEV")


async def is_back(client: NetworkClient) -> None:
    """Connected by another connection than before, of which both directions are told."""
    await until(lambda: client.stats.connects > 1, "a new connection")
    await client.wait_connected()
    for call in (client.receive, lambda: client.send(b"x")):
        with pytest.raises(ConnectionLostError):
            await call()  # type: ignore[operator]
    await client.send(b"again")
    assert await client.receive() == b"again"


async def accepted(server: Mortal) -> None:
    """With TLS, the client is connected a little before the server."""
    await until(lambda: bool(server.writers), "the server has the connection")


async def attempts(client: NetworkClient, count: int) -> None:
    await until(lambda: client.stats.retries >= count, f"{count} attempts have failed")


@pytest.mark.parametrize("name", RESOLVER)
async def test_a_name_that_is_gone_for_a_moment(name: str) -> None:
    table: dict[str, list[str] | Exception] = {"broker.example": ["127.0.0.1"]}
    async with mortal_server() as server:
        with names(table) as asked:
            async with reconnecting(server.port, "broker.example") as client:
                # Not every system has all of these.
                table["broker.example"] = socket.gaierror(getattr(socket, name, socket.EAI_FAIL), "not now")
                server.drop()
                await attempts(client, 2)
                table["broker.example"] = ["127.0.0.1"]
                await is_back(client)
                assert asked["broker.example"] >= 4


async def test_no_descriptors_for_a_moment() -> None:
    resource = pytest.importorskip("resource", reason="Windows has none")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with mortal_and_client() as (server, client):
        # Below what is in use: whatever is given back meanwhile, none can be had.
        resource.setrlimit(resource.RLIMIT_NOFILE, (4, hard))
        try:
            server.drop()
            await attempts(client, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await is_back(client)


@pytest.mark.parametrize("name", SYSTEM)
async def test_what_the_system_refuses_for_a_moment(name: str) -> None:
    async with mortal_and_client() as (server, client):
        number = getattr(errno, name)
        with connect_failures(2, OSError(number, os.strerror(number)), port=server.port):
            server.drop()
            await is_back(client)
        assert client.stats.retries == 2


async def test_no_memory_for_a_moment() -> None:
    table: dict[str, list[str] | Exception] = {"broker.example": ["127.0.0.1"]}
    async with mortal_server() as server:
        with names(table):
            async with reconnecting(server.port, "broker.example") as client:
                table["broker.example"] = MemoryError()
                server.drop()
                await attempts(client, 2)
                table["broker.example"] = ["127.0.0.1"]
                await is_back(client)


@pytest.mark.parametrize("fault", ["gone", "empty", "half"])
async def test_a_file_of_certificates_that_is_being_replaced(fault: str, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    shutil.copy(ca_file(), trusted)
    whole = trusted.read_bytes()
    settings = {"tls": TLSConfig(ca_file=trusted, server_hostname="localhost")}
    async with mortal_and_client(server_tls=server_context(server_cert()), **settings) as (server, client):
        await accepted(server)
        if fault == "gone":
            trusted.unlink()
        else:
            trusted.write_bytes(b"" if fault == "empty" else whole[: len(whole) // 2])
        server.drop()
        await attempts(client, 2)
        trusted.write_bytes(whole)
        await is_back(client)


async def test_on_connect_that_meets_a_fault_of_the_system_is_tried_again(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret")

    async def log_in(_: NetworkClient) -> None:
        secret.read_text()

    async with mortal_and_client(on_connect=log_in) as (server, client):
        secret.unlink()
        server.drop()
        await attempts(client, 2)
        secret.write_text("another")
        await is_back(client)


# ---- What cannot pass ----


async def _restarted_with(server: Mortal, context: ssl.SSLContext | None) -> None:
    # asyncio's server tells it of a client that hangs up during the handshake.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await accepted(server)
    await server.kill()
    server.context = context
    await server.start()


async def _ends(client: NetworkClient, kind: type[Exception], match: str) -> None:
    await until(lambda: not client.is_connected, "the loss")
    with pytest.raises(kind, match=match):
        await client.wait_connected()
    assert client.stats.connects == 1


async def test_a_certificate_that_is_refused_ends_it() -> None:
    settings = {"tls": TLSConfig(ca_file=ca_file(), server_hostname="localhost")}
    async with mortal_and_client(server_tls=server_context(server_cert()), **settings) as (server, client):
        await _restarted_with(server, server_context(unknown_ca_cert()))
        await _ends(client, TLSError, "issuer is unknown")


async def test_a_pin_that_is_refused_ends_it() -> None:
    der = ssl.PEM_cert_to_DER_cert(
        server_cert().read_text().partition("-----BEGIN CERT")[2].join(["-----BEGIN CERT", ""])
    )
    settings = {"tls": TLSConfig(certificate_pin=hashlib.sha256(der).digest()), "verify_ssl": False}
    async with mortal_and_client(server_tls=server_context(server_cert()), **settings) as (server, client):
        await _restarted_with(server, server_context(unknown_ca_cert()))
        await _ends(client, TLSError, "not a pinned one")


async def test_a_plain_answer_in_the_place_of_tls_passes() -> None:
    settings = {"tls": TLSConfig(ca_file=ca_file(), server_hostname="localhost")}
    secure = server_context(server_cert())
    async with mortal_and_client(server_tls=secure, **settings) as (server, client):
        await accepted(server)

        async def says_no(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
            await reader.read(65536)

        handler, server.handler = server.handler, says_no
        await _restarted_with(server, None)
        await attempts(client, 2)
        server.handler = handler
        await _restarted_with(server, secure)
        await is_back(client)


async def test_may_pass_has_the_last_word() -> None:
    asked: list[Exception] = []

    def never(error: Exception) -> bool:
        asked.append(error)
        return False

    async with mortal_and_client(may_pass=never) as (server, client):
        with connect_failures(1, OSError(errno.ENOMEM, "no memory"), port=server.port):
            server.drop()
            await _ends(client, ConnectError, "no memory")
    assert [getattr(error, "errno", None) for error in asked] == [errno.ENOMEM]


async def test_the_first_connect_does_not_wait_for_what_is_there_to_stay(tmp_path: Path) -> None:
    client = reconnecting(1, retries=5, retry_delay=60, max_retry_delay=60)
    with connect_failures(1, socket.gaierror(socket.EAI_NONAME, "unknown name")):
        with pytest.raises(ConnectError, match=r"unknown name \(1 attempt "):
            await client.connect()
    with pytest.raises(ValueError, match="ca_file"):
        await reconnecting(1, tls=TLSConfig(ca_file=tmp_path / "none.pem")).connect()
