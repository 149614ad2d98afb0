"""A connection that is not secure is refused before anything is sent, in words that say which check failed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import pickle
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
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
from support.processes import reserved_ports, server_process, wait_until

from pepperpy.network import ConnectError, HTTPClient, HTTPConfig, HTTPStatusError, NetworkError, TLSError
from pepperpy.network.tls import client_context, describe_failure

SECRET = "s3cr3t-w0rd"
TRUSTING = HTTPConfig(ca_file=ca_file(), retries=2, retry_delay=0)


class TLSByHand:
    """A server that shows what it read in clear text, and sends its alerts, which asyncio's own TLS does not.

    `requests` holds the number of the connection of each request that it has answered.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.connections = 0
        self.received = b""
        self.requests: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(incoming, outgoing, server_side=True)
        with contextlib.suppress(ssl.SSLError, EOFError, ConnectionError):
            await self._exchange(tls.do_handshake, reader, writer, incoming, outgoing)
            while data := await self._exchange(tls.read, reader, writer, incoming, outgoing):
                self.received += data
                if self.received.endswith(b"\r\n\r\n"):
                    self.requests.append(number)
                    tls.write(response())
        writer.write(outgoing.read())
        writer.close()

    async def _exchange(
        self,
        step: Callable[[], Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                data = await reader.read(65536)
                if not data:
                    raise EOFError from None
                incoming.write(data)


@contextlib.asynccontextmanager
async def listening(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """The URL of a server on 127.0.0.1 that is named localhost."""
    tasks: list[asyncio.Task[None]] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/path"
    finally:
        server.close()
        await asyncio.gather(*tasks)


async def refusal(url: str, config: HTTPConfig = TRUSTING, attempts: int = 1, **arguments: Any) -> NetworkError:
    """The error of a request that fails while connecting."""
    async with HTTPClient(config) as client:
        with pytest.raises(ConnectError) as caught:
            await client.get(url, **arguments)
        assert client.stats.attempts == attempts
        assert client.stats.open_connections == 0
    details = dict(caught.value.details)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.details) == (str(caught.value), details)
    assert type(again.__cause__) is type(caught.value.__cause__)
    assert details.pop("elapsed") > 0
    host, _, port = url.removeprefix("https://").partition("/")[0].partition(":")
    assert details == {
        "method": "GET",
        "url": url,
        "host": host,
        "port": int(port),
        "phase": "connect",
        "attempt": attempts,
    }
    return caught.value


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
    assert type(error) is TLSError
    assert f": {words}" in error.message
    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)
    assert server.connections == 1
    assert server.received == b""
    assert SECRET not in f"{error!r} {error.details}"


async def test_an_address_that_the_certificate_does_not_name_is_refused() -> None:
    server = TLSByHand(server_context(wrong_host_cert()))
    async with listening(server.serve) as url:
        error = await refusal(url.replace("localhost", "127.0.0.1"))
    assert type(error) is TLSError
    assert "the certificate is not for '127.0.0.1'" in error.message
    assert server.received == b""


async def test_the_systems_authorities_are_trusted_unless_others_are_given(web: Nginx) -> None:
    error = await refusal(web.https_url("/text"), HTTPConfig(retries=2, retry_delay=0))
    assert type(error) is TLSError
    async with HTTPClient(TRUSTING) as client:
        assert await client.get(web.https_url("/text")) == TEXT
        assert await client.get(web.https_url("/text", host="localhost")) == TEXT


# ---- The handshake ----


async def test_a_server_of_old_tls_only_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "output"
    certificate = str(server_cert())
    with contextlib.ExitStack() as stack:
        with reserved_ports(1) as [port]:
            command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", certificate]
            stack.enter_context(server_process([*command, "-www", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], output))
            wait_until(lambda: "ACCEPT" in output.read_text(), output)
        # The server works, for whom it is good enough.
        old = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]
        done = subprocess.run(old, input=b"", capture_output=True, timeout=20)
        assert b"Protocol  : TLSv1.1" in done.stdout
        for config in (TRUSTING, HTTPConfig(verify_ssl=False), TRUSTING.replace(verify_ssl=False)):
            error = await refusal(f"https://localhost:{port}/path", config)
            assert type(error) is TLSError
            assert "no TLS version that both sides allow" in error.message


async def test_no_common_cipher_is_said() -> None:
    context = server_context(server_cert())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    server = TLSByHand(context)
    async with listening(server.serve) as url:
        error = await refusal(url)
    assert type(error) is TLSError
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
    assert type(error) is TLSError
    assert "the server has no certificate for this host name" in error.message
    assert names == ["localhost"]


