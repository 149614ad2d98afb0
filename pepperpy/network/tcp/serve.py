"""`serve()`: accepts connections, and gives each to a coroutine as a `NetworkClient`. No framework.

One task for each listening socket accepts. One task for each connection does its TLS handshake, runs the handler and
closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import inspect
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from pepperpy.network.checks import check_callable, check_int, check_timeout
from pepperpy.network.config import NetworkConfig
from pepperpy.network.detached import detached_task
from pepperpy.network.errors import (
    BusyError,
    ClosedError,
    NetworkError,
    NotConnectedError,
    UsageError,
)
from pepperpy.network.hosts import check_host
from pepperpy.network.socket_checks import check_unix_path
from pepperpy.network.tcp.client import NetworkClient, given
from pepperpy.network.tcp.connect import readable
from pepperpy.network.tcp.given import check_settings, settings_for
from pepperpy.network.tcp.listen import BACKLOG, listen_on_host, listen_on_path, same_file
from pepperpy.network.tls import server_context
from pepperpy.network.tls_config import ClientCert, is_for_servers

logger = logging.getLogger("pepperpy.network.tcp")

Handler = Callable[[NetworkClient], Awaitable[object]]

# Seconds without accepting after the system had no descriptor or memory for a connection. As asyncio.
ACCEPT_PAUSE_S = 1.0

# What accept() raises for a connection that has broken while it waited; the next one may be fine (Linux, accept(2)).
_BROKEN = {errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH}


def serve(
    handler: Handler,
    host: str | None = None,
    port: int | None = None,
    *,
    unix_path: str | os.PathLike[str] | None = None,
    tls: ssl.SSLContext | ClientCert | None = None,
    config: NetworkConfig | None = None,
    max_connections: int = 10_000,
    stop_timeout: float | None = 5.0,
) -> Server:
    """Accept connections until the end of a block: `async with serve(handler, "127.0.0.1", 8000) as server:`.

    For quick starts, tests, examples and protocols in which both sides are alike. `handler(client)` is a coroutine
    function. It gets a connected `NetworkClient` for each connection, in a task of its own, with the framing, limits
    and backpressure of any client. When it returns, the connection is closed in order; `disconnect()` has the rules.

    If it raises, the connection is aborted, and the server goes on. A `NetworkError` about this connection is the
    peer's or the network's doing, and is logged at level INFO. Any other exception is a bug: the loop's exception
    handler gets it, which logs it with its traceback.

    A client that was accepted has no way to connect again: once its connection has ended, `connect()` raises
    `UsageError`.

    Args:
        host: The name or address to listen on; "0.0.0.0" for all of IPv4, "::" for all of IPv6. All addresses of a name
            are used. Default: that of `config`; without one 127.0.0.1, which only this machine reaches.
        port: 0 lets the system choose a free one, which `Server.port` tells. Default: that of `config`, or 0.
        unix_path: The path of a Unix socket to listen on instead of host and port. A file that a dead server left there
            is replaced, and the file is removed at the end of the block.
        tls: Speak TLS: an `ssl.SSLContext` for servers, or the server's certificate as files in PEM: a path,
            `(certificate, key)` or `(certificate, key, password)`. A handshake has `config.connect_timeout` seconds.
        config: The settings of each connection. Without it, those of a new `NetworkConfig` hold: among them the
            `timeout` of 5 seconds, after which a receive raises although the peer is only silent. Settings that say how
            a client connects (`reconnect`, `hosts`, `proxy`, `retries`, `tls`, ...) are refused. `socket_options` are
            set on the listening socket.
        max_connections: Connections at the same time, 1 or more; further ones wait in the system's queue until one
            ends. Arbitrary; as Redis.
        stop_timeout: Seconds that running handlers have at the end of the block; then they are cancelled. None waits
            for ever. Arbitrary; the same default as `NetworkConfig.close_timeout`.

    Raises:
        TypeError, ValueError: An argument cannot be used; the message names it.
        OSError: When the block begins: the address is in use or not of this machine, the name is unknown, ...
    """
    return Server(handler, host, port, unix_path, tls, config, max_connections, stop_timeout)


class Server:
    """What `serve()` returns: accepts connections from the beginning of its block until the end. `serve()` makes it."""

    def __init__(
        self,
        handler: Handler,
        host: str | None,
        port: int | None,
        unix_path: str | os.PathLike[str] | None,
        tls: ssl.SSLContext | ClientCert | None,
        config: NetworkConfig | None,
        max_connections: int,
        stop_timeout: float | None,
    ) -> None:
        check_callable("handler", handler)
        if config is not None:
            check_settings("serve()", config, ("tls", "verify_ssl"))
        check_int("max_connections", max_connections, 1)
        check_timeout("stop_timeout", stop_timeout, zero=True)
        self._handler = handler
        self._host, self._port, self._path = _place(host, port, unix_path, config)
        self._tls = _context_of(tls)
        config = config or NetworkConfig("localhost", 1)
        # Where a peer has no name, errors show the path of the server.
        self._config = config.for_peer(self._host, self._port, self._path)
        self._max_connections = max_connections
        self._stop_timeout = stop_timeout
        self._listeners: list[socket.socket] | None = None
        self._addresses: list[Any] = []
        self._bound: os.stat_result | None = None  # the file of the Unix socket
        self._accepting: list[asyncio.Task[None]] = []
        # The tasks of all connections; then those among them whose handler has begun.
        self._tasks: set[asyncio.Task[None]] = set()
        self._handling: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._was_full = False  # whether the log has it

    def __repr__(self) -> str:
        # The system may have chosen the port.
        port = self._addresses[0][1] if self._addresses and self._path is None else self._port
        return f"<Server {self._path or f'{self._host}:{port}'}, {len(self._tasks)} connections>"

    @property
    def addresses(self) -> list[Any]:
        """The addresses on which it listens: `(host, port)` for IPv4, with two more numbers for IPv6, or the path.

        Raises:
            UsageError: The block has not begun.
        """
        if self._listeners is None:
            raise UsageError("this server does not listen yet: async with serve(...) as server")
        return list(self._addresses)

    @property
    def port(self) -> int:
        """The port on which it listens. Raises: UsageError: the block has not begun, or it is a Unix socket."""
        address = self.addresses[0]
        if not isinstance(address, tuple):
            raise UsageError("a server on a Unix socket has no port: NetworkConfig(unix_path=server.addresses[0])")
        return int(address[1])

    @property
    def connections(self) -> int:
        """How many connections it has now."""
        return len(self._tasks)

    # ---- Beginning and ending ----

    async def __aenter__(self) -> Server:
        if self._listeners is not None:
            raise UsageError("this server has been used: serve() makes a new one")
        self._listeners = await self._listen()
        loop = asyncio.get_running_loop()
        # Handlers run in the context of the block, as asyncio's do.
        self._context = contextvars.copy_context()
        self._accepting = [detached_task(loop, self._accept_from(listener)) for listener in self._listeners]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._stop_accepting()
            # All tasks have begun by now, so that a cancelled one closes its socket.
            for task in self._tasks - self._handling:
                # A handshake: no handler knows of it.
                task.cancel()
            if self._tasks:
                # Unlike gather(), this leaves the tasks alone when this one is cancelled.
                await asyncio.wait(self._tasks, timeout=self._stop_timeout)
        finally:
            if tasks := set(self._tasks):
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def _stop_accepting(self) -> None:
        for task in self._accepting:
            task.cancel()
        # They never wait for long, and remove their readers before the descriptors are closed.
        try:
            await asyncio.wait(self._accepting)
        finally:
            self._close_listeners()

    def _close_listeners(self) -> None:
        assert self._listeners is not None
        for listener in self._listeners:
            listener.close()
        if self._bound is not None and self._path is not None and same_file(self._path, self._bound):
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    async def _listen(self) -> list[socket.socket]:
        if self._path is None:
            listeners = await listen_on_host(self._host, self._port, self._config)
            self._addresses = [listener.getsockname() for listener in listeners]
            return listeners
        listener, self._bound = listen_on_path(self._path, self._config)
        self._addresses = [self._path]
        return [listener]

    # ---- Accepting ----

    async def _accept_from(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while len(self._tasks) >= self._max_connections:
                if not self._was_full:
                    self._was_full = True
                    logger.warning("%r: no further ones are accepted until one ends (max_connections)", self)
                self._room.clear()
                await self._room.wait()
            try:
                if os.name != "posix":
                    # The proactor of Windows has no readers; its accept can be cancelled without a loss.
                    self._begin(*await loop.sock_accept(listener))
                    continue
                await readable(loop, listener)
                self._accept_waiting(listener)
            except OSError as error:
                if error.errno not in _BROKEN:
                    logger.warning("%r: accepting again in %g s: %s", self, ACCEPT_PAUSE_S, error)
                    await asyncio.sleep(ACCEPT_PAUSE_S)

    def _accept_waiting(self, listener: socket.socket) -> None:
        # At most as many as one queue holds: then the handlers get a turn.
        for _ in range(BACKLOG):
            if len(self._tasks) >= self._max_connections:
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            self._begin(sock, address)

    def _begin(self, sock: socket.socket, address: Any) -> None:
        loop = asyncio.get_running_loop()
        task = self._context.copy().run(loop.create_task, self._serve(sock, address))
        if not task.done():  # an eager task may be
            self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handling.discard(task)
        self._room.set()

    # ---- One connection ----

    async def _serve(self, sock: socket.socket, address: Any) -> None:
        config = settings_for(address, self._config)
        try:
            client = await given(sock, config, self._tls)
        except NetworkError as error:
            logger.info("not served: %s", error)
            return
        task = asyncio.current_task()
        assert task is not None
        self._handling.add(task)
        try:
            result = self._handler(client)
            if not inspect.isawaitable(result):
                raise TypeError(f"handler must be a coroutine function, and returned {type(result).__name__}")
            await result
            await client.disconnect()
        except Exception as error:
            self._report(error, client)
        finally:
            client.abort()

    def _report(self, error: Exception, client: NetworkClient) -> None:
        if _is_of_peer(error, client.config):
            logger.info("connection ended: %s", error)
            return
        # Without the task: from CPython 3.12 on, asyncio would enter its context, in which this runs already, and fail.
        context = {"message": f"the handler of {self!r} failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


def _is_of_peer(error: Exception, config: NetworkConfig) -> bool:
    """Whether the peer of this connection, or the network, has caused the error; not the handler."""
    if isinstance(error, ExceptionGroup):
        return all(_is_of_peer(each, config) for each in error.exceptions)
    own = (UsageError, BusyError, ClosedError, NotConnectedError)
    return isinstance(error, NetworkError) and not isinstance(error, own) and _about(error) == config.place


def _about(error: NetworkError) -> dict[str, Any]:
    return {name: error.details[name] for name in ("host", "port", "path") if name in error.details}


def _place(
    host: str | None, port: int | None, unix_path: str | os.PathLike[str] | None, config: NetworkConfig | None
) -> tuple[str, int, str | None]:
    if unix_path is None and host is None and port is None and config is not None:
        unix_path = config.unix_path
    if unix_path is not None:
        if host is not None or port is not None:
            raise ValueError("host and port must be left out with unix_path")
        path = check_unix_path(unix_path)
        if not hasattr(socket, "AF_UNIX"):
            raise ValueError("unix_path must be left out: this system's Python has no Unix sockets")
        return "", 0, path
    if host is None:
        host = config.host if config is not None and config.host else "127.0.0.1"
    if port is None:
        port = config.port if config is not None else 0
    check_host("host", host)
    check_int("port", port, 0, 65535)
    return host, port, None


def _context_of(tls: ssl.SSLContext | ClientCert | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    if not isinstance(tls, ssl.SSLContext):
        return server_context(tls)
    if not is_for_servers(tls):
        raise ValueError("tls must be a context for servers: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)")
    return tls
