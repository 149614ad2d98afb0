"""A connection that is not secure is refused before anything is sent, in words that say which check failed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.certificates import (
    ca_file,
    client_cert,
    common_name_cert,
    expired_cert,
    not_yet_valid_cert,
    self_signed_cert,
    server_cert,
    server_context,
    unknown_ca_cert,
    wrong_host_cert,
)
from support.http_faults import answering, response
from support.http_peer import http_peer
from support.nginx import TEXT, Nginx
from support.own_kind import own_kind
from support.processes import programs, reserved_ports, server_process, wait_until
from support.tls_by_hand import TRUSTING, TLSByHand, listening, refusal
from support.tls_peer import TLSPeer

from pepperpy.network import ConnectionLostError, HTTPClient, HTTPConfig, TLSConfig, TLSError
from pepperpy.network.tls import describe_failure

SECRET = "s3cr3t-w0rd"

# ---- The server's certificate ----


BAD_CERTIFICATES = {
    "expired": (expired_cert, "the certificate has expired"),
    "not yet valid": (not_yet_valid_cert, "the certificate is not yet valid"),
    "wrong host": (wrong_host_cert, "the certificate is not for 'localhost'"),
    "common name only": (common_name_cert, "the certificate is not for 'localhost': no subjectAltName names it"),
    "unknown authority": (unknown_ca_cert, "the certificate's issuer is unknown"),
    "self-signed": (self_signed_cert, "the certificate is self-signed, and not trusted"),
}


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", BAD_CERTIFICATES)
async def test_a_bad_certificate_is_refused_in_words_before_a_byte_is_sent(kind: str, version: ssl.TLSVersion) -> None:
    certificate, words = BAD_CERTIFICATES[kind]
    context = server_context(certificate())
    context.maximum_version = version
    server = TLSByHand(context)
    async with listening(server.serve) as url:
        error = await refusal(url, headers={"Authorization": SECRET})
    assert own_kind(error) is TLSError
    assert f": {words}" in error.message
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert server.connections == 1
    assert server.received == b""
    assert SECRET not in f"{error!r} {error.details}"


async def test_an_address_that_the_certificate_does_not_name_is_refused() -> None:
    server = TLSByHand(server_context(wrong_host_cert()))
    async with listening(server.serve) as url:
        error = await refusal(url.replace("localhost", "127.0.0.1"))
    assert own_kind(error) is TLSError
    assert "the certificate is not for '127.0.0.1'" in error.message
    assert server.received == b""


async def test_the_systems_authorities_are_trusted_unless_others_are_given(web: Nginx) -> None:
    error = await refusal(web.https_url("/text"), HTTPConfig(retries=2, retry_delay=0))
    assert own_kind(error) is TLSError
    async with HTTPClient(TRUSTING) as client:
        assert await client.get(web.https_url("/text")) == TEXT
        assert await client.get(web.https_url("/text", host="localhost")) == TEXT


# ---- The handshake ----


@pytest.mark.needs_server
async def test_a_server_of_old_tls_only_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "output"
    openssl, certificate = programs.path("openssl"), str(server_cert())
    with contextlib.ExitStack() as stack:
        with reserved_ports(1) as [port]:
            command = [openssl, "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", certificate]
            stack.enter_context(server_process([*command, "-www", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], output))
            wait_until(lambda: "ACCEPT" in output.read_text(), output)
        # The server works, for whom it is good enough.
        old = [openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]
        done = subprocess.run(old, input=b"", capture_output=True, timeout=20)
        assert b"Protocol  : TLSv1.1" in done.stdout
        for config in (TRUSTING, HTTPConfig(verify_ssl=False), TRUSTING.replace(verify_ssl=False)):
            error = await refusal(f"https://localhost:{port}/path", config)
            assert own_kind(error) is TLSError
            assert "no TLS version that both sides allow" in error.message


async def test_no_common_cipher_is_said() -> None:
    context = server_context(server_cert())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    server = TLSByHand(context)
    async with listening(server.serve) as url:
        error = await refusal(url)
    assert own_kind(error) is TLSError
    assert "no common cipher" in error.message


async def test_a_server_that_does_not_know_the_host_name_is_told_it_and_its_refusal_is_said() -> None:
    names: list[str] = []

    def refuse(tls: Any, name: str, context: ssl.SSLContext) -> ssl.AlertDescription:
        names.append(name)
        return ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context = server_context(server_cert())
    context.sni_callback = refuse
    async with listening(TLSByHand(context).serve) as url:
        error = await refusal(url)
    assert own_kind(error) is TLSError
    assert "the server has no certificate for this host name" in error.message
    assert names == ["localhost"]


async def test_a_server_that_speaks_plain_http_there_is_said_to(web: Nginx) -> None:
    error = await refusal(f"https://localhost:{web.http_port}/path")
    assert own_kind(error) is TLSError
    assert "the server does not speak TLS on this port" in error.message


@pytest.mark.parametrize(
    "greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail ESMTP\r\n", b"\0" * 20, b"HTTP/1.1 400 \r\n"]
)
async def test_a_server_of_another_protocol_is_said_to_be_one_and_learns_nothing(greeting: bytes) -> None:
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        received.append(await reader.read())
        writer.close()

    async with listening(serve) as url:
        error = await refusal(url, headers={"X-Secret": SECRET})
    assert own_kind(error) is TLSError
    assert "the server does not speak TLS on this port" in error.message
    assert len(received) == 1
    assert received[0][0] == 22  # a handshake record: the ClientHello
    assert SECRET.encode() not in received[0]
    assert b"/path" not in received[0]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("wait_for_hello", [False, True])
async def test_a_server_that_closes_during_the_handshake_may_be_one_that_restarts(
    wait_for_hello: bool, reset: bool
) -> None:
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1) if wait_for_hello else b"")
        if reset:
            writer.transport.abort()
        writer.close()

    async with listening(serve) as url:
        error = await refusal(url, attempts=3)
    assert "the server closed the connection during the handshake" in error.message
    assert len(received) == 3


# ---- Without verification ----


async def test_an_unverified_request_works_and_is_warned_of_once_for_a_client(caplog: Any) -> None:
    servers = [http_peer(answering(response()), certificate=cert()) for cert, _ in BAD_CERTIFICATES.values()]
    caplog.set_level(logging.DEBUG, "pepperpy.network.http")
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(server) for server in servers]
        for _ in range(2):
            caplog.clear()
            async with HTTPClient(HTTPConfig()) as client:
                for peer in peers:
                    assert await client.get(peer.url, verify_ssl=False) == "ok"
                    assert (await client.request("GET", peer.url, verify_ssl=False)).status == 200
            [record] = caplog.records
            assert (record.name, record.levelno) == ("pepperpy.network.http", logging.WARNING)
            assert "certificates are not verified" in record.getMessage()
            assert "127.0.0.1" in record.getMessage()


@pytest.mark.parametrize("also_by_request", [False, True])
async def test_a_client_without_verification_works_and_is_warned_of_once(also_by_request: bool, caplog: Any) -> None:
    async with http_peer(answering(response()), certificate=self_signed_cert()) as peer:
        async with HTTPClient(HTTPConfig(verify_ssl=False)) as client:
            for verify_ssl in (True, not also_by_request) * 2:
                assert await client.get(peer.url, verify_ssl=verify_ssl) == "ok"
    [record] = caplog.records
    assert (record.name, record.levelno) == ("pepperpy.network.http", logging.WARNING)
    assert "certificates are not verified" in record.getMessage()


async def test_nothing_is_warned_of_when_all_is_verified(caplog: Any) -> None:
    async with http_peer(answering(response()), certificate=server_cert()) as peer:
        async with HTTPClient(TRUSTING) as client:
            assert await client.get(peer.url) == await client.get(peer.url, verify_ssl=True) == "ok"
    assert caplog.records == []


SHOWING_ONE = TRUSTING.replace(tls=TLSConfig(ca_file=ca_file(), client_cert=client_cert()))


@pytest.mark.parametrize("config", [HTTPConfig(), TRUSTING, SHOWING_ONE])
async def test_a_verified_request_never_gets_an_unverified_connection(config: HTTPConfig) -> None:
    server = TLSByHand(server_context(self_signed_cert()))
    async with listening(server.serve) as url, HTTPClient(config) as client:
        for _ in range(3):
            assert await client.get(url, verify_ssl=False) == "ok"
            with pytest.raises(TLSError):
                await client.get(url)
        with pytest.raises(TLSError):
            await client.get(url, verify_ssl=True)
    assert server.requests == [1, 1, 1]
    assert server.connections == 5


async def test_an_unverified_request_never_gets_a_verified_connection() -> None:
    async with http_peer(answering(response()), certificate=server_cert()) as peer:
        async with HTTPClient(TRUSTING) as client:
            for _ in range(2):
                for verify_ssl in (True, False):
                    assert await client.get(peer.url, verify_ssl=verify_ssl) == "ok"
        assert [request.connection for request in peer.requests] == [1, 2, 1, 2]


@pytest.mark.parametrize("value", [None, 0, 1, "false", ssl.create_default_context()])
async def test_verify_ssl_is_true_or_false(value: Any) -> None:
    async with HTTPClient(TRUSTING) as client:
        with pytest.raises(TypeError, match=r"^verify_ssl must be True or False, not "):
            await client.get("https://localhost/", verify_ssl=value)
        assert client.stats.attempts == 0


# ---- Words ----


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssl.SSLEOFError(8, "EOF occurred"), "the server closed the connection during the handshake"),
        (ConnectionResetError(), "the server closed the connection during the handshake"),
        (OSError(errno.EHOSTUNREACH, "No route"), "the connection broke during the TLS handshake: No route"),
        (TimeoutError(errno.ETIMEDOUT, "Timed out"), "the connection broke during the TLS handshake: Timed out"),
        (TimeoutError(), "the TLS handshake took too long"),
        (ssl.SSLError(1, "[SSL: SOMETHING_NEW] something new"), "the TLS handshake failed: .*SOMETHING_NEW.*"),
        (ssl.SSLError(), "the TLS handshake failed: SSLError"),
        (ssl.SSLCertVerificationError(1, "unheard of"), "the certificate was refused: .*unheard of"),
        # As truststore on macOS says it, of a certificate whose subject its owner has chosen.
        (
            ssl.SSLCertVerificationError(1, "\u201c\x1b[31m\r\n\u201d certificate is not trusted"),
            r"the certificate was refused: .*\\x1b\[31m\\r\\n.* certificate is not trusted",
        ),
        (ssl.SSLCertVerificationError(1, "x" * 100_000), r"the certificate was refused: .{,200}"),
        (ssl.SSLCertVerificationError(1, "mismatch: '\x1b" + "x" * 1000 + "'"), r"the certificate is .{,250}"),
        (ssl.SSLError(1, "\x1b" * 1000), r"the TLS handshake failed: [ -~]{,200}"),
        (ValueError("\x1b]0;title\x07"), r"\\x1b\]0;title\\x07"),
        (OSError(), "the TLS handshake failed: OSError"),
        (ValueError("something"), "something"),
    ],
)
def test_a_failure_nobody_knows_yet_has_words_too(error: Exception, words: str) -> None:
    assert re.fullmatch(words, describe_failure(error))


@pytest.mark.parametrize("transport", ["auto", "aiohttp"])
async def test_what_is_no_tls_any_more_after_the_handshake_is_a_lost_connection(transport: Any) -> None:
    async def serve() -> None:
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        server = TLSPeer(sock, server_context(server_cert()))
        await server.handshake()
        while not (await server.receive(1)).endswith(b"\n"):
            pass
        await asyncio.get_running_loop().sock_sendall(sock, b"500 Internal error, and no TLS\r\n")
        server.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        serving = asyncio.create_task(serve())
        async with HTTPClient(TRUSTING.replace(transport=transport, retries=0)) as client:
            with pytest.raises(ConnectionLostError, match="the connection was lost: what came is no TLS") as caught:
                await client.get(f"https://localhost:{listener.getsockname()[1]}/")
        assert isinstance(caught.value.__cause__, ssl.SSLError) and caught.value.is_transient
        await serving
