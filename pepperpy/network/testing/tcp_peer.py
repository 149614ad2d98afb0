"""`scripted_peer`: a real server on 127.0.0.1 that follows a script, and reports what the client did differently."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn, TypeAlias

from pepperpy.network.checks import check_timeout
from pepperpy.network.config import NetworkConfig
from pepperpy.network.last_turns import LAST_TURNS
from pepperpy.network.testing.tcp_reset import before_reset, reset_on_close

HOST = "127.0.0.1"
SHOWN = 80  # bytes of each side that a message of ScriptError shows; arbitrary
# Seconds that the end of a block waits for clients that are still connected: they may have sent more than expected. On
# a busy machine even the loopback interface takes milliseconds; arbitrary.
GRACE = 0.05


class ScriptError(AssertionError):
    """The client did not do what the script says; the message shows the difference."""

    # Whether the client has only left early. Then the error that made it leave says more.
    _client_left = False


class Peer:
    """The server's end of one connection, for a script.

    A script is a coroutine function that is called with a `Peer`. What it does is what the server does. Waits and
    conditions are plain Python: `await asyncio.sleep(0.1)`, `await event.wait()`. When it returns, the connection stays
    open and silent. Bytes that the client sends after that are a deviation; it should close.

    Attributes:
        number: 1 for the first connection.
    """

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer
        self._unread = bytearray()
        self._closed = False
        self._waits_for = "its start"
        # send() returns when the kernel has everything, so that nothing sent before reset() is lost. Not 0 over TLS:
        # asyncio's sslproto.py would pause an empty transport, and resume it with the next write only.
        writer.transport.set_write_buffer_limits(high=0 if writer.get_extra_info("sslcontext") is None else 1, low=0)

    def __repr__(self) -> str:
        return f"<Peer of connection {self.number}, {'closed' if self._closed else 'open'}>"

    async def expect(self, data: bytes) -> None:
        """Receive exactly these bytes.

        Raises:
            ScriptError: A byte differs, as soon as it comes, or the client's stream ended before. Like any exception of
                a script, it resets the connection and fails the block.
        """
        self._waits_for = f"expect({_shown(data)})"
        same = 0
        while same < len(data):
            if len(self._unread) == same and not await self._read_more():
                self._fail("the client ended its stream too early", data, client_left=True)
            have = min(len(self._unread), len(data))
            if self._unread[same:have] != data[same:have]:
                self._fail("other bytes than expected", data)
            same = have
        del self._unread[:same]

    async def expect_eof(self) -> None:
        """Receive the end of the client's stream, and nothing before it.

        Raises:
            ScriptError: Bytes came, or a reset.
        """
        self._waits_for = "expect_eof()"
        if self._unread or await self._read_more(reset_is_end=False):
            self._fail("more bytes than expected", b"")

    async def receive_exactly(self, size: int) -> bytes:
        """Receive `size` bytes of any value; `ScriptError` if the client's stream ends before."""
        self._waits_for = f"receive_exactly({size})"
        while len(self._unread) < size:
            if not await self._read_more():
                self._fail(f"the client ended its stream, where {size} bytes were expected", client_left=True)
        return self._take(size)

    async def receive_until(self, separator: bytes = b"\n") -> bytes:
        """Receive up to and including the first `separator`; `ScriptError` if the client's stream ends before."""
        self._waits_for = f"receive_until({separator!r})"
        while (at := self._unread.find(separator)) < 0:
            if not await self._read_more():
                self._fail(f"the client ended its stream, where {separator!r} was expected", client_left=True)
        return self._take(at + len(separator))

    async def receive_all(self) -> bytes:
        """Receive everything up to the end of the client's stream, or its reset."""
        self._waits_for = "receive_all()"
        while await self._read_more():
            pass
        return self._take(len(self._unread))

    async def send(self, data: bytes) -> None:
        """Send `data`, and wait until the kernel has all of it (over TLS: until little of it waits for encryption).

        Raises:
            ScriptError: The client has closed or reset the connection.
        """
        self._waits_for = f"send({_shown(data)})"
        try:
            if self._writer.transport.is_closing():
                # asyncio would ignore the data; uvloop raises a RuntimeError once the socket is closed.
                raise ConnectionResetError
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            self._fail(f"the client was gone before {self._waits_for}", client_left=True)

    async def send_eof(self) -> None:
        """End this direction; the client may go on sending. Over TLS, which cannot do that: `NotImplementedError`."""
        self._writer.write_eof()

    async def close(self) -> None:
        """Close in order. If not all bytes of the client were received here, it may see a reset, as with any server."""
        self._closed = True
        self._writer.close()

    async def reset(self) -> None:
        """Close with a RST: the client gets `ConnectionLostError`."""
        self._closed = True
        if not self._writer.transport.is_closing():
            # Duplicate the descriptor: the socket that uvloop's transports show accepts no options.
            with socket.socket(fileno=socket.dup(self._writer.get_extra_info("socket").fileno())) as sock:
                await before_reset(sock)
                reset_on_close(sock)
        self._writer.transport.abort()

    # ---- Inside ----

    def _take(self, size: int) -> bytes:
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    async def _read_more(self, *, reset_is_end: bool = True) -> bool:
        # False at the end of the stream.
        try:
            piece = await self._reader.read(65536)
        except OSError as error:  # an alert of TLS is one too
            if not reset_is_end:
                self._fail(f"the client reset the connection ({error})", client_left=True)
            piece = b""
        self._unread += piece
        return bool(piece)

    def _fail(self, what: str, expected: bytes | None = None, *, client_left: bool = False) -> NoReturn:
        lines = [f"connection {self.number}: {what}"]
        at = 0
        if expected:
            pairs = zip(expected, self._unread, strict=False)
            at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(expected), len(self._unread)))
            lines[0] += f"; the first difference is at byte {at}" if at < len(self._unread) else ""
            lines.append(f"expected: {_shown(expected, at)}")
        lines.append(f"received: {_shown(bytes(self._unread), at)}")
        error = ScriptError("\n  ".join(lines))
        error._client_left = client_left
        raise error

    async def _play(self, script: Script) -> None:
        await script(self)
        self._waits_for = ""

    async def _watch(self) -> None:
        # After the script: wait until the client has closed.
        if not self._closed and (self._unread or await self._read_more()):
            self._fail("more bytes than expected, after the end of the script", b"")
        await self.close()


