"""Code that was written for sockets or asyncio streams catches the errors of this package by the names it knows."""

from __future__ import annotations

import asyncio
import copy
import errno
import pickle
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from support.certificates import server_cert, server_context
from support.names import names
from support.own_kind import own_kind
from support.processes import reserved_ports
from support.servers import echo_server, peer_and_client
from support.tls_peer import TLSPeer

from pepperpy.network import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    HTTPClient,
    HTTPConfig,
    HTTPStatusError,
    IncompleteReadError,
    NetworkClient,
    NetworkConfig,
    NetworkError,
    NetworkTimeoutError,
    PoolTimeoutError,
    ProtocolError,
    ProxyError,
    TLSError,
    errors,
)

VERIFY = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] no")
VERIFY.verify_code, VERIFY.verify_message, VERIFY.reason = 10, "certificate has expired", "CERTIFICATE_VERIFY_FAILED"
CAUSES: list[tuple[type[NetworkError], OSError]] = [
    (ConnectError, ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
    (ConnectError, socket.gaierror(socket.EAI_NONAME, "unknown")),
    (ConnectError, FileNotFoundError(errno.ENOENT, "missing", "/run/x.sock")),
    (ConnectError, PermissionError(errno.EACCES, "denied")),
    (ConnectError, OSError(errno.EHOSTUNREACH, "no route")),
    (TLSError, VERIFY),
    (TLSError, ssl.SSLEOFError(8, "EOF occurred")),
    (TLSError, ssl.SSLError(1, "[SSL] wrong version number")),
    (TLSError, ConnectionResetError(errno.ECONNRESET, "reset")),
    (ConnectionLostError, ConnectionResetError(errno.ECONNRESET, "reset")),
    (ConnectionLostError, BrokenPipeError(errno.EPIPE, "pipe")),
    (ProxyError, ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
]


@pytest.mark.parametrize(("kind", "cause"), CAUSES, ids=lambda value: getattr(value, "__name__", type(value).__name__))
def test_an_error_is_what_has_caused_it_and_travels(kind: type[NetworkError], cause: OSError) -> None:
    error: Any = errors.also_as(kind, cause)("words", {"host": "h"}, cause)
    for same in (error, copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(same, kind) and isinstance(same, type(cause)) and own_kind(same) is kind
        assert (str(same), repr(same), same.details) == ("words", f"{kind.__name__}('words')", {"host": "h"})
        assert (same.errno, same.strerror) == (cause.errno, cause.strerror) and repr(same.__cause__) == repr(cause)
        assert same.is_transient == error.is_transient
        if isinstance(cause, ssl.SSLCertVerificationError):
            assert (same.verify_code, same.reason) == (10, "CERTIFICATE_VERIFY_FAILED")


def test_a_loss_after_a_time_limit_is_no_time_limit_of_a_call() -> None:
    # `except TimeoutError` means "call again", which does not help here.
    cause = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    error = errors.also_as(ConnectionLostError, cause)("words", None, cause)
    assert not isinstance(error, TimeoutError) and error.errno == errno.ETIMEDOUT


# ---- From real connections ----


async def failure_of(config: NetworkConfig) -> Any:
    with pytest.raises(NetworkError) as caught:
        await NetworkClient(config).connect()
    return caught.value


async def test_connecting_raises_what_sockets_raise(tmp_path: Path) -> None:
    with reserved_ports(1) as [port]:
        refused = await failure_of(NetworkConfig("127.0.0.1", port, retries=0))
    assert isinstance(refused, ConnectionRefusedError) and refused.errno == errno.ECONNREFUSED
    with names({"no-such.test": socket.gaierror(socket.EAI_NONAME, "unknown")}):
        unknown = await failure_of(NetworkConfig("no-such.test", 1, retries=3, retry_delay=0))
    assert isinstance(unknown, socket.gaierror) and unknown.errno == socket.EAI_NONAME
    missing = await failure_of(NetworkConfig(unix_path=str(tmp_path / "none"), retries=0))
    assert isinstance(missing, FileNotFoundError) and missing.errno == errno.ENOENT
    assert [error.is_transient for error in (refused, unknown, missing)] == [True, False, True]


async def test_a_refused_certificate_and_no_tls_are_what_openssl_says() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        config = NetworkConfig("127.0.0.1", listener.getsockname()[1], tls=True, retries=2, retry_delay=0)
        connecting = asyncio.create_task(failure_of(config))
        sock, _ = await asyncio.get_running_loop().sock_accept(listener)
        sock.setblocking(False)
        peer = TLSPeer(sock, server_context(server_cert()))
        with pytest.raises(ssl.SSLError):
            await peer.handshake()
        error = await connecting
        peer.close()
    assert isinstance(error, ssl.SSLCertVerificationError) and isinstance(error, ConnectionError)
    assert (error.details["attempt"], error.verify_code, error.is_transient) == (1, 20, False)
    async with echo_server() as port:
        error = await failure_of(NetworkConfig("localhost", port, tls=True, retries=2, retry_delay=0))
    assert isinstance(error, ssl.SSLError) and not error.is_transient


async def test_a_reset_and_an_early_end_are_those_of_streams() -> None:
    async with peer_and_client() as (peer, client):
        await peer.send(b"abc")
        peer.send_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await client.receive_exactly(5)
    assert isinstance(caught.value, IncompleteReadError) and isinstance(caught.value, EOFError)
    assert (caught.value.partial, caught.value.expected) == (b"abc", 5)
    assert (same := pickle.loads(pickle.dumps(caught.value))).partial == b"abc" and same.expected == 5
    async with peer_and_client() as (peer, client):
        peer.reset()
        with pytest.raises(ConnectionResetError) as lost:
            await client.receive(1)
    assert isinstance(lost.value, ConnectionLostError) and lost.value.errno == errno.ECONNRESET


async def test_http_connects_with_the_same_errors() -> None:
    with reserved_ports(1) as [port]:
        async with HTTPClient(HTTPConfig(retries=0)) as client:
            with pytest.raises(ConnectionRefusedError) as refused:
                await client.get(f"http://127.0.0.1:{port}/")
            with names({"no-such.test": socket.gaierror(socket.EAI_NONAME, "unknown")}):
                with pytest.raises(socket.gaierror):
                    await client.get("http://no-such.test/")
    assert isinstance(refused.value, ConnectError) and refused.value.is_transient


# ---- May another attempt help? ----


async def test_what_the_configuration_says_counts_for_the_error_too() -> None:
    def never(error: Exception) -> bool:
        return False

    with reserved_ports(1) as [port]:
        error = await failure_of(NetworkConfig("127.0.0.1", port, may_pass=never, retry_delay=0))
    assert not error.is_transient and error.details["attempt"] == 1
    assert not pickle.loads(pickle.dumps(error)).is_transient


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (NetworkTimeoutError("receive timed out"), True),
        (NetworkTimeoutError("silence", {"limit": "read_timeout"}), True),
        (NetworkTimeoutError("the caller's", {"limit": "deadline"}), False),
        (PoolTimeoutError("full"), False),
        (ConnectionLostError("lost"), True),
        (IncompleteReadError("cut off"), True),
        (ProxyError("busy", {"status": 503}), True),
        (ProxyError("who are you", {"status": 407}), False),
        (HTTPStatusError("busy", {"status": 503}), True),
        (HTTPStatusError("missing", {"status": 404}), False),
        (ClosedError("closed"), False),
        (ProtocolError("garbage"), False),
        (ConnectError("nobody knows why"), False),
    ],
    ids=lambda value: value if isinstance(value, bool) else f"{type(value).__name__}-{value}",
)
def test_an_error_knows_whether_another_attempt_may_help(error: NetworkError, transient: bool) -> None:
    assert error.is_transient is transient