async def test_a_server_that_speaks_plain_http_there_is_said_to(web: Nginx) -> None:
    error = await refusal(f"https://localhost:{web.http_port}/path")
    assert type(error) is TLSError
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
    assert type(error) is TLSError
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


@pytest.mark.parametrize("config", [HTTPConfig(), TRUSTING, TRUSTING.replace(client_cert=client_cert())])
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


# ---- The client's certificate ----


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: certificate and key by themselves, the key with the password SECRET, and files that are none."""
    folder = tmp_path_factory.mktemp("pem")
    content = client_cert().read_bytes()
    start = content.index(b"-----BEGIN CERTIFICATE")
    (folder / "cert.pem").write_bytes(content[start:])
    (folder / "key.pem").write_bytes(content[:start])
    key = serialization.load_pem_private_key(content[:start], None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(SECRET.encode()),
    )
    (folder / "locked.pem").write_bytes(encrypted)
    (folder / "both-locked.pem").write_bytes(encrypted + content[start:])
    (folder / "other.pem").write_bytes(expired_cert().read_bytes())
    (folder / "junk.pem").write_text("not PEM\n")
    (folder / "empty.pem").write_text("")
    (folder / "broken.pem").write_bytes(content[start : start + 300])
    (folder / "der.pem").write_bytes(ssl.PEM_cert_to_DER_cert(ca_file().read_text()))
    return folder


async def test_a_client_certificate_is_shown_in_whichever_form_it_is_given(web: Nginx, pem: Path) -> None:
    cert, key, locked, both = (pem / f"{name}.pem" for name in ("cert", "key", "locked", "both-locked"))
    for given in (
        client_cert(),
        str(client_cert()),
        (client_cert(), client_cert()),
        (cert, key),
        (str(cert), str(key)),
        (cert, locked, SECRET),
        (cert, locked, SECRET.encode()),
        (both, None, SECRET),
        (cert, key, None),
        (cert, key, "not needed"),
    ):
        async with HTTPClient(TRUSTING.replace(client_cert=given)) as client:
            assert await client.get(web.mtls_url("/text")) == TEXT
            assert await client.get(web.mtls_url("/text"), verify_ssl=False) == TEXT
            # Also to a server that does not ask for it.
            assert await client.get(web.https_url("/text")) == TEXT


async def test_a_client_certificate_that_is_asked_for_and_missing(web: Nginx) -> None:
    async with HTTPClient(TRUSTING) as client:
        # nginx answers it in HTTP.
        with pytest.raises(HTTPStatusError, match="answered 400"):
            await client.get(web.mtls_url("/text"))


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (None, "or it wants a client certificate"),
        (unknown_ca_cert, "the server does not trust the client certificate's issuer"),
        (expired_cert, "the server says that the client certificate has expired"),
    ],
)
async def test_a_client_certificate_that_the_server_refuses(certificate: Callable[[], Path] | None, words: str) -> None:
    context = server_context(server_cert())
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca_file())
    # With 1.3, the client has sent its request before it learns of this.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    server = TLSByHand(context)
    async with listening(server.serve) as url:
        error = await refusal(url, TRUSTING.replace(client_cert=certificate and certificate()))
    assert type(error) is TLSError
    assert words in error.message
    assert server.received == b""


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("cert", "nowhere"), "nowhere.pem' cannot be used: No such file or directory"),
        (("nowhere",), "nowhere.pem' cannot be used: No such file or directory"),
        (("cert",), "cert.pem' cannot be used: it has no key in PEM that can be read"),
        (("key",), "key.pem' cannot be used: it has no certificate in PEM that can be read"),
        (("junk",), "junk.pem' cannot be used: it has no certificate in PEM that can be read"),
        (("empty", "key"), "empty.pem' cannot be used: it has no certificate in PEM that can be read"),
        (("broken", "key"), "broken.pem' cannot be used: it has no certificate in PEM that can be read"),
        (("cert", "junk"), "junk.pem' cannot be used: it has no key in PEM that can be read"),
        (("cert", "other"), "cert.pem, .*other.pem' cannot be used: the key belongs to another certificate"),
        (("cert", "locked"), "locked.pem' cannot be used: the key is encrypted, and no password is given"),
        (("both-locked",), "both-locked.pem' cannot be used: the key is encrypted, and no password is given"),
        (("cert", "locked", "wr0ng"), "locked.pem' cannot be used: .* or the password is wrong"),
        (("cert", "locked", ""), "locked.pem' cannot be used: .* or the password is wrong"),
        (("cert", "locked", "wr0ng" * 1000), "password cannot be longer than 1024 bytes"),
        (("cert", "key\0"), "embedded null (byte|character in path)"),
    ],
)
def test_a_client_certificate_that_cannot_be_used_is_a_value_error(
    given: tuple[str, ...], reason: str, pem: Path, capfd: Any
) -> None:
    paths = tuple(pem / f"{name}.pem" for name in given[:2])
    with pytest.raises(ValueError) as caught:
        client_context(client_cert=(*paths, *given[2:]) if len(given) > 1 else paths[0])
    message = str(caught.value)
    assert message.startswith(f"client_cert '{pem}/")
    assert re.search(rf"{reason}$", message)
    assert "wr0ng" not in message
    # OpenSSL has asked nobody for a password.
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "given",
    [1, b"cert.pem", ["cert.pem"], (), (None, "k"), ("c", 1), ("c", "k", 1), ("c", "k", SECRET, "x"), (b"c", "k")],
)
def test_a_client_certificate_of_a_wrong_type_is_a_type_error_that_shows_no_password(given: Any) -> None:
    with pytest.raises(TypeError, match=r"^client_cert must be a path, ") as caught:
        client_context(client_cert=given)
    assert SECRET not in str(caught.value)
    with pytest.raises(TypeError, match=r"^client_cert must be a path, "):
        HTTPConfig(client_cert=given)


# ---- The authorities ----


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere.pem", "No such file or directory"),
        ("junk.pem", "it has no certificate in PEM that can be read"),
        ("empty.pem", "it has no certificate in PEM that can be read"),
        ("key.pem", "it has no certificate in PEM that can be read"),
        ("broken.pem", "it has no certificate in PEM that can be read"),
        ("der.pem", "it has no certificate in PEM that can be read"),
        ("", "Is a directory"),
        ("nul\0", "null"),
    ],
)
async def test_authorities_that_cannot_be_used_are_a_value_error_when_the_client_opens(
    name: str, reason: str, pem: Path
) -> None:
    config = HTTPConfig(ca_file=pem / name)  # the file may come later
    client = HTTPClient(config)
    for open_it in (client.initialize, lambda: client.get("https://localhost/")):
        with pytest.raises(ValueError, match=rf"^ca_file '/\S+' cannot be used: .*{reason}"):
            await open_it()
    await client.close()
    with pytest.raises(ValueError, match=r"^ca_file "):
        client_context(ca_file=pem / name)


# ---- Contexts are shared ----


def test_a_context_is_built_once_for_the_same_files_and_anew_when_one_changes(tmp_path: Path) -> None:
    trusted, own = tmp_path / "ca.pem", tmp_path / "own.pem"
    trusted.write_bytes(ca_file().read_bytes())
    own.write_bytes(client_cert().read_bytes())

    def contexts() -> list[ssl.SSLContext]:
        return [
            client_context(),
            client_context(verify=False),
            client_context(ca_file=trusted),
            client_context(client_cert=own),
            client_context(ca_file=trusted, client_cert=(own, own)),
            client_context(ca_file=trusted, client_cert=(own, own, SECRET)),
        ]

    before = contexts()
    assert len(set(before)) == len(before)
    assert contexts() == before
    assert client_context(ca_file=str(trusted), client_cert=(str(own), str(own))) is before[4]

    stamp = os.stat(own).st_mtime_ns
    os.utime(own, ns=(stamp, stamp + 1))
    assert [new is old for new, old in zip(contexts(), before, strict=True)] == [True, True, True, False, False, False]

    # Another file in its place, as a renewal puts it there, even with the same time.
    before = contexts()
    stamp = os.stat(trusted).st_mtime_ns
    (tmp_path / "new.pem").write_bytes(ca_file().read_bytes())
    os.utime(tmp_path / "new.pem", ns=(stamp, stamp))
    os.replace(tmp_path / "new.pem", trusted)
    assert [new is old for new, old in zip(contexts(), before, strict=True)] == [True, True, False, True, False, False]


def test_every_context_wants_tls_1_2_and_checks_unless_told_not_to(pem: Path) -> None:
    for verify in (True, False):
        for context in (
            client_context(verify=verify),
            client_context(verify=verify, ca_file=ca_file()),
            client_context(verify=verify, client_cert=(pem / "cert.pem", pem / "locked.pem", SECRET)),
        ):
            assert context.minimum_version is ssl.TLSVersion.TLSv1_2
            assert context.check_hostname is verify
            assert context.verify_mode is (ssl.CERT_REQUIRED if verify else ssl.CERT_NONE)


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