Script: TypeAlias = Callable[[Peer], Awaitable[None]]


class ScriptedPeer:
    """A running server; see `scripted_peer`.

    Attributes:
        host: Its address.
        port: Its port.
        config: A `NetworkConfig` for its clients, with the defaults but no retries; `replace()` makes another one.
        connections: How many connections there have been.
    """

    def __init__(self, scripts: tuple[Script, ...], others: Script | None) -> None:
        self.host = HOST
        self.port: int = 0
        self.config: NetworkConfig
        self.connections: int = 0
        self._scripts = scripts
        self._others = others
        self._peers: list[Peer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._failures: list[Exception] = []
        self._changed = asyncio.Event()

    async def _start(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        server = await asyncio.start_server(self._accepted, self.host, 0, ssl=tls, start_serving=False)
        try:
            # asyncio's start_server(), cancelled in the turn that this takes, would leave the socket open.
            await server.start_serving()
        except BaseException:
            server.close()
            raise
        self.port = server.sockets[0].getsockname()[1]
        self.config = NetworkConfig(self.host, self.port, retries=0)
        return server

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = Peer(self.connections, reader, writer)
        self._peers.append(peer)
        self._tasks.append(asyncio.create_task(self._run(peer)))

    async def _run(self, peer: Peer) -> None:
        try:
            script = self._scripts[peer.number - 1] if peer.number <= len(self._scripts) else self._others
            if script is None:
                raise ScriptError(f"connection {peer.number} is one more than there are scripts")
            await peer._play(script)
            self._changed.set()
            await peer._watch()
        except Exception as error:
            self._failures.append(error)
            peer._waits_for = ""
            # Tell the client at once, so that it need not wait for its time limit.
            await peer.reset()
        finally:
            self._changed.set()

    def _unfinished(self) -> list[str]:
        # What the scripts still wait for, as text.
        found = []
        for peer in self._peers:
            if peer._waits_for:
                received = _shown(peer._unread)
                found.append(f"connection {peer.number}: the script waits in {peer._waits_for}, received: {received}")
        missing = len(self._scripts) - self.connections
        if missing > 0:
            found.append(f"{missing} of {len(self._scripts)} scripts got no connection (a TLS handshake included)")
        return found

    async def _finish(self, timeout: float) -> None:
        # At the end of a block without errors: wait for scripts that have not ended.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._unfinished() and not self._failures:
                    self._changed.clear()
                    await self._changed.wait()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self._peers:
            peer._writer.transport.abort()
            with contextlib.suppress(OSError):
                await peer._writer.wait_closed()

    def _failure(self, *, but_leaving: bool) -> Exception | None:
        # The first failure. With `but_leaving`, None if clients have only left early.
        failures = sorted(self._failures, key=lambda error: getattr(error, "_client_left", False))
        if not failures or (but_leaving and getattr(failures[0], "_client_left", False)):
            return None
        for other in failures[1:]:
            failures[0].add_note(f"and then: {other}")
        return failures[0]


@contextlib.asynccontextmanager
async def scripted_peer(
    *scripts: Script, others: Script | None = None, tls: ssl.SSLContext | None = None, timeout: float = 5.0
) -> AsyncIterator[ScriptedPeer]:
    r"""A server on a free port of 127.0.0.1 that follows a script, and fails the test whose client does not.

        async def script(peer: Peer) -> None:
            await peer.expect(b"PING\r\n")
            await peer.send(b"+PONG\r\n")

        async with scripted_peer(script) as server, NetworkClient(server.config) as client:
            await client.send(b"PING\r\n")
            assert await client.receive_line() == b"+PONG\r\n"

    A deviation resets its connection, so that the client does not wait in vain, and is raised at the end of the block.
    If the block has raised an error too, that is its `__context__`. A consequence of such an error (the client has left
    early, a script has not ended or got no connection) becomes a note of the error; without an error it is raised.

    Args:
        scripts: The first one for the first connection, the second one for the second.
        others: The script of all further connections. None: a further connection is a deviation.
        tls: The server's side of TLS.
        timeout: Seconds to wait for the end of the scripts, after a block without errors. A test that passes does not
            wait, unless a client is still busy; and 50 ms for a client that is still connected.

    Raises:
        ScriptError: At the end of the block: a deviation. An exception of a script's own is raised as it is.
    """
    check_timeout("timeout", timeout, zero=True)
    peer = ScriptedPeer(scripts, others)
    server = await peer._start(tls)
    unfinished: list[str] = []
    try:
        try:
            yield peer
            await peer._finish(timeout)
        finally:
            try:
                # A client may have connected within its call, before this loop has accepted it.
                for _ in range(LAST_TURNS):
                    await asyncio.sleep(0)
                if peer._tasks:
                    await asyncio.wait(peer._tasks, timeout=GRACE)
            finally:
                server.close()
                unfinished = peer._unfinished()
                await peer._stop()
    except Exception as error:
        if (failure := peer._failure(but_leaving=True)) is not None:
            raise failure  # noqa: B904  (neither caused the other: the block's error is the context)
        for what in (*peer._failures, *unfinished):
            error.add_note(f"scripted_peer: {what}")
        raise
    if (failure := peer._failure(but_leaving=False)) is not None:
        raise failure
    if unfinished:
        raise ScriptError("\n".join(unfinished))


def _shown(data: bytes | bytearray, at: int = 0) -> str:
    """At most `SHOWN` bytes around offset `at`, and how many there are."""
    data = bytes(data)
    if len(data) <= SHOWN:
        return repr(data)
    start = max(0, min(at - SHOWN // 4, len(data) - SHOWN))
    return f"{data[start : start + SHOWN]!r} (bytes {start} to {min(start + SHOWN, len(data))} of {len(data)})"
